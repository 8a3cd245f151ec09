//! Replies that a hook gave an entity tag, by what was asked: whoever has the same one still needs not be sent it again
//! (RFC 9110, 13.1.2).
//!
//! Never says whether a reply still holds: the hook does, at each call. All hooks of a process share one memory, and
//! nothing is kept beyond its bound.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;
use ringmaster_core::key::Uid;

use crate::Reply;

/// What a process remembers, in bytes: bodies, tags, and [`ENTRY_BYTES`] for each reply. Those that were asked for
/// longest ago make room.
const MAX_BYTES: usize = 64 << 20;
/// What a reply takes besides, about, in bytes: what it is known by, twice, and its places.
const ENTRY_BYTES: usize = 256;
/// Longest entity tag that is sent back, in bytes.
const MAX_TAG_BYTES: usize = 1024;

/// What a reply is remembered by: which hook was called, and for which parent.
pub type Asked = (&'static str, Uid);

/// The replies that all hooks of a process remember.
#[derive(Default)]
pub(crate) struct Replies {
    memory: Mutex<Memory>,
}

/// Those of one way to a hook, which are forgotten with it.
pub(crate) struct Etags {
    replies: Arc<Replies>,
    /// Which way it is.
    way: u64,
    /// A reply is remembered for so long; without end if there is none.
    timeout: Option<Duration>,
}

/// One reply, by the way to its hook.
type Key = (u64, Asked);

#[derive(Default)]
struct Memory {
    replies: HashMap<Key, Remembered>,
    /// By when they were asked for last, the longest ago first.
    turns: BTreeMap<u64, Key>,
    next_turn: u64,
    next_way: u64,
    bytes: usize,
}

struct Remembered {
    tag: HeaderValue,
    body: Bytes,
    /// Counted from any fixed start.
    since: Duration,
    turn: u64,
}

impl Replies {
    /// What they take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.memory.lock().bytes
    }
}

impl Etags {
    /// Those of one more way, in the memory of all.
    pub(crate) fn new(replies: &Arc<Replies>, timeout: Option<Duration>) -> Self {
        let mut memory = replies.memory.lock();
        let way = memory.next_way;
        memory.next_way += 1;
        drop(memory);
        Self { replies: Arc::clone(replies), way, timeout }
    }

    /// The reply to what is asked, and its tag, if it isn't too old.
    pub(crate) fn known(&self, asked: &Asked, now: Duration) -> Option<(HeaderValue, Bytes)> {
        let key = self.key(asked);
        let memory = &mut *self.replies.memory.lock();
        let known = memory.replies.get_mut(&key)?;
        if self.timeout.is_some_and(|timeout| now.saturating_sub(known.since) >= timeout) {
            memory.forget(&key);
            return None;
        }
        let found = (known.tag.clone(), known.body.clone());
        let before = std::mem::replace(&mut known.turn, memory.next_turn);
        memory.turns.remove(&before);
        memory.turns.insert(memory.next_turn, key);
        memory.next_turn += 1;
        Some(found)
    }

    /// What follows from a reply for the next call. Answers whether one had to go for want of room.
    pub(crate) fn note(&self, asked: &Asked, reply: &Reply, now: Duration) -> bool {
        match &reply.tag {
            _ if reply.is_known => false,
            Some(tag) => self.remember(asked, tag, &reply.body, now),
            None => {
                self.forget(asked);
                false
            }
        }
    }

    /// Remembers a reply with its tag instead of the one before. Answers whether one had to go for want of room.
    fn remember(&self, asked: &Asked, tag: &HeaderValue, body: &[u8], now: Duration) -> bool {
        let key = self.key(asked);
        let mut memory = self.replies.memory.lock();
        memory.forget(&key);
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES {
            return false;
        }
        // Copies: what they were read into may be far larger.
        let Ok(tag) = HeaderValue::from_bytes(tag.as_bytes()) else { return false };
        let remembered = Remembered { tag, body: Bytes::copy_from_slice(body), since: now, turn: memory.next_turn };
        let bytes = remembered.bytes();
        if bytes > MAX_BYTES {
            return true;
        }
        let mut made_room = false;
        while memory.bytes + bytes > MAX_BYTES {
            let Some((_, oldest)) = memory.turns.pop_first() else { break };
            memory.forget(&oldest);
            made_room = true;
        }
        memory.next_turn += 1;
        memory.bytes += bytes;
        memory.turns.insert(remembered.turn, key.clone());
        memory.replies.insert(key, remembered);
        made_room
    }

    /// Whatever was asked, its reply isn't remembered any more.
    pub(crate) fn forget(&self, asked: &Asked) {
        self.replies.memory.lock().forget(&self.key(asked));
    }

    fn key(&self, asked: &Asked) -> Key {
        (self.way, asked.clone())
    }
}

impl Drop for Etags {
    fn drop(&mut self) {
        let mut memory = self.replies.memory.lock();
        let own: Vec<Key> = memory.replies.keys().filter(|(way, _)| *way == self.way).cloned().collect();
        own.iter().for_each(|key| memory.forget(key));
    }
}

impl Memory {
    fn forget(&mut self, key: &Key) {
        if let Some(gone) = self.replies.remove(key) {
            self.turns.remove(&gone.turn);
            self.bytes -= gone.bytes();
        }
    }
}

