//! Who may call an endpoint next, while it takes no more calls at once: controllers take turns by what they have running.
//!
//! Never waits: tickets stand for those who do. Of each controller as many wait as there are places, and [`FEWEST_WAITING`]
//! at least. Whoever is to call announces itself first: what is beyond stays in the queue, where it costs nothing.
//!
//! One call of each controller may have a place, some beyond the others: who isn't answered for long holds no other
//! controller up.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;

/// So many of each controller may wait for a place, however few places there are.
pub const FEWEST_WAITING: usize = 4;

/// What became of a wish for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is there.
    Now,
    /// The ticket of this number waits.
    Waits(u64),
    /// Too many wait already: so many.
    Full(usize),
}

/// The places at one endpoint. `W` is whoever wants one: controllers; `T` is a ticket.
#[derive(Debug)]
pub struct Gate<W, T> {
    places: NonZeroUsize,
    /// So many calls at most run beyond the places, each the only one of its controller.
    extra: usize,
    running: usize,
    waiting: usize,
    coming: usize,
    queues: BTreeMap<W, Queue<T>>,
    /// The number of the last turn.
    turn: u64,
}

#[derive(Debug)]
struct Queue<T> {
    running: usize,
    /// Those who announced themselves and aren't here yet.
    coming: usize,
    /// When it was served last, in turns.
    served: u64,
    /// By their numbers, which are turns.
    tickets: VecDeque<(u64, T)>,
    /// Somebody was told that there is no room, of so much.
    refused: Option<usize>,
}

impl<T> Queue<T> {
    fn all(&self) -> usize {
        self.running + self.coming + self.tickets.len()
    }

    fn is_idle(&self) -> bool {
        self.all() == 0 && self.refused.is_none()
    }

    fn has_room(&self, all: usize, most: usize, most_waiting: usize) -> bool {
        self.coming + self.tickets.len() < most_waiting && (all < most || self.all() == 0)
    }
}

impl<W: Ord + Clone, T> Gate<W, T> {
    /// A gate with so many places.
    #[must_use]
    pub fn new(places: NonZeroUsize) -> Self {
        Self { places, extra: 0, running: 0, waiting: 0, coming: 0, queues: BTreeMap::new(), turn: 0 }
    }

    /// How many calls run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many tickets wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Somebody is to come, if there is room: of `who` as many come and wait at once as may wait, and of all no more than
    /// `most` run, wait or come, but one of each. After a refusal [`Self::has_room`] tells when to ask again.
    pub fn announce(&mut self, who: &W, most: usize) -> bool {
        let (all, most_waiting) = (self.all(), self.most_waiting());
        let queue = self.queue(who);
        let is_free = queue.has_room(all, most, most_waiting);
        if is_free {
            queue.coming += 1;
            self.coming += 1;
        } else {
            queue.refused = Some(most);
        }
        is_free
    }

    /// Somebody who had announced itself is here, or isn't coming.
    pub fn arrive(&mut self, who: &W) {
        if let Some(queue) = self.queues.get_mut(who) {
            queue.coming = queue.coming.saturating_sub(1);
            self.coming = self.coming.saturating_sub(1);
            self.tidy(who);
        }
    }

    /// Those who were refused, and for whom there is room now; each is named once.
    pub fn has_room(&mut self) -> Vec<W> {
        let (all, most_waiting) = (self.all(), self.most_waiting());
        let mut found = Vec::new();
        for (who, queue) in &mut self.queues {
            if queue.refused.is_some_and(|most| queue.has_room(all, most, most_waiting)) {
                queue.refused = None;
                found.push(who.clone());
            }
        }
        found.iter().for_each(|who| self.tidy(who));
        found
    }

