//! Cases for a member's duty.

use super::duty::{Do, Done, Duty};
use super::{Becoming, ControllerName, ControllerRow, Mode, NO_TABLE, Report, Row, RowId, Table};
use crate::key::{Epoch, MemberName, Uid};

const S: RowId = RowId::Shard(7);

fn uid(text: &str) -> Uid {
    Uid::new(text)
}

fn whole() -> RowId {
    RowId::Controller(uid("c"))
}

fn row(owner: &str, next: &str, releasing: bool, epoch: u64) -> Row {
    let name = |text: &str| (!text.is_empty()).then(|| MemberName::new(text));
    Row { owner: name(owner), next: name(next), releasing, forced: 0, epoch: Epoch(epoch) }
}

/// A table in which only shard 7 is anybody's; its counter is the row's epoch.
fn shard(owner: &str, next: &str, releasing: bool, epoch: u64) -> Table {
    let mut table = Table::new("i".into(), Epoch(1));
    table.shards[7] = row(owner, next, releasing, epoch);
    table.counter = Epoch(epoch);
    table
}

/// A table with one controller.
fn controller(mode: Mode, becoming: Option<Becoming>, row: Row) -> Table {
    let mut table = Table::new("i".into(), Epoch(1));
    table.counter = row.epoch;
    table.members.insert(MemberName::new("me"));
    let name = ControllerName { group: "g".into(), name: "c".into() };
    table.controllers.insert(name, ControllerRow { uid: uid("c"), mode, becoming, row });
    table
}

fn me() -> Duty {
    Duty::new(MemberName::new("me"))
}

fn epoch(duty: &Duty) -> Option<Epoch> {
    duty.running(&S).map(|(_, epoch)| epoch)
}

fn runs_controller(duty: &Duty) -> Option<Mode> {
    let mode = duty.running(&whole()).map(|(mode, _)| mode);
    assert_eq!(duty.runs_wholes(), mode == Some(Mode::Whole));
    mode
}

fn report(table: &str, highest: u64, warm: &[(RowId, u64)], released: &[(RowId, u64)]) -> Report {
    let rows = |rows: &[(RowId, u64)]| rows.iter().map(|(id, epoch)| (id.clone(), Epoch(*epoch))).collect();
    Report { table: Some(uid(table)), highest: Epoch(highest), warm: rows(warm), released: rows(released) }
}

#[test]
fn a_row_is_warmed_started_carried_on_and_released() {
    let (mut duty, t) = (me(), uid("t"));
    assert_eq!(duty.report(), Report::default());
    assert_eq!(duty.see(&t, &shard("you", "me", false, 2)), [Do::Warm(S, Epoch(2))]);
    assert_eq!(duty.report(), report("t", 2, &[], &[]));
    assert_eq!(duty.done(Done::Warm(S, Epoch(2))), []);
    assert_eq!(duty.report(), report("t", 2, &[(S, 2)], &[]));
    assert_eq!((duty.shards().0.len(), duty.shards().1.contains(7)), (0, true));
    assert_eq!(duty.see(&t, &shard("you", "me", true, 3)), []);
    assert_eq!(duty.report(), report("t", 3, &[], &[]));
    assert_eq!(duty.see(&t, &shard("me", "", false, 4)), [Do::Start(S, Epoch(4))]);
    assert_eq!((duty.shards().0.contains(7), duty.shards().1.len(), epoch(&duty)), (true, 0, Some(Epoch(4))));
    assert_eq!(duty.see(&t, &shard("me", "you", false, 5)), [Do::Epoch(S, Epoch(5))]);
    assert_eq!(duty.see(&t, &shard("me", "you", true, 6)), [Do::Release(S, Epoch(6))]);
    // Silent until all of its work is over; another answer doesn't count.
    assert_eq!(duty.done(Done::Released(S, Epoch(5))), []);
    assert_eq!((duty.report(), epoch(&duty), duty.is_idle()), (report("t", 6, &[], &[]), None, false));
    assert_eq!(duty.done(Done::Released(S, Epoch(6))), []);
    assert_eq!((duty.report(), duty.is_idle()), (report("t", 6, &[], &[(S, 6)]), true));
    assert_eq!(duty.see(&t, &shard("you", "", false, 7)), []);
    assert_eq!(duty.report(), report("t", 7, &[], &[]));
}

