//! The webhook's part of the story: more replicas, one killed, fewer again.
//!
//! Never ends an act before parents are called where they are to be, or patience is over.

use std::convert::Infallible;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::Instant;

use super::affinity::Steady;
use super::changes::Log;
use super::replicas::{MAX_REPLICAS, Replica, Replicas, name};
use super::slices::State;
use super::summary::Played;
use super::view::short;
use super::{Error, Stage};

/// How often it is looked whether something has come about.
const LOOK: Duration = Duration::from_millis(50);
/// How long what follows an act may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long after a change, or after a call of somebody who didn't know of it, all members know.
const QUIET: Duration = Duration::from_secs(2);
/// How long it may take then until each Website was called: they all are, every five seconds.
const ROUND: Duration = Duration::from_secs(8);
/// A replica that is asked to end wasn't called for so long.
const CALM: Duration = Duration::from_millis(500);
/// A replica that died is started again after this: it shall be seen first how the others take over.
const AGAIN: Duration = Duration::from_secs(12);
/// A replica's end may delay a change by this, less than half of what a call may take that waits for a dead one, and more
/// than a busy machine holds everything up.
const DELAY: Duration = Duration::from_secs(4);

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// A replica more.
    More,
    /// One less, in order.
    Fewer,
    /// One is killed.
    Kill,
    /// So many in all.
    To(usize),
}

/// What came of a change of the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Parents that were called since, and those of them that were called elsewhere than before.
    pub(crate) moved: (usize, usize),
    /// The slowest change of a title until nobody was called elsewhere any more, and from then on.
    pub(crate) slowest: Duration,
    pub(crate) usual: Duration,
    /// How long it took until nobody was called elsewhere any more.
    pub(crate) took: Duration,
    /// It isn't done when patience is over.
    pub(crate) late: bool,
    /// Another change came meanwhile: who moved by which of them nobody knows.
    pub(crate) mixed: bool,
}

/// What came of all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scaled {
    /// How many replicas there were before and after, and most of them.
    pub(crate) replicas: (usize, usize),
    /// To most of them.
    pub(crate) up: Change,
    /// One was killed.
    pub(crate) killed: Change,
    /// It was started again.
    pub(crate) back: Change,
    /// To as few as before.
    pub(crate) down: Change,
    /// All spans without a change.
    pub(crate) steady: Steady,
}

impl Scaled {
    /// What isn't as it must be.
    pub(crate) fn wrong(&self) -> Option<String> {
        let acts = [(self.up, "more"), (self.killed, "one less"), (self.back, "one more"), (self.down, "fewer")];
        if let Some((late, what)) = acts.iter().find(|(change, _)| change.late) {
            let seconds = late.took.as_secs_f64();
            return Some(format!("after {seconds:.0} s members don't know of {what} replicas of the webhook"));
        }
        if self.killed.slowest > self.up.usual + DELAY {
            let (slowest, usual) = (short(self.killed.slowest), short(self.up.usual));
            return Some(format!(
                "the end of a replica delayed a change by more than {}: it took {slowest}, and {usual} before",
                short(DELAY)
            ));
        }
        if self.steady.strayed > 0 {
            let times = self.steady.strayed;
            return Some(format!(
                "{times} times a Website was called at another replica than before, while they stayed"
            ));
        }
        if self.steady.again == 0 {
            return Some("no Website was called twice while the replicas stayed, which proves nothing".to_owned());
        }
        None
    }
}

/// Who makes replicas come and go.
pub(crate) struct Scaling<'a> {
    stage: &'a Stage,
    replicas: &'a Replicas,
    log: &'a Log,
}

impl<'a> Scaling<'a> {
    pub(crate) fn new(stage: &'a Stage, replicas: &'a Replicas) -> Self {
        Self { stage, replicas, log: &stage.acts }
    }

