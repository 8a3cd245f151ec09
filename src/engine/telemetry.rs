//! Logging: one line to standard error for each event, as text or as JSON.
//!
//! Nothing here decides what is logged, and nothing but [`init`] touches the process's global subscriber. Logging
//! never ends the process, nor holds it up: a line that can't be written is lost, and so is one that finds too many
//! waiting for a reader who has stopped reading.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::print::Printer;

/// Levels of libraries that are noisy, or that log an error for what we retry and report ourselves. A directive of the
/// user's for the same target replaces one of these.
const LIBRARIES: &str = "kube_client=off,hyper_util=warn,rustls=warn,tower=warn";

/// Longest text of directives, in bytes.
const MAX_LEVEL_BYTES: usize = 4096;

/// What can be wrong with logging.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A directive can't be read.
    #[error("{0}: give a level (error, warn, info, debug, trace, off) or TARGET=LEVEL, separated by commas")]
    Directives(#[from] tracing_subscriber::filter::ParseError),
    /// A word that isn't a level would be taken for a target and silence everything else.
    #[error("{0:?} is no level: give error, warn, info, debug, trace or off, or {0}=LEVEL for a target")]
    NoLevel(String),
    /// The text is too long.
    #[error("the text is longer than {MAX_LEVEL_BYTES} bytes: name fewer targets")]
    TooLong,
    /// The process already has a subscriber.
    #[error("logging is already set up")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text for people, with colours when standard error is a terminal.
    Pretty,
    /// One JSON object.
    Json,
}

/// Starts logging for the whole process, its panics included, through `printer`, which must be finished at the end.
/// `level` is as for [`filter`].
///
/// # Errors
/// When `level` can't be read, or when the process already has a subscriber.
pub fn init(format: Format, level: &str, printer: &Printer) -> Result<(), Error> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let writer = {
        let printer = printer.clone();
        move || Handed(printer.clone())
    };
    // `log_internal_errors(false)`: the library reports what it can't format by `eprintln!`, which panics on a closed pipe.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(Lines(writer)).log_internal_errors(false);
    let result = match format {
        Format::Pretty => {
            // The convention of no-color.org: set to anything but nothing.
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            builder.with_ansi(io::stderr().is_terminal() && !plain).finish().try_init()
        }
        Format::Json => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
    };
    result.map_err(Error::Twice)?;
    if format == Format::Json {
        printer.note_by(json_note);
    }
    std::panic::set_hook(Box::new({
        let printer = printer.clone();
        move |panic| {
            let text = told(panic);
            // What can't unwind aborts after this.
            printer.last_words(match format {
                Format::Pretty => format!("{text}\n").into_bytes(),
                Format::Json => json_line("ERROR", &text, None).into_bytes(),
            });
        }
    }));
    Ok(())
}

/// What is said of a panic: as by the standard library, which would write it itself, and wait for a reader.
fn told(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let mut text = format!("thread '{}' {panic}", thread.name().unwrap_or("<unnamed>"));
    // As `RUST_BACKTRACE` says.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("\n{backtrace}"));
    }
    text
}

/// Says in the log that lines of it were left out.
fn json_note(lost: u64) -> String {
    json_line("WARN", "lines of the log left out: they came faster than they were read", Some(lost))
}

/// A line that didn't come by way of the subscriber.
fn json_line(level: &str, message: &str, lines: Option<u64>) -> String {
    let mut timestamp = String::new();
    // Only a writer that fails makes it fail, and a `String` doesn't.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    let mut line = serde_json::json!({
        "timestamp": timestamp,
        "level": level,
        "message": message,
        "target": module_path!(),
    });
    if let Some(lines) = lines {
        line["lines"] = lines.into();
    }
    format!("{line}\n")
}

/// Hands each write on as one text.
struct Handed(Printer);

