//! What the calls of a controller's hooks showed, and at which parents they failed.
//!
//! Never keeps a failure of which no parent is left: parents that are gone, or are synced again, take it along.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use ringmaster_core::condition::HookHealth;
use ringmaster_core::key::ObjectKey;

use crate::units::Shown;

/// A call that was answered, but badly, or too late, counts as the hook's failure once no call succeeded for this long:
/// one bad parent among good ones is that parent's problem.
const FAILING_AFTER: Duration = Duration::from_secs(10);

/// The hooks of a controller by their names: one that answers says nothing of another.
#[derive(Default)]
pub(crate) struct HookNotes(BTreeMap<&'static str, Note>);

/// What the calls of one hook showed.
#[derive(Default)]
struct Note {
    health: HookHealth,
    /// When that was noted.
    at: Duration,
    last_success: Option<Duration>,
    /// The parents whose last call of it failed.
    failed: HashSet<ObjectKey>,
}

impl Note {
    /// A failure is over with the last parent that had one.
    fn settle(&mut self) {
        if self.failed.is_empty() && matches!(self.health, HookHealth::Failing(..)) {
            (self.health, self.at) = match self.last_success {
                Some(at) => (HookHealth::Reachable, at),
                None => (HookHealth::Unknown, Duration::ZERO),
            };
        }
    }
}

impl HookNotes {
    /// What a call of a hook for a parent showed at `now`, which may say of that one call only. Tells whether the hook
    /// is otherwise than before.
    pub(crate) fn note(
        &mut self,
        (hook, parent): (&'static str, &ObjectKey),
        health: HookHealth,
        is_of_one_call: bool,
        now: Duration,
    ) -> bool {
        let note = self.0.entry(hook).or_default();
        match health {
            HookHealth::Unknown => return false,
            HookHealth::Reachable => {
                note.last_success = Some(now);
                note.failed.remove(parent);
            }
            HookHealth::Failing(..) | HookHealth::FinalizeFailing(..) => {
                note.failed.insert(parent.clone());
                let recent = note.last_success.is_some_and(|at| now.saturating_sub(at) < FAILING_AFTER);
                if recent && is_of_one_call {
                    return false;
                }
            }
        }
        let changed = std::mem::discriminant(&note.health) != std::mem::discriminant(&health);
        (note.health, note.at) = (health, now);
        changed
    }

    /// A sync of this parent did all that it wanted, by whichever hooks, or the parent is gone.
    pub(crate) fn forget(&mut self, parent: &ObjectKey) {
        for note in self.0.values_mut() {
            if note.failed.remove(parent) {
                note.settle();
            }
        }
    }

    /// Forgets parents that aren't there any more.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&ObjectKey) -> bool) {
        for note in self.0.values_mut() {
            note.failed.retain(&is_there);
            note.settle();
        }
    }

    /// What the calls of each hook showed last, and when.
    pub(crate) fn shown(&self) -> Shown {
        self.0.iter().map(|(name, note)| (*name, (note.at, note.health.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::overall;

    fn failing() -> HookHealth {
        HookHealth::Failing("BadCode".into(), "x".to_owned())
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("n", name)
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_failure_goes_with_the_last_parent_that_has_it() {
        let (a, b) = (key("a"), key("b"));
        let mut notes = HookNotes::default();
        notes.note(("sync", &a), HookHealth::Reachable, false, at(1));
        assert!(notes.note(("customize", &a), failing(), true, at(2)));
        assert!(!notes.note(("customize", &b), failing(), true, at(3)), "it did before");
        assert_eq!(overall([notes.shown()]), failing(), "the other hook's answer doesn't hide it");
        notes.forget(&a);
        assert_eq!(overall([notes.shown()]), failing(), "b's still failed");
        notes.forget(&b);
        assert_eq!(overall([notes.shown()]), HookHealth::Reachable);
        assert!(notes.note(("customize", &b), failing(), true, at(4)), "it is news again");
        notes.retain(|parent| *parent == a);
        assert_eq!(overall([notes.shown()]), HookHealth::Reachable);
    }

    #[test]
    fn what_is_left_is_what_was_known_before_the_failure() {
        let a = key("a");
        let mut notes = HookNotes::default();
        notes.note(("sync", &a), failing(), false, at(5));
        notes.forget(&a);
        assert_eq!(overall([notes.shown()]), HookHealth::Unknown, "none was ever answered");
        notes.note(("sync", &key("b")), HookHealth::Reachable, false, at(6));
        notes.note(("sync", &a), failing(), false, at(30));
        notes.forget(&a);
        assert_eq!(notes.shown().get("sync"), Some(&(at(6), HookHealth::Reachable)), "as of that time");
    }

    #[test]
    fn a_success_for_another_parent_is_the_hooks_but_not_the_parents() {
        let (a, b) = (key("a"), key("b"));
        let mut notes = HookNotes::default();
        notes.note(("customize", &a), failing(), false, at(1));
        assert!(notes.note(("customize", &b), HookHealth::Reachable, false, at(2)));
        assert!(notes.note(("customize", &b), failing(), false, at(20)));
        notes.forget(&b);
        assert_eq!(overall([notes.shown()]), failing(), "a's last call failed, too");
        notes.note(("customize", &a), HookHealth::Reachable, false, at(21));
        assert_eq!(overall([notes.shown()]), HookHealth::Reachable);
    }
}
