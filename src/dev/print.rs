//! What is printed: by one thread, so that a reader who has stopped reading holds nobody else up.
//!
//! Never fails: a line that can't be written is lost, and one that finds too many waiting is left out and counted.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Texts that may wait to be written.
const MAX_WAITING: usize = 1024;
/// How long the last of them may take at the end.
const LAST: Duration = Duration::from_secs(1);

enum Text {
    Out(String),
    Err(String),
    End(SyncSender<()>),
}

/// Where texts are handed in; cheap to clone.
#[derive(Clone)]
pub(crate) struct Printer {
    waiting: SyncSender<Text>,
    left_out: Arc<AtomicUsize>,
}

impl Printer {
    /// Starts the thread; it ends with the last handle.
    pub(crate) fn start() -> Self {
        let (sender, waiting) = sync_channel(MAX_WAITING);
        let left_out = Arc::new(AtomicUsize::new(0));
        std::thread::spawn({
            let left_out = Arc::clone(&left_out);
            move || write(&waiting, &left_out)
        });
        Self { waiting: sender, left_out }
    }

    /// A line to standard output.
    pub(crate) fn line(&self, text: &str) {
        self.hand_in(Text::Out(format!("{text}\n")));
    }

    /// A text to standard output, as it is.
    pub(crate) fn text(&self, text: String) {
        self.hand_in(Text::Out(text));
    }

    /// A line to standard error.
    pub(crate) fn remark(&self, text: &str) {
        self.hand_in(Text::Err(format!("{text}\n")));
    }

    fn hand_in(&self, text: Text) {
        if self.waiting.try_send(text).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written that was handed in, as long as that makes sense.
    pub(crate) fn finish(&self) {
        let (done, written) = sync_channel(1);
        if self.waiting.try_send(Text::End(done)).is_ok() {
            // Nobody reads: then nobody misses it.
            let _ = written.recv_timeout(LAST);
        }
    }
}

fn write(waiting: &Receiver<Text>, left_out: &AtomicUsize) {
    for text in waiting {
        let lost = left_out.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(io::stderr(), "({lost} lines left out: they came faster than they were read)");
        }
        let _ = match text {
            Text::Out(text) => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
            Text::Err(text) => io::stderr().write_all(text.as_bytes()),
            Text::End(done) => {
                let _ = done.send(());
                Ok(())
            }
        };
    }
}
