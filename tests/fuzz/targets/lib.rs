//! What is fuzzed, as functions from bytes, and the corpora that tests replay.
//!
//! A function panics where a property doesn't hold: libFuzzer calls it for as long as it may (tests/fuzz), and the test
//! below with what was found before. None does I/O, waits for a clock, or keeps anything from one call to the next.
#![allow(clippy::panic, reason = "it is how a target tells")]

pub mod corpus;
pub mod merge;
pub mod patch;
pub mod reply;
mod source;
pub mod watch;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const ALL: [Target; 4] =
    [("merge", merge::run), ("patch", patch::run), ("reply", reply::run), ("watch", watch::run)];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A corpus is at most this large; it is run at every `make test`.
    const MAX_BYTES: usize = 256 << 10;

    #[test]
    fn corpora_replay() {
        for (name, run) in ALL {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpora").join(name);
            let text = std::fs::read_to_string(path).expect("a corpus for each target");
            assert!(text.len() <= MAX_BYTES, "{name}: {} bytes", text.len());
            let inputs: Vec<Vec<u8>> =
                text.lines().map(|line| corpus::input(line).expect("a line of a corpus")).collect();
            assert!(inputs.len() >= 50, "{name}: {} inputs", inputs.len());
            for (input, line) in inputs.iter().zip(text.lines()) {
                assert_eq!(corpus::line(input), line, "{name}: written otherwise");
                let ran = std::panic::catch_unwind(|| run(input));
                assert!(ran.is_ok(), "{name}: {line}");
            }
        }
    }
}
