//! Replies that a hook gave an entity tag, by what was asked: whoever has the same one still needs not be sent it again
//! (RFC 9110, 13.1.2).
//!
//! Never says whether a reply still holds: the hook does, at each call. Without a bound nothing is kept.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;
use ringmaster_core::key::Uid;

use crate::Reply;

/// Replies of one way to a hook that are remembered at most; the oldest make room.
const MAX_REPLIES: usize = 16_384;
/// Their bodies together, in bytes.
const MAX_BYTES: usize = 32 << 20;
/// Longest entity tag that is sent back, in bytes.
const MAX_TAG_BYTES: usize = 1024;

/// What a reply is remembered by: which hook was called, and for which parent.
pub type Asked = (&'static str, Uid);

/// The replies of one way to a hook.
pub(crate) struct Etags {
    /// A reply is remembered for so long; without end if there is none.
    timeout: Option<Duration>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    replies: HashMap<Asked, Remembered>,
    /// By their age, the oldest first.
    turns: BTreeMap<u64, Asked>,
    next_turn: u64,
    bytes: usize,
}

struct Remembered {
    tag: HeaderValue,
    body: Bytes,
    /// Counted from any fixed start.
    since: Duration,
    turn: u64,
}

impl Etags {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, memory: Mutex::default() }
    }

    /// The reply to what is asked, and its tag, if it isn't too old.
    pub(crate) fn known(&self, asked: &Asked, now: Duration) -> Option<(HeaderValue, Bytes)> {
        let mut memory = self.memory.lock();
        let known = memory.replies.get(asked)?;
        if self.timeout.is_some_and(|timeout| now.saturating_sub(known.since) >= timeout) {
            memory.forget(asked);
            return None;
        }
        Some((known.tag.clone(), known.body.clone()))
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
        let mut memory = self.memory.lock();
        memory.forget(asked);
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES {
            return false;
        }
        // Copies: what they were read into may be far larger.
        let Ok(tag) = HeaderValue::from_bytes(tag.as_bytes()) else { return false };
        let body = Bytes::copy_from_slice(body);
        let bytes = tag.len() + body.len();
        if bytes > MAX_BYTES {
            return true;
        }
        let mut made_room = false;
        while memory.replies.len() >= MAX_REPLIES || memory.bytes + bytes > MAX_BYTES {
            let Some((_, oldest)) = memory.turns.pop_first() else { break };
            memory.forget(&oldest);
            made_room = true;
        }
        let turn = memory.next_turn;
        memory.next_turn += 1;
        memory.bytes += bytes;
        memory.turns.insert(turn, asked.clone());
        memory.replies.insert(asked.clone(), Remembered { tag, body, since: now, turn });
        made_room
    }

    /// Whatever was asked, its reply isn't remembered any more.
    pub(crate) fn forget(&self, asked: &Asked) {
        self.memory.lock().forget(asked);
    }
}

impl Memory {
    fn forget(&mut self, asked: &Asked) {
        if let Some(gone) = self.replies.remove(asked) {
            self.turns.remove(&gone.turn);
            self.bytes -= gone.tag.len() + gone.body.len();
        }
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

    #[test]
    fn a_reply_is_known_by_hook_and_parent_until_it_is_too_old() {
        let etags = Etags::new(Some(Duration::from_secs(10)));
        assert!(etags.known(&asked(1), NOW).is_none());
        assert!(!etags.remember(&asked(1), &tag("\"a\""), b"one", NOW));
        assert!(!etags.remember(&asked(2), &tag("\"b\""), b"two", NOW));
        let one = (tag("\"a\""), Bytes::from_static(b"one"));
        assert_eq!(etags.known(&asked(1), NOW + Duration::from_secs(9)), Some(one));
        assert!(etags.known(&("finalize", asked(1).1), NOW).is_none());
        assert!(etags.known(&asked(1), NOW + Duration::from_secs(10)).is_none());
        assert!(etags.known(&asked(1), NOW).is_none(), "it is gone");
        assert!(!etags.remember(&asked(2), &tag("\"c\""), b"2", NOW));
        assert_eq!(etags.known(&asked(2), NOW), Some((tag("\"c\""), Bytes::from_static(b"2"))));
        etags.forget(&asked(2));
        assert!(etags.known(&asked(2), NOW).is_none());
        let memory = etags.memory.lock();
        assert_eq!((memory.replies.len(), memory.turns.len(), memory.bytes), (0, 0, 0));
        drop(memory);
        let forever = Etags::new(None);
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
        let etags = Etags::new(None);
        for number in 0..MAX_REPLIES {
            assert!(!etags.remember(&asked(number), &tag("a"), b"x", NOW));
        }
        // This one is the newest now.
        assert!(!etags.remember(&asked(0), &tag("b"), b"x", NOW));
        assert!(etags.remember(&asked(MAX_REPLIES), &tag("a"), b"x", NOW));
        assert!(etags.known(&asked(0), NOW).is_some() && etags.known(&asked(1), NOW).is_none());
        // Most of them go for a large one; one that is too large for all of it isn't kept.
        assert!(etags.remember(&asked(1), &tag("a"), &vec![b'x'; MAX_BYTES - 3], NOW));
        let memory = etags.memory.lock();
        assert_eq!((memory.replies.len(), memory.turns.len(), memory.bytes), (2, 2, MAX_BYTES));
        drop(memory);
        assert!(etags.known(&asked(MAX_REPLIES), NOW).is_some());
        assert!(etags.remember(&asked(2), &tag("a"), &vec![b'x'; MAX_BYTES + 1], NOW));
        assert!(etags.known(&asked(2), NOW).is_none() && etags.known(&asked(1), NOW).is_some());
    }
}
