//! Development without a cluster: the embedded API server and the engine in one process, webhooks as processes beside it.
//!
//! ```text
//!   session    `ringmaster dev`: all of it, from start to end
//!   demo/      `ringmaster demo`: the Website example on it, and what is to be seen
//!   local      the API server on loopback: users, kubeconfig, saved objects
//!   objects    calls to it; manifests: files of objects
//!   hooks      webhook processes; sources: the files that they are made of; guardian: their end, should we be killed
//! ```
//!
//! Never part of `ringmaster run`, and never listens beyond loopback.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod demo;
mod guardian;
mod hooks;
mod local;
mod manifests;
mod objects;
pub mod session;
mod sources;

use tokio_util::sync::CancellationToken;

/// How a session is told to end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Running syncs and webhooks end in their own time.
    pub gently: CancellationToken,
    /// Nothing is waited for any longer; objects are saved all the same.
    pub now: CancellationToken,
}

/// A path as a shell takes it.
fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ',' | '@' | '%');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_path_is_one_word_to_a_shell() {
        for (path, want) in [("/a/b-c.d", "/a/b-c.d"), ("/a b", "'/a b'"), ("/it's", r"'/it'\''s'")] {
            assert_eq!(super::quoted(std::path::Path::new(path)), want);
        }
    }
}
