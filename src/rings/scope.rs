//! One ring as its parts share it: its model, its kinds as they are served, and its board.
//!
//! Never decides and never calls the API server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_cluster::{Error, boot_time};
use ringmaster_core::key::{ApiVersion, Resource};
use ringmaster_core::object::{Object, OwnerReference};
use ringmaster_core::ring::key::{self, Key, Partition, controller_of};
use ringmaster_core::ring::model::Ring;
use ringmaster_core::ring::plan::{drain_label, shard_label};
use serde::Deserialize;
use tokio::sync::Notify;

use crate::board::{Board, Facts, Id, Mark};
use crate::namespaces::Namespaces;
use crate::registry::Clock;

/// An object that is younger, and was made since this began, is taken for one that never had a shard: its children aren't
/// searched for.
const RECENT: Duration = Duration::from_secs(60);
/// Moments of creation are whole seconds of another clock.
const MARGIN: Duration = Duration::from_secs(2);

/// What a kind is in its ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its objects are divided; the numbers are those of the kinds of their children.
    Main(Vec<usize>),
    /// Its objects go where their owners are.
    Controlled,
}

/// Who finds that a kind can't be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The watch of those that nobody has.
    Unassigned,
    /// The watch of drains.
    Draining,
    /// A pass or a search.
    List,
    /// Nobody serves it.
    Discovery,
}

/// A reason and a sentence, by kind and source.
type Troubles = BTreeMap<(usize, Source), (&'static str, String)>;

/// A kind of a ring, as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) resource: Arc<Resource>,
    pub(crate) role: Role,
    /// The ring doesn't name it any more: its objects lose their labels.
    pub(crate) is_former: bool,
}

/// What all parts of a running ring share.
pub(crate) struct Scope {
    pub(crate) model: Ring,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) board: Mutex<Board>,
    /// Something on the board has changed.
    pub(crate) news: Notify,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) shard_label: String,
    pub(crate) drain_label: String,
    /// Why a kind can't be watched or listed, by the kind's number and who says so.
    pub(crate) trouble: Mutex<Troubles>,
    /// A kind isn't served any more as it was.
    pub(crate) is_lost: AtomicBool,
    /// When this began.
    pub(crate) began: Duration,
    pub(crate) clock: Clock,
    generations: AtomicU64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    creation_timestamp: String,
}

impl Scope {
    pub(crate) fn new(model: Ring, kinds: Vec<Kind>, namespaces: Arc<Namespaces>, clock: Clock) -> Arc<Self> {
        let (shard, drain) = (shard_label(model.dialect, &model.name), drain_label(model.dialect, &model.name));
        Arc::new(Self {
            model,
            kinds,
            board: Mutex::default(),
            news: Notify::new(),
            namespaces,
            shard_label: shard,
            drain_label: drain,
            trouble: Mutex::default(),
            is_lost: AtomicBool::new(false),
            began: boot_time(),
            clock,
            generations: AtomicU64::new(0),
        })
    }

    /// A number higher than all before.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What is of interest of an object of a kind.
    pub(crate) fn facts(&self, kind: usize, object: &Object) -> Facts {
        let (mut shard, mut is_draining) = (None, false);
        for (key, value) in object.labels().iter() {
            if key == self.shard_label && !value.is_empty() {
                shard = Some(value.into());
            }
            is_draining |= key == self.drain_label;
        }
        let is_main = self.is_main(kind);
        let owners = if is_main { Vec::new() } else { object.owner_references() };
        let is_recent = is_main && shard.is_none() && !is_draining && self.is_recent(object);
        let owner = controller_of(&owners).cloned().map(Arc::new);
        Facts { uid: object.uid().clone(), version: object.version(), shard, is_draining, owner, is_recent }
    }

    fn is_recent(&self, object: &Object) -> bool {
        let meta: Meta = object.section("metadata").unwrap_or_default();
        // What was made before may have been let go by its shard before.
        let here = boot_time().saturating_sub(self.began).saturating_add(MARGIN);
        (self.clock.is_recent)(&meta.creation_timestamp, here.min(RECENT))
    }

