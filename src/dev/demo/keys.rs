//! The keys of a terminal, one at a time, without waiting for a line.
//!
//! Never takes Ctrl-C away from the terminal, and never reads while somebody else is in the foreground.

use std::io::{IsTerminal as _, Stdin};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// A terminal that gives keys at once, until this is dropped.
pub(crate) struct Keys {
    stdin: Stdin,
    before: Termios,
}

impl Keys {
    /// `None` if there is no terminal, or it is somebody else's now.
    pub(crate) fn open() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() || !is_ours(&stdin) {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut now = before.clone();
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // A read comes back at once, with a key or without.
        now.special_codes[SpecialCodeIndex::VMIN] = 0;
        now.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &now).ok()?;
        Some(Self { stdin, before })
    }

    /// The next key, if one was pressed.
    pub(crate) fn pressed(&self) -> Option<u8> {
        let mut key = [0];
        let read = is_ours(&self.stdin).then(|| rustix::io::read(&self.stdin, &mut key))?;
        read.is_ok_and(|count| count == 1).then_some(key[0])
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = tcsetattr(&self.stdin, OptionalActions::Now, &self.before);
    }
}

/// Whether this process is in the foreground: others are stopped when they read.
fn is_ours(stdin: &Stdin) -> bool {
    tcgetpgrp(stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}
