use proptest::prelude::*;

use super::*;
use crate::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING};

const NOW: Duration = Duration::from_secs(100);
const RULES: Rules = Rules { drain_limit: Duration::from_secs(30), escalates: false };
const SOON: Holder = Holder::Unsure(Some(Duration::from_secs(107)));
const WAIT_FOR_LEASE: Step<'static> = Step::Wait { why: Why::Lease, until: Some(Duration::from_secs(107)) };

fn wait(why: Why) -> Step<'static> {
    Step::Wait { why, until: None }
}

fn main_object<'a>(shard: &'a str, holder: Holder, desired: &'a str) -> Subject<'a> {
    Subject {
        shard: Some(shard),
        holder,
        is_draining: false,
        draining_since: None,
        desired: named(Some(desired)),
        is_selected: true,
        part: Part::Main { children_follow: true },
    }
}

fn child<'a>(shard: &'a str, owner: Owner<'a>, desired: &'a str) -> Subject<'a> {
    Subject { part: Part::Controlled(owner), ..main_object(shard, Holder::Available, desired) }
}

fn owner(shard: &str, holder: Holder) -> Owner<'_> {
    Owner::Main { shard: Some(shard), holder, is_selected: true }
}

fn decided<'a>(subject: &Subject<'a>) -> Step<'a> {
    decide(NOW, subject, &RULES)
}

#[test]
fn a_main_object_goes_by_acknowledgement_then_children_then_itself() {
    use Holder::{Available, Gone};
    let draining = |since: u64| Subject {
        is_draining: true,
        draining_since: Some(Duration::from_secs(since)),
        ..main_object("a", Available, "b")
    };
    let children_behind =
        |subject: Subject<'static>| Subject { part: Part::Main { children_follow: false }, ..subject };
    let asked = |since: u64| Step::Wait {
        why: Why::Acknowledgement(Duration::from_secs(since)),
        until: Some(Duration::from_secs(since + 30)),
    };
    let rows = [
        (main_object("", Gone, "a"), Step::Assign("a")),
        (Subject { shard: None, ..main_object("", Gone, "a") }, Step::Assign("a")),
        (children_behind(main_object("", Gone, "a")), wait(Why::Children)),
        (main_object("", Gone, ""), wait(Why::NoShard)),
        (main_object("a", Available, "a"), Step::Nothing),
        (children_behind(main_object("a", Available, "a")), Step::Nothing),
        (main_object("a", Available, "b"), Step::Drain),
        (children_behind(main_object("a", Available, "b")), Step::Drain),
        (draining(90), asked(90)),
        (Subject { draining_since: None, ..draining(0) }, asked(100)),
        (draining(71), asked(71)),
        (draining(70), wait(Why::Overdue(Duration::from_secs(70)))),
        (Subject { desired: Some("a"), ..draining(10) }, Step::Keep),
        (main_object("a", Available, ""), Step::Nothing),
        (Subject { is_draining: true, ..main_object("a", Available, "") }, wait(Why::NoShard)),
        (main_object("a", Gone, "b"), Step::Move { to: "b" }),
        (Subject { holder: Gone, ..draining(70) }, Step::Move { to: "b" }),
        (children_behind(main_object("a", Gone, "b")), wait(Why::Children)),
        (main_object("a", Gone, ""), wait(Why::NoShard)),
        (main_object("a", SOON, "b"), WAIT_FOR_LEASE),
        (main_object("a", Holder::Unsure(None), ""), wait(Why::Lease)),
    ];
    for (subject, step) in rows {
        assert_eq!(decided(&subject), step, "{subject:?}");
    }
}

#[test]
fn a_drain_that_is_overdue_is_escalated_only_if_the_ring_says_so() {
    let since = Duration::from_secs(70);
    let subject =
        Subject { is_draining: true, draining_since: Some(since), ..main_object("a", Holder::Available, "b") };
    let rules = Rules { escalates: true, ..RULES };
    assert_eq!(decide(NOW, &subject, &rules), Step::Escalate { shard: "a", since });
    let before = NOW.saturating_sub(Duration::from_millis(1));
    assert!(matches!(decide(before, &subject, &rules), Step::Wait { why: Why::Acknowledgement(_), .. }));
    // Its Lease was taken: not its objects, until it has ended.
    assert_eq!(decide(NOW, &Subject { holder: SOON, ..subject }, &rules), WAIT_FOR_LEASE);
}

