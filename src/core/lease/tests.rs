//! Cases for every rule of Leases; `table/simulation_tests.rs` plays them together.

use super::*;

const TERMS: Terms = Terms {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry_period: Duration::from_secs(2),
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn name(text: &str) -> MemberName {
    MemberName::new(text)
}

fn lease(holder: &str, version: u64) -> Seen {
    Seen { holder: holder.to_owned(), version: Version(version), duration: secs(15), renewed: format!("at {version}") }
}

/// Lists `leases` every second from `from` up to and with `to`.
fn list(observer: &mut Observer, from: u64, to: u64, leases: &[(&str, Seen)], expected: &[&str]) {
    let leases = leases.iter().map(|(of, lease)| (name(of), lease.clone())).collect();
    let expected = expected.iter().map(|of| name(of)).collect();
    for second in from..=to {
        observer.listed(secs(second), &leases, &expected);
    }
}

#[test]
fn terms_that_do_not_fit_name_the_flag_and_the_fix() {
    let terms = |duration: u64, deadline: u64, retry: u64| Terms {
        duration: Duration::from_millis(duration),
        renew_deadline: Duration::from_millis(deadline),
        retry_period: Duration::from_millis(retry),
    };
    for fine in [Terms::default(), terms(5000, 2000, 500), terms(600_000, 477_900, 1), terms(3000, 2, 1)] {
        assert_eq!(fine.validate(), Ok(()), "{fine:?}");
    }
    let cases = [
        (terms(0, 10_000, 2000), "--lease-duration must be more than 0"),
        (terms(15_000, 0, 2000), "--renew-deadline must be more than 0"),
        (terms(15_000, 10_000, 0), "--retry-period must be more than 0"),
        (terms(15_500, 10_000, 2000), "--lease-duration must be whole seconds: use 16s"),
        (
            terms(601_000, 10_000, 2000),
            "--lease-duration must be at most 600s: a crashed member's work waits that long",
        ),
        (terms(15_000, 2000, 2000), "--renew-deadline (2s) must be more than --retry-period (2s)"),
        (
            terms(14_000, 10_000, 2000),
            "--lease-duration (14s) must be at least 1.25 x (--renew-deadline + 2s): raise it to 15s, or lower \
             --renew-deadline",
        ),
        (
            terms(15_000, 10_001, 2000),
            "--lease-duration (15s) must be at least 1.25 x (--renew-deadline + 2s): raise it to 16s, or lower \
             --renew-deadline",
        ),
    ];
    for (bad, message) in cases {
        assert_eq!(bad.validate().unwrap_err().to_string(), message);
    }
}

#[test]
fn silence_for_a_duration_is_loss_and_a_change_ends_it() {
    let (mut observer, a) = (Observer::new(TERMS), name("a"));
    list(&mut observer, 100, 114, &[("a", lease("a", 1))], &[]);
    assert_eq!(observer.life(secs(114), &a), Life::Live);
    assert_eq!(observer.next_change(secs(114)), Some(secs(115)));
    assert_eq!(observer.life(secs(115), &a), Life::Lost);
    assert_eq!(observer.next_change(secs(115)), None);
    assert!(!observer.is_missing(&a));
    list(&mut observer, 115, 116, &[("a", lease("a", 2))], &[]);
    assert_eq!(observer.life(secs(116), &a), Life::Live);
    // The version alone, or the renew time alone, is a change too; the same news again isn't.
    list(&mut observer, 117, 120, &[("a", Seen { version: Version(3), ..lease("a", 2) })], &[]);
    list(&mut observer, 121, 131, &[("a", Seen { renewed: "x".to_owned(), ..lease("a", 3) })], &[]);
    assert_eq!(observer.next_change(secs(131)), Some(secs(136)));
    // Neither is older news.
    observer.saw(secs(132), &a, Some(lease("a", 1)));
    assert_eq!(observer.next_change(secs(132)), Some(secs(136)));
}

#[test]
fn what_was_not_watched_is_not_silence() {
    let (mut observer, a) = (Observer::new(TERMS), name("a"));
    assert_eq!(observer.life(secs(99), &a), Life::Live);
    list(&mut observer, 100, 110, &[("a", lease("a", 1))], &[]);
    // Three retry periods may pass between two lists.
    list(&mut observer, 116, 116, &[("a", lease("a", 1))], &[]);
    assert_eq!(observer.life(secs(116), &a), Life::Lost);
    assert_eq!(observer.life(secs(122), &a), Life::Lost);
    // After that nobody can be judged, until the API server was reached for a whole duration again.
    assert_eq!(observer.life(secs(123), &a), Life::Live);
    assert_eq!(observer.next_change(secs(123)), None);
    list(&mut observer, 123, 137, &[("a", lease("a", 1))], &["b"]);
    assert_eq!(observer.life(secs(137), &a), Life::Live);
    assert_eq!([observer.life(secs(138), &a), observer.life(secs(138), &name("b"))], [Life::Lost; 2]);
}

#[test]
fn a_missing_lease_is_lost_after_a_duration_and_never_dead() {
    let (mut observer, a, b) = (Observer::new(TERMS), name("a"), name("b"));
    list(&mut observer, 100, 101, &[("b", lease("b", 1))], &["a"]);
    observer.saw(secs(102), &b, None);
    list(&mut observer, 103, 117, &[], &["a"]);
    assert_eq!(observer.missing(secs(114)).count(), 0);
    assert_eq!(observer.missing(secs(115)).collect::<Vec<_>>(), [&a]);
    assert_eq!(observer.missing(secs(117)).collect::<Vec<_>>(), [&a, &b]);
    assert!(observer.is_missing(&b) && observer.is_missing(&name("never heard of")));
    assert_eq!(observer.life(secs(117), &name("never heard of")), Life::Live);
    // It comes back, as itself or in the sharder's name.
    observer.saw(secs(118), &a, Some(lease("a", 7)));
    observer.saw(secs(118), &b, Some(lease("sharder", 8)));
    assert_eq!([observer.life(secs(118), &a), observer.life(secs(118), &b)], [Life::Live, Life::Dead]);
}

#[test]
fn who_lost_its_lease_is_dead_for_ever() {
    for holder in ["", "other"] {
        let (mut observer, a) = (Observer::new(TERMS), name("a"));
        list(&mut observer, 100, 100, &[("a", lease("a", 5))], &[]);
        observer.saw(secs(101), &a, Some(lease(holder, 6)));
        assert_eq!(observer.life(secs(101), &a), Life::Dead);
        observer.saw(secs(102), &a, Some(lease("a", 7)));
        assert_eq!(observer.life(secs(102), &a), Life::Dead);
        observer.saw(secs(103), &a, None);
        list(&mut observer, 104, 104, &[], &["a"]);
        assert_eq!(observer.life(secs(104), &a), Life::Dead);
        assert_eq!(observer.missing(secs(150)).count(), 0);
    }
    // Also where it is old news.
    let (mut observer, a) = (Observer::new(TERMS), name("a"));
    list(&mut observer, 100, 100, &[("a", lease("a", 5))], &[]);
    observer.saw(secs(101), &a, Some(lease("other", 4)));
    assert_eq!(observer.life(secs(101), &a), Life::Dead);
    assert_eq!(observer.next_change(secs(101)), None);
}

#[test]
fn a_lease_says_its_own_duration_within_bounds() {
    let lost_after = |duration: u64| {
        let mut observer = Observer::new(TERMS);
        list(&mut observer, 0, 0, &[("a", Seen { duration: secs(duration), ..lease("a", 1) })], &[]);
        observer.next_change(secs(0)).unwrap()
    };
    assert_eq!([5, 30, 0, 100_000].map(lost_after), [secs(5), secs(30), TERMS.duration, MAX_DURATION]);
}

#[test]
fn leases_of_the_dead_go_once_nothing_names_them() {
    let (mut observer, a) = (Observer::new(TERMS), name("a"));
    let named = BTreeSet::from([a.clone()]);
    list(&mut observer, 100, 130, &[("a", lease("", 2)), ("b", lease("b", 1))], &["a"]);
    assert_eq!(observer.deletable(secs(130), &BTreeSet::new()), []);
    list(&mut observer, 131, 145, &[("a", lease("", 2)), ("b", lease("b", 1))], &[]);
    assert_eq!(observer.deletable(secs(145), &BTreeSet::new()), []);
    assert_eq!(observer.deletable(secs(146), &named), []);
    assert_eq!(observer.deletable(secs(146), &BTreeSet::new()), std::slice::from_ref(&a));
    // Deleted, it is remembered to be dead for a while.
    list(&mut observer, 147, 730, &[], &[]);
    assert_eq!(observer.deletable(secs(147), &BTreeSet::new()), []);
    assert_eq!(observer.life(secs(730), &a), Life::Dead);
    list(&mut observer, 731, 731, &[], &[]);
    assert_eq!(observer.names().collect::<Vec<_>>(), [&name("b")]);
}

#[test]
fn a_watcher_of_a_whole_duration_knows_all_who_may_work() {
    let mut observer = Observer::new(TERMS);
    assert_eq!(observer.knows_all_from(secs(99)), None);
    list(&mut observer, 100, 110, &[], &[]);
    assert_eq!(observer.knows_all_from(secs(110)), Some(secs(115)));
    assert_eq!(observer.knows_all_from(secs(117)), None);
    list(&mut observer, 117, 117, &[], &[]);
    assert_eq!(observer.knows_all_from(secs(117)), Some(secs(132)));
}

#[test]
fn the_right_to_work_counts_from_the_sending_of_what_succeeded() {
    let mut right = Right::new(TERMS);
    assert_eq!((right.ends(), right.holds(secs(0)), right.write_timeout(secs(0))), (None, false, None));
    right.sent(secs(100), "a");
    assert_eq!(right.ends(), None);
    right.answered("a", Renewal::Done);
    assert_eq!(right.ends(), Some(secs(110)));
    assert!(right.holds(Duration::from_millis(109_999)) && !right.holds(secs(110)));
    assert_eq!(right.write_timeout(secs(104)), Some(secs(8)));
    assert_eq!([right.write_timeout(secs(110)), right.write_timeout(secs(111))], [None; 2]);
    // Refused, or without an answer: nothing changes.
    right.sent(secs(102), "b");
    right.answered("b", Renewal::Refused);
    right.sent(secs(104), "c");
    right.answered("c", Renewal::Unknown);
    right.sent(secs(106), "d");
    right.answered("d", Renewal::Unknown);
    right.read_back("a");
    right.read_back("b");
    right.answered("never sent", Renewal::Done);
    assert_eq!(right.ends(), Some(secs(110)));
    // Read back, one counts from its own sending, even after it was read; and once.
    right.read_back("c");
    assert_eq!(right.ends(), Some(secs(114)));
    right.sent(secs(108), "e");
    right.answered("e", Renewal::Done);
    right.read_back("d");
    assert_eq!(right.ends(), Some(secs(118)));
}

#[test]
fn only_so_many_renewals_are_remembered() {
    let mut right = Right::new(TERMS);
    for at in 0..=MAX_UNKNOWN_RENEWALS as u64 {
        right.sent(secs(at), &at.to_string());
    }
    right.read_back("0");
    assert_eq!(right.ends(), None);
    right.read_back("1");
    assert_eq!(right.ends(), Some(secs(11)));
}
