//! What the rings that run here know of where objects go, for the admission webhook: each ring tells it of its hashes when
//! they change, and questions are answered without the ring.
//!
//! Rings run on the leader alone, so any other member answers that it knows of none, and the watch assigns the object
//! some milliseconds later. By tokens any member could tell who gets an object, if it watched the shards' Leases too; none
//! does. What is told here may be a moment old, which does no harm: an object that was given to a shard that is gone by
//! now is in the watch of those that no available shard has. Never writes, never waits but for an owner.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use ringmaster_cluster::Client;
use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::{Object, OwnerReference};
use ringmaster_core::ring::key::Partition;
use ringmaster_core::ring::model::Ring;
use tokio::sync::{Semaphore, watch};

use crate::admission::review::{Assign, Part, RingName, Subject};
use crate::board::Id;
use crate::hashes::{Hashed, Hashes};
use crate::look::owner_id;
use crate::registry::Right;
use crate::scope::{Role, Scope};

/// Owners that are looked up at once; who asks for one more gets no answer from us, and the watch finds the object.
pub(crate) const MAX_LOOKUPS: usize = 32;
/// Assignments of one ring that wait to be counted, which they do for a second at most. Those beyond are counted when
/// all objects are.
const MAX_UNCOUNTED: usize = 4_096;
/// Keys of one ring that are counted once however often they are asked about.
const MAX_ONCE: usize = 65_536;

/// The rings that run here, by their groups and names.
type ByName = HashMap<(&'static str, Arc<str>), Arc<Answer>>;

/// All of them.
pub(crate) struct Answers {
    rings: RwLock<ByName>,
    news: watch::Sender<u64>,
    client: Client,
    right: Arc<dyn Right>,
    lookups: Semaphore,
}

/// What one ring knows.
struct Answer {
    scope: Arc<Scope>,
    known: RwLock<Known>,
    given: Mutex<Given>,
}

/// Main objects that were given to shards. It isn't certain that they came to be: a creation may yet be refused, and is then
/// tried again and again.
#[derive(Default)]
struct Given {
    /// Their keys, and the shards.
    uncounted: Vec<(String, Arc<str>)>,
    /// Keys that were counted since all objects were.
    once: HashSet<String>,
    /// How often all objects had been counted then.
    tallies: u64,
}

struct Known {
    /// How often the ring had made its hashes then.
    made: u64,
    /// Where keys go that nobody has.
    free: Hashed,
    /// The shards that are available.
    shards: BTreeSet<Arc<str>>,
}

/// Where a controlled object goes.
enum Way {
    /// There.
    To(Arc<str>),
    /// Where its owner is: an object of the ring's main kind of this number.
    Follows { id: Id, kind: usize },
}

/// A ring that is answered for, until this is dropped.
pub(crate) struct Answering {
    answers: Arc<Answers>,
    answer: Arc<Answer>,
}

impl Answers {
    pub(crate) fn new(client: Client, right: Arc<dyn Right>) -> Arc<Self> {
        let (rings, news) = (RwLock::default(), watch::Sender::new(0));
        Arc::new(Self { rings, news, client, right, lookups: Semaphore::new(MAX_LOOKUPS) })
    }

    /// Answers for a ring from now on. Nothing is known of its shards yet.
    pub(crate) fn begin(self: &Arc<Self>, scope: &Arc<Scope>) -> Answering {
        let answer = Arc::new(Answer::new(Arc::clone(scope)));
        self.rings.write().insert(answer.name(), Arc::clone(&answer));
        self.changed();
        Answering { answers: Arc::clone(self), answer }
    }

    /// The rings that run here.
    pub(crate) fn rings(&self) -> Vec<Ring> {
        let mut rings: Vec<Ring> = self.rings.read().values().map(|answer| answer.scope.model.clone()).collect();
        rings.sort_by(|a, b| (a.dialect.group, &a.name).cmp(&(b.dialect.group, &b.name)));
        rings
    }

    /// Told when a ring comes or goes.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn changed(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn of(&self, ring: RingName<'_>) -> Option<Arc<Answer>> {
        let name: Arc<str> = ring.name.into();
        self.rings.read().get(&(ring.dialect.group, name)).cloned()
    }

    /// Whether this member may say anything: one that was cut off may know what isn't so any more.
    fn may_answer(&self) -> bool {
        self.right.bounded(&self.client, "an object's shard").is_ok()
    }
}

impl Assign for Answers {
    fn part(&self, ring: RingName<'_>, group: &str, resource: &str) -> Option<Part> {
        self.of(ring)?.part(group, resource)
    }

    fn main(&self, ring: RingName<'_>, object: &Subject, counts: bool) -> Option<String> {
        let answer = self.of(ring)?;
        let (_, key) = answer.subject(object, None)?;
        let shard = answer.free(&key.text).filter(|_| self.may_answer())?;
        if counts && !answer.count(key.text, &shard) {
            self.client.limit_hit("admission_uncounted");
        }
        Some(shard.to_string())
    }

