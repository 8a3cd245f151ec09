//! Which rows move for balance, and when; who gets nothing for a while, and which rows are told of.

use super::*;

#[test]
fn moves_for_balance_wait_for_calm_and_are_as_few_as_can_be() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.join("c1");
    let plan = bench.write();
    assert_eq!((bench.going(), plan.settling), (0, true));
    assert_eq!(plan.look_again, Some(bench.now + Duration::from_secs(10)));
    // Each change starts the wait anew.
    bench.later(9);
    bench.join("d1");
    bench.write();
    bench.later(9);
    bench.rests();
    bench.later(1);
    bench.write();
    assert_eq!(bench.going(), 128);
    let writes = bench.run();
    assert_eq!(bench.counts(), [("a1", 64), ("b1", 64), ("c1", 64), ("d1", 64)]);
    assert!(writes <= 3, "{writes}");
    // At most a minute, however restless.
    let mut bench = Bench::granted(&["a1"]);
    for second in 0..=55 {
        if second % 5 == 0 {
            bench.join(&format!("m{}1", char::from(b'a' + second / 5)));
            bench.write();
        }
        assert_eq!(bench.going(), 0, "{second}");
        bench.later(1);
    }
    bench.later(3);
    bench.join("n1");
    bench.write();
    assert_eq!(bench.going(), 0);
    bench.later(1);
    bench.write();
    assert!(bench.going() > 200);
}

#[test]
fn one_member_more_or_less_moves_its_share() {
    for count in 1..8 {
        let names: Vec<String> = (0..count).map(|member| format!("m{member}x")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut bench = Bench::granted(&names);
        bench.join("new1");
        bench.later(1);
        bench.write();
        bench.later(10);
        let mut writes = usize::from(bench.write().write.is_some());
        assert_eq!(bench.going(), 256 / (count + 1));
        writes += bench.run();
        assert!(writes <= 4, "{writes}");
        // And away again.
        bench.member("new1").leaving = true;
        bench.write();
        assert_eq!(bench.going(), 256 / (count + 1));
        bench.run();
        bench.member("new1").life = Life::Dead;
        bench.later(20);
        bench.run();
        assert!(
            bench.counts().iter().all(|(_, shards)| 256 / count <= *shards && *shards <= 256_usize.div_ceil(count))
        );
    }
}

#[test]
fn a_rolling_restart_with_one_surge_moves_each_shard_once() {
    for pace in [2, 8, 15] {
        let mut bench = Bench::granted(&["a1", "b1", "c1"]);
        bench.later(100);
        let mut moved = 0;
        for (old, new) in [("a1", "d1"), ("b1", "e1"), ("c1", "f1")] {
            bench.join(new);
            bench.later(2);
            let before = bench.table.clone();
            bench.run();
            bench.member(old).leaving = true;
            bench.run();
            moved += before.shards.iter().zip(&bench.table.shards).filter(|(old, new)| old.owner != new.owner).count();
            bench.later(1);
            bench.member(old).life = Life::Dead;
            bench.run();
            bench.later(pace);
        }
        let before = bench.table.clone();
        bench.later(100);
        bench.run();
        moved += before.shards.iter().zip(&bench.table.shards).filter(|(old, new)| old.owner != new.owner).count();
        assert!((256..=260).contains(&moved), "{moved} at a pace of {pace}");
    }
}

#[test]
fn who_crashes_again_and_again_gets_nothing_while_others_can() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.later(100);
    bench.member("b1").life = Life::Dead;
    bench.write();
    for (restart, pause) in [(2, 20), (3, 40), (4, 80)] {
        let member = format!("b{restart}");
        bench.join(&member);
        let until = bench.now + Duration::from_secs(pause);
        let plan = bench.write();
        let told = [Notice::MemberJoined(name(&member)), Notice::CrashLoop("b".into(), until)];
        assert_eq!((plan.notices, plan.look_again), (told.to_vec(), Some(until)));
        bench.later(pause - 1);
        bench.run();
        assert_eq!(bench.counts(), [("a1", 256)]);
        bench.later(1);
        bench.run();
        assert_eq!(bench.counts().len(), 2, "{member}");
        bench.later(1);
        bench.member(&member).life = Life::Dead;
        bench.write();
    }
    // Better it than nobody.
    bench.join("b5");
    bench.member("a1").life = Life::Dead;
    bench.write();
    assert_eq!(bench.counts(), [("b5", 256)]);
    // A second process of the same base isn't a restart, and one that left in order didn't crash.
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.join("b2");
    assert_eq!(bench.write().notices, [Notice::MemberJoined(name("b2"))]);
    bench.member("b2").leaving = true;
    bench.run();
    bench.member("b2").life = Life::Dead;
    bench.write();
    bench.members.remove(&name("b2"));
    bench.join("b3");
    assert_eq!(bench.write().notices, [Notice::MemberJoined(name("b3"))]);
    // What is long ago is forgotten.
    bench.member("b3").life = Life::Dead;
    bench.write();
    bench.later(600);
    bench.join("b4");
    assert_eq!(bench.write().notices, [Notice::MemberJoined(name("b4"))]);
}

#[test]
fn a_row_that_loses_owner_after_owner_is_told_of_once() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.planner = Planner::new(Settings { pause: Duration::ZERO, ..Settings::default() });
    bench.write();
    let mut told = 0;
    for death in 1..=4 {
        let victim = bench.owner(0).to_owned();
        bench.later(60);
        bench.member(&victim).life = Life::Dead;
        let plan = bench.write();
        assert_eq!(bench.table.shards[0].forced, death);
        told += plan.notices.iter().filter(|notice| **notice == Notice::Poisoned(RowId::Shard(0))).count();
        assert_eq!(told, usize::from(death >= 3));
        bench.join(&format!("x{death}"));
        bench.write();
    }
    // After ten minutes without a death it is a row like any other.
    bench.later(600);
    let victim = bench.owner(0).to_owned();
    bench.member(&victim).life = Life::Dead;
    bench.write();
    assert_eq!(bench.table.shards[0].forced, 1);
    bench.join("y1");
    bench.later(600);
    let victim = bench.owner(0).to_owned();
    bench.member(&victim).leaving = true;
    bench.run();
    assert_eq!(bench.table.shards[0].forced, 0);
}