#[test]
fn a_child_is_where_its_owner_is() {
    use Holder::{Available, Gone};
    let nobodys = Owner::Main { shard: None, holder: Gone, is_selected: true };
    let rows = [
        (child("", owner("a", Available), "b"), Step::Assign("a")),
        (child("a", owner("a", Available), "b"), Step::Nothing),
        (child("b", owner("a", Available), "b"), Step::Move { to: "a" }),
        (Subject { is_draining: true, ..child("a", owner("a", Available), "b") }, Step::Keep),
        // Acknowledged, or never assigned: before its owner.
        (child("a", nobodys, "b"), Step::Move { to: "b" }),
        (child("", nobodys, "b"), Step::Assign("b")),
        (child("a", owner("", Gone), "b"), Step::Move { to: "b" }),
        (child("a", owner("a", Gone), "b"), Step::Move { to: "b" }),
        (Subject { holder: Gone, ..child("a", nobodys, "") }, wait(Why::NoShard)),
        (child("a", nobodys, ""), Step::Nothing),
        (child("a", owner("a", SOON), "b"), Step::Nothing),
        (child("", owner("a", SOON), "b"), WAIT_FOR_LEASE),
        (child("b", owner("a", SOON), "b"), WAIT_FOR_LEASE),
        // Hashed apart from its owner, or without one in the ring: at once, as the contract has it.
        (child("", Owner::Apart, "b"), Step::Assign("b")),
        (child("a", Owner::Apart, "b"), Step::Move { to: "b" }),
        (child("b", Owner::Apart, "b"), Step::Nothing),
        (child("", Owner::Apart, ""), wait(Why::NoShard)),
    ];
    for (subject, step) in rows {
        assert_eq!(decided(&subject), step, "{subject:?}");
    }
}

#[test]
fn what_left_the_selection_loses_its_labels_the_main_object_first() {
    use Holder::{Available, Gone};
    let left = |subject: Subject<'static>| Subject { is_selected: false, ..subject };
    let owner_left = |shard| Owner::Main { shard, holder: Available, is_selected: false };
    let rows = [
        (main_object("", Gone, "a"), Step::Nothing),
        (Subject { is_draining: true, ..main_object("", Gone, "a") }, Step::Unlabel),
        (main_object("a", Available, "a"), Step::Drain),
        (Subject { is_draining: true, ..main_object("a", Available, "a") }, {
            let until = Some(Duration::from_secs(130));
            Step::Wait { why: Why::Acknowledgement(NOW), until }
        }),
        (main_object("a", Gone, "b"), Step::Unlabel),
        (main_object("a", SOON, "b"), WAIT_FOR_LEASE),
        (child("", owner("a", Available), "a"), Step::Nothing),
        (child("a", owner("a", Available), "a"), Step::Unlabel),
        (child("a", owner_left(Some("a")), "a"), wait(Why::Owner)),
        (child("a", owner_left(Some("")), "a"), Step::Unlabel),
        (child("a", owner_left(None), "a"), Step::Unlabel),
        (child("a", Owner::Apart, "a"), Step::Unlabel),
        (Subject { is_draining: true, ..child("", Owner::Apart, "a") }, Step::Unlabel),
    ];
    for (subject, step) in rows {
        let subject = left(subject);
        assert_eq!(decided(&subject), step, "{subject:?}");
    }
}

#[test]
fn patches_are_the_contracts() {
    let patch = |step: Step<'_>| step.patch(&CONTROLLER_SHARDING_RING, "r", Version(7));
    let (shard, drain) = ("shard.alpha.sharding.timebertt.dev/r", "drain.alpha.sharding.timebertt.dev/r");
    let wanted = |labels: Value| Some(json!({"metadata": {"resourceVersion": "7", "labels": labels}}));
    assert_eq!(patch(Step::Assign("a")), wanted(json!({shard: "a", drain: null})));
    assert_eq!(patch(Step::Move { to: "a" }), wanted(json!({shard: "a", drain: null})));
    assert_eq!(patch(Step::Drain), wanted(json!({drain: "true"})));
    assert_eq!(patch(Step::Keep), wanted(json!({drain: null})));
    assert_eq!(patch(Step::Unlabel), wanted(json!({shard: null, drain: null})));
    let none = [Step::Nothing, wait(Why::NoShard), Step::Escalate { shard: "a", since: NOW }];
    assert_eq!(none.map(patch), [None, None, None]);
    let ours = Step::Drain.patch(&RINGMASTER_RING, "r", Version(7)).unwrap();
    assert_eq!(ours["metadata"]["labels"], json!({"drain.ring.ringmaster.dev/r": "true"}));
}

