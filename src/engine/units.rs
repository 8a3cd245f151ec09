//! What is known of a controller that has parents of several kinds, from what is known of each: the worst of them.
//!
//! Never knows which unit is which: the texts name the field or the kind.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmaster_core::condition::{Failing, Health, HookHealth};

/// One kind of parents.
pub(crate) struct Unit {
    pub(crate) health: Health,
    /// How long its parent that fails longest has been failing; zero if none does.
    pub(crate) longest: Duration,
    /// When one of those that fail failed last; zero if none does.
    pub(crate) newest: Duration,
}

/// All of them as one; `hook` is what the newest calls of their common hooks showed.
pub(crate) fn sum(units: Vec<Unit>, hook: HookHealth) -> Health {
    let mut all =
        Health { rejected: None, blocked: None, hook, failing: Failing::default(), endpoints: None, placement: None };
    let (mut longest, mut newest) = (Duration::ZERO, Duration::ZERO);
    for unit in units {
        let Health { rejected, blocked, hook: _, failing, endpoints, placement: _ } = unit.health;
        all.rejected = all.rejected.or(rejected);
        all.blocked = all.blocked.or(blocked);
        all.failing.parents += failing.parents;
        all.failing.count += failing.count;
        if all.failing.longest.is_empty() || (unit.longest > longest && !failing.longest.is_empty()) {
            (all.failing.longest, longest) = (failing.longest, unit.longest);
        }
        if all.failing.last.is_empty() || (unit.newest > newest && !failing.last.is_empty()) {
            (all.failing.last, newest) = (failing.last, unit.newest);
        }
        // Their hooks are the same; one that sees trouble with an endpoint says so for all.
        let is_well = all.endpoints.as_ref().is_some_and(|known| known.condition().0 == "True");
        let is_worse = endpoints.as_ref().is_some_and(|known| known.condition().0 != "True");
        if all.endpoints.is_none() || (is_well && is_worse) {
            all.endpoints = endpoints;
        }
    }
    all
}

/// The hook that parents need only in the end.
pub(crate) const FINALIZE: &str = "finalize";

/// What calls of hooks showed last, by the hooks' names, and when.
pub(crate) type Shown = BTreeMap<&'static str, (Duration, HookHealth)>;

/// The worst of the hooks, of each what was shown last by whichever kind's calls.
pub(crate) fn overall(units: impl IntoIterator<Item = Shown>) -> HookHealth {
    let mut hooks = Shown::new();
    for (name, (at, health)) in units.into_iter().flatten() {
        let is_newer = hooks.get(name).is_none_or(|(known, _)| at >= *known);
        if is_newer && health != HookHealth::Unknown {
            hooks.insert(name, (at, health));
        }
    }
    let each = hooks.into_iter().map(|(name, (_, health))| match health {
        HookHealth::Failing(reason, text) if name == FINALIZE => HookHealth::FinalizeFailing(reason, text),
        health => health,
    });
    each.fold(HookHealth::Unknown, HookHealth::or_worse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(count: usize, longest: &str, seconds: u64) -> Unit {
        let failing = Failing { count, parents: 10, longest: longest.to_owned(), last: longest.to_owned() };
        let health = Health {
            rejected: None,
            blocked: None,
            hook: HookHealth::Unknown,
            failing,
            endpoints: None,
            placement: None,
        };
        Unit { health, longest: Duration::from_secs(seconds), newest: Duration::from_secs(seconds) }
    }

    #[test]
    fn parents_add_up_and_the_worst_is_told() {
        let all = sum(vec![unit(0, "", 0), unit(1, "a", 5), unit(2, "b", 9), unit(1, "c", 7)], HookHealth::Unknown);
        assert_eq!((all.failing.parents, all.failing.count), (40, 4));
        assert_eq!((all.failing.longest.as_str(), all.failing.last.as_str()), ("b", "b"));
        let mut blocked = unit(0, "", 0);
        blocked.health.blocked = Some(("Forbidden".into(), "spec.resources[1] can't be watched".to_owned()));
        let all = sum(vec![unit(0, "", 0), blocked], HookHealth::Reachable);
        assert!(all.blocked.is_some_and(|(reason, _)| reason == "Forbidden"));
        assert_eq!(all.hook, HookHealth::Reachable);
    }

    #[test]
    fn the_newest_call_of_a_hook_counts_and_the_worst_hook_is_told() {
        let at = |seconds: u64, health: &HookHealth| (Duration::from_secs(seconds), health.clone());
        let failing = HookHealth::Failing("Timeout".into(), "x".to_owned());
        let of = |name, call| Shown::from([(name, call)]);
        // One kind's last call failed; another's since didn't.
        let calls = [of("sync", at(5, &failing)), of("sync", at(9, &HookHealth::Reachable))];
        assert_eq!(overall(calls), HookHealth::Reachable);
        let calls = [of("sync", at(9, &HookHealth::Reachable)), of("finalize", at(5, &failing))];
        assert_eq!(overall(calls), HookHealth::FinalizeFailing("Timeout".into(), "x".to_owned()));
        let calls = [of("customize", at(5, &failing)), of("finalize", at(9, &failing))];
        assert_eq!(overall(calls), failing);
        assert_eq!(overall([of("sync", at(9, &HookHealth::Unknown))]), HookHealth::Unknown);
        assert_eq!(overall([]), HookHealth::Unknown);
    }
}
