//! The story: a member more, one less, one killed and replaced, then the same with the webhook's replicas; by itself, or
//! by somebody's keys.
//!
//! Never ends an act of the members before the table says what came of it, or patience is over.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _};
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;

use super::cast::{Cast, MAX_MEMBERS, State};
use super::changes::Log;
use super::load::forgotten;
use super::ownership::Move;
use super::replicas::{MAX_REPLICAS, Replicas};
use super::scaling::{Scale, Scaled, Scaling};
use super::view::short;
use super::{Error, Stage, scene};
use crate::objects::Objects;

/// How often it is looked whether an act is over.
const LOOK: Duration = Duration::from_millis(50);
/// How long what follows an act may take: balance alone waits for 10 s of stillness.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long changes made while nobody had their shards may take to show, once somebody has.
const SERVED: Duration = Duration::from_secs(15);
/// Pause between two acts that come by themselves.
const PAUSE: Duration = Duration::from_secs(8);
/// So many replicas of the webhook the story goes up to by itself.
const MANY: Scale = Scale::To(MAX_REPLICAS);
/// A member that died is replaced after this: it shall be seen first how the others take over.
const REPLACED: Duration = Duration::from_secs(8);

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// A member more.
    More,
    /// One less, in order.
    Fewer,
    /// One is killed.
    Kill,
    /// The same, and more, with the webhook's replicas.
    Webhooks(Scale),
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Shards that moved.
    pub(crate) moved: usize,
    /// The longest that one of them had nobody.
    pub(crate) longest: Duration,
    /// How long all of it took.
    pub(crate) took: Duration,
    /// Websites whose change was made meanwhile and doesn't show.
    pub(crate) forgotten: Vec<String>,
    /// It isn't over when patience is.
    pub(crate) late: bool,
}

/// A member that was started.
struct Started {
    name: String,
    /// In the log.
    number: u64,
    /// It replaces one that was lost.
    replaces: bool,
    at: Instant,
    /// Moves before.
    mark: u64,
}

/// Who makes things happen.
pub(crate) struct Director<'a> {
    stage: &'a Stage,
    cast: &'a Cast,
    scaling: Scaling<'a>,
    log: &'a Log,
}

impl<'a> Director<'a> {
    pub(crate) fn new(stage: &'a Stage, cast: &'a Cast, replicas: &'a Replicas) -> Self {
        Self { stage, cast, scaling: Scaling::new(stage, replicas), log: &stage.acts }
    }

    /// The first replicas of the webhook, and then the first members.
    ///
    /// # Errors
    /// If one can't be started.
    pub(crate) async fn begin(&self, members: usize, webhooks: usize) -> Result<(), Error> {
        self.scaling.begin(webhooks).await?;
        for _ in 0..members {
            self.cast.start().await.map_err(Error::Member)?;
        }
        Ok(())
    }

    /// Waits until all members that run share all shards: how long that took; `None` if it doesn't come to that.
    pub(crate) async fn even(&self) -> Option<Duration> {
        let start = Instant::now();
        let even = self.until(|| self.stage.ownership.lock().is_even(&self.cast.staying()));
        even.await.then(|| start.elapsed())
    }

    /// All of it once: what came of a member more, one less, and one killed; and, while that is replaced, of more and fewer
    /// replicas of the webhook, from so many on.
    ///
    /// # Errors
    /// If a process can't be started.
    pub(crate) async fn once(&self, webhooks: usize) -> Result<([(Act, Outcome); 3], Scaled), Error> {
        // While members come and go, no parent is to be called at another replica.
        self.scaling.settle().await;
        let more = self.share(self.start(None).await?).await;
        let fewer = self.fewer(self.anyone()).await;
        let victim = self.anyone();
        let replaced = async {
            tokio::time::sleep(REPLACED).await;
            Ok::<_, Error>(self.share(self.start(Some(&victim)).await?).await)
        };
        let killed = async {
            let killed = self.kill(victim.clone()).await;
            Ok((killed, self.scaling.once(webhooks).await?))
        };
        let ((killed, scaled), _) = tokio::try_join!(killed, replaced)?;
        Ok(([(Act::More, more), (Act::Fewer, fewer), (Act::Kill, killed)], scaled))
    }

