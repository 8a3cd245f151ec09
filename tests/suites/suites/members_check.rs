//! The checker of members' trials itself: each violation is found in a record that has it, and none in a good one.
//!
//! Two trials need a server: one process under load passes, two that know nothing of each other don't.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::members::check::{
    self, Call, Child, Kind, Pause, Violation, Wish, children, epochs, finalized, headers, order, served, shard_of,
    unwritten,
};
use crate::members::figures::{served_after, silent};
use crate::members::stage::{Plan, SERVED, Stage, told};
use crate::members::table::{History, Table};
use crate::process::Ringmaster;
use crate::server::audit::AuditEntry;
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("members_check", "finds_two_calls_at_one_time", |_| async { overlaps() }),
        Case::alone("members_check", "finds_epochs_that_go_back", |_| async { back() }),
        Case::alone("members_check", "allows_what_a_pause_delays_and_no_more", |_| async { paused() }),
        Case::alone("members_check", "finds_wrong_headers", |_| async { wrong_headers() }),
        Case::alone("members_check", "finds_what_is_not_served", |_| async { not_served() }),
        Case::alone("members_check", "finds_children_made_twice_or_deleted", |_| async { made_twice() }),
        Case::alone("members_check", "finds_finalize_calls_and_writes", |_| async { finalize_and_writes() }),
        Case::alone("members_check", "reads_tables", |_| async { tables() }),
        Case::new("members_check", "passes_one_process_under_load", one_process),
        Case::new("members_check", "finds_two_installations_of_one_controller", two_installations),
    ]
}

/// A record whose times are in milliseconds since its begin.
struct Script {
    zero: Instant,
    calls: Vec<Call>,
}

