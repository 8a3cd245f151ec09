//! What the host of each controller is told about its part of the table, and what it tells back.
//!
//! Never decides: `rows` says what is to be done, hosts do it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use ringmaster_core::condition::Part;
use ringmaster_core::key::{Epoch, Uid};
use ringmaster_core::shards::Shards;
use ringmaster_core::table::duty::Done;
use tokio::sync::{Notify, watch};

use crate::hosted::Hosted;

/// Controllers whose part a member tells others of.
const MAX_PARTS: usize = 100;
/// What it tells of all of them is at most so long: an object's annotations together may have 256 KiB (Kubernetes).
const MAX_PARTS_BYTES: usize = 128 << 10;

/// What a controller's host is to do on this member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Nothing: it is another member's, or nobody's yet.
    #[default]
    Nothing,
    /// Fill the caches with everything, and say when that is done: it will be this member's.
    Warm(Epoch),
    /// Sync all parents.
    Whole {
        /// Since when: another epoch is another beginning.
        since: Epoch,
        /// And give all objects their labels, and say when that is done: it will be sharded.
        label: Option<Epoch>,
    },
    /// Sync the parents in the shards that this member holds.
    Sharded {
        /// Since when: another epoch is another beginning.
        since: Epoch,
    },
}

/// The shards of this member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Those that it works on.
    pub(crate) running: Shards,
    /// Those that it is to have in its caches: the former, those that it will own, and those that it is giving up.
    pub(crate) cached: Shards,
}

/// How often each shard was lost since the process began.
#[derive(Clone, Default)]
pub(crate) struct Losses(BTreeMap<u8, u32>);

impl Losses {
    fn count(&mut self, shard: u8) {
        let count = self.0.entry(shard).or_default();
        *count = count.wrapping_add(1);
    }

    fn of(&self, shard: u8) -> u32 {
        self.0.get(&shard).copied().unwrap_or_default()
    }
}

/// One controller's.
pub(crate) struct Post {
    stand: watch::Sender<Stand>,
    /// As many as its declaration has kinds of parents: more than one for some decorators only, and at least one.
    units: Mutex<Vec<Unit>>,
}

/// What is known of one kind of a controller's parents.
#[derive(Clone, Default)]
struct Unit {
    /// Of a sharded one: the shards whose objects are in its caches, or all while it is held back anyway.
    warm: Shards,
    /// The sharded controller as it runs.
    hosted: Weak<Hosted>,
    /// What its host told last.
    done: Option<Done>,
}

/// All controllers' posts. Shared.
pub(crate) struct Posts {
    by_uid: Mutex<HashMap<Uid, Arc<Post>>>,
    held: watch::Sender<Held>,
    /// Whether the table was seen to give everything to somebody.
    settled: watch::Sender<bool>,
    /// Held while shards are stopped, and while a host starts some: none is started that was just stopped.
    turning: Mutex<Losses>,
    /// What hosts have done since `rows` looked last; at most a few entries for each controller.
    done: Mutex<Vec<Done>>,
    /// What is known of this member's parts of sharded controllers, for its Lease.
    parts: Mutex<BTreeMap<String, Part>>,
    news: Notify,
}

impl Posts {
    pub(crate) fn new() -> Arc<Self> {
        let (by_uid, done, parts) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (held, turning) = (watch::Sender::new(Held::default()), Mutex::default());
        let (settled, news) = (watch::Sender::new(false), Notify::new());
        Arc::new(Self { by_uid, held, settled, turning, done, parts, news })
    }

    /// The post of a controller, which is made if it isn't there.
    pub(crate) fn post(&self, uid: &Uid) -> Arc<Post> {
        let make = || {
            let (stand, units) = (watch::Sender::new(Stand::Nothing), Mutex::new(vec![Unit::default()]));
            Arc::new(Post { stand, units })
        };
        Arc::clone(self.by_uid.lock().entry(uid.clone()).or_insert_with(make))
    }

    /// Forgets posts where nothing is to be done and nobody listens.
    pub(crate) fn tidy(&self) {
        // One that somebody is about to listen at is in other hands too.
        let is_used = |post: &Arc<Post>| post.stand.receiver_count() > 0 || Arc::strong_count(post) > 1;
        self.by_uid.lock().retain(|_, post| is_used(post) || *post.stand.borrow() != Stand::Nothing);
    }

