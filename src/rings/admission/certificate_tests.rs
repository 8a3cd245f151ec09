use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn names() -> Vec<String> {
    vec!["ringmaster.system.svc".to_owned(), "127.0.0.1".to_owned()]
}

fn kept() -> Kept {
    after(Step::Make, NOW, None).unwrap()
}

fn after(step: Step, now: Duration, kept: Option<Kept>) -> Option<Kept> {
    follow(step, now, kept, &names()).unwrap()
}

fn step(now: Duration, kept: &Kept, trusted_for: Option<Duration>) -> Step {
    decide(now, Some(kept), &names(), trusted_for)
}

/// Whether a client that trusts `bundle` takes what members show.
fn is_trusted(pair: &Pair, bundle: &str) -> bool {
    same_pem(bundle.as_bytes(), &pair.authority)
}

#[test]
fn a_pair_can_be_shown_and_says_whom_it_is_for() {
    let pair = Pair::make(NOW + Duration::from_millis(3), &names()).unwrap();
    assert_eq!(pair.certified().unwrap().cert.len(), 1);
    assert_eq!((pair.made, pair.ends), (NOW, NOW + VALIDITY));
    let other = Pair::make(NOW, &names()).unwrap();
    assert!(Pair { key: other.key.clone(), ..pair.clone() }.certified().is_err(), "another's key");
    assert!(Pair { certificate: String::new(), ..pair.clone() }.certified().is_err());
    assert!(!format!("{pair:?}").contains("PRIVATE"));
    assert!(!same_pem(pair.authority.as_bytes(), &other.authority) && !same_pem(b"", "x"));
}

#[test]
fn what_cannot_be_made_is_told() {
    let error = Pair::make(NOW, &["\u{e9}".to_owned()]).unwrap_err().to_string();
    assert!(error.contains('\u{e9}'), "{error}");
    assert!(matches!(Pair::make(Duration::MAX, &names()), Err(Error::Clock(_))));
    assert!(Pair::make(Duration::ZERO, &names()).is_ok() && Pair::make(LAST, &names()).is_ok());
}

#[test]
fn the_first_is_made_and_left_alone_for_two_thirds_of_its_time() {
    assert_eq!(decide(NOW, None, &names(), None), Step::Make);
    let kept = kept();
    assert_eq!(kept.bundle(), kept.current.authority);
    let until = NOW + RENEWED_AFTER;
    assert_eq!(RENEWED_AFTER * 3, VALIDITY * 2);
    for now in [NOW, until - MINUTE, NOW - MINUTE] {
        assert_eq!(step(now, &kept, None), Step::Nothing { until });
        assert_eq!(after(Step::Nothing { until }, now, Some(kept.clone())), None);
    }
    assert_eq!(step(until, &kept, None), Step::Announce);
}

#[test]
fn a_rotation_never_shows_what_isnt_trusted() {
    let first = kept();
    let mut now = NOW + RENEWED_AFTER;
    let announced = after(Step::Announce, now, Some(first.clone())).unwrap();
    assert_eq!(announced.current, first.current, "shown on");
    let next = announced.next.clone().unwrap();
    assert!(is_trusted(&first.current, &announced.bundle()) && is_trusted(&next, &announced.bundle()));

    for waits in [None, Some(Duration::ZERO), Some(SETTLED - Duration::from_millis(1))] {
        assert_eq!(step(now, &announced, waits), Step::Await);
        assert_eq!(after(Step::Await, now, Some(announced.clone())), None);
    }
    assert_eq!(step(now, &announced, Some(SETTLED)), Step::Switch);
    now += MINUTE;
    let switched = after(Step::Switch, now, Some(announced)).unwrap();
    assert_eq!((&switched.current, &switched.next), (&next, &None));
    assert!(is_trusted(&first.current, &switched.bundle()), "some members show it still");

    let end = first.current.ends;
    assert_eq!(step(now, &switched, None), Step::Nothing { until: end });
    assert_eq!(step(end - MINUTE, &switched, None), Step::Nothing { until: end });
    assert_eq!(step(end, &switched, None), Step::Forget);
    let forgotten = after(Step::Forget, end, Some(switched)).unwrap();
    assert_eq!(forgotten.bundle(), next.authority);
    assert_eq!(step(end, &forgotten, None), Step::Nothing { until: next.made + RENEWED_AFTER });
}

#[test]
fn what_has_ended_is_replaced_at_once() {
    let first = kept();
    let end = NOW + VALIDITY;
    assert_eq!(step(end, &first, None), Step::Make);
    let made = after(Step::Make, end, Some(first.clone())).unwrap();
    assert_eq!((made.current.made, made.retired.len()), (end, 0));

    let announced = after(Step::Announce, end - MINUTE, Some(first)).unwrap();
    assert_eq!(step(end, &announced, None), Step::Switch, "whoever trusts it or not");
    assert_eq!(step(end + VALIDITY, &announced, None), Step::Make, "neither can be used");
}

#[test]
fn what_a_wrong_clock_made_is_replaced() {
    let first = kept();
    assert_eq!(step(NOW - BACKDATED, &first, None), Step::Nothing { until: NOW + RENEWED_AFTER });
    let early = NOW - BACKDATED - MINUTE;
    assert_eq!(step(early, &first, None), Step::Make, "the API server wouldn't take it");
    let made = after(Step::Make, early, Some(first.clone())).unwrap();
    assert!(is_trusted(&first.current, &made.bundle()));
}

#[test]
fn other_names_are_announced_too() {
    let first = kept();
    let mut wanted = names();
    wanted.push("rings.example".to_owned());
    assert_eq!(decide(NOW, Some(&first), &wanted, None), Step::Announce);
    let announced = follow(Step::Announce, NOW, Some(first), &wanted).unwrap().unwrap();
    assert_eq!(decide(NOW, Some(&announced), &wanted, None), Step::Await);
    assert_eq!(decide(NOW, Some(&announced), &names(), None), Step::Await, "fewer are fine");
    let others = ["else.example".to_owned()];
    assert_eq!(decide(NOW, Some(&announced), &others, Some(SETTLED)), Step::Announce, "it was never shown");
}

#[test]
fn retired_authorities_are_few() {
    let mut kept = kept();
    for turn in 1..=6 {
        let now = NOW + MINUTE * turn;
        let next = Pair::make(now, &names()).unwrap();
        kept = kept.showing(next, now);
    }
    assert_eq!(kept.retired.len(), MAX_RETIRED);
    let latest = NOW + MINUTE * 5 + VALIDITY;
    assert_eq!(kept.retired.first().unwrap().ends, latest, "those that end first gave way");
}
