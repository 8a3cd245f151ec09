//! Calls that nobody announced, as those of a customize hook: who finds too many waiting comes again after a growing
//! pause. All have their turn, nobody comes often, and who calls beside them isn't held up.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Entered, Gate, MOST_EXTRA};
use crate::hash::xxh;
use crate::queue::backoff;

const PLACES: usize = 4;
/// What a call takes.
const WORK: Duration = Duration::from_millis(60);

/// A controller's call of this number comes, or one of its calls ends.
#[derive(Clone, Copy)]
enum What {
    Comes(char, usize),
    Ends(char),
}

/// What is to happen, by time and by when it was known.
#[derive(Default)]
struct Plan {
    due: BTreeMap<(Duration, u64), What>,
    known: u64,
}

impl Plan {
    fn at(&mut self, time: Duration, what: What) {
        self.known += 1;
        self.due.insert((time, self.known), what);
    }
}

/// So many calls of one controller come at once, beside one of another's at a time. Answers when the last of the former has
/// its turn, and how often one of them came in vain at most.
fn crowd(calls: usize) -> (Duration, u32) {
    let places = NonZeroUsize::new(PLACES).unwrap();
    let (mut gate, mut plan) = (Gate::new(places), Plan::default());
    gate.set_places(places, MOST_EXTRA);
    (0..calls).for_each(|number| plan.at(Duration::ZERO, What::Comes('a', number)));
    plan.at(Duration::ZERO, What::Comes('b', 0));
    let (mut in_vain, mut served, mut last) = (vec![0; calls], 0, Duration::ZERO);
    while served < calls {
        let ((now, random), what) = plan.due.pop_first().unwrap();
        match what {
            What::Comes(who, number) => {
                let entered = gate.enter(&who, || number);
                match entered {
                    Entered::Now => {
                        (served, last) = (served + usize::from(who == 'a'), now);
                        plan.at(now + WORK, What::Ends(who));
                    }
                    Entered::Waits(_) => {}
                    Entered::Full(_) => {
                        in_vain[number] += 1;
                        plan.at(now + backoff(in_vain[number], xxh(&random.to_le_bytes())), what);
                    }
                }
                if who == 'b' {
                    assert_eq!(entered, Entered::Now, "another one is held up");
                    plan.at(now + 2 * WORK, What::Comes('b', number));
                }
            }
            What::Ends(who) => {
                gate.leave(&who);
                while let Some((who, _)) = gate.admit() {
                    (served, last) = (served + usize::from(who == 'a'), now);
                    plan.at(now + WORK, What::Ends(who));
                }
            }
        }
    }
    (last, in_vain.into_iter().max().unwrap())
}

#[test]
fn who_finds_too_many_waiting_comes_to_its_turn_and_not_often() {
    for (calls, most) in [(100, 8), (1000, 11), (5000, 13)] {
        let (last, in_vain) = crowd(calls);
        let least = WORK * u32::try_from(calls / PLACES).unwrap();
        assert!(last <= 4 * least, "{calls} calls: the last after {last:?}, which take {least:?} at least");
        assert!(in_vain <= most, "{calls} calls: one came {in_vain} times in vain");
    }
}
