//! Collections against a naive model of an API server: whatever is gained, lost, cut off, late or relabelled, what is
//! known is never wrong, and in the end it is the truth.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::cache::Change;
use crate::key::{ObjectKey, Uid, Version};
use crate::object::Object;
use crate::object::tests::config_maps;
use crate::shards::{SELF_LABEL, Shards};

/// Shards that the model knows; a label above is none.
const KNOWN_SHARDS: u8 = 20;

type Name = u8;

/// One state of one object: its uid, its version, its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plain {
    uid: u64,
    version: u64,
    label: u8,
}

impl Plain {
    fn object(self, name: Name) -> Object {
        self.at(name, self.version)
    }

    /// As it was, with another version.
    fn at(self, name: Name, version: u64) -> Object {
        let label = if self.label < KNOWN_SHARDS { self.label.to_string() } else { "junk".to_owned() };
        let text = format!(
            r#"{{"metadata":{{"name":"o{name}","namespace":"n","uid":"u{}","resourceVersion":"{version}","labels":{{"{SELF_LABEL}":"{label}"}}}}}}"#,
            self.uid
        );
        Object::parse(&text, &config_maps()).unwrap()
    }

    fn is_in(self, shards: &Shards) -> bool {
        self.label < KNOWN_SHARDS && shards.contains(self.label)
    }
}

/// The API server: every state that ever was.
#[derive(Default)]
struct Server {
    /// Version, name, before, after.
    history: Vec<(u64, Name, Option<Plain>, Option<Plain>)>,
    objects: BTreeMap<Name, Plain>,
    now: u64,
}

impl Server {
    fn put(&mut self, name: Name, label: u8) {
        self.now += 1;
        let before = self.objects.get(&name).copied();
        let after = Plain { uid: before.map_or(self.now, |before| before.uid), version: self.now, label };
        self.objects.insert(name, after);
        self.history.push((self.now, name, before, Some(after)));
    }

    fn remove(&mut self, name: Name) {
        if let Some(before) = self.objects.remove(&name) {
            self.now += 1;
            self.history.push((self.now, name, Some(before), None));
        }
    }

    fn state_at(&self, name: Name, version: u64) -> Option<Plain> {
        let mut of_name = self.history.iter().rev().filter(|(_, other, ..)| *other == name);
        of_name.find(|(at, ..)| *at <= version).and_then(|(.., after)| *after)
    }

    fn changed_after(&self, name: Name, version: u64) -> bool {
        self.history.iter().any(|(at, other, ..)| *other == name && *at > version)
    }

    fn list(&self, shards: &Shards) -> Vec<(Name, Plain)> {
        self.objects.iter().filter(|(_, o)| o.is_in(shards)).map(|(name, object)| (*name, *object)).collect()
    }
}

/// A pump.
enum Phase {
    Start,
    Listing { items: Vec<(Name, Plain)>, version: u64 },
    Following { at: u64, asked: Shards },
}

/// A list of metadata: of which shards, begun when, what it named, its version.
type Listed = (Shards, u64, Vec<(Name, Plain)>, u64);

struct World {
    server: Server,
    collection: Collection,
    pumps: BTreeMap<StreamId, Phase>,
    /// What may be listed: what was gained, or lost track of.
    unlisted: Shards,
    /// Answers that are on their way: as the object was, or as it was before it was gone.
    answers: Vec<(Name, Result<Plain, u64>)>,
    check: Option<Listed>,
    compared: Option<(Check, u64)>,
}