    /// Whether more is wanted than runs: all places are taken, or somebody was refused.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.running >= self.places.get() || self.queues.values().any(|queue| queue.refused.is_some())
    }

    fn all(&self) -> usize {
        self.running + self.waiting + self.coming
    }

    /// Somebody wants a place. If it has to wait, `ticket` is made.
    pub fn enter(&mut self, who: &W, ticket: impl FnOnce() -> T) -> Entered {
        // Between an end and the next turn, whoever comes stands behind those who wait.
        let is_free = self.running < self.places.get() && self.waiting == 0;
        let has_extra = self.has_extra();
        let most_waiting = self.most_waiting();
        // Whoever comes stands behind all who are there.
        self.turn += 1;
        let turn = self.turn;
        let queue = self.queue(who);
        if is_free || (has_extra && queue.running == 0 && queue.tickets.is_empty()) {
            (queue.running, queue.served) = (queue.running + 1, turn);
            self.running += 1;
            return Entered::Now;
        }
        let waiting = queue.tickets.len();
        if waiting >= most_waiting {
            return Entered::Full(waiting);
        }
        queue.tickets.push_back((turn, ticket()));
        self.waiting += 1;
        Entered::Waits(turn)
    }

    /// Whoever has this ticket doesn't want it any more. Without effect if its turn has come.
    pub fn withdraw(&mut self, who: &W, number: u64) {
        let Some(queue) = self.queues.get_mut(who) else { return };
        let before = queue.tickets.len();
        queue.tickets.retain(|(of, _)| *of != number);
        self.waiting -= before - queue.tickets.len();
        self.tidy(who);
    }

    fn queue(&mut self, who: &W) -> &mut Queue<T> {
        let served = self.turn;
        let new = || Queue { running: 0, coming: 0, served, tickets: VecDeque::new(), refused: None };
        self.queues.entry(who.clone()).or_insert_with(new)
    }

    fn tidy(&mut self, who: &W) {
        if self.queues.get(who).is_some_and(Queue::is_idle) {
            self.queues.remove(who);
        }
    }

    /// Whether a controller without a running call may have one all the same.
    fn has_extra(&self) -> bool {
        self.running < self.places.get() + self.extra
    }

    fn most_waiting(&self) -> usize {
        self.places.get().max(FEWEST_WAITING)
    }

    /// A call of `who` has ended.
    pub fn leave(&mut self, who: &W) {
        if let Some(queue) = self.queues.get_mut(who) {
            queue.running = queue.running.saturating_sub(1);
            self.running = self.running.saturating_sub(1);
            self.tidy(who);
        }
    }

    /// There are other places, and so many at most beyond them, each for the only call of its controller.
    pub fn set_places(&mut self, places: NonZeroUsize, extra: usize) {
        (self.places, self.extra) = (places, extra);
    }

    /// The next that gets a place, if one is free: of whoever has fewest calls running, and was served longest ago. It
    /// has the place; whoever doesn't want it any more leaves.
    pub fn admit(&mut self) -> Option<(W, T)> {
        let (is_free, has_extra) = (self.running < self.places.get(), self.has_extra());
        let may = |queue: &Queue<T>| is_free || (has_extra && queue.running == 0);
        let waiting = self.queues.iter_mut().filter(|(_, queue)| !queue.tickets.is_empty() && may(queue));
        let (who, queue) = waiting.min_by_key(|(_, queue)| (queue.running, queue.served))?;
        let (_, ticket) = queue.tickets.pop_front()?;
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
        let mut gate = Gate::new(NonZeroUsize::new(places).unwrap());
        gate.set_places(gate.places, 4);
        gate
    }

    fn enter(gate: &mut Gate<char, u32>, who: char, ticket: u32) -> bool {
        match gate.enter(&who, || ticket) {
            Entered::Now => true,
            Entered::Waits(_) => false,
            Entered::Full(_) => panic!("full"),
        }
    }

    #[test]
    fn only_so_many_of_each_wait() {
        let mut gate = gate(5);
        for ticket in 0..10 {
            assert_eq!(enter(&mut gate, 'a', ticket), ticket < 5);
        }
        assert_eq!((gate.enter(&'a', || 10), gate.waiting()), (Entered::Full(5), 5));
        assert!(enter(&mut gate, 'b', 11) && !enter(&mut gate, 'b', 12), "another one's bound is its own");
        gate.set_places(NonZeroUsize::MIN, 4);
        gate.leave(&'a');
        assert!(!enter(&mut gate, 'c', 13));
    }

    #[test]
    fn who_has_fewest_is_next() {
        let mut gate = gate(3);
        assert!(enter(&mut gate, 'a', 1) && enter(&mut gate, 'a', 2) && enter(&mut gate, 'a', 3));
        for ticket in 4..=6 {
            assert!(!enter(&mut gate, 'a', ticket));
        }
        assert!(enter(&mut gate, 'b', 10) && !enter(&mut gate, 'b', 11));
        assert!(enter(&mut gate, 'c', 20) && !enter(&mut gate, 'c', 21));
        assert_eq!((gate.running(), gate.waiting(), gate.admit()), (5, 5, None));
        gate.leave(&'a');
        gate.leave(&'a');
        assert_eq!(gate.admit(), None, "three run");
        let mut order = Vec::new();
        for who in ['c', 'b', 'a', 'b', 'c'] {
            gate.leave(&who);
            order.extend(gate.admit());
        }
        assert_eq!(order, [('c', 21), ('b', 11), ('a', 4), ('a', 5), ('a', 6)], "whoever has none");
    }

    #[test]
    fn who_is_not_answered_holds_nobody_else_up() {
        let mut gate = gate(2);
        for ticket in 0..6 {
            assert_eq!(enter(&mut gate, 'a', ticket), ticket < 2);
        }
        for who in ['b', 'c', 'd', 'e'] {
            assert!(enter(&mut gate, who, 10) && !enter(&mut gate, who, 11), "{who}");
        }
        assert!(!enter(&mut gate, 'f', 10), "not without a bound");
        gate.leave(&'b');
        assert_eq!(gate.admit(), Some(('b', 11)), "served before f came");
        gate.leave(&'b');
        assert_eq!(gate.admit(), Some(('f', 10)), "b is done");
        assert_eq!((gate.admit(), gate.running()), (None, 6));
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let mut gate = gate(1);
        assert!(enter(&mut gate, 'a', 1) && !enter(&mut gate, 'a', 2));
        gate.leave(&'a');
        assert!(!enter(&mut gate, 'a', 3), "another waits");
        let order: Vec<_> = std::iter::from_fn(|| {
            let next = gate.admit();
            next.inspect(|(who, _)| gate.leave(who))
        })
        .collect();
        assert_eq!(order, [('a', 2), ('a', 3)]);
    }

    #[test]
    fn places_come_and_go() {
        let mut gate = gate(1);
        assert!(enter(&mut gate, 'a', 1) && !enter(&mut gate, 'a', 2) && !enter(&mut gate, 'a', 3));
        gate.set_places(NonZeroUsize::new(2).unwrap(), 4);
        assert_eq!((gate.admit(), gate.admit()), (Some(('a', 2)), None));
        gate.set_places(NonZeroUsize::MIN, 4);
        gate.leave(&'a');
        assert_eq!(gate.admit(), None, "one still runs");
        gate.leave(&'a');
        assert_eq!(gate.admit(), Some(('a', 3)));
        gate.leave(&'a');
        gate.leave(&'a');
        assert_eq!((gate.running(), gate.queues.len()), (0, 0), "an idle controller costs nothing");
    }

    #[test]
    fn who_announces_itself_finds_room() {
        let mut gate = gate(8);
        let most = |gate: &mut Gate<char, u32>, who, most| (0..100).take_while(|_| gate.announce(&who, most)).count();
        assert_eq!(most(&mut gate, 'a', 100), 8);
        assert_eq!(most(&mut gate, 'b', 10), 2, "of all no more than ten");
        assert!(most(&mut gate, 'c', 10) == 1 && gate.is_wanted(), "but one of each");
        for ticket in 0..8 {
            gate.arrive(&'a');
            assert!(enter(&mut gate, 'a', ticket));
        }
        assert_eq!(gate.has_room(), ['a'], "the others' bound holds");
        // Whoever was announced is never turned away, also where others have the places.
        for who in ['a', 'b', 'c'] {
            most(&mut gate, who, 100);
        }
        for (who, coming) in [('b', 8), ('c', 8), ('a', 8)] {
            for ticket in 0..coming {
                gate.arrive(&who);
                assert!(!matches!(gate.enter(&who, || ticket), Entered::Full(_)), "{who}");
            }
        }
        assert_eq!(gate.has_room(), ['b', 'c'], "one of each runs beyond the places");
        assert_eq!(most(&mut gate, 'b', 100), 1);
        assert!(!gate.announce(&'a', 100) && gate.is_wanted());
        gate.leave(&'a');
        assert_eq!((gate.has_room(), gate.admit()), (vec![], None), "ten run");
        for _ in 0..3 {
            gate.leave(&'a');
        }
        assert_eq!(gate.admit().map(|(who, _)| who), Some('b'));
        assert_eq!((gate.has_room(), gate.has_room()), (vec!['b'], vec![]), "told once");
    }

    #[test]
    fn whoever_gives_its_ticket_up_leaves_no_trace() {
        let mut gate = gate(1);
        assert!(enter(&mut gate, 'a', 1));
        let waits = [2, 3].map(|ticket| match gate.enter(&'a', || ticket) {
            Entered::Waits(number) => number,
            other => panic!("{other:?}"),
        });
        gate.withdraw(&'a', waits[0]);
        gate.leave(&'a');
        assert_eq!((gate.waiting(), gate.admit(), gate.waiting()), (1, Some(('a', 3)), 0));
        gate.withdraw(&'a', waits[1]);
        gate.leave(&'a');
        assert_eq!((gate.running(), gate.queues.len()), (0, 0));
    }
}
