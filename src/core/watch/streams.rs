//! Which streams there are of one collection, what each covers, and how far each shard is known.
//!
//! A shard that is wanted belongs to exactly one stream, so that what is known of it only ever moves forward: what other
//! streams still bring of it is passed over. Shards that stay are never listed anew: gaining adds a stream, losing takes
//! away, and streams merge only where one would ask anew anyway. Never holds an object.

use std::collections::BTreeMap;

use crate::cache::Relist;
use crate::key::{ObjectKey, Uid, Version};
use crate::shards::{SHARDS, Shards};

/// Streams of one collection at once. One more gain has those that are listing begin anew together with it, and the
/// others go on as one.
pub const MAX_STREAMS: usize = 16;

/// One list-and-watch of a collection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

/// What follows from other shards being wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Streams that begin; with a version, they go on from there instead of with a list.
    pub start: Vec<(StreamId, Option<Version>)>,
    /// Streams that end at once.
    pub cancel: Vec<StreamId>,
    /// What nothing is known of any more.
    pub lost: Shards,
}

/// The next request for what happens.
#[derive(Debug, PartialEq, Eq)]
pub struct Resumed {
    /// It begins behind this version.
    pub version: Version,
    /// And covers this.
    pub scope: Shards,
    /// Streams that it takes over: they end at once.
    pub cancel: Vec<StreamId>,
}

#[derive(Debug)]
struct Stream {
    /// The shards that are its own; its request may show more.
    scope: Shards,
    /// It can go on from its version, as far as is known.
    following: bool,
    /// All of its scope is known up to here; unknown before its first list.
    version: Version,
    /// What a list that is under way has named.
    relist: Option<Relist>,
}

/// The streams of one collection.
#[derive(Debug)]
pub struct Streams {
    wanted: Shards,
    /// Of what is wanted, that whose first list was complete.
    informed: Shards,
    streams: BTreeMap<StreamId, Stream>,
    next: u64,
    /// A shard may be known further than its stream is.
    floors: Box<[Version; SHARDS]>,
    /// The stream that was the next when the shard was gained.
    gained: Box<[u64; SHARDS]>,
}

impl Default for Streams {
    fn default() -> Self {
        Self::new()
    }
}

impl Streams {
    /// None, for nothing is wanted.
    #[must_use]
    pub fn new() -> Self {
        Self {
            wanted: Shards::NONE,
            informed: Shards::NONE,
            streams: BTreeMap::new(),
            next: 0,
            floors: Box::new([Version::UNKNOWN; SHARDS]),
            gained: Box::new([0; SHARDS]),
        }
    }

    /// What is wanted.
    #[must_use]
    pub fn wanted(&self) -> Shards {
        self.wanted
    }

    /// Of what is wanted, that whose first list was complete.
    #[must_use]
    pub fn informed(&self) -> Shards {
        self.informed
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// What a stream covers.
    #[must_use]
    pub fn scope(&self, id: StreamId) -> Option<Shards> {
        self.streams.get(&id).map(|stream| stream.scope)
    }

    /// Other shards are wanted.
    pub fn want(&mut self, wanted: Shards) -> Wanted {
        let (gained, lost) = (wanted.difference(&self.wanted), self.wanted.difference(&wanted));
        self.wanted = wanted;
        self.informed = self.informed.difference(&lost);
        let mut answer = Wanted { lost, ..Wanted::default() };
        for shard in lost.iter() {
            self.floors[usize::from(shard)] = Version::UNKNOWN;
        }
        self.streams.retain(|id, stream| {
            stream.scope = stream.scope.difference(&lost);
            if stream.scope.is_empty() {
                answer.cancel.push(*id);
            }
            !stream.scope.is_empty()
        });
        if gained.is_empty() {
            return answer;
        }
        let mut scope = gained;
        if self.streams.len() >= MAX_STREAMS {
            scope = scope.union(&self.end_listing(&mut answer.cancel));
        }
        if self.streams.len() >= MAX_STREAMS {
            self.merge_all(&mut answer);
        }
        for shard in gained.iter() {
            self.gained[usize::from(shard)] = self.next;
        }
        let id = self.add(Stream { scope, following: false, version: Version::UNKNOWN, relist: None });
        answer.start.push((id, None));
        answer
    }

    /// Ends all that list, or are about to; gives back what they covered.
    fn end_listing(&mut self, cancel: &mut Vec<StreamId>) -> Shards {
        let mut scope = Shards::NONE;
        self.streams.retain(|id, stream| {
            if !stream.following {
                scope = scope.union(&stream.scope);
                raise(&mut self.floors, &stream.scope, stream.version);
                cancel.push(*id);
            }
            stream.following
        });
        scope
    }

    /// All that can go on go on as one.
    fn merge_all(&mut self, answer: &mut Wanted) {
        let Some(first) = self.streams.iter().find(|(_, stream)| stream.can_merge()).map(|(id, _)| *id) else { return };
        let Some(stream) = self.streams.remove(&first) else { return };
        let id = self.add(stream);
        answer.cancel.push(first);
        answer.cancel.extend(self.take_over(id));
        answer.start.push((id, self.streams.get(&id).map(|stream| stream.version)));
    }

    fn add(&mut self, stream: Stream) -> StreamId {
        let id = StreamId(self.next);
        self.next += 1;
        self.streams.insert(id, stream);
        id
    }

    /// A stream asks for a list: what of. `None` for one that has ended.
    pub fn list_begins(&mut self, id: StreamId) -> Option<Shards> {
        let stream = self.streams.get_mut(&id)?;
        stream.following = false;
        stream.relist = Some(Relist::default());
        Some(stream.scope)
    }

    /// A list broke off: nothing follows from what it didn't name.
    pub fn list_aborted(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.relist = None;
        }
    }

