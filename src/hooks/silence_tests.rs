//! Replicas that come to hang, and who is cut off by that.

use super::*;

/// A shard whose parents are called at a replica.
async fn shard_at(route: &Route, replica: &Replica) -> u8 {
    for shard in 0..=u8::MAX {
        let before = replica.calls();
        call(route, 1, shard).await.unwrap();
        if replica.calls() > before {
            return shard;
        }
    }
    panic!("it has none");
}

#[tokio::test]
async fn who_hangs_after_an_answer_is_found_out_by_whoever_waits() {
    const TIMEOUT: u64 = 2000;
    let (a, b) = tokio::join!(Replica::start(Does::Answer(200)), Replica::start(Does::Answer(200)));
    let world = world(&webhook(urls(&[&a, &b]), TIMEOUT));
    let shard = shard_at(&world.route, &a).await;
    a.does(Does::HangCalls);
    let (start, before) = (Instant::now(), a.calls());
    let (waiting, ()) = tokio::join!(call(&world.route, 1, shard), async {
        until(|| a.calls() > before).await;
        // It is well while another call is made, and nobody calls there afterwards.
        a.does(Does::Answer(200));
        call(&world.route, 1, shard).await.unwrap();
        a.does(Does::Hang);
    });
    assert_eq!(waiting.unwrap_err().error.reason(), "Silent");
    assert!(start.elapsed() < Duration::from_millis(TIMEOUT + 100), "{:?}", start.elapsed());
    call(&world.route, 1, shard).await.unwrap();
    assert_eq!(world.route.standing().ejected, [a.name()]);
}

#[tokio::test]
async fn who_has_more_time_is_not_cut_off_by_who_has_less() {
    let (a, b) = tokio::join!(Replica::start(Does::Answer(200)), Replica::start(Does::Answer(200)));
    let world = world(&webhook(urls(&[&a, &b]), 1000));
    let patient = webhook(urls(&[&a, &b]), 20_000);
    let patient = world.hooks.route(&patient, false, 1 << 20, Arc::clone(&world.told) as Arc<dyn Listener>).unwrap();
    let shard = shard_at(&world.route, &a).await;
    a.does(Does::Wait);
    let (answer, ()) = tokio::join!(call(&patient, 2, shard), async {
        until(|| a.running() == 1).await;
        a.does(Does::Hang);
        assert_eq!(call(&world.route, 1, shard).await.unwrap_err().error.reason(), "Silent");
        a.shared.open.notify_waiters();
    });
    answer.unwrap();
}