impl Write for Handed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.log(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads directives of `tracing_subscriber::EnvFilter`: `info`, `warn,ringmaster_engine=debug`. What they don't name
/// is at `info`, and the noisy libraries at their own levels.
///
/// # Errors
/// When the text is too long, a directive can't be read, or a bare word isn't a level.
pub fn filter(level: &str) -> Result<EnvFilter, Error> {
    if level.len() > MAX_LEVEL_BYTES {
        return Err(Error::TooLong);
    }
    // Span directives, in brackets, may hold commas: they are the library's to judge.
    if level.contains('[') {
        return parsed(level);
    }
    let parts: Vec<_> = level.split(',').map(str::trim).collect();
    for word in parts.iter().filter(|part| !part.is_empty() && !part.contains('=')) {
        word.parse::<LevelFilter>().map_err(|_| Error::NoLevel((*word).to_owned()))?;
    }
    parsed(&parts.join(","))
}

fn parsed(level: &str) -> Result<EnvFilter, Error> {
    // The last directive for a target wins.
    Ok(EnvFilter::builder().parse(format!("info,{LIBRARIES},{level}"))?)
}

/// Makes writers that keep each event on one line.
struct Lines<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Lines<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// Writes one event. It arrives whole, in one `write_all`; a line break within it, say from an error's text, would let
/// what a webhook replied look like a line of ours.
struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if !line.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return self.0.write_all(bytes);
        }
        let mut escaped = Vec::with_capacity(bytes.len() + 16);
        for byte in line {
            match byte {
                b'\n' => escaped.extend_from_slice(b"\\n"),
                b'\r' => escaped.extend_from_slice(b"\\r"),
                other => escaped.push(*other),
            }
        }
        escaped.push(b'\n');
        self.0.write_all(&escaped)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, emit: impl FnOnce()) -> String {
        let sink = Sink::default();
        let make = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(level).unwrap())
            .with_writer(Lines(move || make.clone()))
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, emit);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn libraries_are_quiet_until_they_are_named() {
        let emit = || {
            tracing::error!(target: "kube_client::client", "kube");
            tracing::info!(target: "hyper_util::pool", "hyper");
            tracing::info!("ours");
        };
        let text = logged("info", emit);
        assert!(text.contains("ours") && !text.contains("kube") && !text.contains("hyper"), "{text}");
        let text = logged("warn,kube_client=error,hyper_util=debug", emit);
        assert!(!text.contains("ours") && text.contains("kube") && text.contains("hyper"), "{text}");
    }

    #[test]
    fn a_directive_for_one_target_leaves_the_others_at_info() {
        let text = logged("some::target=trace", || {
            tracing::info!("shown");
            tracing::debug!("hidden");
            tracing::trace!(target: "some::target", "named");
        });
        assert!(text.contains("shown") && text.contains("named") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn what_is_left_out_is_told_as_a_line_of_json() {
        let note = json_note(12);
        let value: serde_json::Value = serde_json::from_str(note.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!((&value["lines"], &value["level"]), (&12.into(), &"WARN".into()));
        let timestamp: jiff::Timestamp = value["timestamp"].as_str().unwrap().parse().unwrap();
        assert!(timestamp > jiff::Timestamp::UNIX_EPOCH, "{note}");
    }

    #[test]
    fn an_event_is_one_line() {
        let text = logged("info", || tracing::info!(error = %"first\r\nsecond", "a\nb"));
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && text.contains("a\\nb") && text.contains("first\\r\\nsecond"), "{text:?}");
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        assert!(matches!(filter("inof"), Err(Error::NoLevel(word)) if word == "inof"));
        assert!(matches!(filter("info,kube_client=verbose"), Err(Error::Directives(_))));
        assert!(matches!(filter(&"x=info,".repeat(1000)), Err(Error::TooLong)));
        for good in ["", "WARN, a::b=debug", "off", "info,[span{field=1}]=trace"] {
            assert!(filter(good).is_ok(), "{good}");
        }
    }
}
