//! One step of a rollout: which child follows which state, whether the next may move, and what is written for it.
//!
//! The rules are Metacontroller's (contract 1.9), with two differences, both for safety: among the children that are to
//! move, one that isn't as it shall be moves first, so that a rollout never adds to what is broken; and a child whose old
//! state the hook has no answer for stays as it is until it is its turn.
//!
//! Never writes a child: the plan of the merged reply does. Revisions are written before it, the newest first, so that at
//! no moment a child follows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::checks::unready;
use super::live::Live;
use super::revision::{self, ChildId, Revision};
use crate::controller::{Controller, StatusCheck, UpdateStrategy};
use crate::hook::{Desired, HookCondition, SyncReply};
use crate::key::{ApiVersion, ObjectKey, Resource};
use crate::object::Object;
use crate::plan::composite::{Kind, Plan};
use crate::plan::manages_children;

/// The type of the condition that tells how far a rollout is (contract 1.5).
const UPDATED: &str = "Updated";

/// Everything that a step is made from, but for revisions and replies.
#[derive(Debug)]
pub struct Input<'a> {
    /// The controller.
    pub controller: &'a Controller,
    /// The parent's kind.
    pub resource: &'a Resource,
    /// The parent as it is.
    pub parent: &'a Object,
    /// The declared kinds, in the order of [`Controller::children`].
    pub kinds: &'a [Kind],
    /// Where revisions live: the parent's own namespace, or another for a cluster-scoped parent.
    pub namespace: &'a str,
    /// The parent's shard, if its controller is sharded.
    pub shard: Option<u8>,
}

/// What to do.
#[derive(Debug)]
pub struct Step {
    /// Writes of revisions, in their order, before any of the plan. If one fails, nothing of the plan may be done.
    pub writes: Vec<Write>,
    /// Each child as the state that it follows wants it, and the status as the newest does.
    pub plan: Plan,
    /// What the plan was made from.
    pub reply: SyncReply,
    /// A child begins to follow the newest state.
    pub moved: bool,
}

/// A write of a revision.
#[derive(Debug)]
pub enum Write {
    /// It is new.
    Create {
        /// Its namespace and name.
        key: ObjectKey,
        /// The whole object as JSON.
        body: Vec<u8>,
    },
    /// Other children follow it.
    Update {
        /// As it was seen.
        object: Arc<Object>,
        /// The whole object as JSON, with uid and resourceVersion of what was seen.
        body: Vec<u8>,
    },
    /// No child follows it.
    Delete {
        /// As it was seen.
        object: Arc<Object>,
    },
}

/// The state that a child follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Latest,
    /// Index into [`Live::older`].
    Older(usize),
    /// Index into [`Live::held`].
    Held(usize),
}

/// How far a rollout is.
enum Progress {
    Done,
    Waits(String),
    Moves(String),
}

/// A child that the newest state wants, and whose kind is rolled.
struct Child {
    id: ChildId,
    /// Its place in the newest reply.
    at: usize,
    follows: Place,
    /// What an older state that it follows wants it to be: the reply, and the place in it.
    wish: Option<(usize, usize)>,
}

/// Makes a step. `latest` is what the hook answered for the parent as it is, `older` what it answered for each of
/// [`Live::older`], in their order; `plan` makes the plan of a reply.
///
/// # Errors
/// If a child of a reply can't be applied, as `plan` says; its index is that in the newest reply.
pub fn step<E>(
    input: &Input<'_>,
    live: &Live,
    mut latest: SyncReply,
    mut older: Vec<SyncReply>,
    plan: impl Fn(&SyncReply) -> Result<Plan, E>,
) -> Result<Step, E> {
    latest.finalized &= older.iter().all(|reply| reply.finalized);
    latest.resync_after = older.iter().map(|reply| reply.resync_after).chain([latest.resync_after]).flatten().min();
    if !manages_children(input.controller, input.parent) {
        return Ok(Step { writes: Vec::new(), plan: plan(&latest)?, reply: latest, moved: false });
    }
    let mut children = children(input, &latest);
    let mut progress = Progress::Done;
    if !live.is_only_latest() {
        let differing = changed(&plan(&latest)?, input.kinds);
        // An old answer that can't be carried out any more is none: its children stay as they are.
        let wishes_of =
            |reply: &SyncReply| if plan(reply).is_ok() { rolled(input, &reply.children) } else { BTreeMap::new() };
        let wishes: Vec<BTreeMap<ChildId, usize>> = older.iter().map(wishes_of).collect();
        for child in &mut children {
            child.follows = place(input, live, &child.id, &differing);
            if let Place::Older(index) = child.follows {
                child.wish = wishes.get(index).and_then(|wishes| wishes.get(&child.id)).map(|wish| (index, *wish));
            }
            swap(child, &mut latest, &mut older);
        }
        // What would be changed without any move.
        let changing = changed(&plan(&latest)?, input.kinds);
        progress = advance(input, &mut children, &changing, |child| swap(child, &mut latest, &mut older));
    }
    let moved = matches!(progress, Progress::Moves(_));
    let (status, reason, message) = match progress {
        Progress::Done => {
            let name = live.latest.name(input.controller, input.parent);
            ("True", "OnLatestRevision", format!("latest ControllerRevision: {name}"))
        }
        Progress::Waits(why) => ("False", "RolloutWaiting", why),
        Progress::Moves(child) => ("False", "RolloutProgressing", format!("updating {child}")),
    };
    if input.controller.dialect.reply_extras {
        latest.conditions.retain(|other| other.kind != UPDATED);
        let (kind, reason) = (UPDATED.to_owned(), reason.to_owned());
        latest.conditions.push(HookCondition { kind, status, reason, message });
    } else {
        let condition = json!({"type": UPDATED, "status": status, "reason": reason, "message": message});
        latest.status = with_condition(latest.status, condition);
    }
    let mut made = plan(&latest)?;
    hold(&mut made, input.kinds, &children);
    Ok(Step { writes: writes(input, live, &children), plan: made, reply: latest, moved })
}

