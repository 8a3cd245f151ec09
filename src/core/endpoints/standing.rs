//! What is known of a hook's endpoints, and the condition that it amounts to.
//!
//! Never names more than a few endpoints: a condition is for people.

use std::collections::BTreeMap;
use std::time::Duration;

/// Endpoints that a condition names at most.
pub const MAX_NAMED: usize = 5;
/// An endpoint of several is said to be left out once it has been so for this long: most are back at once, and each of
/// their changes would be a write.
const LEFT_OUT_AFTER: Duration = Duration::from_secs(5);
/// What is known is said to be old once it has been for this long: watches end and begin again.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// What is known of a hook's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many may be called, those that are left out counted.
    pub ready: usize,
    /// How many others there are, which aren't ready.
    pub unready: usize,
    /// Those that are left out for now.
    pub ejected: Vec<String>,
    /// Others that are left out at other members only, and at which.
    pub elsewhere: BTreeMap<String, Vec<String>>,
    /// Those that answer errors only, and the last code of each.
    pub erring: Vec<(String, u16)>,
    /// How they are known.
    pub source: Source,
    /// What is wrong with what TLS needs, or with what calls carry to say who calls.
    pub credentials: Option<String>,
    /// Why what is known can't be read anew, and counts as it was read last.
    pub stale: Option<String>,
}

/// What was told of a hook's endpoints: what ends soon isn't.
#[derive(Clone, Copy, Debug, Default)]
pub struct Damper {
    /// Since when one of them is left out.
    left_out: Option<Duration>,
    /// Since when it is old.
    stale: Option<Duration>,
}

impl Damper {
    /// What is told at this moment, counted from any fixed start.
    pub fn damp(&mut self, mut standing: Standing, now: Duration) -> Standing {
        let lasts = |since: &mut Option<Duration>, is_so: bool, after: Duration| {
            *since = is_so.then(|| since.unwrap_or(now));
            since.is_some_and(|since| now.saturating_sub(since) >= after)
        };
        let is_left_out = lasts(&mut self.left_out, !standing.ejected.is_empty(), LEFT_OUT_AFTER);
        if !is_left_out && standing.ejected.len() < standing.ready {
            standing.ejected.clear();
        }
        if !lasts(&mut self.stale, standing.stale.is_some(), STALE_AFTER) {
            standing.stale = None;
        }
        standing
    }
}

/// How endpoints are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Not yet.
    Unknown,
    /// They were declared, by URL.
    Declared,
    /// By the Service's EndpointSlices.
    Slices,
    /// In the same way, and none is ready: those are called that are being shut down.
    Terminating,
    /// By the Service's name alone, for this reason.
    Name(String),
    /// There is none, for this reason.
    Nothing(String),
}

impl Standing {
    /// Nothing is known yet.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            ready: 0,
            unready: 0,
            ejected: Vec::new(),
            elsewhere: BTreeMap::new(),
            erring: Vec::new(),
            source: Source::Unknown,
            credentials: None,
            stale: None,
        }
    }

    /// Status, reason and message of the condition `EndpointsReady`.
    #[must_use]
    pub fn condition(&self) -> (&'static str, &'static str, String) {
        let all = self.ready + self.unready;
        let counts = match &self.source {
            Source::Slices | Source::Terminating => format!("{} of {all} endpoints are ready", self.ready),
            _ if all == 1 => "the only endpoint is known".to_owned(),
            _ => format!("there are {all} endpoints"),
        };
        let old = self.stale.as_ref().map(|why| format!("; as it was read last: {why}")).unwrap_or_default();
        let counts = counts + &old;
        if let Some(problem) = &self.credentials {
            return ("False", "BadCredentials", format!("{problem}; {counts}"));
        }
        match &self.source {
            Source::Unknown => return ("Unknown", "NotRead", "the endpoints are not known yet".to_owned()),
            Source::Nothing(why) => return ("False", "NoEndpoints", why.clone()),
            _ if self.ready == 0 => return ("False", "NoEndpoints", counts),
            Source::Terminating => {
                let text = format!("none of {all} endpoints is ready; {} that shut down are called{old}", self.ready);
                return ("False", "OnlyTerminating", text);
            }
            Source::Declared | Source::Slices | Source::Name(_) => {}
        }
        if self.ejected.len() >= self.ready {
            let by = match &self.source {
                Source::Name(why) => format!("; called by the Service's name: {why}"),
                _ => old,
            };
            let text = if self.ready == 1 {
                format!("the only endpoint can't be reached: {}{by}", some(&self.ejected))
            } else {
                format!("none of {} ready endpoints can be reached: {}{by}", self.ready, some(&self.ejected))
            };
            return ("False", "NoneAnswers", text);
        }
        let elsewhere = self.elsewhere.iter().map(|(name, members)| match &members[..] {
            [member] => format!("{name} (at {member})"),
            members => format!("{name} (at {} members)", members.len()),
        });
        let left: Vec<String> = self.ejected.iter().cloned().chain(elsewhere).collect();
        if !left.is_empty() {
            return ("False", "LeftOut", format!("{counts}; left out for now: {}", some(&left)));
        }
        if !self.erring.is_empty() {
            let erring = self.erring.iter().map(|(name, code)| match code {
                0 => format!("{name} (replies that can't be taken)"),
                code => format!("{name} ({code})"),
            });
            let erring: Vec<String> = erring.collect();
            let text = if self.ready == 1 {
                format!("the only endpoint answers errors only: {}", some(&erring))
            } else {
                format!("{counts}; errors only come from {} of them: {}", erring.len(), some(&erring))
            };
            return ("False", "AnswersErrors", text);
        }
        if self.stale.is_some() {
            return ("Unknown", "Stale", counts);
        }
        match &self.source {
            Source::Name(why) => ("True", "ByName", format!("called by the Service's name: {why}")),
            _ => ("True", "Ready", counts),
        }
    }
}