    async fn controlled(&self, ring: RingName<'_>, object: &Subject, owner: &OwnerReference) -> Option<String> {
        let answer = self.of(ring)?;
        let at = match answer.way(object, owner)? {
            Way::To(shard) => return self.may_answer().then(|| shard.to_string()),
            Way::Follows { id, kind } => owner_id(&answer.scope, kind, &id, owner),
        };
        let Ok(_place) = self.lookups.try_acquire() else {
            self.client.limit_hit("admission_owner_lookups");
            return None;
        };
        let resource = Arc::clone(&answer.scope.kinds[at.kind].resource);
        let found = self.client.get_metadata(&resource, &at.key).await.ok()??;
        let shard = answer.shard_of(&at, &found, owner)?;
        self.may_answer().then(|| shard.to_string())
    }
}

impl Answering {
    /// Takes what the ring hashes to now, and has the ring count what was given to shards since.
    pub(crate) fn tell(&self, hashes: &mut Hashes) {
        let given = self.answer.given.lock().take(hashes.tallies());
        for (key, shard) in given {
            hashes.moved(&key, None, Some(&*shard));
        }
        if self.answer.known.read().made != hashes.made() {
            let (made, free, shards) = (hashes.made(), hashes.free(), hashes.shards_now().clone());
            *self.answer.known.write() = Known { made, free, shards };
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let (name, mut rings) = (self.answer.name(), self.answers.rings.write());
        if rings.get(&name).is_some_and(|answer| Arc::ptr_eq(answer, &self.answer)) {
            rings.remove(&name);
        }
        drop(rings);
        self.answers.changed();
    }
}

impl Answer {
    fn new(scope: Arc<Scope>) -> Self {
        let known = Known { made: 0, free: Hashed::Unknown, shards: BTreeSet::new() };
        Self { scope, known: RwLock::new(known), given: Mutex::default() }
    }

    fn name(&self) -> (&'static str, Arc<str>) {
        (self.scope.model.dialect.group, Arc::clone(&self.scope.model.name))
    }

    /// The number of a kind that the ring has now.
    fn kind(&self, group: &str, resource: &str) -> Option<usize> {
        if self.scope.model.is_deleting {
            return None;
        }
        self.scope.kinds.iter().position(|kind| {
            let (served, is_former) = (&kind.resource, kind.is_former);
            !is_former && served.api_version.group() == group && *served.plural == *resource
        })
    }

    fn part(&self, group: &str, resource: &str) -> Option<Part> {
        let part = match self.scope.kinds[self.kind(group, resource)?].role {
            Role::Main(_) => Part::Main,
            Role::Controlled => Part::Controlled,
        };
        Some(part)
    }

    /// An object that is selected, and its key, with whether that is its owner's too; `None` if it isn't the ring's, or
    /// that isn't known.
    fn subject(&self, object: &Subject, owner: Option<&OwnerReference>) -> Option<(Id, Partition)> {
        let kind = self.kind(&object.group, &object.resource)?;
        let id = Id { kind, key: ObjectKey::new(&object.namespace, &object.name) };
        if self.scope.selects(&id) != Some(true) {
            return None;
        }
        let key = self.scope.key(&id, owner)?;
        Some((id, key))
    }

    /// Where an object with an owner goes; `None` if that can't be told.
    fn way(&self, object: &Subject, owner: &OwnerReference) -> Option<Way> {
        let (id, key) = self.subject(object, Some(owner))?;
        match self.scope.kind_of(owner).filter(|_| key.is_owners) {
            Some(kind) => Some(Way::Follows { id, kind }),
            // It is hashed on its own.
            None => self.free(&key.text).map(Way::To),
        }
    }

    /// The shard of an owner, as it was found, if its child is to be with it.
    fn shard_of(&self, at: &Id, found: &Object, owner: &OwnerReference) -> Option<Arc<str>> {
        let facts = self.scope.facts(at.kind, found);
        let shard = facts.shard?;
        // One that is on its way takes its children along, whom the watch sees: this one may come too late for that.
        let is_there = facts.uid == owner.uid && !facts.is_draining && self.scope.selects(at) == Some(true);
        (is_there && self.known.read().shards.contains(&shard)).then_some(shard)
    }

    /// Who gets what nobody has.
    fn free(&self, key: &str) -> Option<Arc<str>> {
        let known = self.known.read();
        known.free.shard(key).filter(|shard| known.shards.contains(*shard)).cloned()
    }

    /// Has an assignment counted; tells whether there was room for it.
    fn count(&self, key: String, shard: &Arc<str>) -> bool {
        self.given.lock().add(key, shard)
    }
}

impl Given {
    fn add(&mut self, key: String, shard: &Arc<str>) -> bool {
        if self.once.contains(&key) {
            return true;
        }
        let has_room = self.uncounted.len() < MAX_UNCOUNTED;
        if has_room {
            if self.once.len() >= MAX_ONCE {
                self.once.clear();
            }
            self.once.insert(key.clone());
            self.uncounted.push((key, Arc::clone(shard)));
        }
        has_room
    }

    /// What is to be counted; all that was given before so many counts of all objects is in these.
    fn take(&mut self, tallies: u64) -> Vec<(String, Arc<str>)> {
        if self.tallies != tallies {
            self.tallies = tallies;
            self.once.clear();
        }
        std::mem::take(&mut self.uncounted)
    }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