/// Takes out of a plan what would change children that stay as they are.
fn hold(plan: &mut Plan, kinds: &[Kind], children: &[Child]) {
    let held: BTreeSet<&ChildId> = children.iter().filter(|child| child.is_held()).map(|child| &child.id).collect();
    if held.is_empty() {
        return;
    }
    let is_held = |kind: usize, object: &Object| {
        kinds.get(kind).is_some_and(|kind| held.contains(&ChildId::new(&kind.resource, object.key())))
    };
    plan.updates.retain(|update| !is_held(update.kind, &update.object));
    plan.deletes.retain(|delete| !delete.recreate || !is_held(delete.kind, &delete.object));
}

impl Child {
    /// It follows a state that the hook has no answer for.
    fn is_held(&self) -> bool {
        self.follows != Place::Latest && self.wish.is_none()
    }
}

/// Puts the wish of an older state in the place of the newest one's, or the other way round.
fn swap(child: &Child, latest: &mut SyncReply, older: &mut [SyncReply]) {
    let Some((index, at)) = child.wish else { return };
    let wish = older.get_mut(index).and_then(|reply| reply.children.get_mut(at));
    if let (Some(here), Some(wish)) = (latest.children.get_mut(child.at), wish) {
        std::mem::swap(here, wish);
    }
}

/// Lets the next child move, if it may.
fn advance(
    input: &Input<'_>,
    children: &mut [Child],
    changing: &BTreeSet<ChildId>,
    swap: impl FnOnce(&Child),
) -> Progress {
    let trouble = |child: &Child| {
        let (strategy, checks) = rule(input, &child.id);
        let why = unready(observed(input, &child.id), strategy, checks);
        why.or_else(|| (!child.is_held() && changing.contains(&child.id)).then(|| "isn't updated yet".to_owned()))
    };
    let follows_older = |child: &Child| child.follows != Place::Latest;
    // One that isn't as it shall be comes before those that are.
    let next = children
        .iter()
        .position(|child| follows_older(child) && trouble(child).is_some())
        .or_else(|| children.iter().position(follows_older));
    let Some(next) = next else { return Progress::Done };
    for child in children.iter().filter(|child| !follows_older(child)) {
        if let Some(why) = trouble(child) {
            return Progress::Waits(format!("{} {why}", child.id));
        }
    }
    let Some(child) = children.get_mut(next) else { return Progress::Done };
    swap(child);
    (child.follows, child.wish) = (Place::Latest, None);
    Progress::Moves(child.id.to_string())
}

/// The state that a child follows: one that none has claimed, or that is already as the newest wants it, the newest.
fn place(input: &Input<'_>, live: &Live, id: &ChildId, differing: &BTreeSet<ChildId>) -> Place {
    if live.latest.children.contains(id) {
        return Place::Latest;
    }
    let claimed = |revisions: &[Revision]| revisions.iter().position(|revision| revision.children.contains(id));
    let place = claimed(&live.older).map(Place::Older).or_else(|| claimed(&live.held).map(Place::Held));
    let is_there = || observed(input, id).is_some_and(|child| !child.is_deleting());
    match place {
        Some(place) if differing.contains(id) || !is_there() => place,
        _ => Place::Latest,
    }
}