#[test]
fn old_news_changes_nothing() {
    let (mut duty, t) = (me(), uid("t"));
    duty.see(&t, &shard("me", "", false, 4));
    for old in [shard("me", "you", true, 4), shard("", "", false, 3)] {
        assert_eq!(duty.see(&t, &old), []);
        assert_eq!(duty.see(&uid("older"), &old), []);
    }
    assert_eq!((epoch(&duty), duty.report()), (Some(Epoch(4)), report("t", 4, &[], &[])));
    // A table that was left doesn't come back.
    assert_eq!(duty.see(&uid("u"), &shard("", "", false, 9)), [Do::Release(S, Epoch(4))]);
    assert_eq!(duty.see(&t, &shard("me", "", false, 5)), []);
}

#[test]
fn an_acknowledgement_is_for_the_newest_epoch_and_the_row_starts_only_under_a_newer_one() {
    let (mut duty, t) = (me(), uid("t"));
    duty.see(&t, &shard("me", "you", true, 4));
    // Never started, so at once.
    assert_eq!(duty.report(), report("t", 4, &[], &[(S, 4)]));
    // The next one died: the same release under another epoch.
    duty.see(&t, &shard("me", "", true, 5));
    assert_eq!(duty.report(), report("t", 5, &[], &[(S, 5)]));
    assert_eq!(duty.see(&t, &shard("me", "", false, 6)), [Do::Start(S, Epoch(6))]);
    assert_eq!(duty.see(&t, &shard("me", "", true, 7)), [Do::Release(S, Epoch(7))]);
    assert_eq!(duty.see(&t, &shard("me", "", true, 8)), []);
    assert_eq!(duty.done(Done::Released(S, Epoch(7))), []);
    assert_eq!(duty.report(), report("t", 8, &[], &[(S, 8)]));
    // A row that kept the epoch under which it was released isn't started.
    let mut same = shard("me", "", false, 9);
    same.shards[7].epoch = Epoch(7);
    assert_eq!(duty.see(&t, &same), []);
}

#[test]
fn what_comes_while_a_release_lasts_waits_for_it() {
    let (mut duty, t) = (me(), uid("t"));
    duty.see(&t, &shard("me", "", false, 2));
    assert_eq!(duty.see(&t, &shard("me", "you", true, 3)), [Do::Release(S, Epoch(3))]);
    assert_eq!(duty.see(&t, &shard("me", "", false, 4)), []);
    assert_eq!(duty.done(Done::Released(S, Epoch(3))), [Do::Start(S, Epoch(4))]);
    // Taken by force, and to be warmed at once.
    assert_eq!(duty.see(&t, &shard("you", "me", false, 5)), [Do::Release(S, Epoch(5))]);
    assert_eq!(duty.report(), report("t", 5, &[], &[]));
    assert_eq!(duty.done(Done::Released(S, Epoch(5))), [Do::Warm(S, Epoch(5))]);
}

#[test]
fn a_withdrawn_next_cools_and_late_answers_count_for_nothing() {
    let (mut duty, t) = (me(), uid("t"));
    duty.see(&t, &shard("you", "me", false, 2));
    assert_eq!(duty.see(&t, &shard("you", "", false, 3)), [Do::Cool(S)]);
    assert_eq!(duty.done(Done::Warm(S, Epoch(2))), []);
    assert_eq!(duty.see(&t, &shard("you", "me", false, 4)), [Do::Warm(S, Epoch(4))]);
    duty.done(Done::Warm(S, Epoch(2)));
    assert_eq!(duty.report(), report("t", 4, &[], &[]));
    duty.done(Done::Warm(S, Epoch(4)));
    // Withdrawn and set anew while this member heard nothing: it says so anew.
    assert_eq!(duty.see(&t, &shard("you", "me", false, 6)), [Do::Warm(S, Epoch(6))]);
    assert_eq!(duty.report(), report("t", 6, &[], &[]));
    // Heard of first when the owner is already stopping.
    assert_eq!(me().see(&t, &shard("you", "me", true, 6)), [Do::Warm(S, Epoch(6))]);
}