impl Remembered {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.tag.len() + self.body.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn asked(number: usize) -> Asked {
        ("sync", Uid::new(&number.to_string()))
    }

    fn tag(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    /// How many are remembered, of how many turns, and in how many bytes.
    fn held(replies: &Replies) -> (usize, usize, usize) {
        let memory = replies.memory.lock();
        (memory.replies.len(), memory.turns.len(), memory.bytes)
    }

    #[test]
    fn a_reply_is_known_by_hook_and_parent_until_it_is_too_old() {
        let replies = Arc::<Replies>::default();
        let etags = Etags::new(&replies, Some(Duration::from_secs(10)));
        assert!(etags.known(&asked(1), NOW).is_none());
        assert!(!etags.remember(&asked(1), &tag("\"a\""), b"one", NOW));
        assert!(!etags.remember(&asked(2), &tag("\"b\""), b"two", NOW));
        assert_eq!(replies.bytes(), 2 * (ENTRY_BYTES + 6));
        let one = (tag("\"a\""), Bytes::from_static(b"one"));
        assert_eq!(etags.known(&asked(1), NOW + Duration::from_secs(9)), Some(one));
        assert!(etags.known(&("finalize", asked(1).1), NOW).is_none());
        assert!(etags.known(&asked(1), NOW + Duration::from_secs(10)).is_none());
        assert!(etags.known(&asked(1), NOW).is_none(), "it is gone");
        assert!(!etags.remember(&asked(2), &tag("\"c\""), b"2", NOW));
        assert_eq!(etags.known(&asked(2), NOW), Some((tag("\"c\""), Bytes::from_static(b"2"))));
        etags.forget(&asked(2));
        assert!(etags.known(&asked(2), NOW).is_none());
        assert_eq!(held(&replies), (0, 0, 0));
        let forever = Etags::new(&replies, None);
        forever.remember(&asked(1), &tag("a"), b"", Duration::ZERO);
        assert!(forever.known(&asked(1), Duration::MAX).is_some());
        let long = HeaderValue::from_bytes(&[b'a'; MAX_TAG_BYTES + 1]).unwrap();
        for unusable in [tag(""), long] {
            assert!(!forever.remember(&asked(1), &unusable, b"", NOW));
            assert!(forever.known(&asked(1), NOW).is_none());
        }
    }

    #[test]
    fn the_oldest_make_room() {
        const FOUR: usize = 4;
        // As many as there is room for.
        let body = vec![b'x'; MAX_BYTES / FOUR - ENTRY_BYTES - 1];
        let replies = Arc::<Replies>::default();
        let etags = Etags::new(&replies, None);
        for number in 0..FOUR {
            assert!(!etags.remember(&asked(number), &tag("a"), &body, NOW));
        }
        assert_eq!(held(&replies), (FOUR, FOUR, MAX_BYTES));
        // These are the newest now: one came again, and one was asked for.
        assert!(!etags.remember(&asked(0), &tag("b"), &body, NOW));
        assert!(etags.known(&asked(1), NOW).is_some());
        assert!(etags.remember(&asked(FOUR), &tag("a"), b"", NOW));
        assert!(etags.known(&asked(2), NOW).is_none(), "it was asked for longest ago");
        assert!([0, 1, 3].into_iter().all(|number| etags.known(&asked(number), NOW).is_some()));
        // All go for one that fills it; one that is too large for all of it isn't kept, and nobody goes.
        assert!(etags.remember(&asked(1), &tag("a"), &vec![b'x'; MAX_BYTES - ENTRY_BYTES - 1], NOW));
        assert_eq!(held(&replies), (1, 1, MAX_BYTES));
        assert!(etags.remember(&asked(2), &tag("a"), &vec![b'x'; MAX_BYTES], NOW));
        assert!(etags.known(&asked(2), NOW).is_none() && etags.known(&asked(1), NOW).is_some());
    }

    #[test]
    fn all_hooks_share_one_memory_and_none_knows_what_another_was_told() {
        let replies = Arc::<Replies>::default();
        let (one, other) = (Etags::new(&replies, None), Etags::new(&replies, None));
        one.remember(&asked(1), &tag("a"), b"one", NOW);
        other.remember(&asked(1), &tag("b"), b"other", NOW);
        assert_eq!(one.known(&asked(1), NOW), Some((tag("a"), Bytes::from_static(b"one"))));
        other.forget(&asked(1));
        assert!(one.known(&asked(1), NOW).is_some() && other.known(&asked(1), NOW).is_none());
        let large = vec![b'x'; MAX_BYTES - ENTRY_BYTES - 1];
        assert!(other.remember(&asked(2), &tag("b"), &large, NOW));
        assert!(one.known(&asked(1), NOW).is_none(), "the bound is that of all");
        one.remember(&asked(1), &tag("a"), b"one", NOW);
        assert!(other.known(&asked(2), NOW).is_none());
        other.remember(&asked(2), &tag("b"), b"other", NOW);
        drop(other);
        assert_eq!(held(&replies), (1, 1, ENTRY_BYTES + 4), "what was known is forgotten with the way to its hook");
        drop(one);
        assert_eq!(held(&replies), (0, 0, 0));
    }
}