    /// The first replicas, and the EndpointSlice that names them.
    ///
    /// # Errors
    /// If one doesn't come to listen.
    pub(crate) async fn begin(&self, count: usize) -> Result<(), Error> {
        self.replicas.build().await?;
        try_join_all((1..=count).map(|replica| self.replicas.start(replica))).await?;
        self.until(|| self.replicas.is_published()).await;
        Ok(())
    }

    /// Waits until no parent is called elsewhere than before; whether it comes to that.
    pub(crate) async fn settle(&self) -> bool {
        let settled = || {
            let mut record = self.stage.record.lock();
            self.replicas.is_published() && record.affinity_mut().settle(Instant::now(), QUIET)
        };
        self.until(settled).await
    }

    /// All of it once, from so many replicas and back.
    ///
    /// # Errors
    /// If one doesn't come to listen.
    pub(crate) async fn once(&self, count: usize) -> Result<Scaled, Error> {
        let up = self.to(MAX_REPLICAS).await?;
        let (victim, killed) = self.kill().await;
        let back = self.again(victim).await?;
        let down = self.to(count).await?;
        let steady = self.stage.record.lock().affinity().steady();
        Ok(Scaled { replicas: (count, MAX_REPLICAS), up, killed, back, down, steady })
    }

    /// Does one thing.
    ///
    /// # Errors
    /// If a replica doesn't come to listen.
    pub(crate) async fn play(&self, scale: Scale) -> Result<(), Error> {
        let count = self.of(|it| matches!(it.state, State::Runs | State::Starts | State::Dead { .. })).len();
        match scale {
            Scale::More if count < MAX_REPLICAS => self.to(count + 1).await.map(drop),
            Scale::Fewer if count > 1 => self.to(count - 1).await.map(drop),
            Scale::To(wanted) => self.to(wanted).await.map(drop),
            Scale::Kill => {
                self.kill().await;
                Ok(())
            }
            Scale::More | Scale::Fewer => Ok(()),
        }
    }

    /// One that died some time ago and waits to be started again.
    pub(crate) fn waits(&self) -> Option<usize> {
        let is_due = |it: &Replica| matches!(it.state, State::Dead { at } if at.elapsed() >= AGAIN);
        self.of(is_due).first().copied()
    }

    /// A replica that ended unasked, or didn't when it was asked to.
    pub(crate) fn deserter(&self) -> Option<String> {
        self.replicas.deserter()
    }

    /// Starts one again.
    ///
    /// # Errors
    /// If it doesn't come to listen.
    pub(crate) async fn again(&self, replica: usize) -> Result<Change, Error> {
        let what = format!("{} is started again", name(replica));
        let back = self.act(what, async { self.replicas.start(replica).await }).await?;
        self.note(&back, |played| played.back = Some(back));
        Ok(back)
    }

    fn of(&self, which: impl Fn(&Replica) -> bool) -> Vec<usize> {
        self.replicas.all().iter().filter(|(_, it)| which(it)).map(|(replica, _)| *replica).collect()
    }

    /// More or fewer, until there are so many.
    async fn to(&self, wanted: usize) -> Result<Change, Error> {
        let there = self.of(|it| matches!(it.state, State::Runs | State::Starts | State::Dead { .. }));
        let free = self.of(|it| it.state == State::Off);
        let what = format!("webhooks: {} -> {wanted}", there.len());
        let act = async {
            let more = free.iter().take(wanted.saturating_sub(there.len()));
            try_join_all(more.map(|replica| self.replicas.start(*replica))).await?;
            let fewer: Vec<usize> = there.iter().skip(wanted).copied().collect();
            fewer.iter().for_each(|replica| self.replicas.retire(*replica));
            self.until(|| self.replicas.is_published()).await;
            for replica in fewer {
                let is_calm = || self.stage.record.lock().is_calm(Instant::now(), replica, CALM);
                self.until(is_calm).await;
                self.replicas.leave(replica);
            }
            self.until(|| self.of(|it| it.state == State::Leaving).is_empty()).await;
            Ok::<_, Error>(())
        };
        let change = self.act(what, act).await?;
        let scaled = Some(((there.len(), wanted), change));
        self.note(&change, |played| if wanted >= there.len() { played.up = scaled } else { played.down = scaled });
        Ok(change)
    }

