use super::*;
use crate::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING};

const PERIOD_SECS: u64 = 2;

fn lease(namespace: &str, holder: &str, duration_secs: i64) -> ShardLease {
    ShardLease {
        key: ObjectKey::new(namespace, "op-0"),
        uid: Uid::new("u"),
        version: Version(1),
        created: "2026-01-01T00:00:00Z".to_owned(),
        holder: holder.to_owned(),
        duration_secs: Some(duration_secs),
        acquired: Some("a".to_owned()),
        renewed: Some("r-0".to_owned()),
        transitions: 3,
        label: None,
    }
}

/// Leases at the API server, and a clock.
struct World {
    leases: Leases,
    stored: Vec<ShardLease>,
    now: u64,
    writes: u64,
}

impl World {
    /// At second 0 the Leases were listed.
    fn new(dialect: &'static RingDialect, stored: Vec<ShardLease>) -> Self {
        let leases = Leases::new(dialect, Duration::from_secs(PERIOD_SECS));
        let mut world = Self { leases, stored, now: 0, writes: 0 };
        world.list();
        world
    }

    fn clock(&self) -> Duration {
        Duration::from_secs(self.now)
    }

    fn list(&mut self) {
        self.leases.listed(self.clock(), self.stored.clone(), Version::UNKNOWN);
    }

    /// Goes on to a second; the Leases are listed in each until then.
    fn to(&mut self, second: u64) -> &mut Self {
        assert!(second >= self.now);
        while self.now < second {
            self.now += 1;
            self.list();
        }
        self
    }

    /// A shard, or somebody, writes the first Lease.
    fn write(&mut self, change: impl FnOnce(&mut ShardLease)) {
        self.writes += 1;
        let lease = &mut self.stored[0];
        lease.version = Version(lease.version.0 + 1);
        change(lease);
        self.list();
    }

    fn renew(&mut self) {
        let text = format!("r-{}", self.writes + 1);
        self.write(|lease| lease.renewed = Some(text));
    }

    /// The sharder takes it.
    fn take(&mut self, alive: bool) {
        let patch = self.stored[0].take_over(self.leases.dialect, "taken", alive);
        self.write(|lease| {
            lease.holder = patch["spec"]["holderIdentity"].as_str().unwrap().to_owned();
            lease.duration_secs = patch["spec"]["leaseDurationSeconds"].as_i64();
            lease.renewed = Some("taken".to_owned());
            lease.acquired = Some("taken".to_owned());
            lease.transitions = patch["spec"]["leaseTransitions"].as_i64().unwrap();
            lease.label = Some("dead".to_owned());
        });
    }