#[derive(Clone, Debug)]
enum Step {
    Put { name: Name, label: u8 },
    Remove { name: Name },
    Want(Vec<u8>),
    Gain(u8),
    Lose(u8),
    Turn(usize),
    End(usize),
    Fail(usize),
    Expire(usize),
    Read(Name),
    OwnDelete(Name),
    Answer(usize),
    Check,
    Compare,
    Checked,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let label = || prop_oneof![4 => 0..4u8, 1 => 0..=KNOWN_SHARDS];
    let step = prop_oneof![
        8 => (0..5u8, label()).prop_map(|(name, label)| Step::Put { name, label }),
        2 => (0..5u8).prop_map(|name| Step::Remove { name }),
        1 => proptest::collection::vec(label(), 0..5).prop_map(Step::Want),
        4 => label().prop_map(Step::Gain),
        2 => label().prop_map(Step::Lose),
        24 => any::<usize>().prop_map(Step::Turn),
        3 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Fail),
        1 => any::<usize>().prop_map(Step::Expire),
        3 => (0..5u8).prop_map(Step::Read),
        1 => (0..5u8).prop_map(Step::OwnDelete),
        4 => any::<usize>().prop_map(Step::Answer),
        1 => Just(Step::Check),
        2 => Just(Step::Compare),
        2 => Just(Step::Checked),
    ];
    proptest::collection::vec(step, 0..200)
}

fn key(name: Name) -> ObjectKey {
    ObjectKey::new("n", &format!("o{name}"))
}

fn uid(uid: u64) -> Uid {
    Uid::new(&format!("u{uid}"))
}

impl World {
    fn new() -> Self {
        Self {
            server: Server { now: 1, ..Server::default() },
            collection: Collection::new(Scope::Sharded(SELF_LABEL)),
            pumps: BTreeMap::new(),
            unlisted: Shards::NONE,
            answers: Vec::new(),
            check: None,
            compared: None,
        }
    }

    fn want(&mut self, shards: Shards) {
        let shards: Shards = shards.iter().filter(|shard| *shard < KNOWN_SHARDS).collect();
        let gained = shards.difference(&self.collection.streams().wanted());
        let informed = self.collection.streams().informed();
        let wanted = self.collection.want(shards);
        self.unlisted = self.unlisted.union(&gained).intersection(&shards);
        assert_eq!(self.collection.streams().informed(), informed.intersection(&shards), "what stays stays informed");
        self.cancel(&wanted.cancel);
        for (id, from) in wanted.start {
            let asked = self.collection.streams().scope(id).unwrap();
            let phase = from.map_or(Phase::Start, |version| Phase::Following { at: version.0, asked });
            self.pumps.insert(id, phase);
        }
        assert!(self.pumps.len() <= MAX_STREAMS);
    }

    fn cancel(&mut self, ids: &[StreamId]) {
        for id in ids {
            assert!(self.pumps.remove(id).is_some());
        }
    }

    fn pump(&self, index: usize) -> Option<StreamId> {
        self.pumps.keys().nth(index.checked_rem(self.pumps.len())?).copied()
    }