fn some(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMED {
        text.push_str(", ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ready: usize, unready: usize, source: Source) -> Standing {
        Standing { ready, unready, source, ..Standing::unknown() }
    }

    #[track_caller]
    fn says(standing: &Standing, wanted: (&str, &str), part: &str) {
        let (status, reason, text) = standing.condition();
        assert_eq!((status, reason), wanted, "{text}");
        assert!(text.contains(part), "{text}");
    }

    #[test]
    fn the_worst_is_said_first_and_counts_always() {
        says(&Standing::unknown(), ("Unknown", "NotRead"), "not known");
        says(&of(3, 1, Source::Slices), ("True", "Ready"), "3 of 4");
        says(&of(1, 0, Source::Declared), ("True", "Ready"), "the only endpoint is known");
        says(&of(1, 0, Source::Name("no slices".into())), ("True", "ByName"), "no slices");
        says(&of(0, 2, Source::Slices), ("False", "NoEndpoints"), "0 of 2");
        says(&of(0, 0, Source::Nothing("no port 80".into())), ("False", "NoEndpoints"), "no port 80");
        says(&of(1, 2, Source::Terminating), ("False", "OnlyTerminating"), "none of 3");
        let names = |count: usize| (0..count).map(|n| format!("a{n}")).collect::<Vec<_>>();
        let left = |ready, count| Standing { ejected: names(count), ..of(ready, 0, Source::Slices) };
        says(
            &left(8, 7),
            ("False", "LeftOut"),
            "8 of 8 endpoints are ready; left out for now: a0, a1, a2, a3, a4, ...",
        );
        let at = |members: &[&str]| members.iter().map(|member| (*member).to_owned()).collect::<Vec<_>>();
        let elsewhere = BTreeMap::from([("b".to_owned(), at(&["m1"])), ("c".to_owned(), at(&["m1", "m2"]))]);
        let elsewhere = Standing { elsewhere, ..left(2, 1) };
        let told = "2 of 2 endpoints are ready; left out for now: a0, b (at m1), c (at 2 members)";
        says(&elsewhere, ("False", "LeftOut"), told);
        says(&left(2, 2), ("False", "NoneAnswers"), "a0, a1");
        let by_name = Standing { ejected: names(1), ..of(1, 0, Source::Name("there is no Service n/s".into())) };
        says(
            &by_name,
            ("False", "NoneAnswers"),
            "can't be reached: a0; called by the Service's name: there is no Service n/s",
        );
        let erring = Standing { erring: vec![("a".into(), 500)], ..of(2, 0, Source::Declared) };
        says(&erring, ("False", "AnswersErrors"), "there are 2 endpoints; errors only come from 1 of them: a (500)");
        let old = |standing| Standing { stale: Some("forbidden".into()), ..standing };
        let last = "; as it was read last: forbidden";
        says(&old(of(3, 1, Source::Slices)), ("Unknown", "Stale"), &format!("3 of 4 endpoints are ready{last}"));
        says(&old(left(2, 2)), ("False", "NoneAnswers"), &format!("reached: a0, a1{last}"));
        says(&old(of(1, 2, Source::Terminating)), ("False", "OnlyTerminating"), last);
        let untrusted = Standing { credentials: Some("caBundle: x".into()), ..left(2, 2) };
        says(&untrusted, ("False", "BadCredentials"), "caBundle: x; 2 of 2");
    }

    #[test]
    fn what_ends_soon_is_not_told() {
        let (mut damper, at) = (Damper::default(), Duration::from_secs);
        let mut left = |ready, ejected: &[&str], now| {
            let ejected = ejected.iter().map(|name| (*name).to_owned()).collect();
            damper.damp(Standing { ejected, ..of(ready, 0, Source::Slices) }, at(now)).ejected.len()
        };
        assert_eq!([left(2, &["a"], 1), left(2, &["a"], 5), left(2, &["a"], 6)], [0, 0, 1]);
        assert_eq!([left(2, &[], 7), left(2, &["a"], 8), left(2, &["a", "b"], 9)], [0, 0, 2], "all of them at once");
        let mut old = |stale: bool, now| {
            let standing = Standing { stale: stale.then(String::new), ..of(1, 0, Source::Slices) };
            damper.damp(standing, at(now)).stale.is_some()
        };
        assert_eq!([old(true, 10), old(true, 39), old(true, 40), old(false, 41)], [false, false, true, false]);
        assert_eq!([old(true, 42), old(true, 71), old(true, 72)], [false, false, true]);
    }
}