    fn first(&self) -> Standing<'_> {
        self.leases.standings(self.clock()).next().unwrap()
    }

    /// State, what to write, and the second of the next look.
    fn row(&self) -> (State, Todo, Option<u64>) {
        let first = self.first();
        (first.state, first.todo, first.next.map(|next| next.as_secs()))
    }

    fn holder(&self) -> Holder {
        self.leases.holder(self.clock(), "op-0")
    }

    fn available(&self) -> Vec<String> {
        self.leases.available(self.clock()).map(|name| (**name).to_owned()).collect()
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn states_are_those_of_the_contracts_table() {
    use State::{Dead, Expired, Orphaned, Ready, Uncertain};
    let incomplete = |change: fn(&mut ShardLease)| {
        let mut lease = lease("n", "op-0", 15);
        change(&mut lease);
        lease
    };
    let (held, released) = (lease("n", "op-0", 15), lease("n", "", 1));
    let (foreign, bare) = (lease("n", "shardlease-controller", 30), incomplete(|lease| lease.renewed = None));
    let bare_dead = incomplete(|lease| (lease.holder, lease.renewed) = (String::new(), None));
    // The Lease, for how many seconds it didn't change, its state, and the second of the next one.
    let rows: &[(&ShardLease, u64, State, Option<u64>)] = &[
        (&held, 0, Ready, Some(15)),
        (&held, 14, Ready, Some(15)),
        (&held, 15, Expired, Some(30)),
        (&held, 29, Expired, Some(30)),
        (&held, 30, Uncertain, None),
        (&held, 3000, Uncertain, None),
        (&released, 0, Dead, Some(61)),
        (&released, 60, Dead, Some(61)),
        (&released, 61, Orphaned, None),
        (&foreign, 0, Dead, Some(90)),
        (&foreign, 89, Dead, Some(90)),
        (&foreign, 90, Orphaned, None),
        (&bare, 0, Expired, Some(15)),
        (&bare, 14, Expired, Some(15)),
        (&bare, 15, Uncertain, None),
        (&bare_dead, 0, Dead, Some(60)),
        (&bare_dead, 60, Orphaned, None),
    ];
    let times = &CONTROLLER_SHARDING_RING.lease_times;
    for (lease, silent, state, next) in rows {
        assert_eq!(lease.state(secs(*silent), times), *state, "{} after {silent}", lease.holder);
        assert_eq!(lease.next_state_after(secs(*silent), times), next.map(secs), "{} after {silent}", lease.holder);
    }
    // Ours is lost after D: it is never expired, but for one that lacks a field.
    let rows = [(&held, 14, Ready), (&held, 15, Uncertain), (&bare, 14, Expired), (&bare, 15, Uncertain)];
    for (lease, silent, state) in rows {
        assert_eq!(lease.state(secs(silent), &RINGMASTER_RING.lease_times), state, "{silent}");
    }
    let available = [Ready, Expired, Uncertain, Dead, Orphaned].map(State::is_available);
    assert_eq!(available, [true, true, true, false, false]);
    let labels = [Ready, Expired, Uncertain, Dead, Orphaned].map(State::label);
    assert_eq!(labels, ["ready", "expired", "uncertain", "dead", "dead"]);
}

#[test]
fn a_crashed_shard_is_taken_before_its_objects_move() {
    for (dialect, lost) in [(&CONTROLLER_SHARDING_RING, 30), (&RINGMASTER_RING, 15)] {
        let mut world = World::new(dialect, vec![lease("n", "op-0", 15)]);
        assert_eq!(world.row(), (State::Ready, Todo::Label, Some(15)));
        world.write(|lease| lease.label = Some("ready".to_owned()));
        world.to(10).renew();
        assert_eq!(world.row(), (State::Ready, Todo::Nothing, Some(25)), "from when we saw the renewal");
        world.to(9 + lost);
        assert_eq!((world.holder(), world.available()), (Holder::Available, vec!["op-0".to_owned()]));
        world.to(10 + lost);
        assert_eq!(world.row(), (State::Uncertain, Todo::TakeOver, Some(25 + lost)), "and is tried again");
        assert_eq!(world.holder(), Holder::Available, "not before it is taken");
        world.take(false);
        assert_eq!((world.holder(), world.available()), (Holder::Gone, vec![]));
        assert_eq!(world.row(), (State::Dead, Todo::Nothing, Some(100 + lost)));
        world.to(100 + lost);
        assert_eq!(world.row(), (State::Orphaned, Todo::Delete, None));
        assert_eq!(world.holder(), Holder::Gone);
        world.stored.clear();
        world.list();
        assert_eq!((world.holder(), world.leases.standings(world.clock()).count()), (Holder::Gone, 0));
    }
}

#[test]
fn our_own_label_is_no_sign_of_life() {
    let mut world = World::new(&CONTROLLER_SHARDING_RING, vec![lease("n", "op-0", 15)]);
    world.to(14).write(|lease| lease.label = Some("ready".to_owned()));
    world.to(15);
    assert_eq!(world.row(), (State::Expired, Todo::Label, Some(30)));
}

#[test]
fn a_clock_that_is_wrong_changes_nothing() {
    for renewed in ["1970-01-01T00:00:00.000000Z", "2999-12-31T23:59:59.000000Z"] {
        let mut world = World::new(&CONTROLLER_SHARDING_RING, vec![lease("n", "op-0", 15)]);
        world.to(5).write(|lease| lease.renewed = Some(renewed.to_owned()));
        world.to(19);
        assert_eq!(world.first().state, State::Ready, "{renewed}");
        world.to(35);
        assert_eq!(world.first().state, State::Uncertain, "{renewed}");
    }
}

#[test]
fn a_take_over_has_the_contracts_content() {
    let lease = lease("n", "op-0", 15);
    let patch = lease.take_over(&CONTROLLER_SHARDING_RING, "2026-11-22T15:00:00.000000Z", false);
    let wanted = json!({
        "metadata": {
            "uid": "u",
            "resourceVersion": "1",
            "labels": {"alpha.sharding.timebertt.dev/state": "dead"},
        },
        "spec": {
            "holderIdentity": "shardlease-controller",
            "leaseDurationSeconds": 30,
            "acquireTime": "2026-11-22T15:00:00.000000Z",
            "renewTime": "2026-11-22T15:00:00.000000Z",
            "leaseTransitions": 4,
        },
    });
    assert_eq!(patch, wanted);
    let alive = lease.take_over(&RINGMASTER_RING, "t", true);
    assert_eq!(alive["spec"]["holderIdentity"], "ringmaster-sharder-drain");
    let label = lease.label_patch(&RINGMASTER_RING, State::Expired);
    assert_eq!(label["metadata"]["labels"], json!({"ringmaster.dev/ring-state": "expired"}));
}

#[test]
fn a_released_shard_is_dead_at_once_and_one_that_returns_lives() {
    let mut world = World::new(&CONTROLLER_SHARDING_RING, vec![lease("n", "op-0", 15)]);
    world.to(3).write(|lease| (lease.holder, lease.duration_secs) = (String::new(), Some(1)));
    assert_eq!((world.row().0, world.holder(), world.row().2), (State::Dead, Holder::Gone, Some(64)));
    world.to(8).write(|lease| (lease.holder, lease.duration_secs) = ("op-0".to_owned(), Some(15)));
    assert_eq!((world.row().0, world.holder(), world.row().2), (State::Ready, Holder::Available, Some(23)));
    // The same after a take-over.
    world.to(40).take(false);
    assert_eq!(world.holder(), Holder::Gone);
    world.to(70).write(|lease| lease.holder = "op-0".to_owned());
    assert_eq!((world.first().state, world.holder()), (State::Ready, Holder::Available));
}

#[test]
fn what_a_shard_that_lives_had_is_not_moved_before_it_has_ended() {
    let mut world = World::new(&RINGMASTER_RING, vec![lease("n", "op-0", 15)]);
    world.to(5).take(true);
    assert_eq!((world.first().state, world.holder()), (State::Dead, Holder::Unsure(Some(secs(20)))));
    assert!(world.available().is_empty());
    // A sharder that begins meanwhile doesn't know when it was taken.
    let other = World { now: 12, ..World::new(&RINGMASTER_RING, vec![]) };
    let mut other = World { stored: world.stored.clone(), ..other };
    other.list();
    assert_eq!(other.holder(), Holder::Unsure(Some(secs(27))));
    assert_eq!((other.to(27).holder(), world.to(20).holder()), (Holder::Gone, Holder::Gone));
    // Whoever else takes it, it may be at work.
    let mut world = World::new(&RINGMASTER_RING, vec![lease("n", "op-0", 15)]);
    world.to(5).write(|lease| lease.holder = "somebody".to_owned());
    assert_eq!(world.holder(), Holder::Unsure(Some(secs(20))));
    world.to(10).write(|lease| lease.holder = "another".to_owned());
    assert_eq!(world.holder(), Holder::Unsure(Some(secs(20))));
}

#[test]
fn missing_fields_are_told_and_end() {
    type Change = fn(&mut ShardLease);
    let changes: [(Change, &str); 5] = [
        (|lease| lease.acquired = None, "spec.acquireTime"),
        (|lease| lease.renewed = None, "spec.renewTime"),
        (|lease| lease.duration_secs = None, "spec.leaseDurationSeconds"),
        (|lease| lease.duration_secs = Some(0), "spec.leaseDurationSeconds"),
        (|lease| lease.duration_secs = Some(-15), "spec.leaseDurationSeconds"),
    ];
    for (change, field) in changes {
        let mut stored = lease("n", "op-0", 15);
        change(&mut stored);
        let mut world = World::new(&CONTROLLER_SHARDING_RING, vec![stored]);
        let told: Vec<String> = world.first().missing.iter().map(ToString::to_string).collect();
        assert_eq!((told, world.first().state), (vec![field.to_owned()], State::Expired));
        world.to(15);
        assert_eq!((world.row().0, world.row().1), (State::Uncertain, Todo::TakeOver), "{field}");
        world.take(false);
        assert!(world.first().missing.is_empty() && world.available().is_empty(), "{field}");
    }
    let mut endless = lease("n", "op-0", i64::MAX);
    assert_eq!(endless.duration(), MAX_DURATION);
    endless.transitions = i64::MAX;
    let patch = endless.take_over(&CONTROLLER_SHARDING_RING, "t", false);
    assert_eq!(patch["spec"]["leaseDurationSeconds"], 2 * MAX_DURATION.as_secs());
}

#[test]
fn what_nobody_looked_at_is_not_silence() {
    let mut world = World::new(&CONTROLLER_SHARDING_RING, vec![lease("n", "op-0", 15)]);
    world.to(10).now = 60;
    assert_eq!((world.row(), world.holder()), ((State::Ready, Todo::Nothing, None), Holder::Unsure(None)));
    assert_eq!(world.available(), ["op-0"]);
    world.list();
    assert_eq!((world.row().0, world.holder()), (State::Ready, Holder::Available));
    world.to(89);
    assert_eq!(world.row().0, State::Expired);
    world.to(90);
    assert_eq!(world.row().0, State::Uncertain);
}

#[test]
fn old_news_changes_nothing() {
    let mut world = World::new(&CONTROLLER_SHARDING_RING, vec![lease("n", "op-0", 15)]);
    let old = world.stored[0].clone();
    world.write(|lease| lease.holder = String::new());
    world.leases.saw(world.clock(), old);
    assert_eq!(world.holder(), Holder::Gone);
}

#[test]
fn a_lease_that_is_newer_than_a_list_is_there() {
    let mut world = World::new(&CONTROLLER_SHARDING_RING, Vec::new());
    let new = ShardLease { version: Version(20), ..lease("n", "op-0", 10) };
    world.leases.saw(secs(1), new);
    world.leases.listed(secs(2), Vec::new(), Version(19));
    assert_eq!(world.leases.available(secs(2)).count(), 1, "the list was of before it");
    world.leases.saw(secs(2), ShardLease { uid: Uid::new("before"), version: Version(9), ..lease("n", "op-0", 10) });
    world.leases.vanished(secs(2), &lease("n", "op-0", 10).key, &Uid::new("before"));
    assert_eq!(world.leases.available(secs(2)).count(), 1, "that was its predecessor");
    world.leases.listed(secs(2), Vec::new(), Version(20));
    assert_eq!(world.leases.available(secs(2)).count(), 0, "it was deleted");
}

#[test]
fn a_lease_that_vanished_or_was_never_there_is_waited_for() {
    let mut world = World::new(&CONTROLLER_SHARDING_RING, vec![lease("n", "op-0", 10)]);
    world.to(7).stored.clear();
    world.list();
    assert_eq!((world.holder(), world.available().len()), (Holder::Unsure(Some(secs(27))), 0));
    assert_eq!(world.leases.holder(world.clock(), "never"), Holder::Unsure(Some(secs(30))));
    world.to(12).stored = vec![ShardLease { uid: Uid::new("v"), ..lease("n", "op-0", 10) }];
    world.list();
    assert_eq!(world.holder(), Holder::Available, "it made a new one");
    world.to(13).stored.clear();
    world.to(34);
    assert_eq!((world.holder(), world.leases.holder(world.clock(), "never")), (Holder::Gone, Holder::Gone));
}

#[test]
fn of_two_leases_of_one_name_the_older_that_is_held_counts_alone() {
    let older = lease("z", "op-0", 15);
    let younger = ShardLease { created: "2026-01-01T00:00:01Z".to_owned(), ..lease("a", "op-0", 15) };
    let mut world = World::new(&CONTROLLER_SHARDING_RING, vec![older, younger.clone()]);
    let rivals = |world: &World| -> Vec<(String, Option<String>)> {
        let standings = world.leases.standings(world.clock());
        let told = |standing: Standing<'_>| (standing.lease.key.to_string(), standing.rival.map(ToString::to_string));
        standings.map(told).collect()
    };
    assert_eq!(rivals(&world), [("a/op-0".to_owned(), Some("z/op-0".to_owned())), ("z/op-0".to_owned(), None)]);
    world.to(5).write(|lease| lease.holder = String::new());
    // Whoever holds the other one works: its objects are never moved by force.
    assert_eq!((world.holder(), world.available().len()), (Holder::Available, 1));
    assert_eq!(rivals(&world)[1], ("z/op-0".to_owned(), Some("a/op-0".to_owned())));
    world.stored.remove(0);
    world.list();
    assert_eq!((world.holder(), rivals(&world)), (Holder::Available, vec![("a/op-0".to_owned(), None)]));
    // Of the same second: by namespace.
    let same = ShardLease { key: ObjectKey::new("b", "op-0"), ..younger };
    world.stored.push(same);
    world.list();
    assert_eq!(rivals(&world)[1], ("b/op-0".to_owned(), Some("a/op-0".to_owned())));
}
