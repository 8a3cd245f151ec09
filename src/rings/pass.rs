//! Lists of a ring's objects, page by page: a pass over all of them, and a search for the children of some.
//!
//! Never keeps a page. What isn't where it shall be is told to the board, all else is only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use ringmaster_cluster::{Client, Error, boot_time};
use ringmaster_core::key::Uid;
use ringmaster_core::object::Object;
use ringmaster_core::ring::slots::Tally;

use crate::board::{Board, Id, Mark};
use crate::hashes::Hashed;
use crate::scope::Scope;

/// So many objects that are to be moved are known at a time; what is beyond is found by the next pass.
pub(crate) const MAX_FOUND: usize = 10_000;
/// The children of so many owners are searched for together.
pub(crate) const MAX_SEARCHED: usize = 2_000;

/// What a pass found.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// The main objects by their slots, where a ring counts them, and the number of moves before.
    pub(crate) tally: Option<(Tally, u64)>,
    /// There may be more to find.
    pub(crate) is_cut: bool,
    /// Objects that have labels and shall have none.
    pub(crate) leaving: usize,
    /// Kinds that can't be listed, and why.
    pub(crate) failed: Vec<(usize, Error)>,
}

/// Looks at all objects once; `hashed` says whose they shall be, of the `available` shards. A kind that can't be listed
/// holds up no other.
pub(crate) async fn pass(
    client: Client,
    scope: Arc<Scope>,
    (hashed, available): (Hashed, BTreeSet<Arc<str>>),
    counts: Option<u64>,
) -> Passed {
    let generation = scope.next_generation();
    let mut passed = Passed { tally: counts.map(|moves| (Tally::default(), moves)), ..Passed::default() };
    let kinds = 0..scope.kinds.len();
    let (mains, controlled): (Vec<usize>, Vec<usize>) = kinds.partition(|kind| scope.is_main(*kind));
    // Owners first: their children are looked at in the light of where these are.
    for kind in mains.into_iter().chain(controlled) {
        let is_former = scope.kinds[kind].is_former || scope.model.is_deleting;
        let selector = if is_former { scope.shard_label.as_str() } else { "" };
        let counted = counts.is_some() && !is_former && scope.is_main(kind);
        let listed = each(&client, &scope, kind, ("", selector), &mut passed, |passed, object| {
            look(&scope, (&hashed, &available), (kind, generation), passed, object);
            if passed.is_cut && !counted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Err(error) = listed.await {
            passed.failed.push((kind, error));
            continue;
        }
        if !passed.is_cut {
            scope.board.lock().complete(boot_time(), kind, Mark::Found, generation);
        }
    }
    // What may not be listed at all counts for nothing; what couldn't be this time is waited for.
    let is_counted =
        |(kind, error): &(usize, Error)| scope.is_main(*kind) && !scope.kinds[*kind].is_former && !error.is_refused();
    if passed.failed.iter().any(is_counted) {
        passed.tally = None;
    }
    passed
}

fn look(
    scope: &Scope,
    (hashed, available): (&Hashed, &BTreeSet<Arc<str>>),
    (kind, generation): (usize, u64),
    passed: &mut Passed,
    object: &Object,
) {
    let facts = scope.facts(kind, object);
    let id = Id { kind, key: object.key().clone() };
    let is_selected = scope.selects(&id).unwrap_or(true);
    let is_labelled = facts.shard.is_some() || facts.is_draining;
    let Some(key) = scope.key(&id, facts.owner.as_deref()) else {
        // Nobody controls it any more, and it has a label all the same.
        if !is_selected && is_labelled {
            passed.leaving += 1;
            scope.note(kind, object, Mark::Found, generation);
        }
        return;
    };
    if is_selected
        && scope.is_main(kind)
        && let Some((tally, _)) = &mut passed.tally
    {
        // One that is on its way counts where it was.
        let former = || scope.board.lock().get(&id).and_then(|item| item.former.clone());
        tally.add(&key.text, facts.shard.clone().or_else(former).as_deref());
    }
    let is_leaving = !is_selected && is_labelled;
    passed.leaving += usize::from(is_leaving);
    let is_elsewhere = || {
        let owner = facts.owner.as_ref().filter(|_| key.is_owners).map(|owner| &owner.uid);
        let with_owner = owner.and_then(|owner| owners_shard(&scope.board.lock(), owner));
        let with_owner = with_owner.filter(|shard| available.contains(shard));
        let shall = with_owner.or_else(|| hashed.shard(&key.text).cloned());
        is_selected && (facts.is_draining || (shall.is_some() && facts.shard != shall))
    };
    if !is_leaving && !is_elsewhere() {
        return;
    }
    if scope.board.lock().found() >= MAX_FOUND {
        passed.is_cut = true;
    } else {
        scope.note(kind, object, Mark::Found, generation);
    }
}

/// Where an owner is that is to be moved.
fn owners_shard(board: &Board, owner: &Uid) -> Option<Arc<str>> {
    board.of_uid(owner).and_then(|(_, item)| item.facts.shard.clone())
}

/// Whose children are searched for.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) id: Id,
    pub(crate) uid: Uid,
    /// How often it had moved then.
    pub(crate) moves: u32,
    /// The shard that had it, and so its children, if that is known.
    pub(crate) former: Option<Arc<str>>,
}

/// Shows the board the children of some main objects that have a shard; gives back the kinds that can't be listed, and why.
pub(crate) async fn search(client: Client, scope: Arc<Scope>, owners: Vec<Owner>) -> Vec<(usize, Error)> {
    let (generation, mut failed) = (scope.next_generation(), Vec::new());
    let mut by_kind: BTreeMap<usize, Vec<&Owner>> = BTreeMap::new();
    for owner in &owners {
        for kind in scope.controlled(owner.id.kind) {
            by_kind.entry(*kind).or_default().push(owner);
        }
    }
    for (kind, owners) in by_kind {
        let uids: BTreeSet<&Uid> = owners.iter().map(|owner| &owner.uid).collect();
        let namespaces: BTreeSet<&str> = owners.iter().map(|owner| owner.id.key.namespace()).collect();
        let namespace = if namespaces.len() == 1 { namespaces.into_iter().next().unwrap_or_default() } else { "" };
        let former: Option<BTreeSet<&str>> = owners.iter().map(|owner| owner.former.as_deref()).collect();
        let selector = match former {
            Some(former) => {
                let names: Vec<&str> = former.into_iter().collect();
                format!("{} in ({})", scope.shard_label, names.join(","))
            }
            None => scope.shard_label.clone(),
        };
        let mut nothing = ();
        let listed = each(&client, &scope, kind, (namespace, &selector), &mut nothing, |(), object| {
            if object.controller().is_some_and(|owner| uids.contains(owner)) {
                scope.note(kind, object, Mark::Found, generation);
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = listed.await {
            failed.push((kind, error));
        }
    }
    failed
}

/// Shows each object of a kind.
async fn each<T>(
    client: &Client,
    scope: &Scope,
    kind: usize,
    (namespace, selector): (&str, &str),
    state: &mut T,
    mut what: impl FnMut(&mut T, &Object) -> ControlFlow<()>,
) -> Result<(), Error> {
    let resource = &scope.kinds[kind].resource;
    let mut next: Option<String> = None;
    loop {
        let page = client.metadata_page(resource, (namespace, selector), next.as_deref()).await?;
        for object in &page.objects {
            if what(state, object).is_break() {
                return Ok(());
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok(());
        }
    }
}
