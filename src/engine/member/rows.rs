//! From the table to work, and back: follows core's `Duty`, opens and closes the guard's rows, tells hosts what to do,
//! and puts what is done on the Lease.
//!
//! Never decides what follows from a table, and never writes one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::key::{Epoch, Uid};
use ringmaster_core::shards::Shards;
use ringmaster_core::table::duty::{Do, Done, Duty};
use ringmaster_core::table::{Mode, RowId, Table};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::declared::DeclaredControllers;
use super::guard::Guard;
use super::keeper::Words;
use super::metrics::Phase;
use super::observe::{TableKind, World};
use super::posts::{Held, Posts, Stand};
use super::pulse::{BEAT, Part, Pulse};
use crate::clock::boot_time;
use crate::metrics::Metrics;
use crate::watches::Watches;

/// A row that is to be given up waits so long for the syncs that run; then they are cancelled.
pub(crate) const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// A member that wants to go waits so long for others to take over its rows while it still works on them.
pub(crate) const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// A member that goes by the table is ready after this long, whether or not everything in it has an owner.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

/// Follows the table.
pub(crate) struct Rows {
    pub(crate) duty: Duty,
    pub(crate) guard: Arc<Guard>,
    pub(crate) world: Arc<World>,
    pub(crate) posts: Arc<Posts>,
    pub(crate) declared: Arc<DeclaredControllers>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) words: watch::Sender<Words>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What goes on.
#[derive(Default)]
struct Progress {
    /// Since when each shard is being warmed, on the boot-time clock.
    warming: BTreeMap<u8, (Epoch, Duration)>,
    releasing: BTreeMap<RowId, Duration>,
    releases: JoinSet<Done>,
    begun: Duration,
    leaving: Option<Duration>,
    stopped: bool,
}

impl Rows {
    /// Follows the table until `leave` is cancelled and all rows are given up.
    pub(crate) async fn run(mut self, leave: CancellationToken) {
        let mut progress = Progress { begun: boot_time(), ..Progress::default() };
        let mut news = self.world.news();
        let mut had_right = true;
        loop {
            self.pulse.beat(Part::Rows);
            let has_right = self.guard.left().is_some();
            if has_right && !had_right {
                // Whoever may work again after an outage should know what it works on.
                self.watches.rouse();
            }
            had_right = has_right;
            self.look(&mut progress);
            for done in self.posts.take_done() {
                self.done(&mut progress, done);
            }
            self.report_warm(&mut progress);
            if leave.is_cancelled() && self.leave(&mut progress) {
                break;
            }
            self.settle(&progress);
            self.say(&progress, false);
            tokio::select! {
                _ = news.changed() => {}
                () = self.posts.news() => {}
                Some(released) = progress.releases.join_next() => {
                    self.released(&mut progress, released.ok());
                }
                () = leave.cancelled(), if !leave.is_cancelled() => {}
                () = tokio::time::sleep(BEAT) => {}
            }
        }
        self.say(&progress, true);
    }

    fn look(&mut self, progress: &mut Progress) {
        let view = self.world.view();
        let dos = match (view.kind, &view.table) {
            (TableKind::Absent, _) => match self.world.solo() {
                Some((uid, table)) => self.duty.see(&uid, &table),
                None => self.duty.see_none(),
            },
            (_, Some(object)) if !self.world.is_foreign() => match &object.table {
                Some(table) => self.duty.see(&object.uid, table),
                None => Vec::new(),
            },
            _ => Vec::new(),
        };
        self.obey(progress, dos);
    }

    /// Once everything has an owner, or this member can't know of it for too long, it is as ready as it gets.
    fn settle(&self, progress: &Progress) {
        if self.posts.is_settled() {
            return;
        }
        let goes_by = self.duty.report().table;
        let view = self.world.view();
        let seen = match view.kind {
            TableKind::Absent => goes_by.is_some(),
            _ => view.table.as_ref().is_some_and(|object| {
                let table = object.table.as_deref().filter(|_| goes_by.as_ref() == Some(&object.uid));
                table.is_some_and(|table| self.is_settled(table))
            }),
        };
        let patience = boot_time().saturating_sub(progress.begun) >= SETTLE_PATIENCE;
        if seen || (patience && goes_by.is_some()) {
            self.posts.settle();
        }
    }

    fn is_settled(&self, table: &Table) -> bool {
        let shards = table.shards.iter().all(|row| row.owner.is_some());
        // Of those that are declared: others go.
        let (declared, known) = self.declared.controllers();
        let row = |name| table.controllers.get(name);
        let controllers = declared.iter().all(|(name, controller)| {
            row(name)
                .is_some_and(|row| row.uid == controller.uid && (row.mode == Mode::Sharded || row.row.owner.is_some()))
        });
        known && shards && controllers
    }

    /// Takes all that are released by now at once: each may lead to a report.
    fn released(&mut self, progress: &mut Progress, first: Option<Done>) {
        let mut all: Vec<Done> = first.into_iter().collect();
        while let Some(more) = progress.releases.try_join_next() {
            all.extend(more.ok());
        }
        for done in all {
            self.done(progress, done);
        }
        self.hold(progress);
    }

    fn done(&mut self, progress: &mut Progress, done: Done) {
        if let Done::Released(row, _) = &done
            && let Some(since) = progress.releasing.remove(row)
        {
            debug!(?row, "released");
            self.metrics.members.handover(Phase::Release, boot_time().saturating_sub(since));
        }
        let dos = self.duty.done(done);
        self.obey(progress, dos);
    }

