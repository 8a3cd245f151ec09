//! Who may call an endpoint next, while it takes no more calls at once: controllers take turns by what they have running.
//!
//! Never waits: tickets stand for those who do. Of each controller as many wait as there are places, and [`FEWEST_WAITING`]
//! at least: what is beyond comes again later, as whoever waits holds a worker, and what it brings grows old.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;

/// So many of each controller may wait for a place, however few places there are.
pub const FEWEST_WAITING: usize = 4;

/// What became of a wish for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is there.
    Now,
    /// The ticket waits.
    Waits,
    /// Too many wait already: so many.
    Full(usize),
}

/// The places at one endpoint. `W` is whoever wants one: controllers; `T` is a ticket.
#[derive(Debug)]
pub struct Gate<W, T> {
    places: NonZeroUsize,
    running: usize,
    waiting: usize,
    queues: BTreeMap<W, Queue<T>>,
    /// The number of the last turn.
    turn: u64,
}

#[derive(Debug)]
struct Queue<T> {
    running: usize,
    /// When it was served last, in turns.
    served: u64,
    tickets: VecDeque<T>,
}

impl<W: Ord + Clone, T> Gate<W, T> {
    /// A gate with so many places.
    #[must_use]
    pub fn new(places: NonZeroUsize) -> Self {
        Self { places, running: 0, waiting: 0, queues: BTreeMap::new(), turn: 0 }
    }

    /// How many calls run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many tickets wait; some of their holders may have gone.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Somebody wants a place. If it has to wait, `ticket` is made.
    pub fn enter(&mut self, who: &W, ticket: impl FnOnce() -> T) -> Entered {
        // Between an end and the next turn, whoever comes stands behind those who wait.
        let is_free = self.running < self.places.get() && self.waiting == 0;
        let most_waiting = self.most_waiting();
        // Whoever comes stands behind all who are there.
        self.turn += 1;
        let new = Queue { running: 0, served: self.turn, tickets: VecDeque::new() };
        let queue = self.queues.entry(who.clone()).or_insert(new);
        if is_free {
            self.turn += 1;
            (queue.running, queue.served) = (queue.running + 1, self.turn);
            self.running += 1;
            return Entered::Now;
        }
        let waiting = queue.tickets.len();
        if waiting >= most_waiting {
            return Entered::Full(waiting);
        }
        queue.tickets.push_back(ticket());
        self.waiting += 1;
        Entered::Waits
    }

    /// Whether no more of `who` may wait.
    #[must_use]
    pub fn is_full(&self, who: &W) -> bool {
        self.queues.get(who).is_some_and(|queue| queue.tickets.len() >= self.most_waiting())
    }

    fn most_waiting(&self) -> usize {
        self.places.get().max(FEWEST_WAITING)
    }

    /// A call of `who` has ended.
    pub fn leave(&mut self, who: &W) {
        if let Some(queue) = self.queues.get_mut(who) {
            queue.running = queue.running.saturating_sub(1);
            self.running = self.running.saturating_sub(1);
            if queue.running == 0 && queue.tickets.is_empty() {
                self.queues.remove(who);
            }
        }
    }

    /// There are other places.
    pub fn set_places(&mut self, places: NonZeroUsize) {
        self.places = places;
    }

    /// The next that gets a place, if one is free: of whoever has fewest calls running, and was served longest ago. It
    /// has the place; whoever doesn't want it any more leaves.
    pub fn admit(&mut self) -> Option<(W, T)> {
        if self.running >= self.places.get() {
            return None;
        }
        let waiting = self.queues.iter_mut().filter(|(_, queue)| !queue.tickets.is_empty());
        let (who, queue) = waiting.min_by_key(|(_, queue)| (queue.running, queue.served))?;
        let ticket = queue.tickets.pop_front()?;
        self.turn += 1;
        (queue.running, queue.served) = (queue.running + 1, self.turn);
        self.running += 1;
        self.waiting -= 1;
        Some((who.clone(), ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(places: usize) -> Gate<char, u32> {
        Gate::new(NonZeroUsize::new(places).unwrap())
    }

    fn enter(gate: &mut Gate<char, u32>, who: char, ticket: u32) -> bool {
        match gate.enter(&who, || ticket) {
            Entered::Now => true,
            Entered::Waits => false,
            Entered::Full(_) => panic!("full"),
        }
    }

    #[test]
    fn only_so_many_of_each_wait() {
        let mut gate = gate(5);
        for ticket in 0..10 {
            let entered = gate.enter(&'a', || ticket);
            assert_eq!(entered, if ticket < 5 { Entered::Now } else { Entered::Waits });
        }
        assert_eq!((gate.enter(&'a', || 10), gate.waiting()), (Entered::Full(5), 5));
        assert_eq!(gate.enter(&'b', || 11), Entered::Waits, "another one's bound is its own");
        gate.set_places(NonZeroUsize::MIN);
        gate.leave(&'a');
        assert_eq!(gate.enter(&'c', || 12), Entered::Waits);
    }

    #[test]
    fn who_has_fewest_is_next() {
        let mut gate = gate(3);
        assert!(enter(&mut gate, 'a', 1) && enter(&mut gate, 'a', 2) && enter(&mut gate, 'a', 3));
        for ticket in 4..=6 {
            assert!(!enter(&mut gate, 'a', ticket));
        }
        assert!(!enter(&mut gate, 'b', 10) && !enter(&mut gate, 'b', 11) && !enter(&mut gate, 'c', 20));
        assert_eq!((gate.running(), gate.waiting(), gate.admit()), (3, 6, None));
        let mut order = Vec::new();
        for _ in 0..3 {
            gate.leave(&'a');
            order.extend(gate.admit());
        }
        assert_eq!(order, [('b', 10), ('c', 20), ('a', 4)], "whoever has none, before another has two");
        gate.leave(&'c');
        assert_eq!(gate.admit(), Some(('b', 11)), "served longest ago");
        gate.leave(&'b');
        gate.leave(&'b');
        gate.leave(&'a');
        assert_eq!((gate.admit(), gate.admit(), gate.admit()), (Some(('a', 5)), Some(('a', 6)), None));
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let mut gate = gate(1);
        assert!(enter(&mut gate, 'a', 1) && !enter(&mut gate, 'b', 2));
        gate.leave(&'a');
        assert!(!enter(&mut gate, 'a', 3), "b waits");
        let order: Vec<_> = std::iter::from_fn(|| {
            let next = gate.admit();
            next.inspect(|(who, _)| gate.leave(who))
        })
        .collect();
        assert_eq!(order, [('b', 2), ('a', 3)]);
    }

    #[test]
    fn places_come_and_go() {
        let mut gate = gate(1);
        assert!(enter(&mut gate, 'a', 1) && !enter(&mut gate, 'a', 2) && !enter(&mut gate, 'a', 3));
        gate.set_places(NonZeroUsize::new(2).unwrap());
        assert_eq!((gate.admit(), gate.admit()), (Some(('a', 2)), None));
        gate.set_places(NonZeroUsize::MIN);
        gate.leave(&'a');
        assert_eq!(gate.admit(), None, "one still runs");
        gate.leave(&'a');
        assert_eq!(gate.admit(), Some(('a', 3)));
        gate.leave(&'a');
        gate.leave(&'a');
        assert_eq!((gate.running(), gate.queues.len()), (0, 0), "an idle controller costs nothing");
    }
}
