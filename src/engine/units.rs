//! What is known of a controller that has parents of several kinds, from what is known of each: the worst of them.
//!
//! Never knows which unit is which: the texts name the field or the kind.

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

/// All of them as one.
pub(crate) fn sum(units: Vec<Unit>) -> Health {
    let mut all = Health {
        rejected: None,
        blocked: None,
        hook: HookHealth::Unknown,
        failing: Failing::default(),
        endpoints: None,
        placement: None,
    };
    let (mut longest, mut newest) = (Duration::ZERO, Duration::ZERO);
    for unit in units {
        let Health { rejected, blocked, hook, failing, endpoints, placement: _ } = unit.health;
        all.rejected = all.rejected.or(rejected);
        all.blocked = all.blocked.or(blocked);
        all.hook = worse(all.hook, hook);
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

fn worse(one: HookHealth, other: HookHealth) -> HookHealth {
    match (one, other) {
        (failing @ HookHealth::Failing(..), _) | (_, failing @ HookHealth::Failing(..)) => failing,
        (HookHealth::Reachable, _) | (_, HookHealth::Reachable) => HookHealth::Reachable,
        (HookHealth::Unknown, HookHealth::Unknown) => HookHealth::Unknown,
    }
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
        let all = sum(vec![unit(0, "", 0), unit(1, "a", 5), unit(2, "b", 9), unit(1, "c", 7)]);
        assert_eq!((all.failing.parents, all.failing.count), (40, 4));
        assert_eq!((all.failing.longest.as_str(), all.failing.last.as_str()), ("b", "b"));
        let (mut blocked, mut failing) = (unit(0, "", 0), unit(0, "", 0));
        blocked.health.blocked = Some(("Forbidden".into(), "spec.resources[1] can't be watched".to_owned()));
        blocked.health.hook = HookHealth::Reachable;
        failing.health.hook = HookHealth::Failing("Timeout".into(), "x".to_owned());
        let all = sum(vec![unit(0, "", 0), blocked, failing]);
        assert!(all.blocked.is_some_and(|(reason, _)| reason == "Forbidden"));
        assert_eq!(all.hook, HookHealth::Failing("Timeout".into(), "x".to_owned()));
    }
}