    /// One act after another: those of the keys, and until the first of them, those of the story. Never ends well.
    ///
    /// # Errors
    /// If a process can't be started.
    pub(crate) async fn run(&self, members: usize, webhooks: usize, mut keys: Receiver<Act>) -> Result<(), Error> {
        let mut wanted = members;
        let story = [Act::More, Act::Fewer, Act::Kill].into_iter();
        let story = story.chain([MANY, Scale::Kill, Scale::To(webhooks)].map(Act::Webhooks));
        let (mut story, mut alone, mut listens) = (story.cycle(), true, true);
        let mut acts: FuturesUnordered<BoxFuture<'_, Result<(), Error>>> = FuturesUnordered::new();
        let (mut mourned, mut replaced) = (BTreeSet::new(), BTreeSet::new());
        self.even().await;
        // Until somebody changes them, no parent is to be called at another replica.
        acts.push(self.scaling.settle().map(|_| Ok(())).boxed());
        let mut next = Instant::now() + PAUSE;
        loop {
            let act = tokio::select! {
                key = keys.recv(), if listens => {
                    listens = key.is_some();
                    alone &= key.is_none();
                    key
                }
                Some(played) = acts.next(), if !acts.is_empty() => {
                    played?;
                    next = Instant::now() + PAUSE;
                    None
                }
                () = tokio::time::sleep_until(next), if alone && acts.is_empty() => story.next(),
                () = tokio::time::sleep(LOOK) => None,
            };
            let staying = self.cast.staying().len();
            match act {
                Some(Act::More) if wanted < MAX_MEMBERS => {
                    wanted += 1;
                    acts.push(self.share(self.start(None).await?).map(seen).boxed());
                }
                Some(Act::Fewer) if wanted > 1 && staying > 1 => {
                    wanted -= 1;
                    acts.push(self.fewer(self.anyone()).map(seen).boxed());
                }
                Some(Act::Kill) if staying > 0 => acts.push(self.kill(self.anyone()).map(seen).boxed()),
                Some(Act::Webhooks(scale)) => acts.push(self.scaling.play(scale).boxed()),
                _ => {}
            }
            if let Some(replica) = self.scaling.waits() {
                acts.push(self.scaling.again(replica).map_ok(drop).boxed());
            }
            for (number, member) in self.cast.members() {
                let State::Ended { wrong: Some(how), .. } = &member.state else { continue };
                if mourned.insert(number) {
                    let what = format!("{} {how}", member.name);
                    acts.push(self.mourn(member.name.clone(), what).map(seen).boxed());
                }
            }
            let is_short = self.cast.staying().len() < wanted;
            if is_short && self.last_end().is_none_or(|end| end.elapsed() >= REPLACED) {
                let lost = self.cast.members().into_iter().filter(|(number, member)| {
                    !replaced.contains(number) && self.stage.ownership.lock().is_lost(&member.name)
                });
                let lost = lost.min_by_key(|(number, _)| *number);
                replaced.extend(lost.iter().map(|(number, _)| *number));
                let started = self.start(lost.as_ref().map(|(_, member)| member.name.as_str())).await?;
                acts.push(self.share(started).map(seen).boxed());
            }
        }
    }

    /// Fails if a process ended that nobody asked to, or didn't leave when it was asked to.
    pub(crate) fn is_complete(&self) -> Result<(), Error> {
        let gone = self.cast.deserter().or_else(|| self.scaling.deserter());
        gone.map_or(Ok(()), |gone| Err(Error::Deserted(gone)))
    }

    /// One that runs and stays; no name without one.
    fn anyone(&self) -> String {
        let staying: Vec<String> = self.cast.staying().into_iter().collect();
        fastrand::choice(staying).unwrap_or_default()
    }

    /// When the last one ended.
    fn last_end(&self) -> Option<Instant> {
        let ends = self.cast.members().into_iter().filter_map(|(_, member)| match member.state {
            State::Ended { at, .. } => Some(at),
            State::Runs | State::Leaving => None,
        });
        ends.max()
    }

    /// Starts a member, in place of one that was lost if that is named.
    async fn start(&self, lost: Option<&str>) -> Result<Started, Error> {
        let (at, mark) = (Instant::now(), self.mark());
        let name = self.cast.start().await.map_err(Error::Member)?;
        let how = lost.map_or_else(|| "starts".to_owned(), |lost| format!("replaces {lost}"));
        let number = self.log.begin(format!("{name} {how}"));
        Ok(Started { name, number, replaces: lost.is_some(), at, mark })
    }