#[test]
fn another_table_counts_once_all_is_over_under_the_old_one() {
    let (mut duty, t, u) = (me(), uid("t"), uid("u"));
    let mut two = shard("me", "", false, 2);
    two.shards[8] = row("you", "me", false, 2);
    duty.see(&t, &two);
    duty.done(Done::Warm(RowId::Shard(8), Epoch(2)));
    let new = shard("me", "", false, 10);
    assert_eq!(duty.see(&u, &new), [Do::Release(S, Epoch(2)), Do::Cool(RowId::Shard(8))]);
    assert_eq!(duty.report(), report("t", 10, &[], &[]));
    assert_eq!(duty.see(&u, &shard("me", "you", true, 11)), []);
    assert_eq!(duty.report(), report("t", 11, &[], &[]));
    assert_eq!(duty.see(&u, &shard("me", "", false, 12)), []);
    assert_eq!(duty.done(Done::Released(S, Epoch(2))), [Do::Start(S, Epoch(12))]);
    assert_eq!(duty.report(), report("u", 12, &[], &[]));
}

#[test]
fn without_the_kind_everything_stops_until_a_newer_table_comes() {
    let (mut duty, t) = (me(), uid("t"));
    duty.see(&t, &shard("me", "", false, 2));
    assert_eq!(duty.see_none(), [Do::Release(S, Epoch(2))]);
    assert_eq!(duty.report(), report("t", 2, &[], &[]));
    assert_eq!(duty.done(Done::Released(S, Epoch(2))), []);
    assert_eq!(duty.report(), report(NO_TABLE, 2, &[], &[]));
    assert_eq!(duty.see(&t, &shard("me", "", false, 2)), []);
    assert_eq!(duty.see(&uid("u"), &shard("me", "", false, 3)), [Do::Start(S, Epoch(3))]);
    assert_eq!(duty.report(), report("u", 3, &[], &[]));
}

#[test]
fn a_process_that_ends_releases_and_starts_nothing() {
    let (mut duty, t) = (me(), uid("t"));
    let mut two = shard("me", "", false, 2);
    two.shards[8] = row("you", "me", false, 2);
    duty.see(&t, &two);
    assert_eq!(duty.stop(), [Do::Release(S, Epoch(2)), Do::Cool(RowId::Shard(8))]);
    two.shards[9] = row("me", "", false, 3);
    two.counter = Epoch(3);
    assert_eq!(duty.see(&t, &two), []);
    assert!(!duty.is_idle());
    assert_eq!(duty.done(Done::Released(S, Epoch(2))), []);
    assert!(duty.is_idle());
    // It still acknowledges.
    duty.see(&t, &shard("me", "you", true, 4));
    assert_eq!(duty.report(), report("t", 4, &[], &[(S, 4)]));
}

#[test]
fn a_sharded_controller_is_everybodys_until_it_closes() {
    let (mut duty, t) = (me(), uid("t"));
    let share = Do::Share(uid("c"), Epoch(2));
    assert_eq!(duty.see(&t, &controller(Mode::Sharded, None, row("", "", false, 2))), [share]);
    assert_eq!(runs_controller(&duty), Some(Mode::Sharded));
    for (becoming, epoch) in [(Becoming::Whole, 3), (Becoming::Gone, 4)] {
        let closing = controller(Mode::Sharded, Some(becoming), row("", "", true, epoch));
        let orders = if epoch == 3 { vec![Do::Release(whole(), Epoch(3))] } else { Vec::new() };
        assert_eq!(duty.see(&t, &closing), orders);
        assert_eq!((duty.report(), runs_controller(&duty)), (report("t", epoch, &[], &[]), None));
    }
    duty.done(Done::Released(whole(), Epoch(3)));
    assert_eq!(duty.report(), report("t", 4, &[], &[(whole(), 4)]));
    duty.see(&t, &Table::new("i".into(), Epoch(5)));
    assert_eq!(duty.report(), report("t", 5, &[], &[]));
    // Who isn't counted on has no share.
    let mut stranger = controller(Mode::Sharded, None, row("", "", false, 2));
    stranger.members.clear();
    assert_eq!(me().see(&t, &stranger), []);
    // Who never worked on it acknowledges too.
    let mut other = me();
    other.see(&t, &controller(Mode::Whole, Some(Becoming::Gone), row("you", "", true, 9)));
    assert_eq!(other.report(), report("t", 9, &[], &[(whole(), 9)]));
}

