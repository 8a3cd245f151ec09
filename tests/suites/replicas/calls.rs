//! What replicas wrote down: who was called where, when, and how it ended; and what trials ask of that.
//!
//! Never judges: trials do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The parent's name.
    pub(crate) parent: String,
    /// Its generation.
    pub(crate) generation: u64,
    /// Its shard, as the header said.
    pub(crate) shard: u8,
    /// Which replica was called.
    pub(crate) replica: usize,
    /// When, since 1970: one clock for all processes of this machine.
    pub(crate) began: Duration,
    /// When its answer was made, and the code; `None` if that never came to be.
    pub(crate) ended: Option<(Duration, u16)>,
    /// What its `Authorization` is known by; `None` if it had none.
    pub(crate) presented: Option<u64>,
}

/// A TLS connection that was made.
#[derive(Clone, Debug)]
pub(crate) struct Handshake {
    /// With which replica.
    pub(crate) replica: usize,
    /// When, as [`Call::began`].
    pub(crate) at: Duration,
    /// What was agreed on by ALPN; `-` if nothing was.
    pub(crate) protocol: String,
    /// The replica's certificate, by its fingerprint.
    pub(crate) ours: u64,
    /// The caller's.
    pub(crate) theirs: u64,
}

/// What a replica wrote down.
#[derive(Default)]
pub(super) struct Record {
    pub(super) calls: Vec<Call>,
    pub(super) handshakes: Vec<Handshake>,
}

/// The clock of [`Call::began`].
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A replica's record: see [`super::serve`] for its lines.
pub(super) fn read(record: &Path, replica: usize) -> anyhow::Result<Record> {
    let text = match fs::read_to_string(record) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Record::default()),
        Err(error) => return Err(error.into()),
    };
    let (mut calls, mut handshakes) = (BTreeMap::<u64, Call>::new(), Vec::new());
    // A last line that is still being written has no end.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| format!("{}: {line:?}", record.display()));
        let (what, number, at) = (word()?, word()?.parse()?, Duration::from_micros(word()?.parse()?));
        if what == "shaken" {
            let (protocol, ours, theirs) = (word()?.to_owned(), word()?.parse()?, word()?.parse()?);
            handshakes.push(Handshake { replica, at, protocol, ours, theirs });
        } else if what == "begin" {
            let (shard, generation, parent) = (word()?.parse()?, word()?.parse()?, word()?.to_owned());
            let presented = match word()? {
                "-" => None,
                known => Some(known.parse()?),
            };
            calls.insert(number, Call { parent, generation, shard, replica, began: at, ended: None, presented });
        } else {
            let code = word()?.parse()?;
            calls.get_mut(&number).context("an end without a begin")?.ended = Some((at, code));
        }
    }
    Ok(Record { calls: calls.into_values().collect(), handshakes })
}

/// Calls that began within a span.
pub(crate) fn within(calls: &[Call], from: Duration, to: Duration) -> Vec<Call> {
    calls.iter().filter(|call| (from..to).contains(&call.began)).cloned().collect()
}

/// The replicas that each parent's calls went to.
pub(crate) fn places(calls: &[Call]) -> HashMap<&str, HashSet<usize>> {
    let mut places: HashMap<&str, HashSet<usize>> = HashMap::new();
    for call in calls {
        places.entry(&call.parent).or_default().insert(call.replica);
    }
    places
}

/// The replica of each shard, by its last call.
pub(crate) fn shards(calls: &[Call]) -> BTreeMap<u8, usize> {
    calls.iter().map(|call| (call.shard, call.replica)).collect()
}

/// How many shards, and how many parents, each replica has.
pub(crate) fn counts(calls: &[Call]) -> BTreeMap<usize, (usize, usize)> {
    let mut counts: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for replica in shards(calls).values() {
        counts.entry(*replica).or_default().0 += 1;
    }
    for replicas in places(calls).values() {
        for replica in replicas {
            counts.entry(*replica).or_default().1 += 1;
        }
    }
    counts
}

/// The shards that are elsewhere.
pub(crate) fn moved(before: &BTreeMap<u8, usize>, after: &BTreeMap<u8, usize>) -> usize {
    before.iter().filter(|(shard, replica)| after.get(shard).is_some_and(|now| now != *replica)).count()
}

/// The longest time between two calls of a parent that began after `from`.
pub(crate) fn longest_gap(calls: &[Call], from: Duration) -> Duration {
    let mut last: HashMap<&str, Duration> = HashMap::new();
    let mut longest = Duration::ZERO;
    for call in calls.iter().filter(|call| call.began >= from) {
        if let Some(before) = last.insert(&call.parent, call.began) {
            longest = longest.max(call.began - before);
        }
    }
    longest
}