    /// What comes of a member more.
    async fn share(&self, started: Started) -> Outcome {
        let Started { name, number, replaces, at, mark } = started;
        let late = !self.until(|| self.stage.ownership.lock().is_even(&self.cast.staying())).await;
        // What it gets of one that was lost had nobody because of that.
        let outcome = self.outcome(at, mark, late, false, |one| one.to == name);
        self.log.end(number, or_late(&outcome, handed_over(&outcome)));
        if !replaces {
            self.stage.played.lock().more = Some(outcome.clone());
        }
        outcome
    }

    async fn kill(&self, name: String) -> Outcome {
        self.cast.kill(&name);
        let what = format!("{name} is killed");
        self.mourn(name, what).await
    }

    async fn fewer(&self, name: String) -> Outcome {
        let (start, mark) = (Instant::now(), self.mark());
        self.cast.leave(&name);
        let number = self.log.begin(format!("{name} leaves"));
        let gone = || {
            let has_ended = matches!(self.cast.state(&name), None | Some(State::Ended { .. }));
            has_ended && self.stage.ownership.lock().held_by(&name) == 0
        };
        let late = !self.until(gone).await;
        let outcome = self.outcome(start, mark, late, false, |one| one.from == name);
        self.log.end(number, or_late(&outcome, handed_over(&outcome)));
        self.stage.played.lock().fewer = Some(outcome.clone());
        outcome
    }

    /// What comes of a member that has ended without a word.
    async fn mourn(&self, name: String, what: String) -> Outcome {
        let (start, mark) = (Instant::now(), self.mark());
        let number = self.log.begin(what);
        let late = !self.until(|| self.stage.ownership.lock().held_by(&name) == 0).await;
        let mut outcome = self.outcome(start, mark, late, true, |one| one.from == name);
        let wanted = self.stage.wishes.lock().snapshot();
        outcome.forgotten = still_forgotten(&self.stage.objects, &wanted).await;
        let (moved, longest) = (outcome.moved, short(outcome.longest));
        let text = format!("{moved} shards unowned for {longest}; {} forgotten", outcome.forgotten.len());
        self.log.end(number, or_late(&outcome, text));
        self.stage.played.lock().killed = Some(outcome.clone());
        outcome
    }

    fn mark(&self) -> u64 {
        self.stage.ownership.lock().mark()
    }

    /// What came of an act: all shards that moved by it, and the longest gap of those that were taken from one that was
    /// lost, or of those that weren't.
    fn outcome(&self, start: Instant, mark: u64, late: bool, taken: bool, whose: impl Fn(&Move) -> bool) -> Outcome {
        let ownership = self.stage.ownership.lock();
        let moves: Vec<&Move> = ownership.moves_since(mark).filter(|one| whose(one)).collect();
        let longest = moves.iter().filter(|one| one.taken == taken).map(|one| one.gap).max().unwrap_or_default();
        Outcome { moved: moves.len(), longest, took: start.elapsed(), forgotten: Vec::new(), late }
    }

    async fn until(&self, what: impl Fn() -> bool) -> bool {
        let done = async {
            while !what() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.is_ok()
    }
}

/// Whose change doesn't show after all this time.
pub(crate) async fn still_forgotten(objects: &Objects, wanted: &HashMap<String, u64>) -> Vec<String> {
    let mut left: Vec<String> = wanted.keys().cloned().collect();
    let served = async {
        while !left.is_empty() {
            if let Ok(websites) = objects.list(&scene::websites()).await {
                left = forgotten(wanted, &websites).into_iter().map(ToOwned::to_owned).collect();
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(SERVED, served).await;
    left
}

/// The log has told of it.
fn seen(_: Outcome) -> Result<(), Error> {
    Ok(())
}

/// What was handed over in order; what was taken from one that was lost has no gap of its own.
fn handed_over(outcome: &Outcome) -> String {
    let shards = format!("{} shards in {}", outcome.moved, short(outcome.took));
    match outcome.longest {
        Duration::ZERO => shards,
        longest => format!("{shards}, gaps up to {}", short(longest)),
    }
}

fn or_late(outcome: &Outcome, text: String) -> String {
    if outcome.late { format!("not done after {} s", PATIENCE.as_secs()) } else { text }
}