    /// One request's answer, or one line of it.
    fn turn(&mut self, id: StreamId) {
        let Self { server, collection, pumps, unlisted, .. } = self;
        let phase = pumps.get_mut(&id).unwrap();
        match phase {
            Phase::Start => {
                let scope = collection.list_begins(id).unwrap();
                assert!(scope.is_within(unlisted), "{scope} of {unlisted}");
                *phase = Phase::Listing { items: server.list(&scope), version: server.now };
            }
            Phase::Listing { items, version } => match items.pop() {
                Some((name, plain)) => drop(collection.applied(id, plain.object(name))),
                None => {
                    let at = *version;
                    let scope = collection.streams().scope(id).unwrap();
                    collection.list_complete(id, Version(at));
                    *unlisted = unlisted.difference(&scope);
                    *phase = Phase::Following { at, asked: Shards::NONE };
                    resume(collection, pumps, id, false);
                }
            },
            Phase::Following { at, asked } => {
                let seen = |plain: &Option<Plain>| plain.filter(|plain| plain.is_in(asked));
                let next = server.history.iter().find(|(version, _, before, after)| {
                    version > at && (seen(before).is_some() || seen(after).is_some())
                });
                let Some((version, name, before, after)) = next else {
                    *at = server.now;
                    collection.progressed(id, Version(server.now));
                    return;
                };
                *at = *version;
                match (seen(before), seen(after)) {
                    (_, Some(after)) => drop(collection.applied(id, after.object(*name))),
                    (Some(before), None) => drop(collection.deleted(id, &before.at(*name, *version))),
                    (None, None) => {}
                }
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let wanted = self.collection.streams().wanted();
        match step {
            Step::Put { name, label } => self.server.put(*name, *label),
            Step::Remove { name } => self.server.remove(*name),
            Step::Want(shards) => self.want(shards.iter().copied().collect()),
            Step::Gain(shard) => self.want(wanted.union(&Shards::from_iter([*shard]))),
            Step::Lose(shard) => self.want(wanted.difference(&Shards::from_iter([*shard]))),
            Step::Turn(index) => {
                if let Some(id) = self.pump(*index) {
                    self.turn(id);
                }
            }
            Step::End(index) | Step::Fail(index) => {
                let Some(id) = self.pump(*index) else { return };
                match self.pumps.get_mut(&id).unwrap() {
                    Phase::Start => {}
                    Phase::Following { .. } => {
                        let ended = matches!(step, Step::End(_));
                        resume(&mut self.collection, &mut self.pumps, id, ended);
                    }
                    phase @ Phase::Listing { .. } => {
                        *phase = Phase::Start;
                        self.collection.list_aborted(id);
                    }
                }
            }
            Step::Expire(index) => {
                let Some(id) = self.pump(*index) else { return };
                let phase = self.pumps.get_mut(&id).unwrap();
                if matches!(phase, Phase::Following { .. }) {
                    self.unlisted = self.unlisted.union(&self.collection.streams().scope(id).unwrap());
                    *phase = Phase::Start;
                    self.collection.lost_track(id);
                }
            }
            Step::Read(name) => {
                let found = self.server.objects.get(name).copied();
                let last = self.server.history.iter().rev().find(|(_, other, ..)| other == name);
                if let Some(answer) =
                    found.map(Ok).or_else(|| last.and_then(|(_, _, before, _)| Some(Err(before.as_ref()?.uid))))
                {
                    self.answers.push((*name, answer));
                }
            }
            Step::OwnDelete(name) => {
                if let Some(plain) = self.server.objects.get(name).copied() {
                    self.server.remove(*name);
                    self.collection.gone(&key(*name), &uid(plain.uid));
                }
            }
            Step::Answer(index) => {
                let Some(index) = index.checked_rem(self.answers.len()) else { return };
                match self.answers.swap_remove(index) {
                    (name, Ok(plain)) => drop(self.collection.answer(plain.object(name), None)),
                    (name, Err(gone)) => drop(self.collection.gone(&key(name), &uid(gone))),
                }
            }
            Step::Check => {
                let streams = self.collection.streams();
                let shards = self.collection.checkable(&streams.informed());
                self.check = Some((shards, streams.moment(), self.server.list(&shards), self.server.now));
            }
            Step::Compare => {
                let Some((shards, moment, listed, version)) = self.check.take() else { return };
                let listed: Vec<_> =
                    listed.iter().map(|(name, o)| (key(*name), uid(o.uid), Version(o.version))).collect();
                let listed = listed.iter().map(|(key, uid, version)| (key, uid, *version));
                let check = self.collection.check(&shards, moment, listed);
                for (key, uid) in &check.differing {
                    let name: Name = key.name()[1..].parse().unwrap();
                    match self.server.objects.get(&name) {
                        Some(plain) => drop(self.collection.repair(plain.object(name))),
                        None => drop(self.collection.missing(key, uid, Version(version))),
                    }
                }
                self.compared = Some((check, version));
            }
            Step::Checked => {
                if let Some((check, version)) = self.compared.take() {
                    self.collection.checked(&check, Version(version));
                }
            }
        }
    }

    /// What is known: by name, in the model's terms.
    fn known(&self) -> BTreeMap<Name, Plain> {
        let plain = |object: &std::sync::Arc<Object>| {
            let label: &str =
                &object.section::<serde_json::Value>("metadata").unwrap()["labels"][SELF_LABEL].to_string();
            let label = label.trim_matches('"').parse().unwrap();
            let uid = object.uid().to_string()[1..].parse().unwrap();
            (object.key().name()[1..].parse().unwrap(), Plain { uid, version: object.version().0, label })
        };
        self.collection.store().iter().map(plain).collect()
    }

    /// Nothing that is known is known to be over, and nothing that must be known is missing.
    fn judge(&self) {
        let (known, streams) = (self.known(), self.collection.streams());
        for (name, plain) in &known {
            assert!(plain.is_in(&streams.wanted()), "{plain:?} isn't wanted");
            let to = streams.known_to(plain.label).0;
            if plain.version <= to {
                assert_eq!(self.server.state_at(*name, to), Some(*plain), "{name} is over at {to}");
            }
        }
        for shard in streams.informed().iter() {
            let to = streams.known_to(shard).0;
            for name in 0..5 {
                if let Some(plain) = self.server.state_at(name, to).filter(|plain| plain.label == shard)
                    && !self.server.changed_after(name, to)
                {
                    assert_eq!(known.get(&name), Some(&plain), "{name} is a hole at {to}");
                }
            }
        }
    }

    /// Lets all arrive that is on its way.
    fn settle(&mut self) {
        while !self.answers.is_empty() {
            self.step(&Step::Answer(0));
        }
        let ids: Vec<StreamId> = self.pumps.keys().copied().collect();
        for id in ids {
            let is_there =
                |world: &Self| matches!(world.pumps[&id], Phase::Following { at, .. } if at == world.server.now);
            while !is_there(self) {
                self.turn(id);
            }
        }
    }
}

fn resume(collection: &mut Collection, pumps: &mut BTreeMap<StreamId, Phase>, id: StreamId, ended: bool) {
    let Resumed { version, scope, cancel } = collection.resume(id, ended).unwrap();
    for other in cancel {
        assert!(pumps.remove(&other).is_some());
    }
    pumps.insert(id, Phase::Following { at: version.0, asked: scope });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_known_is_never_wrong_and_in_the_end_the_truth(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.judge();
        }
        world.settle();
        world.judge();
        let wanted = world.collection.streams().wanted();
        prop_assert!(world.collection.is_informed());
        prop_assert_eq!(world.known(), world.server.list(&wanted).into_iter().collect());
        prop_assert!(world.unlisted.is_empty(), "all that was gained was listed");
    }
}

fn shards(shards: &[u8]) -> Shards {
    shards.iter().copied().collect()
}

fn plain(uid: u64, version: u64, label: u8) -> Plain {
    Plain { uid, version, label }
}

#[test]
fn gaining_adds_a_stream_losing_takes_away_and_an_end_merges() {
    let mut collection = Collection::new(Scope::Sharded(SELF_LABEL));
    let wanted = collection.want(shards(&[1, 2]));
    let [(first, None)] = wanted.start[..] else { panic!("{wanted:?}") };
    assert_eq!(collection.list_begins(first), Some(shards(&[1, 2])));
    assert!(collection.applied(first, plain(1, 3, 1).object(1)).is_some());
    assert!(collection.applied(first, plain(2, 4, 2).object(2)).is_some());
    assert!(!collection.is_informed());
    assert!(collection.list_complete(first, Version(5)).is_empty());
    assert!(collection.is_informed());
    // One more shard, one less.
    let wanted = collection.want(shards(&[1, 3]));
    let [(second, None)] = wanted.start[..] else { panic!("{wanted:?}") };
    assert_eq!((wanted.lost, wanted.cancel.as_slice()), (shards(&[2]), &[][..]));
    assert_eq!((collection.store().len(), collection.streams().informed()), (1, shards(&[1])));
    assert!(collection.applied(first, plain(2, 6, 2).object(2)).is_none(), "lost, but still in the request's sight");
    assert_eq!(collection.list_begins(second), Some(shards(&[3])));
    assert_eq!(
        collection.resume(first, true),
        Some(Resumed { version: Version(6), scope: shards(&[1]), cancel: vec![] })
    );
    collection.list_complete(second, Version(9));
    // Of what both bring, only news counts.
    let merged = collection.resume(first, true).unwrap();
    assert_eq!(merged, Resumed { version: Version(6), scope: shards(&[1, 3]), cancel: vec![second] });
    assert!(collection.applied(first, plain(3, 8, 3).object(3)).is_none(), "deleted at 9, as the second one knew");
    assert!(collection.applied(first, plain(1, 8, 1).object(1)).is_some());
    assert!(collection.applied(second, plain(4, 9, 3).object(4)).is_none(), "it has ended");
    assert_eq!(collection.want(Shards::NONE).cancel, [first]);
}

#[test]
fn a_shard_that_is_lost_and_gained_again_is_listed_again() {
    let mut collection = Collection::new(Scope::Sharded(SELF_LABEL));
    let first = collection.want(shards(&[1, 2])).start[0].0;
    collection.list_begins(first);
    collection.applied(first, plain(1, 3, 1).object(1));
    collection.list_complete(first, Version(5));
    collection.want(shards(&[2]));
    let second = collection.want(shards(&[1, 2])).start[0].0;
    assert_eq!(collection.streams().informed(), shards(&[2]), "the first one's request shows it, but what was missed?");
    assert!(collection.applied(first, plain(1, 6, 1).object(1)).is_none());
    assert_eq!(collection.list_begins(second), Some(shards(&[1])));
    collection.applied(second, plain(1, 6, 1).object(1));
    collection.list_complete(second, Version(6));
    assert_eq!((collection.store().len(), collection.is_informed()), (1, true));
}

#[test]
fn a_list_that_names_what_we_deleted_does_not_keep_its_predecessor() {
    let mut collection = Collection::new(Scope::Sharded(SELF_LABEL));
    let id = collection.want(shards(&[1])).start[0].0;
    collection.list_begins(id);
    collection.gone(&key(1), &uid(8));
    assert!(collection.applied(id, plain(8, 8, 1).object(1)).is_none());
    // A late answer, of the one that had the name before.
    assert!(collection.answer(plain(6, 6, 1).object(1), None).is_some());
    assert_eq!(collection.list_complete(id, Version(9)).len(), 1);
    assert!(collection.store().is_empty());
}

#[test]
fn one_stream_more_than_the_limit_makes_few_of_many() {
    let mut collection = Collection::new(Scope::Sharded(SELF_LABEL));
    let mut all = Shards::NONE;
    for shard in 0..16u8 {
        all.insert(shard);
        let id = collection.want(all).start[0].0;
        if shard < 10 {
            collection.list_begins(id);
            collection.list_complete(id, Version(100 + u64::from(shard)));
        }
    }
    assert_eq!(collection.streams().len(), MAX_STREAMS);
    all.insert(16);
    let wanted = collection.want(all);
    assert_eq!((wanted.cancel.len(), collection.streams().len()), (6, 11));
    assert_eq!(collection.list_begins(wanted.start[0].0), Some((10..17).collect()));
    collection.list_complete(wanted.start[0].0, Version(200));
    for shard in 17..23u8 {
        all.insert(shard);
        let wanted = collection.want(all);
        if shard < 22 {
            collection.list_begins(wanted.start[0].0);
            collection.list_complete(wanted.start[0].0, Version(300));
            continue;
        }
        let [(merged, Some(Version(100))), (fresh, None)] = wanted.start[..] else { panic!("{wanted:?}") };
        assert_eq!(collection.streams().scope(merged), Some((0..22).collect()));
        assert_eq!(collection.list_begins(fresh), Some(shards(&[22])));
        assert_eq!((wanted.cancel.len(), collection.streams().len()), (MAX_STREAMS, 2));
    }
    assert_eq!(collection.streams().informed(), (0..22).collect());
}

#[test]
fn what_is_not_sharded_is_all_or_nothing_and_knows_what_is_certain() {
    let labelled = Selection { labels: "a=b".to_owned(), ..Selection::default() };
    for (scope, selector, is_certain) in
        [(Scope::Everything, "", true), (Scope::Children, "", true), (Scope::Selected(labelled), "a=b", false)]
    {
        let mut collection = Collection::new(scope);
        let id = collection.want(Shards::ALL).start[0].0;
        let covered = collection.list_begins(id).unwrap();
        assert_eq!(collection.selector(&covered), selector);
        collection.applied(id, plain(1, 3, 200).object(1));
        collection.list_complete(id, Version(5));
        assert!(matches!(
            collection.deleted(id, &plain(1, 3, 200).at(1, 7)),
            Some(Change::Deleted { certain, .. }) if certain == is_certain
        ));
        assert!(collection.answer(plain(1, 6, 200).object(1), None).is_none(), "a late answer");
        assert_eq!(collection.want(Shards::ALL), Wanted::default());
        assert_eq!(collection.want(Shards::NONE).cancel, [id]);
    }
}

#[test]
fn of_children_those_that_nobody_owns_are_kept_without_their_content() {
    let mut collection = Collection::new(Scope::Children);
    let id = collection.want(Shards::ALL).start[0].0;
    collection.list_begins(id);
    let object = |name: &str, version: u64, owner: Option<&str>| {
        let mut tree = json!({
            "metadata": {"name": name, "uid": name, "resourceVersion": version.to_string(), "labels": {"a": "b"}},
            "data": {"k": "v"},
        });
        if let Some(owner) = owner {
            tree["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "P", "name": "p", "uid": owner, "controller": true}]);
        }
        Object::of(&tree, &config_maps()).unwrap()
    };
    collection.applied(id, object("orphan", 3, None));
    collection.applied(id, object("child", 4, Some("p")));
    collection.list_complete(id, Version(5));
    let data = |collection: &Collection, name: &str| {
        let store = collection.store();
        let kept = store.get(&ObjectKey::new("", name)).unwrap();
        assert_eq!(crate::selector::Labels::get(&kept.labels(), "a"), Some("b"));
        kept.value()["data"].clone()
    };
    assert_eq!((data(&collection, "orphan"), data(&collection, "child")), (json!(null), json!({"k": "v"})));
    // Adopted, and released.
    collection.answer(object("orphan", 6, Some("p")), None);
    collection.answer(object("child", 7, None), None);
    assert_eq!((data(&collection, "orphan"), data(&collection, "child")), (json!({"k": "v"}), json!(null)));
    collection.repair(object("orphan", 8, None));
    assert_eq!(data(&collection, "orphan"), json!(null));
}

#[test]
fn a_check_reads_what_differs_and_drops_what_was_not_listed() {
    let mut collection = Collection::new(Scope::Sharded(SELF_LABEL));
    let id = collection.want(shards(&[1, 2])).start[0].0;
    collection.list_begins(id);
    for (name, shard) in [(1, 1), (2, 1), (3, 1), (4, 2)] {
        collection.applied(id, plain(u64::from(name), 3, shard).object(name));
    }
    collection.list_complete(id, Version(5));
    let (gained, moment) = (collection.checkable(&shards(&[1, 9])), collection.streams().moment());
    assert_eq!(gained, shards(&[1]));
    // As of 20: the first is as known, the second has changed, the third is gone, the fifth is new.
    let listed = [(key(1), uid(1), Version(3)), (key(2), uid(2), Version(12)), (key(5), uid(5), Version(11))];
    let check = collection.check(&gained, moment, listed.iter().map(|(key, uid, version)| (key, uid, *version)));
    assert_eq!(check.differing, [(key(2), uid(2)), (key(5), uid(5))]);
    assert!(collection.repair(plain(2, 12, 1).object(2)).is_some());
    assert!(collection.missing(&key(5), &uid(5), Version(20)).is_empty(), "gone in between");
    let changes = collection.checked(&check, Version(20)).unwrap();
    assert!(matches!(&changes[..], [Change::Deleted { old, certain: false }] if *old.key() == key(3)));
    assert_eq!(collection.store().len(), 3);
    assert_eq!((collection.streams().known_to(1), collection.streams().known_to(2)), (Version(20), Version(5)));
    assert!(collection.applied(id, plain(3, 8, 1).object(3)).is_none(), "what the stream still brings is over");
    assert!(collection.applied(id, plain(2, 21, 1).object(2)).is_some());
    collection.want(shards(&[2]));
    collection.want(shards(&[1, 2]));
    assert!(collection.checked(&check, Version(20)).is_none(), "it was lost in between");
}