    /// The shards of this member, now and from now on.
    pub(crate) fn held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    pub(crate) fn hold(&self, held: Held) {
        let mut losses = self.turning.lock();
        let before = *self.held.borrow();
        self.held.send_if_modified(|known| std::mem::replace(known, held) != held);
        let lost = before.running.difference(&held.running);
        if !lost.is_empty() {
            for shard in lost.iter() {
                losses.count(shard);
            }
            let hosted: Vec<_> = self.by_uid.lock().values().flat_map(|post| post.hosted()).collect();
            hosted.iter().for_each(|hosted| hosted.stop_shards(&lost));
        }
    }

    /// How often each shard was lost so far.
    pub(crate) fn losses(&self) -> Losses {
        self.turning.lock().clone()
    }

    /// Starts those of the shards that have been this member's ever since `losses` was asked for.
    pub(crate) fn start(&self, hosted: &Hosted, shards: &Shards, losses: &Losses) -> Shards {
        let turning = self.turning.lock();
        let held = shards.intersection(&self.held.borrow().running);
        let shards: Shards = held.iter().filter(|shard| turning.of(*shard) == losses.of(*shard)).collect();
        hosted.start_shards(&shards);
        shards
    }

    /// The table was seen to give everything to somebody; from then on this is so.
    pub(crate) fn settle(&self) {
        self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
    }

    pub(crate) fn is_settled(&self) -> bool {
        *self.settled.borrow()
    }

    /// Waits for [`Self::settle`].
    pub(crate) async fn settled(&self) {
        // The sender lives as long as this.
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// The host of one of a controller's kinds of parents has done something: it is done once all have.
    pub(crate) fn tell(&self, post: &Post, unit: usize, done: Done) {
        if post.is_done_by_all(unit, &done) {
            self.done.lock().push(done);
            self.news.notify_one();
        }
    }

    pub(crate) fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut self.done.lock())
    }

    /// Waits until a host told something.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// What is known of this member's part of a sharded controller; `None` once it has none.
    pub(crate) fn set_part(&self, uid: &Uid, part: Option<Part>) {
        let mut parts = self.parts.lock();
        match part {
            // More aren't told: a Lease isn't the place for long texts.
            Some(part) if parts.len() < MAX_PARTS => drop(parts.insert(uid.to_string(), part)),
            Some(part) => drop(parts.get_mut(&uid.to_string()).map(|known| *known = part)),
            None => drop(parts.remove(&uid.to_string())),
        }
    }

    /// The parts as the text of an annotation, if there are any.
    pub(crate) fn parts_text(&self) -> Option<String> {
        let parts = self.parts.lock();
        // Texts and numbers always have a JSON form.
        let text = |parts: &BTreeMap<&String, &Part>| serde_json::to_string(parts).unwrap_or_default();
        let mut told: BTreeMap<&String, &Part> = parts.iter().collect();
        while !told.is_empty() {
            let text = text(&told);
            if text.len() <= MAX_PARTS_BYTES {
                return Some(text);
            }
            // Some of them rather than none.
            for _ in 0..told.len().div_ceil(4) {
                told.pop_last();
            }
        }
        None
    }

    /// Of these shards, those that every sharded controller has in its caches, or can't have.
    pub(crate) fn warm(&self, shards: Shards) -> Shards {
        let posts = self.by_uid.lock();
        let sharded = posts
            .values()
            .filter(|post| matches!(*post.stand.borrow(), Stand::Sharded { .. }) && post.stand.receiver_count() > 0);
        sharded.fold(shards, |warm, post| warm.intersection(&post.warm()))
    }
}

impl Post {
    /// What is to be done, now and from now on.
    pub(crate) fn stand(&self) -> watch::Receiver<Stand> {
        self.stand.subscribe()
    }

    pub(crate) fn set(&self, stand: Stand) {
        self.stand.send_if_modified(|known| std::mem::replace(known, stand) != stand);
    }

    /// A declaration with so many kinds of parents, at least one, is about to be hosted; none before it is any more.
    pub(crate) fn divide(&self, units: usize) {
        *self.units.lock() = vec![Unit::default(); units.max(1)];
    }

    /// The sharded controller runs as this.
    pub(crate) fn set_hosted(&self, unit: usize, hosted: &Arc<Hosted>) {
        if let Some(known) = self.units.lock().get_mut(unit) {
            known.hosted = Arc::downgrade(hosted);
        }
    }

