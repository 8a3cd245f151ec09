//! The store's rules one by one, and all of them against a naive model.

use proptest::prelude::*;

use super::*;
use crate::object::tests::config_maps;
use crate::selector::Labels as _;

fn object(name: &str, uid: &str, version: u64, owner: Option<&str>, labels: &[(&str, &str)]) -> Object {
    let owners = owner.map_or_else(String::new, |uid| {
        format!(r#","ownerReferences":[{{"apiVersion":"v1","kind":"K","name":"o","uid":"{uid}","controller":true}}]"#)
    });
    let labels: Vec<_> = labels.iter().map(|(key, value)| format!(r#""{key}":"{value}""#)).collect();
    let text = format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{uid}","resourceVersion":"{version}","labels":{{{}}}{owners}}}}}"#,
        labels.join(",")
    );
    Object::parse(&text, &config_maps()).unwrap()
}

fn names<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Vec<String> {
    let mut names: Vec<_> = objects.map(|object| object.key().name().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn older_and_equal_versions_change_nothing() {
    let mut store = Store::new();
    assert!(matches!(store.apply(object("a", "u", 5, None, &[])), Some(Change::Applied { old: None, .. })));
    assert!(store.apply(object("a", "u", 5, None, &[])).is_none());
    assert!(store.apply(object("a", "u", 4, None, &[])).is_none());
    assert!(matches!(store.apply(object("a", "u", 6, None, &[])), Some(Change::Applied { old: Some(_), .. })));
    assert_eq!(store.len(), 1);
}

#[test]
fn what_was_deleted_stays_deleted() {
    let mut store = Store::new();
    store.apply(object("a", "u", 5, None, &[]));
    assert!(store.delete(&ObjectKey::new("n", "a"), &Uid::new("u"), FOR_EVER).is_some());
    assert!(store.apply(object("a", "u", 9, None, &[])).is_none(), "a late event brought a deleted object back");
    assert!(store.apply(object("a", "v", 10, None, &[])).is_some(), "a new object of the same name is another one");
    assert!(
        store.delete(&ObjectKey::new("n", "a"), &Uid::new("u"), FOR_EVER).is_none(),
        "the old one's deletion took the new"
    );
    assert_eq!(store.len(), 1);
}

fn saw(objects: &[(&str, &str)]) -> Relist {
    let mut relist = Relist::default();
    objects.iter().for_each(|(name, uid)| relist.saw(&ObjectKey::new("n", name), &Uid::new(uid)));
    relist
}

#[test]
fn a_relist_removes_what_it_does_not_name_but_never_newer_answers() {
    let mut store = Store::new();
    store.apply(object("a", "ua", 1, None, &[]));
    store.apply(object("b", "ub", 2, Some("p"), &[]));
    store.apply(object("a", "ua", 1, None, &[]));
    store.apply(object("c", "uc", 12, Some("p"), &[]));
    // Answered in the middle of the list, and gone again before the list's version.
    store.apply(object("d", "ud", 5, None, &[]));
    store.apply(object("e", "ue", 5, None, &[]));
    let changes =
        store.end_relist(&saw(&[("a", "ua"), ("d", "other")]), Version(10), |object| object.key().name() != "e");
    let mut gone: Vec<_> = changes.iter().map(|change| change.key().name()).collect();
    gone.sort_unstable();
    assert_eq!(gone, ["b", "d"]);
    assert!(changes.iter().all(|change| matches!(change, Change::Deleted { certain: true, .. })));
    assert_eq!(names(store.iter()), ["a", "c", "e"], "what is newer, or none of this list's business, stays");
    assert_eq!(names(store.owned_by(&Uid::new("p"))), ["c"]);
    assert!(store.apply(object("d", "ud", 9, None, &[])).is_none(), "older than the list that hasn't got it");
}

#[test]
fn evicted_objects_leave_nothing_and_may_come_back_as_they_were() {
    let mut store = Store::partial();
    store.apply(object("a", "ua", 5, Some("p"), &[("s", "1")]));
    store.apply(object("b", "ub", 6, None, &[("s", "2")]));
    store.evict(|object| object.labels().get("s") == Some("1"));
    assert_eq!((names(store.iter()), store.owned_by(&Uid::new("p")).count()), (vec!["b".to_owned()], 0));
    assert!(store.apply(object("a", "ua", 5, Some("p"), &[("s", "1")])).is_some());
}

#[test]
fn orphans_are_found_by_label_and_namespace() {
    let mut store = Store::new();
    store.apply(object("a", "ua", 1, None, &[("app", "x"), ("z", "1")]));
    assert_eq!(store.orphans(None, None).count(), 0, "an index that nobody asked for");
    store.index_orphans();
    store.apply(object("b", "ub", 2, None, &[("app", "y")]));
    store.apply(object("c", "uc", 3, Some("p"), &[("app", "x")]));
    assert_eq!(names(store.orphans(Some("n"), Some(("app", "x")))), ["a"]);
    assert_eq!(names(store.orphans(None, None)), ["a", "b"]);
    store.apply(object("d", "ud", 3, None, &[("app", "x")]));
    assert_eq!(names(store.orphans(None, Some(("app", "x")))), ["a", "d"]);
    store.delete(&ObjectKey::new("n", "d"), &Uid::new("ud"), FOR_EVER);
    assert_eq!(names(store.orphans(Some("m"), Some(("z", "1")))), Vec::<String>::new());
    assert_eq!(names(store.orphans(Some("m"), None)), Vec::<String>::new());
    store.apply(object("a", "ua", 4, Some("p"), &[("app", "x")]));
    assert_eq!(names(store.orphans(Some("n"), Some(("app", "x")))), Vec::<String>::new());
    assert_eq!(names(store.owned_by(&Uid::new("p"))), ["a", "c"]);
}

#[test]
fn what_left_a_selector_s_sight_may_come_back() {
    let mut store = Store::partial();
    store.apply(object("a", "u", 5, None, &[]));
    let change = store.delete(&ObjectKey::new("n", "a"), &Uid::new("u"), Version(7));
    assert!(matches!(change, Some(Change::Deleted { certain: false, .. })));
    assert!(store.apply(object("a", "u", 6, None, &[])).is_none(), "a late answer is older than the event");
    assert!(store.apply(object("a", "u", 7, None, &[])).is_some(), "the same object came into another's sight");
    let (key, uid) = (ObjectKey::new("n", "a"), Uid::new("u"));
    assert!(store.delete(&key, &uid, Version(7)).is_none(), "it is in sight there, whoever tells first");
    assert!(store.delete(&key, &uid, Version(6)).is_none(), "old news");
    assert!(matches!(store.delete(&key, &uid, FOR_EVER), Some(Change::Deleted { certain: true, .. })));
    assert!(store.apply(object("a", "u", 70, None, &[])).is_none());
}

#[test]
fn what_a_partial_relist_misses_may_show_elsewhere_but_not_as_it_was() {
    let mut store = Store::partial();
    store.apply(object("a", "u", 5, None, &[]));
    let changes = store.end_relist(&saw(&[]), Version(10), |_| true);
    assert!(matches!(changes[..], [Change::Deleted { certain: false, .. }]));
    assert!(store.apply(object("a", "u", 5, None, &[])).is_none());
    assert!(store.apply(object("a", "u", 8, None, &[])).is_some());
}

#[test]
fn the_answer_that_ended_an_object_goes_with_its_event() {
    let text = r#"{"metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"7","deletionTimestamp":"t"}}"#;
    for mut store in [Store::new(), Store::partial()] {
        store.apply(Object::parse(text, &config_maps()).unwrap());
        assert!(store.delete(&ObjectKey::new("n", "a"), &Uid::new("u"), Version(7)).is_some());
    }
}

#[test]
fn an_object_whose_successor_is_gone_is_gone_too() {
    let (mut store, key) = (Store::new(), ObjectKey::new("n", "a"));
    store.delete(&key, &Uid::new("second"), FOR_EVER);
    store.apply(object("a", "first", 2, None, &[]));
    assert!(matches!(store.apply(object("a", "second", 5, None, &[])), Some(Change::Deleted { certain: true, .. })));
    assert!(store.apply(object("a", "first", 3, None, &[])).is_none());
    assert!(store.is_empty());
}

#[test]
fn a_new_status_keeps_the_note_and_a_new_spec_does_not() {
    let make = |version: u64, generation: i64, status: &str| {
        let text = format!(
            r#"{{"metadata":{{"name":"a","namespace":"n","uid":"u","resourceVersion":"{version}","generation":{generation}}},"status":{status}}}"#
        );
        Object::parse(&text, &config_maps()).unwrap()
    };
    let mut store = Store::new();
    store.apply(make(1, 1, "{}"));
    let key = ObjectKey::new("n", "a");
    store.get(&key).unwrap().settle(7);
    store.apply(make(2, 1, r#"{"x":1}"#));
    assert!(store.get(&key).unwrap().is_settled(7));
    store.apply(make(3, 2, "{}"));
    assert!(!store.get(&key).unwrap().is_settled(7));
}

#[test]
fn tombstones_are_bounded() {
    let mut store = Store::new();
    for index in 0..MAX_TOMBSTONES + 10 {
        store.delete(&ObjectKey::new("n", "x"), &Uid::new(&format!("u{index}")), FOR_EVER);
    }
    assert_eq!((store.gone.len(), store.gone_order.len()), (MAX_TOMBSTONES, MAX_TOMBSTONES));
}

#[derive(Clone, Debug)]
enum Step {
    Apply { name: u8, version: u64, owner: Option<u8>, label: u8 },
    Delete { name: u8 },
    Relist { names: Vec<u8>, version: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..6u8, 1..40u64, proptest::option::of(0..3u8), 0..3u8)
            .prop_map(|(name, version, owner, label)| Step::Apply { name, version, owner, label }),
        1 => (0..6u8).prop_map(|name| Step::Delete { name }),
        1 => (proptest::collection::vec(0..6u8, 0..6), 1..40u64)
            .prop_map(|(names, version)| Step::Relist { names, version }),
    ];
    proptest::collection::vec(step, 0..60)
}

#[derive(Clone)]
struct Known {
    uid: String,
    version: u64,
    owner: Option<u8>,
    label: u8,
}

proptest! {
    /// Whatever happens, the indexes say what a scan of a naive model says, and the bytes add up.
    #[test]
    fn agrees_with_a_naive_model(steps in steps()) {
        let mut store = Store::new();
        store.index_orphans();
        let mut model: std::collections::BTreeMap<u8, Known> = std::collections::BTreeMap::new();
        let mut lives = [0u32; 6];
        for step in steps {
            match step {
                Step::Apply { name, version, owner, label } => {
                    let uid = format!("{name}-{}", lives[name as usize]);
                    let owner_text = owner.map(|owner| format!("p{owner}"));
                    let label_text = label.to_string();
                    let changed = store
                        .apply(object(&name.to_string(), &uid, version, owner_text.as_deref(), &[("l", &label_text)]))
                        .is_some();
                    let newer = model.get(&name).is_none_or(|known| known.version < version);
                    prop_assert_eq!(changed, newer);
                    if newer {
                        model.insert(name, Known { uid, version, owner, label });
                    }
                }
                Step::Delete { name } => {
                    if let Some(known) = model.remove(&name) {
                        store.delete(&ObjectKey::new("n", &name.to_string()), &Uid::new(&known.uid), FOR_EVER);
                        lives[name as usize] += 1;
                    }
                }
                Step::Relist { names, version } => {
                    let mut relist = Relist::default();
                    for name in &names {
                        if let Some(known) = model.get(name) {
                            let owner = known.owner.map(|owner| format!("p{owner}"));
                            let label = known.label.to_string();
                            let object = object(&name.to_string(), &known.uid, known.version, owner.as_deref(), &[("l", &label)]);
                            relist.saw(object.key(), object.uid());
                            store.apply(object);
                        }
                    }
                    store.end_relist(&relist, Version(version), |_| true);
                    let dead: Vec<_> = model.iter().filter(|(name, known)| !names.contains(name) && known.version <= version)
                        .map(|(name, _)| *name).collect();
                    for name in dead {
                        model.remove(&name);
                        lives[name as usize] += 1;
                    }
                }
            }
            prop_assert_eq!(names(store.iter()), model.keys().map(u8::to_string).collect::<Vec<_>>());
            for owner in 0..3u8 {
                let expected: Vec<_> = model.iter().filter(|(_, k)| k.owner == Some(owner)).map(|(n, _)| n.to_string()).collect();
                prop_assert_eq!(names(store.owned_by(&Uid::new(&format!("p{owner}")))), expected);
            }
            for label in 0..3u8 {
                let expected: Vec<_> = model.iter().filter(|(_, k)| k.owner.is_none() && k.label == label).map(|(n, _)| n.to_string()).collect();
                prop_assert_eq!(names(store.orphans(Some("n"), Some(("l", &label.to_string())))), expected);
            }
            prop_assert_eq!(store.bytes(), store.iter().map(|object| object.cost_bytes()).sum::<usize>());
        }
    }
}