impl Script {
    fn new() -> Self {
        Self { zero: Instant::now(), calls: Vec::new() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.zero + Duration::from_millis(ms)
    }

    /// One more call of the parent `n/a`, from one time to another.
    fn call(mut self, member: &str, epoch: u64, from: u64, to: u64) -> Self {
        self.calls.push(Call {
            controller: "c".to_owned(),
            parent: "n/a".to_owned(),
            uid: "u".to_owned(),
            number: 1,
            kind: Kind::Sync,
            member: member.to_owned(),
            epoch,
            shard: Some(shard_of("g", "Thing", "n/a")),
            delivery: "d".to_owned(),
            started: self.at(from),
            ended: Some(self.at(to)),
            answered: true,
        });
        self
    }

    /// Changes the last call.
    fn but(mut self, change: impl FnOnce(&mut Call)) -> Self {
        if let Some(call) = self.calls.last_mut() {
            change(call);
        }
        self
    }

    fn pause(&self, member: &str, from: u64, to: u64) -> Pause {
        Pause { member: member.to_owned(), stopped: self.at(from), resumed: Some(self.at(to)) }
    }

    fn count(&self, pauses: &[Pause]) -> [usize; 3] {
        let order = order(&self.calls, pauses);
        let count = |is: fn(&Violation) -> bool| order.violations.iter().filter(|v| is(v)).count();
        [count(|v| matches!(v, Violation::Overlap(_))), count(|v| matches!(v, Violation::EpochBack(_))), order.late]
    }
}

fn overlaps() -> anyhow::Result<()> {
    let good = Script::new().call("m1", 1, 0, 10).call("m2", 2, 10, 20).call("m2", 2, 30, 40);
    ensure!(good.count(&[]) == [0, 0, 0]);
    let one = Script::new().call("m1", 1, 0, 10).call("m2", 2, 9, 20);
    ensure!(one.count(&[]) == [1, 0, 0]);
    let own = Script::new().call("m1", 1, 0, 10).call("m1", 1, 9, 20);
    ensure!(own.count(&[]) == [1, 0, 0], "of one member too");
    let hidden = Script::new().call("m1", 1, 0, 100).call("m1", 1, 10, 20).call("m2", 2, 50, 60);
    ensure!(hidden.count(&[]) == [2, 0, 0], "behind a call that has ended");
    let endless = Script::new().call("m1", 1, 0, 1).but(|call| call.ended = None).call("m2", 2, 5_000, 5_001);
    ensure!(endless.count(&[]) == [1, 0, 0], "a call without an end runs on");
    let others = Script::new().call("m1", 1, 0, 10).call("m2", 2, 5, 20).but(|call| call.parent = "n/b".to_owned());
    ensure!(others.count(&[]) == [0, 0, 0], "of another parent");
    let others = Script::new().call("m1", 1, 0, 10).call("m2", 2, 5, 20).but(|call| call.controller = "d".to_owned());
    ensure!(others.count(&[]) == [0, 0, 0], "of another controller");
    Ok(())
}

fn back() -> anyhow::Result<()> {
    let back = Script::new().call("m1", 3, 0, 10).call("m2", 2, 20, 30).call("m2", 3, 40, 50);
    ensure!(back.count(&[]) == [0, 1, 0]);
    let other = Script::new().call("m1", 3, 0, 10).call("m2", 2, 20, 30).but(|call| call.parent = "n/b".to_owned());
    ensure!(other.count(&[]) == [0, 0, 0], "each parent has its own");
    let shared = Script::new().call("m1", 3, 0, 10).call("m2", 3, 20, 30);
    ensure!(epochs(&shared.calls).len() == 1);
    let moved = Script::new().call("m1", 3, 0, 10).call("m2", 4, 20, 30);
    ensure!(epochs(&moved.calls).is_empty());
    Ok(())
}

fn paused() -> anyhow::Result<()> {
    // Ran when its process was stopped, and was answered after another had begun.
    let ran = Script::new().call("m1", 1, 0, 9_000).call("m2", 2, 8_000, 8_010);
    ensure!(ran.count(&[ran.pause("m1", 5, 20_000)]) == [0, 0, 1]);
    ensure!(ran.count(&[ran.pause("m2", 5, 20_000)]) == [1, 0, 0], "the wrong process was paused");
    ensure!(ran.count(&[ran.pause("m1", 9_500, 20_000)]) == [1, 0, 0], "it had ended before the pause");
    // Let pass before the pause, and sent after it.
    let sent = Script::new().call("m2", 2, 0, 10).call("m1", 1, 5, 20);
    ensure!(sent.count(&[]) == [1, 1, 0]);
    let resumed = [Pause { resumed: Some(sent.at(2)), ..sent.pause("m1", 0, 0) }];
    ensure!(sent.count(&resumed) == [0, 0, 2], "an overlap and an epoch");
    let long = u64::try_from(check::LATE.as_millis())? + 10;
    let later = Script::new().call("m2", 2, 0, 10).call("m1", 1, long, long + 5);
    ensure!(later.count(&[later.pause("m1", 0, 5)]) == [0, 1, 0], "it had long been resumed");
    let same = Script::new().call("m2", 2, 0, 10).call("m1", 2, 5, 20);
    ensure!(same.count(&[same.pause("m1", 0, 4)]) == [1, 0, 0], "without a lower epoch");
    Ok(())
}

fn wrong_headers() -> anyhow::Result<()> {
    let good = Script::new().call("m1", 1, 0, 10);
    ensure!(headers(&good.calls, "g", "Thing").is_empty());
    ensure!(headers(&good.calls, "g2", "Thing").len() == 1, "another group");
    let changes: [fn(&mut Call); 4] =
        [|call| call.member.clear(), |call| call.epoch = 0, |call| call.shard = None, |call| call.delivery.clear()];
    for change in changes {
        ensure!(headers(&Script::new().call("m1", 1, 0, 10).but(change).calls, "g", "Thing").len() == 1);
    }
    Ok(())
}

fn not_served() -> anyhow::Result<()> {
    let wish = |number| [Wish { parent: "n/a".to_owned(), uid: "u".to_owned(), number }];
    let child = |name: &str, number| Child { name: name.to_owned(), owner: "u".to_owned(), number };
    let calls = Script::new().call("m1", 1, 0, 10).calls;
    let both = [child("a-0", 1), child("a-1", 1)];
    ensure!(served(&calls, &wish(1), &both, 2).is_empty());
    let wrong = served(&calls, &wish(2), &both, 2);
    ensure!(matches!(wrong[..], [Violation::NotServed(_), Violation::NotShown(_)]), "{wrong:?}");
    let wrong = served(&calls, &wish(1), &both[..1], 2);
    ensure!(matches!(wrong[..], [Violation::NotShown(_)]), "one is missing: {wrong:?}");
    let wrong = served(&calls, &wish(1), &[child("a-0", 1), child("a-1", 0)], 2);
    ensure!(matches!(wrong[..], [Violation::NotShown(_)]), "one is old: {wrong:?}");
    let unanswered = Script::new().call("m1", 1, 0, 10).but(|call| call.answered = false).calls;
    let wrong = served(&unanswered, &wish(1), &both, 2);
    ensure!(matches!(wrong[..], [Violation::NotServed(_)]), "{wrong:?}");
    let other = Script::new().call("m1", 1, 0, 10).but(|call| call.uid = "v".to_owned()).calls;
    ensure!(served(&other, &wish(1), &both, 2).len() == 1, "a parent of that name before it");
    Ok(())
}

fn entry(verb: &str, resource: &str, name: &str, code: u16) -> AuditEntry {
    AuditEntry {
        verb: verb.to_owned(),
        group: String::new(),
        resource: resource.to_owned(),
        subresource: String::new(),
        namespace: "n".to_owned(),
        name: name.to_owned(),
        uri: String::new(),
        code,
    }
}

fn made_twice() -> anyhow::Result<()> {
    let none = BTreeSet::new();
    let create = || entry("create", "configmaps", "a-0", 201);
    ensure!(children(&[create()], "configmaps", &none).is_empty());
    ensure!(children(&[create(), entry("create", "configmaps", "a-0", 409)], "configmaps", &none).is_empty());
    let twice = children(&[create(), entry("patch", "configmaps", "a-0", 201)], "configmaps", &none);
    ensure!(matches!(twice[..], [Violation::CreatedTwice(_)]), "an apply creates too: {twice:?}");
    ensure!(children(&[create(), create()], "configmaps", &BTreeSet::from(["a-0".to_owned()])).is_empty());
    let deleted = children(&[create(), entry("delete", "configmaps", "a-0", 200)], "configmaps", &none);
    ensure!(matches!(deleted[..], [Violation::Deleted(_)]), "{deleted:?}");
    ensure!(children(&[entry("delete", "configmaps", "a-0", 404)], "configmaps", &none).is_empty());
    Ok(())
}

fn finalize_and_writes() -> anyhow::Result<()> {
    let calls = Script::new().call("m1", 1, 0, 10).but(|call| call.kind = Kind::Finalize).calls;
    ensure!(finalized(&calls, &BTreeSet::new()).len() == 1);
    ensure!(finalized(&calls, &BTreeSet::from(["n/a".to_owned()])).is_empty());
    let status = AuditEntry { subresource: "status".to_owned(), ..entry("patch", "compositecontrollers", "c", 200) };
    let own = [entry("update", "leases", "m1-x", 200), entry("patch", "shardtables", "t", 200), status];
    ensure!(unwritten(&own).is_empty());
    ensure!(unwritten(&[entry("list", "things", "", 200)]).is_empty(), "a read");
    let status = AuditEntry { subresource: "status".to_owned(), ..entry("patch", "things", "a", 200) };
    let wrong = [entry("patch", "things", "a", 200), status, entry("patch", "compositecontrollers", "c", 200)];
    ensure!(unwritten(&wrong).len() == 3);
    Ok(())
}

/// A table of two members' shards; the first `moving` rows go from the first to the second.
pub(super) fn table(version: u64, owned_by_second: usize, releasing: usize) -> Value {
    let row = |shard: usize| {
        let owner = if shard < owned_by_second || shard >= 128 { "m2-b" } else { "m1-a" };
        let is_releasing = (owned_by_second..owned_by_second + releasing).contains(&shard);
        let mut row = json!({ "shard": shard, "owner": owner, "epoch": version });
        if is_releasing {
            (row["next"], row["releasing"]) = ("m2-b".into(), true.into());
        }
        row
    };
    let shards: Vec<Value> = (0..256).map(row).collect();
    json!({
        "metadata": { "name": "ringmaster-0", "uid": "t", "resourceVersion": version.to_string() },
        "status": { "installation": "i", "counter": version, "members": ["m1-a", "m2-b"], "shards": shards,
            "controllers": [{ "group": "ringmaster.dev", "name": "c", "uid": "c", "mode": "Sharded", "epoch": version }] },
    })
}

fn tables() -> anyhow::Result<()> {
    let read = Table::read(&table(7, 0, 0))?;
    ensure!(read.counts() == [("m1-a".to_owned(), 128), ("m2-b".to_owned(), 128)].into(), "{:?}", read.counts());
    ensure!(read.balanced(&["m1-a".to_owned(), "m2-b".to_owned()]).is_ok());
    ensure!(read.balanced(&["m1-a".to_owned()]).is_err(), "an owner that isn't wanted");
    ensure!(read.balanced(&["m1-a".to_owned(), "m2-b".to_owned(), "m3-c".to_owned()]).is_err(), "one has none");
    ensure!(Table::read(&table(7, 2, 0))?.balanced(&read.owners()).is_err(), "126 and 130");
    ensure!(Table::read(&table(7, 0, 1))?.balanced(&read.owners()).is_err(), "one is moving");
    let mut history = History::default();
    let zero = Instant::now();
    for (number, (second, releasing)) in [(0, 0), (0, 2), (1, 1), (2, 0)].into_iter().enumerate() {
        let table = Table::read(&table(7 + number as u64, second, releasing))?;
        history.push(zero + Duration::from_millis(100 * number as u64), table);
    }
    ensure!(history.moved(0) == 2, "{}", history.moved(0));
    ensure!(history.moved(2) == 2 && history.moved(3) == 1, "{} {}", history.moved(2), history.moved(3));
    let gaps: Vec<u128> = history.gaps(0).iter().map(|gap| gap.wait.as_millis()).collect();
    ensure!(gaps == [100, 200], "{gaps:?}");
    ensure!(history.wrong().is_empty(), "{:?}", history.wrong());
    // The first row's gap began after 100 ms, under epoch 9; a parent that came later has no part in it.
    let script = Script { zero, calls: Vec::new() };
    let calls = script.call("m1-a", 7, 50, 60).call("m2-b", 9, 210, 220).but(|call| call.uid = "new".to_owned());
    let mut calls = calls.call("m2-b", 9, 350, 360).calls;
    calls.iter_mut().for_each(|call| call.shard = Some(0));
    let silence = silent(&calls, &history.gaps(0));
    ensure!(silence.len() == 1 && silence.most() == Duration::from_millis(250), "{silence}");
    history.push(zero, Table::read(&table(5, 0, 0))?);
    ensure!(!history.wrong().is_empty(), "its epochs went back");
    Ok(())
}

/// Without a name or a Lease: what the webhook and the log record of it is whole and in order.
async fn one_process(ctx: Context) -> anyhow::Result<()> {
    let plan = Plan { each: 2, is_sharded: false, ..Plan::named("one process") };
    let mut stage = Stage::set(ctx, plan).await?;
    let ringmaster = Ringmaster::start(&stage.ctx)?;
    stage.shown(SERVED).await?;
    stage.start_load();
    stage.play(Duration::from_secs(3)).await;
    stage.stop_load().await?;
    stage.shown(SERVED).await?;
    let (calls, changes) = (stage.hook.calls()?, stage.load.changes());
    let mut violations = order(&calls, &[]).violations;
    violations.extend(children(&stage.ctx.all_requests()?, "configmaps", &stage.deleted_children()));
    violations.extend(finalized(&calls, &stage.load.deleted()));
    ensure!(violations.is_empty(), "{}", told(&violations));
    let waits = served_after(&calls, &changes);
    ensure!(waits.len() >= stage.load.wishes().len(), "{waits}");
    ringmaster.check()
}

/// Another selector makes another installation, even one that matches the same controllers, which nothing can prevent:
/// their calls overlap, and the checker says so.
async fn two_installations(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::set(ctx, Plan { rate: 40, is_sharded: false, ..Plan::named("two installations") }).await?;
    stage.hook.work(Duration::from_millis(30));
    let one = Ringmaster::start(&stage.ctx)?;
    let selector = format!("--target-label-selector=suite={},!other", stage.ctx.id);
    let other = Ringmaster::build(&stage.ctx).arg(selector).start()?;
    stage.start_load();
    let ask = async || {
        let found = stage.hook.read(|calls| order(calls, &[]).violations)?;
        ensure!(found.iter().any(|violation| matches!(violation, Violation::Overlap(_))), "{}", told(&found));
        Ok(())
    };
    stage.ctx.wait("two calls at one time are found", SERVED, ask).await?;
    stage.stop_load().await?;
    one.check()?;
    other.check()
}
