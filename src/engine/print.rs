//! What is said on standard output and standard error: by a thread, so that a reader who has stopped reading holds nobody
//! else up.
//!
//! Never fails, and never waits but in [`Printer::finish`]: a text that can't be written is lost, and one that finds too
//! much waiting is left out and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What may wait to be written, with what its keeping takes, in bytes.
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// How long the last of it may take at the end.
pub(crate) const LAST: Duration = Duration::from_secs(1);
/// How long a text is waited for whose writer may not live much longer.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What all printers of the process left out.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How many texts this process left out so far, because too many waited to be written.
#[must_use]
pub fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Where texts are handed in; cheap to clone. What is handed in is written in this order, and its thread ends with the
/// last handle.
#[derive(Clone)]
pub struct Printer(Arc<Handle>);

/// Closes the desk when it is dropped.
struct Handle(Arc<Desk>);

/// Between those who hand in and the thread.
struct Desk {
    queue: Mutex<Queue>,
    /// Something was handed in, or written.
    changed: Condvar,
}

struct Queue {
    texts: VecDeque<Text>,
    bytes: usize,
    /// The thread has a text in hand.
    is_writing: bool,
    is_closed: bool,
    /// Not told yet.
    left_out: u64,
    note: fn(u64) -> String,
}

enum Text {
    Out(Vec<u8>),
    Err(Vec<u8>),
}

impl Text {
    fn bytes(&self) -> usize {
        let (Self::Out(text) | Self::Err(text)) = self;
        size_of::<Self>() + text.len()
    }
}

impl Printer {
    /// Starts the thread.
    #[must_use]
    pub fn start() -> Self {
        Self::to(io::stdout(), io::stderr())
    }

    fn to(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        let queue = Queue {
            texts: VecDeque::new(),
            bytes: 0,
            is_writing: false,
            is_closed: false,
            left_out: 0,
            note: |lost| format!("({lost} lines left out: they came faster than they were read)\n"),
        };
        let desk = Arc::new(Desk { queue: Mutex::new(queue), changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("printer".to_owned()).spawn({
            let desk = Arc::clone(&desk);
            move || desk.write(out, err)
        });
        // A process that gets no thread has other troubles than that nothing is said.
        drop(thread);
        Self(Arc::new(Handle(desk)))
    }

    /// What is written to standard error, line break included, where so many texts were left out; a line in parentheses
    /// without this.
    pub fn note_by(&self, note: fn(u64) -> String) {
        self.0.0.queue.lock().note = note;
    }

    /// A line to standard output.
    pub fn line(&self, text: &str) {
        self.hand_in(Text::Out(format!("{text}\n").into_bytes()));
    }

    /// A text to standard output, as it is.
    pub fn text(&self, text: String) {
        self.hand_in(Text::Out(text.into_bytes()));
    }

    /// A line to standard error.
    pub fn remark(&self, text: &str) {
        self.log(format!("{text}\n").into_bytes());
    }

    /// A text to standard error, as it is.
    pub fn log(&self, text: Vec<u8>) {
        self.hand_in(Text::Err(text));
    }

    fn hand_in(&self, text: Text) {
        let desk = &self.0.0;
        let mut queue = desk.queue.lock();
        // Behind what waited before those that were left out, where they are missing.
        let lost = queue.left_out;
        let note = (lost > 0).then(|| Text::Err((queue.note)(lost).into_bytes()));
        let more = text.bytes() + note.as_ref().map_or(0, Text::bytes);
        if queue.bytes + more > MAX_WAITING_BYTES {
            queue.left_out += 1;
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.left_out = 0;
        queue.bytes += more;
        queue.texts.extend(note.into_iter().chain([text]));
        drop(queue);
        desk.changed.notify_all();
    }

    /// Waits until all is written that was handed in, for a second at most: who doesn't read by then doesn't miss it.
    pub fn finish(&self) {
        self.wait(LAST);
    }

    /// A text to standard error whose writer may not live much longer: waits for a moment until it is written.
    pub fn last_words(&self, text: Vec<u8>) {
        self.log(text);
        self.wait(LAST_WORDS);
    }

    fn wait(&self, longest: Duration) {
        let (desk, end) = (&self.0.0, Instant::now() + longest);
        let mut queue = desk.queue.lock();
        if queue.left_out > 0 {
            let note = Text::Err((queue.note)(std::mem::take(&mut queue.left_out)).into_bytes());
            queue.bytes += note.bytes();
            queue.texts.push_back(note);
            desk.changed.notify_all();
        }
        while queue.is_writing || !queue.texts.is_empty() {
            if desk.changed.wait_until(&mut queue, end).timed_out() {
                return;
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Desk {
    fn write(&self, mut out: impl Write, mut err: impl Write) {
        while let Some(text) = self.next() {
            let _ = match text {
                Text::Out(text) => out.write_all(&text).and_then(|()| out.flush()),
                Text::Err(text) => err.write_all(&text),
            };
        }
    }

    /// The next text; `None` at the end.
    fn next(&self) -> Option<Text> {
        let mut queue = self.queue.lock();
        queue.is_writing = false;
        self.changed.notify_all();
        loop {
            if let Some(text) = queue.texts.pop_front() {
                queue.bytes -= text.bytes();
                queue.is_writing = true;
                return Some(text);
            }
            if queue.is_closed {
                return None;
            }
            self.changed.wait(&mut queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Passes on what is written; what stands behind it waits until it is taken.
    #[derive(Clone)]
    struct Page(Sender<Vec<u8>>, Arc<Mutex<()>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _reads = self.1.lock();
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A printer, what it has written, and a lock that stalls its reader.
    fn printer() -> (Printer, Receiver<Vec<u8>>, Arc<Mutex<()>>) {
        let (sender, written) = channel();
        let page = Page(sender, Arc::default());
        let reader = Arc::clone(&page.1);
        (Printer::to(page.clone(), page), written, reader)
    }

    fn all(written: &Receiver<Vec<u8>>) -> Vec<String> {
        written.try_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }

    #[test]
    fn the_end_comes_behind_the_last_text() {
        let (printer, written, _) = printer();
        printer.line("one");
        printer.remark("two");
        printer.text("three".to_owned());
        printer.finish();
        assert_eq!(all(&written), ["one\n", "two\n", "three"]);
        // The thread ends, and with it the page.
        drop(printer);
        assert!(written.recv().is_err());
    }

    #[test]
    fn a_reader_who_has_stopped_holds_nobody_up() {
        let (printer, written, reader) = printer();
        printer.note_by(|lost| format!("{lost} lost\n"));
        let stalled = reader.lock();
        let before = left_out();
        let text = "a".repeat(64 * 1024);
        // One is in the thread's hands, or will be; 15 fit beside what their keeping takes.
        for _ in 0..100 {
            printer.text(text.clone());
        }
        printer.finish();
        drop(stalled);
        printer.finish();
        printer.finish();
        printer.line("still there");
        printer.finish();
        let lines = all(&written);
        let (notes, texts): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.ends_with("lost\n"));
        let kept = texts.iter().filter(|line| **line == &text).count();
        let lost: u64 = notes.iter().map(|note| note.trim_end_matches(" lost\n").parse::<u64>().unwrap()).sum();
        assert!((15..=16).contains(&kept), "{kept}");
        assert_eq!((lost, left_out() - before), (100 - u64::try_from(kept).unwrap(), lost));
        let last: Vec<&str> = lines.iter().rev().take(2).map(String::as_str).collect();
        assert_eq!(last, ["still there\n", &format!("{lost} lost\n")], "the note stands where they are missing");
    }
}
