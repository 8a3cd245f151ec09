//! A row's way from owner to owner, and what it does when one of them dies or leaves.

use super::*;

#[test]
fn a_row_moves_step_by_step_each_on_its_own_evidence() {
    let mut bench = Bench::granted(&["a1"]);
    bench.join("b1");
    bench.member("a1").leaving = true;
    bench.write();
    assert_eq!(bench.going(), 256);
    // Warm counts only for the row's epoch, under this table, from the next owner.
    let row = bench.table.shards[3].clone();
    for (who, table, epoch) in [("a1", "t", row.epoch.0), ("b1", "old", row.epoch.0), ("b1", "t", row.epoch.0 - 1)] {
        let mut other =
            Bench { planner: bench.planner.clone(), installation: "i".into(), uid: Uid::new("t"), ..bench.copy() };
        other.member(who).report.table = Some(Uid::new(table));
        other.member(who).report.warm.insert(RowId::Shard(3), Epoch(epoch));
        let after = other.plan().write.map(|table| table.shards[3].releasing);
        assert!(matches!(after, None | Some(false)), "{who} {table} {epoch}");
    }
    bench.member("b1").report.warm.insert(RowId::Shard(3), row.epoch);
    bench.write();
    let row = bench.table.shards[3].clone();
    assert_eq!((row.owner.as_ref(), row.next.as_ref(), row.releasing), (Some(&name("a1")), Some(&name("b1")), true));
    assert!(!bench.table.shards[4].releasing);
    for (who, table, epoch) in [("b1", "t", row.epoch.0), ("a1", "old", row.epoch.0), ("a1", "t", row.epoch.0 - 1)] {
        let mut other = bench.copy();
        other.member(who).report.table = Some(Uid::new(table));
        other.member(who).report.released.insert(RowId::Shard(3), Epoch(epoch));
        assert!(other.plan().write.is_none_or(|table| table.shards[3].owner == row.owner), "{who} {table} {epoch}");
    }
    bench.member("a1").report.released.insert(RowId::Shard(3), row.epoch);
    bench.write();
    let row = &bench.table.shards[3];
    assert_eq!((row.owner.as_ref(), row.next.as_ref(), row.releasing), (Some(&name("b1")), None, false));
    assert_eq!(row.epoch, bench.table.counter);
}

#[test]
fn rows_of_the_dead_go_at_once_and_rows_of_the_lost_stay() {
    let mut bench = Bench::granted(&["a1", "b1", "c1"]);
    bench.member("a1").life = Life::Lost;
    bench.rests();
    bench.members.remove(&name("a1"));
    bench.rests();
    bench.join("a1");
    bench.member("a1").life = Life::Dead;
    let plan = bench.write();
    assert_eq!(bench.counts(), [("b1", 128), ("c1", 128)]);
    assert_eq!(plan.notices, [Notice::MemberLost(name("a1"))]);
    assert!(!bench.table.names().contains(&name("a1")));
    // A member that said that it leaves, and released its Lease, has left.
    bench.member("b1").leaving = true;
    bench.member("b1").life = Life::Dead;
    assert_eq!(bench.write().notices, [Notice::MemberLeft(name("b1"))]);
    assert_eq!(bench.counts(), [("c1", 256)]);
    assert!(bench.table.shards.iter().filter(|row| row.forced > 0).count() <= 86);
    // Nobody is left to give them to.
    bench.member("c1").life = Life::Dead;
    bench.write();
    assert_eq!(bench.counts(), [("c1", 256)]);
}

#[test]
fn a_dying_next_is_replaced_or_withdrawn_in_every_step() {
    // Of a leaving owner: another is chosen. Of an owner that stays: the move is off.
    for (leaving, life) in [(true, Life::Dead), (true, Life::Lost), (false, Life::Dead), (false, Life::Lost)] {
        let mut bench = Bench::granted(&["a1"]);
        bench.join("b1");
        bench.member("a1").leaving = leaving;
        bench.write();
        bench.later(10);
        bench.write();
        assert_eq!(bench.going(), if leaving { 256 } else { 128 });
        bench.member("b1").life = life;
        bench.join("c1");
        bench.write();
        let next = bench.table.shards.iter().flat_map(|row| &row.next);
        assert_eq!(next.filter(|next| **next == name("c1")).count(), if leaving { 256 } else { 0 });
    }
    // While the owner releases: whoever has fewest once it has acknowledged, the old owner too.
    for (leaving, heir) in [(false, "a1"), (true, "c1")] {
        let mut bench = Bench::granted(&["a1"]);
        bench.join("b1");
        bench.member("a1").leaving = true;
        bench.write();
        bench.obey("b1");
        bench.write();
        assert!(bench.table.shards.iter().all(|row| row.releasing));
        bench.member("b1").life = Life::Lost;
        bench.rests();
        bench.member("b1").life = Life::Dead;
        bench.member("a1").leaving = leaving;
        if leaving {
            bench.join("c1");
        }
        let before = bench.table.counter;
        bench.write();
        assert!(bench.table.shards.iter().all(|row| row.releasing && row.next.is_none() && row.epoch > before));
        bench.obey("a1");
        bench.write();
        assert_eq!(bench.counts(), [(heir, 256)]);
    }
}

#[test]
fn who_dies_as_owner_leaves_the_row_to_the_next() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.join("c1");
    bench.later(10);
    bench.write();
    bench.later(10);
    bench.write();
    let next: Vec<_> = bench.table.shards.iter().map(|row| row.next.clone()).collect();
    assert_eq!(bench.going(), 85);
    bench.member("a1").life = Life::Dead;
    bench.write();
    let going = bench.table.shards.iter().filter(|row| row.destination() == Some(&name("c1"))).count();
    assert_eq!(going, 128);
    for (shard, next) in next.iter().enumerate().filter(|(_, next)| next.is_some()) {
        let row = &bench.table.shards[shard];
        assert!(row.owner == *next || row.next == *next, "{row:?}");
    }
}

#[test]
fn a_leaver_that_is_alone_keeps_its_rows() {
    let mut bench = Bench::granted(&["a1"]);
    bench.member("a1").leaving = true;
    bench.rests();
    bench.join("b1");
    bench.member("b1").report.table = None;
    bench.write();
    assert_eq!((bench.going(), bench.table.members.len()), (0, 2));
}