    fn hosted(&self) -> Vec<Arc<Hosted>> {
        self.units.lock().iter().filter_map(|unit| unit.hosted.upgrade()).collect()
    }

    /// The host of a sharded controller has these shards in its caches, or can't have any (all).
    pub(crate) fn set_warm(&self, unit: usize, posts: &Posts, shards: Shards) {
        let before = self.units.lock().get_mut(unit).map(|known| std::mem::replace(&mut known.warm, shards));
        if before.is_some_and(|before| before != shards) {
            posts.news.notify_one();
        }
    }

    /// The shards that all its hosts have in their caches.
    fn warm(&self) -> Shards {
        self.units.lock().iter().fold(Shards::ALL, |warm, unit| warm.intersection(&unit.warm))
    }

    /// Notes what one host has done; tells whether all have done the same.
    fn is_done_by_all(&self, unit: usize, done: &Done) -> bool {
        let mut units = self.units.lock();
        if let Some(known) = units.get_mut(unit) {
            known.done = Some(done.clone());
        }
        units.iter().all(|unit| unit.done.as_ref() == Some(done))
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_core::table::RowId;

    use super::*;

    #[test]
    fn what_is_told_of_parts_has_a_bound() {
        let posts = Posts::new();
        assert_eq!(posts.parts_text(), None);
        let part = |letter: &str| Part { left_out: vec![letter.repeat(200); 5], parents: 7, ..Part::default() };
        posts.set_part(&Uid::new("one"), Some(part("a")));
        assert!(posts.parts_text().unwrap().contains("\"parents\":7"));
        for number in 0..MAX_PARTS {
            posts.set_part(&Uid::new(&number.to_string()), Some(part("\u{1}")));
        }
        let text = posts.parts_text().unwrap();
        assert!(text.len() <= MAX_PARTS_BYTES && text.len() > MAX_PARTS_BYTES / 2, "{}", text.len());
        assert!(serde_json::from_str::<BTreeMap<String, Part>>(&text).unwrap().len() > 10);
    }

    #[test]
    fn a_controller_of_several_kinds_has_done_what_all_have() {
        let posts = Posts::new();
        let (uid, shards) = (Uid::new("a"), Shards::from_iter([1, 2]));
        let post = posts.post(&uid);
        let _host = post.stand();
        post.divide(2);
        let warm = |epoch| Done::Warm(RowId::Controller(uid.clone()), Epoch(epoch));
        posts.tell(&post, 0, warm(1));
        posts.tell(&post, 0, warm(1));
        assert_eq!(posts.take_done(), Vec::new());
        posts.tell(&post, 1, warm(2));
        assert_eq!(posts.take_done(), Vec::new(), "another epoch is another question");
        posts.tell(&post, 0, warm(2));
        assert_eq!(posts.take_done(), vec![warm(2)]);
        post.set(Stand::Sharded { since: Epoch(3) });
        post.set_warm(0, &posts, Shards::ALL);
        assert_eq!(posts.warm(shards), Shards::NONE);
        post.set_warm(1, &posts, Shards::from_iter([2]));
        assert_eq!(posts.warm(shards), Shards::from_iter([2]));
        post.divide(1);
        assert_eq!(posts.warm(shards), Shards::NONE, "another declaration");
        posts.tell(&post, 0, warm(4));
        assert_eq!(posts.take_done(), vec![warm(4)]);
    }

    #[test]
    fn a_shard_is_warm_once_every_sharded_controller_has_it() {
        let (posts, shards) = (Posts::new(), Shards::from_iter([1, 2, 3]));
        assert_eq!(posts.warm(shards), shards, "nobody waits for anything");
        let (first, second) = (posts.post(&Uid::new("a")), posts.post(&Uid::new("b")));
        let _hosts = (first.stand(), second.stand());
        let sharded = Stand::Sharded { since: Epoch(1) };
        first.set(sharded);
        assert_eq!(posts.warm(shards), Shards::NONE);
        first.set_warm(0, &posts, Shards::from_iter([2, 3]));
        second.set(sharded);
        second.set_warm(0, &posts, Shards::from_iter([3, 4]));
        assert_eq!(posts.warm(shards), Shards::from_iter([3]));
        second.set(Stand::Nothing);
        assert_eq!(posts.warm(shards), Shards::from_iter([2, 3]));
        drop((_hosts, first, second));
        posts.tidy();
        assert_eq!(posts.by_uid.lock().len(), 1, "what is to be done is kept");
    }
}