#[test]
fn a_whole_labels_before_it_is_sharded() {
    let (mut duty, t) = (me(), uid("t"));
    assert_eq!(duty.see(&t, &controller(Mode::Whole, None, row("me", "", false, 2))), [Do::Start(whole(), Epoch(2))]);
    assert_eq!(runs_controller(&duty), Some(Mode::Whole));
    let labelling = |epoch| controller(Mode::Whole, Some(Becoming::Sharded), row("me", "", false, epoch));
    let label = |epoch| Do::Label(uid("c"), Epoch(epoch));
    assert_eq!(duty.see(&t, &labelling(3)), [Do::Epoch(whole(), Epoch(3)), label(3)]);
    assert_eq!(duty.report(), report("t", 3, &[], &[]));
    // The wish changed, and again: older labels don't count.
    duty.see(&t, &controller(Mode::Whole, None, row("me", "", false, 4)));
    duty.done(Done::Labelled(uid("c"), Epoch(3)));
    assert_eq!(duty.see(&t, &labelling(5)), [Do::Epoch(whole(), Epoch(5)), label(5)]);
    duty.done(Done::Labelled(uid("c"), Epoch(3)));
    assert_eq!(duty.report(), report("t", 5, &[], &[]));
    duty.done(Done::Labelled(uid("c"), Epoch(5)));
    assert_eq!(duty.report(), report("t", 5, &[(whole(), 5)], &[]));
    let closing = controller(Mode::Whole, Some(Becoming::Sharded), row("me", "", true, 6));
    assert_eq!(duty.see(&t, &closing), [Do::Release(whole(), Epoch(6))]);
    assert!(!duty.runs_wholes());
    assert_eq!(duty.report(), report("t", 6, &[], &[]));
    duty.done(Done::Released(whole(), Epoch(6)));
    assert_eq!(duty.report(), report("t", 6, &[], &[(whole(), 6)]));
    let sharded = controller(Mode::Sharded, None, row("", "", false, 7));
    assert_eq!(duty.see(&t, &sharded), [Do::Share(uid("c"), Epoch(7))]);
    // Who gets a whole that is being labelled starts and labels.
    assert_eq!(me().see(&t, &labelling(3)), [Do::Start(whole(), Epoch(3)), label(3)]);
}

#[test]
fn a_controller_without_a_row_is_nobodys() {
    let (mut duty, t) = (me(), uid("t"));
    duty.see(&t, &controller(Mode::Sharded, None, row("", "", false, 2)));
    assert_eq!(duty.see(&t, &Table::new("i".into(), Epoch(3))), [Do::Release(whole(), Epoch(2))]);
    assert_eq!(runs_controller(&duty), None);
    // The mode can't change under it without a release either.
    let mut duty = me();
    duty.see(&t, &controller(Mode::Sharded, None, row("", "", false, 2)));
    let whole_now = controller(Mode::Whole, None, row("me", "", false, 3));
    assert_eq!(duty.see(&t, &whole_now), [Do::Release(whole(), Epoch(3))]);
}

#[test]
fn a_row_that_lost_three_owners_is_suspect() {
    let (mut duty, t) = (me(), uid("t"));
    for (forced, suspect) in [(0, false), (2, false), (3, true), (9, true)] {
        let mut table = shard("me", "", false, 2 + u64::from(forced));
        table.shards[7].forced = forced;
        duty.see(&t, &table);
        assert_eq!((duty.is_poisoned(&S), duty.is_poisoned(&whole())), (suspect, false));
    }
}