    /// Shows the board an object, unless nothing will ever be done about it.
    pub(crate) fn note(&self, kind: usize, object: &Object, mark: Mark, generation: u64) {
        let facts = self.facts(kind, object);
        let is_labelled = facts.shard.is_some() || facts.is_draining;
        let is_wanted = is_labelled || self.may_be_assigned(kind, object.key().namespace(), &facts);
        let id = Id { kind, key: object.key().clone() };
        let mut board = self.board.lock();
        if is_wanted || board.get(&id).is_some() {
            board.saw(boot_time(), id, facts, mark, generation);
            drop(board);
            self.news.notify_one();
        }
    }

    fn may_be_assigned(&self, kind: usize, namespace: &str, facts: &Facts) -> bool {
        let is_unowned = !self.is_main(kind) && facts.owner.is_none();
        !is_unowned && !self.kinds[kind].is_former && self.namespaces.selects(&self.model, namespace) != Some(false)
    }

    /// Whether an object is selected; `None` while its namespace isn't known.
    pub(crate) fn selects(&self, id: &Id) -> Option<bool> {
        if self.kinds[id.kind].is_former {
            return Some(false);
        }
        self.namespaces.selects(&self.model, id.key.namespace())
    }

    pub(crate) fn is_main(&self, kind: usize) -> bool {
        matches!(self.kinds[kind].role, Role::Main(_))
    }

    /// The kinds of the children of a main kind.
    pub(crate) fn controlled(&self, kind: usize) -> &[usize] {
        match &self.kinds[kind].role {
            Role::Main(controlled) => controlled,
            Role::Controlled => &[],
        }
    }

    /// The main kind that an owner is of, if it is one of the ring's.
    pub(crate) fn kind_of(&self, owner: &OwnerReference) -> Option<usize> {
        let version = ApiVersion::new(&owner.api_version);
        let is_it =
            |kind: &Kind| *kind.resource.kind == *owner.kind && kind.resource.api_version.group() == version.group();
        self.kinds.iter().position(|kind| matches!(kind.role, Role::Main(_)) && is_it(kind))
    }

    /// What an object is hashed by.
    pub(crate) fn key(&self, id: &Id, owner: Option<&OwnerReference>) -> Option<Partition> {
        let resource = &self.kinds[id.kind].resource;
        let (namespace, name) = (id.key.namespace(), id.key.name());
        let key = if self.is_main(id.kind) {
            key::of_main(resource.api_version.group(), &resource.kind, namespace, name)
        } else {
            let of_kind = owner.and_then(|owner| self.kind_of(owner));
            let is_clusters = of_kind.is_some_and(|kind| !self.kinds[kind].resource.namespaced);
            let scope = if is_clusters { key::Scope::Cluster } else { key::Scope::Namespaced };
            key::of_controlled(owner, namespace, scope, self.model.dialect)
        };
        match key {
            Key::Of(partition) => Some(partition),
            Key::Unnamed | Key::Unowned => None,
        }
    }

    /// A kind can't be watched or listed, or can again.
    pub(crate) fn troubled(&self, kind: usize, source: Source, trouble: Option<&Error>) {
        if trouble.is_some_and(|error| error.is_not_found() && !error.is_object_not_found()) {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        let what = if source == Source::List { "listed" } else { "watched" };
        let told = |error: &Error| (error.reason(), format!("{} can't be {what}: {error}", self.kinds[kind].resource));
        let trouble = trouble.map(told);
        let mut known = self.trouble.lock();
        let changed = match trouble {
            Some(trouble) => known.insert((kind, source), trouble.clone()).is_none_or(|before| before != trouble),
            None => known.remove(&(kind, source)).is_some(),
        };
        drop(known);
        if changed {
            self.news.notify_one();
        }
    }
}