    /// A list is complete as of a version: what it named, and what it covers by now.
    pub fn list_complete(&mut self, id: StreamId, version: Version) -> Option<(Relist, Shards)> {
        let stream = self.streams.get_mut(&id)?;
        let relist = stream.relist.take()?;
        (stream.following, stream.version) = (true, version);
        self.informed = self.informed.union(&stream.scope);
        Some((relist, stream.scope))
    }

    /// A stream can't go on from its version, and will list anew.
    pub fn lost_track(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.following = false;
        }
    }

    /// A stream asks for what happens behind its version. If the request before `ended` by itself, it takes over all that
    /// can go on. `None` for a stream that has ended.
    pub fn resume(&mut self, id: StreamId, ended: bool) -> Option<Resumed> {
        let can_merge = self.streams.get(&id)?.can_merge();
        let cancel = if ended && can_merge { self.take_over(id) } else { Vec::new() };
        let stream = self.streams.get(&id)?;
        Some(Resumed { version: stream.version, scope: stream.scope, cancel })
    }

    /// Has one stream cover what all others that can go on do, from the lowest version of all.
    fn take_over(&mut self, id: StreamId) -> Vec<StreamId> {
        let others: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(other, stream)| **other != id && stream.can_merge())
            .map(|(other, _)| *other)
            .collect();
        for other in &others {
            let Some(other) = self.streams.remove(other) else { continue };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let low = stream.version.min(other.version);
            for (scope, version) in [(stream.scope, stream.version), (other.scope, other.version)] {
                if low < version {
                    raise(&mut self.floors, &scope, version);
                }
            }
            stream.scope = stream.scope.union(&other.scope);
            stream.version = low;
        }
        others
    }

    /// A stream brings an object, in a list or because something happened to it: whether that counts. `shard` is what
    /// its label says.
    pub fn takes(&mut self, id: StreamId, shard: Option<u8>, version: Version) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if stream.relist.is_none() {
            stream.version = version;
        }
        // Its own come in order; others, or a check, may have brought the shard further.
        let is_news = |shard| version == Version::UNKNOWN || self.floors[usize::from(shard)] < version;
        shard.is_some_and(|shard| stream.scope.contains(shard) && is_news(shard))
    }

    /// A list that is under way, if one is, names an object, be it news or not.
    pub fn saw(&mut self, id: StreamId, shard: Option<u8>, key: &ObjectKey, uid: &Uid) {
        let stream = self.streams.get_mut(&id).filter(|s| shard.is_some_and(|shard| s.scope.contains(shard)));
        if let Some(relist) = stream.and_then(|stream| stream.relist.as_mut()) {
            relist.saw(key, uid);
        }
    }

    /// Objects of lost shards were dropped: that lists have named them proves nothing for what may show of them yet.
    pub fn dropped(&mut self, keys: &[ObjectKey]) {
        for relist in self.streams.values_mut().filter_map(|stream| stream.relist.as_mut()) {
            keys.iter().for_each(|key| relist.forget(key));
        }
    }

    /// A stream has brought all up to a version.
    pub fn progressed(&mut self, id: StreamId, version: Version) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.relist.is_none()) {
            stream.version = version;
        }
    }

    /// Up to which version a shard is known; [`Version::UNKNOWN`] before its first list.
    #[must_use]
    pub fn known_to(&self, shard: u8) -> Version {
        let stream = self.streams.values().find(|stream| stream.scope.contains(shard));
        stream.map_or(Version::UNKNOWN, |stream| stream.version).max(self.floors[usize::from(shard)])
    }

    /// Now, for [`Self::kept_since`].
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.next
    }

    /// Of some shards, those that are wanted and have been since a moment.
    #[must_use]
    pub fn kept_since(&self, shards: &Shards, moment: u64) -> Shards {
        let kept = |shard: &u8| self.gained[usize::from(*shard)] < moment;
        shards.intersection(&self.wanted).iter().filter(kept).collect()
    }

    /// All of some shards is known up to a version, by other means than their streams.
    pub fn raise(&mut self, shards: &Shards, version: Version) {
        raise(&mut self.floors, &shards.intersection(&self.wanted), version);
    }
}

fn raise(floors: &mut [Version; SHARDS], shards: &Shards, version: Version) {
    for shard in shards.iter() {
        let floor = &mut floors[usize::from(shard)];
        *floor = (*floor).max(version);
    }
}

impl Stream {
    fn can_merge(&self) -> bool {
        self.following && self.version != Version::UNKNOWN
    }
}