    fn note(&self, change: &Change, note: impl FnOnce(&mut Played)) {
        if !change.mixed {
            note(&mut self.stage.played.lock());
        }
    }

    /// Kills one, that which has most parents: its number, 0 without one.
    async fn kill(&self) -> (usize, Change) {
        let running = self.of(|it| it.state == State::Runs);
        let parents = self.stage.record.lock().affinity().parents();
        let victim = running.into_iter().max_by_key(|replica| parents.get(replica).copied().unwrap_or(0));
        let Some(victim) = victim else { return (0, Change::default()) };
        let act = async {
            self.replicas.kill(victim);
            self.until(|| !self.replicas.is_named(victim)).await;
            Ok::<_, Infallible>(())
        };
        let Ok(change) = self.act(format!("{} is killed", name(victim)), act).await;
        self.note(&change, |played| (played.dead, played.back) = (Some(change), None));
        (victim, change)
    }

    /// Makes a change, and waits until it has settled and each Website was called again.
    async fn act<E>(&self, what: String, act: impl Future<Output = Result<(), E>>) -> Result<Change, E> {
        let number = self.log.begin(what);
        let start = Instant::now();
        self.stage.wishes.lock().begin_span();
        let own = {
            let mut record = self.stage.record.lock();
            record.affinity_mut().change(start);
            record.affinity().changes()
        };
        act.await?;
        self.stage.record.lock().affinity_mut().disturb(Instant::now());
        let late = !self.settle().await;
        let (took, slowest) = (start.elapsed(), self.span());
        self.stage.wishes.lock().begin_span();
        let has_seen_all = || self.stage.record.lock().affinity().has_seen_all();
        self.until_within(ROUND, has_seen_all).await;
        let (moved, mixed) = {
            let record = self.stage.record.lock();
            (record.affinity().moved(), record.affinity().changes() != own)
        };
        let (seen, elsewhere) = moved;
        let text = match (late, mixed) {
            (true, _) => format!("not done after {}", short(took)),
            (false, true) => "another change came meanwhile".to_owned(),
            (false, false) => format!("{elsewhere} of {seen} Websites moved, after {}", short(took)),
        };
        self.log.end(number, text);
        Ok(Change { moved, slowest, usual: self.span(), took, late, mixed })
    }

    fn span(&self) -> Duration {
        self.stage.wishes.lock().span(Instant::now())
    }

    async fn until(&self, what: impl Fn() -> bool) -> bool {
        self.until_within(PATIENCE, what).await
    }

    async fn until_within(&self, patience: Duration, what: impl Fn() -> bool) -> bool {
        let done = async {
            while !what() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(patience, done).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_isnt_as_it_must_be_is_told() {
        let ms = Duration::from_millis;
        let fine = Scaled {
            up: Change { usual: ms(300), ..Change::default() },
            killed: Change { slowest: ms(4300), ..Change::default() },
            steady: Steady { calls: 9, again: 3, strayed: 0 },
            ..Scaled::default()
        };
        assert_eq!(fine.wrong(), None);
        let slow = Scaled { killed: Change { slowest: ms(4301), ..Change::default() }, ..fine };
        assert!(slow.wrong().unwrap().ends_with("it took 4.3 s, and 300 ms before"), "{:?}", slow.wrong());
        let late = Scaled { down: Change { late: true, took: ms(30_000), ..Change::default() }, ..fine };
        assert_eq!(late.wrong().unwrap(), "after 30 s members don't know of fewer replicas of the webhook");
        let idle = Scaled { steady: Steady::default(), ..fine };
        assert!(idle.wrong().unwrap().contains("proves nothing"));
        let strayed = Scaled { steady: Steady { strayed: 1, ..fine.steady }, ..fine };
        assert!(strayed.wrong().unwrap().contains("1 time"));
    }
}