    fn obey(&mut self, progress: &mut Progress, dos: Vec<Do>) {
        if dos.is_empty() {
            return;
        }
        self.describe(&dos);
        for what in dos {
            match what {
                Do::Warm(RowId::Shard(shard), epoch) => {
                    progress.warming.insert(shard, (epoch, boot_time()));
                }
                Do::Warm(RowId::Controller(uid), epoch) => self.posts.post(&uid).set(Stand::Warm(epoch)),
                Do::Cool(RowId::Shard(shard)) => drop(progress.warming.remove(&shard)),
                Do::Cool(RowId::Controller(uid)) => self.posts.post(&uid).set(Stand::Nothing),
                Do::Start(RowId::Shard(shard), epoch) => {
                    progress.warming.remove(&shard);
                    self.open(&RowId::Shard(shard), epoch);
                }
                Do::Start(RowId::Controller(uid), epoch) => {
                    self.open(&RowId::Controller(uid.clone()), epoch);
                    self.posts.post(&uid).set(Stand::Whole { since: epoch, label: None });
                }
                Do::Share(uid, epoch) => {
                    self.open(&RowId::Controller(uid.clone()), epoch);
                    self.posts.post(&uid).set(Stand::Sharded { since: epoch });
                }
                Do::Epoch(row, epoch) => {
                    self.guard.renumber(&row, epoch);
                    if let RowId::Controller(uid) = row {
                        self.label(&uid, None);
                    }
                }
                Do::Label(uid, epoch) => self.label(&uid, Some(epoch)),
                Do::Release(row, epoch) => self.release(progress, row, epoch),
            }
        }
        self.hold(progress);
        self.posts.tidy();
    }

    /// One line for each kind of thing to do, whatever the number of shards.
    fn describe(&self, dos: &[Do]) {
        let mut shards: BTreeMap<&str, Shards> = BTreeMap::new();
        for what in dos {
            let (verb, row) = match what {
                Do::Warm(row, _) => ("warm", row),
                Do::Cool(row) => ("cool", row),
                Do::Start(row, _) => ("start", row),
                Do::Release(row, _) => ("release", row),
                Do::Share(..) | Do::Epoch(..) | Do::Label(..) => continue,
            };
            match row {
                RowId::Shard(shard) => drop(shards.entry(verb).or_default().insert(*shard)),
                RowId::Controller(uid) => debug!(%uid, "the table: {verb} the controller"),
            }
        }
        for (verb, shards) in shards {
            info!(count = shards.len(), "the table: {verb} shards {shards}");
        }
    }

    fn open(&self, row: &RowId, epoch: Epoch) {
        self.guard.open(row.clone(), epoch, self.duty.is_poisoned(row));
    }

    fn label(&self, uid: &Uid, label: Option<Epoch>) {
        let post = self.posts.post(uid);
        let now = *post.stand().borrow();
        if let Stand::Whole { since, .. } = now {
            post.set(Stand::Whole { since, label });
        }
    }

    fn release(&self, progress: &mut Progress, row: RowId, epoch: Epoch) {
        if let RowId::Controller(uid) = &row {
            self.posts.post(uid).set(Stand::Nothing);
        }
        let tenure = self.guard.close(&row);
        progress.releasing.insert(row.clone(), boot_time());
        progress.releases.spawn(async move {
            if let Some(tenure) = tenure {
                tenure.drained(RELEASE_PATIENCE).await;
            }
            Done::Released(row, epoch)
        });
    }

    /// Tells hosts and watches which shards are this member's.
    fn hold(&self, progress: &Progress) {
        let (running, warm) = self.duty.shards();
        let releasing = progress.releasing.keys().filter_map(|row| match row {
            RowId::Shard(shard) => Some(*shard),
            RowId::Controller(_) => None,
        });
        let held = Held { running, cached: running.union(&warm).union(&releasing.collect()) };
        self.watches.want(held.cached);
        self.posts.hold(held);
    }

    /// Reports the shards that are in all caches.
    fn report_warm(&mut self, progress: &mut Progress) {
        let warm = self.posts.warm(progress.warming.keys().copied().collect());
        for shard in warm.iter() {
            if let Some((epoch, since)) = progress.warming.remove(&shard) {
                self.metrics.members.handover(Phase::Warm, boot_time().saturating_sub(since));
                let dos = self.duty.done(Done::Warm(RowId::Shard(shard), epoch));
                self.obey(progress, dos);
            }
        }
    }

    /// On the way out: others take over while this member still works, as long as there are any and they aren't too
    /// slow; then everything is given up. Tells whether everything is.
    fn leave(&mut self, progress: &mut Progress) -> bool {
        let now = boot_time();
        let since = *progress.leaving.get_or_insert(now);
        if !progress.stopped {
            // All members have their part of sharded controllers, which is nothing without shards.
            let nothing_left =
                self.duty.shards().0.is_empty() && !self.duty.runs_wholes() && progress.releasing.is_empty();
            let alone = !self.world.others_stay();
            if nothing_left || alone || now.saturating_sub(since) >= LEAVE_PATIENCE || self.guard.left().is_none() {
                if !nothing_left {
                    let why = if alone { "no other member stays" } else { "the others didn't take over in time" };
                    info!("giving up everything: {why}");
                }
                progress.stopped = true;
                let dos = self.duty.stop();
                self.obey(progress, dos);
            }
        }
        progress.stopped && self.duty.is_idle()
    }

    fn say(&self, progress: &Progress, released: bool) {
        let words = Words { report: self.duty.report().to_text(), leaving: progress.leaving.is_some(), released };
        self.words.send_if_modified(|known| {
            let news = *known != words;
            *known = words;
            news
        });
    }
}