#[test]
fn a_conflict_means_to_look_again() {
    use Next::{Done, Gone, LookAgain, Refused, Unknown};
    let answers = [Some(200), Some(201), Some(409), Some(404), Some(403), Some(422), Some(429), Some(503), None];
    let wanted = [Done, Done, LookAgain, Gone, Refused, Refused, Unknown, Unknown, Unknown];
    assert_eq!(answers.map(next), wanted);
}

const SHARDS: [&str; 3] = ["a", "b", "c"];

/// What happens around an object and its two children.
#[derive(Clone, Copy, Debug)]
enum Happens {
    /// The object, or a child, is looked at, and what is decided is written.
    Look(usize),
    /// The object's shard acknowledges a drain.
    Acknowledge,
    /// A shard ends, and its Lease is released or taken.
    Ends(usize),
    /// A shard comes, or comes back.
    Comes(usize),
    /// The hash gives the object to another.
    Rehash(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0..3_usize).prop_map(Happens::Look),
        2 => Just(Happens::Acknowledge),
        1 => (0..3_usize).prop_map(Happens::Ends),
        1 => (0..3_usize).prop_map(Happens::Comes),
        1 => (0..3_usize).prop_map(Happens::Rehash),
    ]
}

#[derive(Debug, Default)]
struct World {
    /// Labels of the object and its children.
    labels: [Option<&'static str>; 3],
    is_draining: bool,
    available: [bool; 3],
    favourite: usize,
}

impl World {
    fn holder(&self, shard: Option<&str>) -> Holder {
        let available = SHARDS.iter().zip(self.available).any(|(name, is)| is && Some(*name) == shard);
        if available { Holder::Available } else { Holder::Gone }
    }

    fn desired(&self) -> Option<&'static str> {
        (0..3).map(|step| (self.favourite + step) % 3).find(|shard| self.available[*shard]).map(|shard| SHARDS[shard])
    }

    fn step(&self, at: usize) -> Step<'static> {
        let (shard, desired) = (self.labels[at], self.desired());
        let part = if at == 0 {
            Part::Main { children_follow: self.labels[1..].iter().all(|label| *label == desired) }
        } else {
            let holder = self.holder(self.labels[0]);
            Part::Controlled(Owner::Main { shard: self.labels[0], holder, is_selected: true })
        };
        let subject = Subject {
            shard,
            holder: self.holder(shard),
            is_draining: at == 0 && self.is_draining,
            draining_since: Some(NOW),
            desired,
            is_selected: true,
            part,
        };
        decided(&subject)
    }

    fn look(&mut self, at: usize) {
        let step = self.step(at);
        match step {
            Step::Assign(to) | Step::Move { to } => {
                if at == 0 {
                    assert_eq!(self.holder(self.labels[0]), Holder::Gone, "a living shard lets it go first");
                    assert!(self.labels[1..].iter().all(|label| *label == Some(to)), "children are there first");
                    self.is_draining = false;
                } else if let Some(from) = self.labels[at] {
                    let owner_is_there = self.labels[0] == Some(from) && self.holder(Some(from)) == Holder::Available;
                    assert!(!owner_is_there, "no child vanishes from who has its owner");
                }
                self.labels[at] = Some(to);
            }
            Step::Drain => self.is_draining = true,
            Step::Keep => self.is_draining = false,
            Step::Nothing | Step::Wait { .. } => {}
            Step::Unlabel | Step::Escalate { .. } => panic!("{step:?}"),
        }
    }

    fn acknowledge(&mut self) {
        if self.is_draining && self.labels[0].is_some() && self.holder(self.labels[0]) == Holder::Available {
            (self.labels[0], self.is_draining) = (None, false);
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_children_go_after_the_acknowledgement_and_before_the_object(
        events in proptest::collection::vec(happens(), 0..80),
    ) {
        let mut world = World { available: [true; 3], ..World::default() };
        for event in events {
            match event {
                Happens::Look(at) => world.look(at),
                Happens::Acknowledge => world.acknowledge(),
                Happens::Ends(shard) => world.available[shard] = false,
                Happens::Comes(shard) => world.available[shard] = true,
                Happens::Rehash(shard) => world.favourite = shard,
            }
        }
        // Once nothing else happens, all are where they shall be, by few writes.
        world.available[0] = true;
        let mut writes = 0;
        for _ in 0..4 {
            for at in 0..3 {
                writes += usize::from(!matches!(world.step(at), Step::Nothing | Step::Wait { .. }));
                world.look(at);
            }
            world.acknowledge();
        }
        prop_assert_eq!(world.labels, [world.desired(); 3]);
        prop_assert!(!world.is_draining && writes <= 6, "{writes}");
        prop_assert!((0..3).all(|at| world.step(at) == Step::Nothing));
    }
}
