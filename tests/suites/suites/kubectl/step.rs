//! One row of a table: a command, its input, and what is expected beside that both servers agree.
//!
//! Never run here; see `run`.

use anyhow::bail;

/// One row of a table.
pub(super) struct Step {
    /// The command after `kubectl`, quoted as for a shell; placeholders in braces (see `run`).
    pub(super) line: &'static str,
    /// Its standard input.
    pub(super) input: &'static str,
    /// The sed script that `kubectl edit` runs as its editor.
    pub(super) editor: Option<&'static str>,
    /// Where its output is kept for later steps, below `{dir}`.
    pub(super) save: Option<&'static str>,
    /// What it does with the process.
    pub(super) kind: Kind,
    /// Whether it has to succeed.
    pub(super) succeeds: bool,
    /// What both servers' outputs are compared by.
    pub(super) compare: Compare,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Runs a command to its end.
    Run,
    /// Starts a command that runs on beside the steps that follow.
    Start,
    /// Waits until the output of the one that was started holds this text.
    Await(&'static str),
    /// Ends the one that was started; its output is compared.
    Stop,
}

/// How much of the outputs has to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    /// All of both.
    All,
    /// Each line of the embedded server's is one of the real one's, in that order: it serves fewer kinds.
    Lines,
    /// The exit code alone: what it says depends on who is faster.
    Exit,
}

impl Step {
    const fn new(line: &'static str, kind: Kind, succeeds: bool) -> Self {
        Self { line, input: "", editor: None, save: None, kind, succeeds, compare: Compare::All }
    }

    /// With this standard input.
    pub(super) fn input(self, input: &'static str) -> Self {
        Self { input, ..self }
    }

    /// With a sed script as the editor.
    pub(super) fn editor(self, script: &'static str) -> Self {
        Self { editor: Some(script), ..self }
    }

    /// Keeps the output in a file of `{dir}`.
    pub(super) fn save(self, file: &'static str) -> Self {
        Self { save: Some(file), ..self }
    }

    /// Compares only the lines that the embedded server has.
    pub(super) fn lines(self) -> Self {
        Self { compare: Compare::Lines, ..self }
    }

    /// Compares only the exit code.
    pub(super) fn exit(self) -> Self {
        Self { compare: Compare::Exit, ..self }
    }
}

/// A command that has to succeed.
pub(super) fn ok(line: &'static str) -> Step {
    Step::new(line, Kind::Run, true)
}

/// A command that has to fail.
pub(super) fn fails(line: &'static str) -> Step {
    Step::new(line, Kind::Run, false)
}

/// A command that runs on beside the steps that follow, until [`stop`].
pub(super) fn start(line: &'static str) -> Step {
    Step::new(line, Kind::Start, true)
}

/// Waits until the output of what was started holds a text.
pub(super) fn shows(text: &'static str) -> Step {
    Step::new("", Kind::Await(text), true)
}

/// Ends what was started, and compares its output.
pub(super) fn stop() -> Step {
    Step::new("", Kind::Stop, true)
}

/// The words of a line: blanks part them, single and double quotes hold them together.
///
/// # Errors
/// A quote isn't closed.
pub(super) fn words(line: &str) -> anyhow::Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        bail!("a quote isn't closed: {line}");
    }
    words.extend(word);
    Ok(words)
}
