//! What a demo came to, told at its end: the same figures whether the story was played once or somebody ended it.
//!
//! Pure. Never judges, and leaves out what didn't happen.

use std::time::Duration;

use super::scaling;
use super::story::Outcome;
use super::view::{View, short};

/// The last of each kind of act that came to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Played {
    /// A member more.
    pub(crate) more: Option<Outcome>,
    /// One less.
    pub(crate) fewer: Option<Outcome>,
    /// One killed.
    pub(crate) killed: Option<Outcome>,
    /// More replicas of the webhook: from so many to so many.
    pub(crate) up: Option<((usize, usize), scaling::Change)>,
    /// Fewer.
    pub(crate) down: Option<((usize, usize), scaling::Change)>,
    /// One of them killed.
    pub(crate) dead: Option<scaling::Change>,
    /// And started again.
    pub(crate) back: Option<scaling::Change>,
}

/// The figures, a line each; `ready` is how long it took until all Websites were.
pub(crate) fn summary(view: &View, ready: Option<Duration>, played: &Played) -> String {
    let mut lines = vec![changes(view, ready), hook(view)];
    let gap = |outcome: &Outcome| {
        let (moved, longest) = (outcome.moved, short(outcome.longest));
        format!("after {}: {moved} shards moved, each up to {longest} without an owner", short(outcome.took))
    };
    lines.extend(played.more.as_ref().map(|more| format!("one more  {}", gap(more))));
    lines.extend(played.fewer.as_ref().map(|fewer| format!("one less  {}", gap(fewer))));
    lines.extend(
        played
            .killed
            .as_ref()
            .map(|killed| format!("killed    {}; {} objects forgotten", gap(killed), killed.forgotten.len())),
    );
    let moved = |change: &scaling::Change| {
        let (seen, elsewhere) = change.moved;
        format!("{elsewhere} of {seen} Websites moved")
    };
    let scaled = [&played.up, &played.down].into_iter().flatten();
    let scaled: Vec<String> = scaled.map(|((from, to), change)| format!("{from} -> {to}: {}", moved(change))).collect();
    if !scaled.is_empty() {
        lines.push(format!("webhooks  {}", scaled.join("; ")));
    }
    if let Some(dead) = &played.dead {
        let before =
            played.up.as_ref().map(|(_, up)| format!("; {} without that", short(up.usual))).unwrap_or_default();
        let back = played.back.as_ref().map(|back| format!("; back: {}", moved(back))).unwrap_or_default();
        let slowest = short(dead.slowest);
        lines.push(format!("one dies  {}, the slowest change took {slowest}{before}{back}", moved(dead)));
    }
    let steady = &view.steady;
    if steady.calls > 0 {
        lines.push(format!(
            "affinity  {} of {} calls between changes at another replica than the one before; {} of them were a Website's second",
            steady.strayed, steady.calls, steady.again
        ));
    }
    lines.join("\n  ")
}

fn changes(view: &View, ready: Option<Duration>) -> String {
    let wanted = view.wanted;
    let Some(ready) = ready else {
        let (count, seconds) = (view.count("Ready"), view.elapsed.as_secs_f64());
        return format!("{count} of {wanted} Websites ready after {seconds:.1} s");
    };
    let ready = format!("{wanted} of {wanted} Websites ready after {:.1} s", ready.as_secs_f64());
    let (made, waiting, _, longest) = view.wishes;
    match (made, waiting) {
        (0, _) => ready,
        (_, 0) => format!("{ready}; {made} changes since, all served, within {}", short(longest)),
        _ => format!("{ready}; {made} changes since, {waiting} not served yet, the others within {}", short(longest)),
    }
}

fn hook(view: &View) -> String {
    let latency = match (view.total.percentile(50), view.total.percentile(99)) {
        (Some(p50), Some(p99)) => format!("p50 {}, p99 {}", short(p50), short(p99)),
        _ => "no latency known".to_owned(),
    };
    let (calls, failed) = (view.total.answered, view.total.failed);
    let twice = view.wrong_text().unwrap_or_else(|| "never two at a time for one Website".to_owned());
    format!("hook      {calls} calls over HTTP, {latency}, {failed} failed; {twice}")
}

#[cfg(test)]
mod tests {
    use super::super::affinity::Steady;
    use super::*;

    #[test]
    fn what_did_not_happen_is_not_told() {
        let mut view = View { wanted: 3, elapsed: Duration::from_secs(2), ..View::default() };
        let nothing = "0 of 3 Websites ready after 2.0 s\n  hook      0 calls over HTTP, no latency known, 0 failed; never \
                       two at a time for one Website";
        assert_eq!(summary(&view, None, &Played::default()), nothing);
        view.wishes = (7, 1, Duration::ZERO, Duration::from_millis(20));
        view.wrong = (1, Some("two calls".to_owned()));
        view.steady = Steady { calls: 9, again: 2, strayed: 0 };
        let change = scaling::Change { moved: (3, 2), slowest: Duration::from_millis(30), ..Default::default() };
        let outcome = Outcome { moved: 64, took: Duration::from_secs(11), ..Outcome::default() };
        let played = Played {
            killed: Some(Outcome { forgotten: vec!["a".to_owned()], ..outcome }),
            up: Some(((2, 8), change)),
            dead: Some(change),
            ..Played::default()
        };
        let text = summary(&view, Some(Duration::from_secs(1)), &played);
        for line in [
            "3 of 3 Websites ready after 1.0 s; 7 changes since, 1 not served yet, the others within 20 ms",
            "0 failed; WRONG 1 times, first: two calls",
            "killed    after 11.0 s: 64 shards moved, each up to 0.0 ms without an owner; 1 objects forgotten",
            "webhooks  2 -> 8: 2 of 3 Websites moved",
            "one dies  2 of 3 Websites moved, the slowest change took 30 ms; 0.0 ms without that",
            "affinity  0 of 9 calls",
        ] {
            assert!(text.contains(line), "no {line:?} in {text}");
        }
        assert!(!text.contains("one more") && !text.contains("back"), "{text}");
    }
}