/// What to write of revisions so that these children follow them: the newest first, what no child follows last.
fn writes(input: &Input<'_>, live: &Live, children: &[Child]) -> Vec<Write> {
    let home = input.parent.key().namespace();
    let followers = |of: Place| -> BTreeSet<ChildId> {
        children.iter().filter(|child| child.follows == of).map(|child| child.id.clone()).collect()
    };
    let update = |object: &Arc<Object>, children: &BTreeSet<ChildId>| {
        let body = revision::update_body(object, home, children);
        Write::Update { object: Arc::clone(object), body }
    };
    let (mut writes, mut deletes) = (Vec::new(), Vec::new());
    let children = followers(Place::Latest);
    match &live.latest.object {
        // Whoever goes begins no new state: nothing can be made in a namespace that ends.
        None if input.parent.is_deleting() => {}
        None => {
            let name = live.latest.name(input.controller, input.parent);
            let body = revision::create_body(input, &name, &live.latest.patch, &children);
            writes.push(Write::Create { key: ObjectKey::new(input.namespace, &name), body });
        }
        Some(object) if revision::children_of(object, home) != children => writes.push(update(object, &children)),
        Some(_) => {}
    }
    let older = live.older.iter().enumerate().map(|(index, revision)| (Place::Older(index), revision));
    let held = live.held.iter().enumerate().map(|(index, revision)| (Place::Held(index), revision));
    for (place, revision) in older.chain(held) {
        let (Some(object), children) = (&revision.object, followers(place)) else { continue };
        if children.is_empty() {
            deletes.push(Write::Delete { object: Arc::clone(object) });
        } else if revision::children_of(object, home) != children {
            writes.push(update(object, &children));
        }
    }
    deletes.extend(live.empty.iter().map(|object| Write::Delete { object: Arc::clone(object) }));
    writes.extend(deletes);
    writes
}

/// The children of a reply whose kinds are rolled, and their places in it; of one that stands twice the last.
fn rolled(input: &Input<'_>, children: &[Desired]) -> BTreeMap<ChildId, usize> {
    let mut rolled = BTreeMap::new();
    for (at, child) in children.iter().enumerate() {
        let version = ApiVersion::new(&child.api_version);
        let is_its =
            |kind: &&Kind| kind.resource.api_version.group() == version.group() && *kind.resource.kind == *child.kind;
        let Some(kind) = input.kinds.iter().find(is_its).filter(|kind| kind.strategy.is_rolling()) else { continue };
        let namespace = match (kind.resource.namespaced, &*child.namespace) {
            (false, _) => "",
            (true, "") => input.parent.key().namespace(),
            (true, namespace) => namespace,
        };
        rolled.insert(ChildId::new(&kind.resource, &ObjectKey::new(namespace, &child.name)), at);
    }
    rolled
}

/// The rolled children of the newest reply, in its order.
fn children(input: &Input<'_>, latest: &SyncReply) -> Vec<Child> {
    let child = |(id, at): (ChildId, usize)| Child { id, at, follows: Place::Latest, wish: None };
    let mut children: Vec<Child> = rolled(input, &latest.children).into_iter().map(child).collect();
    children.sort_by_key(|child| child.at);
    children
}

/// The children that a plan would change.
fn changed(plan: &Plan, kinds: &[Kind]) -> BTreeSet<ChildId> {
    let updates = plan.updates.iter().map(|update| (update.kind, &update.object));
    let deletes = plan.deletes.iter().filter(|delete| delete.recreate).map(|delete| (delete.kind, &delete.object));
    let id = |(kind, object): (usize, &Arc<Object>)| Some(ChildId::new(&kinds.get(kind)?.resource, object.key()));
    updates.chain(deletes).filter_map(id).collect()
}

/// The kinds that are a child's, in whatever version, by their places.
fn kinds_of<'a>(input: &'a Input<'_>, id: &'a ChildId) -> impl Iterator<Item = (usize, &'a Kind)> {
    let kinds = input.kinds.iter().enumerate();
    kinds.filter(move |(_, kind)| *kind.resource.kind == *id.kind && *kind.resource.api_version.group() == *id.group)
}

fn observed<'a>(input: &'a Input<'_>, id: &'a ChildId) -> Option<&'a Object> {
    kinds_of(input, id).find_map(|(_, kind)| {
        let at = kind.owned.binary_search_by(|object| object.key().cmp(&id.key)).ok()?;
        kind.owned.get(at).map(|object| &**object)
    })
}

/// How a child is updated, and what it must show.
fn rule<'a>(input: &'a Input<'_>, id: &'a ChildId) -> (UpdateStrategy, &'a [StatusCheck]) {
    let Some((index, kind)) = kinds_of(input, id).next() else { return (UpdateStrategy::default(), &[]) };
    let checks = input.controller.children.get(index).map_or(&[][..], |rule| rule.status_checks.as_slice());
    (kind.strategy, checks)
}

/// A status with the condition among its others, as Metacontroller's users know it: without times. One whose `conditions` is no list is left as it is.
fn with_condition(status: Option<Box<RawValue>>, condition: Value) -> Option<Box<RawValue>> {
    let tree = status.as_ref().and_then(|status| serde_json::from_str(status.get()).ok());
    let mut tree: Value = tree.unwrap_or_else(|| json!({}));
    let conditions = &mut tree["conditions"];
    if conditions.is_null() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return status };
    let present = conditions.iter().position(|other| other["type"] == UPDATED);
    match present.and_then(|at| conditions.get_mut(at)) {
        Some(other) => *other = condition,
        None => conditions.push(condition),
    }
    to_raw_value(&tree).ok()
}
