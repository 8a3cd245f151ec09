//! What is to be seen, as values; and as lines of text.
//!
//! Pure but for colours, which `console` gives where the terminal has them. Never looks at a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use console::{Style, measure_text_width, truncate_str};

use super::affinity::Steady;
use super::ownership::SHARDS;
use super::record::Calls;

/// Changes that are shown, and acts of the story.
const SHOWN_CHANGES: usize = 2;
const SHOWN_ACTS: usize = 4;
/// Columns of the map of shards: in four lines of 64 it is a square to the eye.
const MAP: usize = 64;
/// Columns that what was done takes at most, before what followed.
const WHAT: usize = 46;
/// Columns of the bar.
const BAR: usize = 30;
/// Phases in the order of the bar, with their colours; a Website without one comes last.
const PHASES: [&str; 4] = ["Ready", "Pending", "Error", NEW];
/// What a Website without a status is.
pub(crate) const NEW: &str = "New";

/// A moment, in the order of all that are told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Local time, `14:31:02`.
    pub(crate) time: String,
}

/// Something that was done to the objects, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// When it was done.
    pub(crate) begun: Moment,
    /// What was done.
    pub(crate) what: String,
    /// When something followed, and what; `None` while it is awaited.
    pub(crate) outcome: Option<(Moment, String)>,
}

impl Change {
    /// One line for logs, at the moment when it is over: what came of it says how long that took.
    pub(crate) fn line(&self) -> String {
        let (at, outcome) = match &self.outcome {
            Some((at, outcome)) => (at, outcome.as_str()),
            None => (&self.begun, "..."),
        };
        format!("{}  {}: {outcome}", at.time, self.what)
    }
}

/// A member at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its name, of which the number is a part.
    pub(crate) name: String,
    /// `live` and the like.
    pub(crate) state: &'static str,
    /// Its process, if it runs.
    pub(crate) pid: Option<u32>,
    /// Shards that it has, and how many of them it hands over.
    pub(crate) shards: (usize, usize),
    /// Hook calls over the last seconds, as long as it can make some.
    pub(crate) calls: Option<u64>,
    /// In memory.
    pub(crate) rss_bytes: Option<u64>,
}

/// A replica of the webhook at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaRow {
    /// Its name.
    pub(crate) name: String,
    /// `live` and the like.
    pub(crate) state: &'static str,
    /// Its process, if it runs.
    pub(crate) pid: Option<u32>,
    /// Parents whose last call was at it.
    pub(crate) parents: usize,
    /// Calls over the last seconds, as long as it can answer some.
    pub(crate) calls: Option<u64>,
}

/// Who has a shard: a member by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// It works on it.
    Owned(usize),
    /// It hands it over.
    Moving(usize),
    /// Nobody that runs.
    Nobody,
}

/// Shards that moved, and the longest that one of them had nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gaps {
    /// How many.
    pub(crate) count: usize,
    /// The longest.
    pub(crate) longest: Duration,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Since the start.
    pub(crate) elapsed: Duration,
    /// Websites that there shall be.
    pub(crate) wanted: usize,
    /// Websites by phase.
    pub(crate) phases: BTreeMap<String, usize>,
    /// Since the start.
    pub(crate) total: Calls,
    /// Over the last seconds, and how long that is.
    pub(crate) recent: (Calls, Duration),
    /// How often something happened that must not, and the first time.
    pub(crate) wrong: (usize, Option<String>),
    /// When, and what.
    pub(crate) last_error: Option<(String, String)>,
    /// Changes so far; those that don't show yet; for how long the first of these; and the longest that one took.
    pub(crate) wishes: (u64, usize, Duration, Duration),
    /// In the order of their numbers.
    pub(crate) members: Vec<Row>,
    /// In the order of their numbers.
    pub(crate) replicas: Vec<ReplicaRow>,
    /// Parents that were called since the replicas last changed, and those of them that were called elsewhere than before.
    pub(crate) moved_parents: (usize, usize),
    /// What was while they didn't change.
    pub(crate) steady: Steady,
    /// By number; empty without a table.
    pub(crate) shards: Vec<Cell>,
    /// Handed over in order.
    pub(crate) moved: Gaps,
    /// Taken from members that had ended.
    pub(crate) taken: Gaps,
    /// The newest last.
    pub(crate) changes: VecDeque<Change>,
    /// The newest last.
    pub(crate) acts: VecDeque<Change>,
    /// What can be done.
    pub(crate) hint: Option<&'static str>,
}

impl View {
    /// Websites in a phase.
    pub(crate) fn count(&self, phase: &str) -> usize {
        self.phases.get(phase).copied().unwrap_or(0)
    }

    /// Whether all are there and ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.wanted > 0 && self.count("Ready") == self.wanted && self.phases.values().sum::<usize>() == self.wanted
    }

    /// Phases with their counts: `Ready 197, Pending 3`.
    pub(crate) fn phases_text(&self) -> String {
        let counts = PHASES.iter().map(|phase| (*phase, self.count(phase))).filter(|(_, count)| *count > 0);
        let text: Vec<String> = counts.map(|(phase, count)| format!("{phase} {count}")).collect();
        if text.is_empty() { "none yet".to_owned() } else { text.join(", ") }
    }

    /// One line for logs.
    pub(crate) fn line(&self) -> String {
        let (recent, over) = &self.recent;
        let hook = match hook_text(recent) {
            text if text.is_empty() => String::new(),
            text => format!(", {text}"),
        };
        let error = match &self.last_error {
            Some((time, text)) if self.count("Ready") < self.wanted => {
                format!("; last error at {time}: {}", plain(text))
            }
            _ => String::new(),
        };
        let shards: Vec<String> = self.members.iter().map(|row| format!("{} {}", row.name, row.shards.0)).collect();
        let shards = if shards.is_empty() { String::new() } else { format!("; shards: {}", shards.join(", ")) };
        format!(
            "websites: {}; {} hook calls/s{hook}{shards}{}{error}",
            self.phases_text(),
            rate(recent.begun(), *over),
            self.wrong_text().map(|text| format!("; {text}")).unwrap_or_default(),
        )
    }

    /// The whole screen, each line at most `width` columns. The map of shards is left out where there isn't room for all.
    pub(crate) fn lines(&self, width: usize, room: usize) -> Vec<String> {
        let (recent, over) = &self.recent;
        let bold = Style::new().bold();
        let row = |name: &str, text: String| format!("  {} {text}", bold.apply_to(format!("{name:<11}")));
        let (made, waiting, first, longest) = self.wishes;
        let hook = match hook_text(recent) {
            text if text.is_empty() => String::new(),
            text => format!(", {text}"),
        };
        let calls = self
            .wrong_text()
            .map(|text| Style::new().red().bold().apply_to(text).to_string())
            .unwrap_or_else(|| "never two at once".to_owned());
        let gaps = |gaps: &Gaps| match gaps.count {
            0 => "none".to_owned(),
            count => format!("{count} (up to {})", short(gaps.longest)),
        };
        let slowest = short(longest);
        let changes = match (made, waiting) {
            (0, _) => "none yet".to_owned(),
            (_, 0) => format!("{made} titles; all served, the slowest took {slowest}"),
            _ => format!("{made} titles; {waiting} not served yet ({}), the slowest took {slowest}", short(first)),
        };
        let mut lines = vec![
            row("websites", format!("{}  {}", self.bar(), self.phases_text())),
            row("hook", format!("{} calls/s{hook}; {calls}", rate(recent.begun(), *over))),
            row("changes", changes),
            row("gaps", format!("shards handed over: {}, lost: {}", gaps(&self.moved), gaps(&self.taken))),
            row("affinity", self.affinity_text()),
            row(
                "last error",
                match &self.last_error {
                    None => "none".to_owned(),
                    Some((time, text)) => format!("{time}  {}", plain(text)),
                },
            ),
            String::new(),
        ];
        lines.extend(self.members.iter().map(|member| member.line(*over)));
        lines.extend(self.replicas.iter().map(|replica| replica.line(*over)));
        lines.push(self.hint.map(|hint| format!("  {}", Style::new().dim().apply_to(hint))).unwrap_or_default());
        let (log, map) = (self.newest(), self.map());
        if !map.is_empty() && lines.len() + map.len() + 1 + log.len() <= room {
            lines.extend(map);
            lines.push(String::new());
        }
        // The newest, if there isn't room for all.
        let fit = room.saturating_sub(lines.len());
        lines.extend(log.into_iter().rev().take(fit).rev());
        lines.into_iter().map(|line| truncate_str(&line, width.saturating_sub(1), "…").into_owned()).collect()
    }

    /// How many parents moved to another replica; without a change nobody is to.
    fn affinity_text(&self) -> String {
        let ((seen, elsewhere), Steady { calls, strayed, .. }) = (self.moved_parents, self.steady);
        let strayed = format!("{strayed} of {calls} calls");
        let strayed = match self.steady.strayed {
            0 => strayed,
            _ => Style::new().red().bold().apply_to(strayed).to_string(),
        };
        format!("{elsewhere} of {seen} moved at the webhooks' last change; else {strayed}")
    }

    /// The last of what was done, in the order in which it was, with what followed in a column of its own.
    fn newest(&self) -> Vec<String> {
        let last = |log: &'_ VecDeque<Change>, most| log.len().saturating_sub(most);
        let acts = self.acts.iter().skip(last(&self.acts, SHOWN_ACTS));
        let mut shown: Vec<&Change> =
            acts.chain(self.changes.iter().skip(last(&self.changes, SHOWN_CHANGES))).collect();
        shown.sort_by_key(|change| change.begun.number);
        let column = shown.iter().map(|change| measure_text_width(&change.what)).max().unwrap_or(0).min(WHAT);
        let line = |change: &&Change| {
            let outcome = change.outcome.as_ref().map_or("...", |(_, outcome)| outcome);
            let space = column.saturating_sub(measure_text_width(&change.what));
            format!("  {}  {}{:space$}  {outcome}", change.begun.time, change.what, "")
        };
        shown.iter().map(line).collect()
    }

    /// What must not happen, if it did.
    pub(crate) fn wrong_text(&self) -> Option<String> {
        let (count, first) = &self.wrong;
        let first = first.as_ref().filter(|_| *count > 0)?;
        Some(format!("WRONG {count} times, first: {}", plain(first)))
    }

    /// A digit for each shard: that of its owner, in the owner's colour.
    fn map(&self) -> Vec<String> {
        let digit = |number: usize| char::from_digit(u32::try_from(number % 10).unwrap_or(0), 10).unwrap_or(' ');
        let draw = |cell: &Cell| match cell {
            Cell::Owned(number) => colour(*number).apply_to(digit(*number)).to_string(),
            Cell::Moving(number) => colour(*number).reverse().apply_to(digit(*number)).to_string(),
            Cell::Nobody => Style::new().red().bold().apply_to('.').to_string(),
        };
        let lines = self.shards.chunks(MAP).enumerate().map(|(index, cells)| {
            let cells: String = cells.iter().map(draw).collect();
            let name = if index == 0 { "shards" } else { "" };
            format!("  {} {cells}", Style::new().bold().apply_to(format!("{name:<11}")))
        });
        lines.take(SHARDS.div_ceil(MAP)).collect()
    }

    fn bar(&self) -> String {
        let styles = [Style::new().green(), Style::new().yellow(), Style::new().red(), Style::new().dim()];
        let (mut bar, mut seen, mut drawn) = (String::new(), 0, 0);
        for (phase, style) in PHASES.iter().zip(styles) {
            seen += self.count(phase);
            let end = (seen * BAR).checked_div(self.wanted).unwrap_or(0).min(BAR);
            bar.push_str(&style.apply_to("█".repeat(end.saturating_sub(drawn))).to_string());
            drawn = drawn.max(end);
        }
        bar + &"·".repeat(BAR - drawn)
    }
}

impl ReplicaRow {
    fn line(&self, over: Duration) -> String {
        let state = state_style(self.state).apply_to(format!("{:<8}", self.state));
        let pid = self.pid.map_or_else(String::new, |pid| format!("pid {pid}"));
        let name = Style::new().bold().apply_to(format!("{:<11}", self.name));
        let (parents, calls) = (self.parents, calls_text(self.calls, over));
        format!("  {name} {state} {parents:>3} websites {:<8} {calls:>14} {:>7} {pid}", "", "").trim_end().to_owned()
    }
}

/// That of what a process does.
fn state_style(state: &str) -> Style {
    match state {
        "live" => Style::new().green(),
        "lost" | "dead" => Style::new().red().bold(),
        _ => Style::new().yellow(),
    }
}

impl Row {
    fn line(&self, over: Duration) -> String {
        let number = self.name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let (owned, moving) = self.shards;
        let moving = if moving > 0 { format!("{moving} moving") } else { String::new() };
        let state = state_style(self.state);
        let pid = self.pid.map_or_else(String::new, |pid| format!("pid {pid}"));
        let rss = self.rss_bytes.map_or_else(String::new, |bytes| format!("{} MiB", bytes >> 20));
        let line = format!(
            "  {} {} {owned:>3} shards {moving:<10} {:>14} {rss:>7} {pid}",
            colour(number).bold().apply_to(format!("{:<11}", self.name)),
            state.apply_to(format!("{:<8}", self.state)),
            calls_text(self.calls, over),
        );
        line.trim_end().to_owned()
    }
}

/// That of a member.
fn colour(number: usize) -> Style {
    let style = Style::new();
    match number % 6 {
        1 => style.green(),
        2 => style.cyan(),
        3 => style.yellow(),
        4 => style.magenta(),
        5 => style.blue(),
        _ => style.white(),
    }
}

/// A message on one line, without what a terminal would take for an order.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Latency and failures; empty without calls.
fn hook_text(calls: &Calls) -> String {
    let failed = if calls.failed > 0 { format!(", {} failed", calls.failed) } else { String::new() };
    match (calls.percentile(50), calls.percentile(99)) {
        (Some(p50), Some(p99)) => format!("p50 {}, p99 {}{failed}", short(p50), short(p99)),
        _ => failed.trim_start_matches(", ").to_owned(),
    }
}

/// `1.6 ms`, `48 ms`, `4.6 s`.
pub(crate) fn short(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

/// A process's calls per second; nothing for one that has ended.
fn calls_text(calls: Option<u64>, over: Duration) -> String {
    calls.map_or_else(String::new, |calls| format!("{} calls/s", rate(calls, over)))
}

/// Per second; over a shorter time nothing can be said.
fn rate(count: u64, over: Duration) -> String {
    if over < Duration::from_secs(1) {
        return "-".to_owned();
    }
    // Counts of a demo are small.
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / over.as_secs_f64();
    format!("{rate:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let phases = [("Ready", 150), ("Pending", 30), ("Error", 20)];
        let log = |name: &str, first: u64| {
            let begun = |number| Moment { number, time: "14:00:00".to_owned() };
            let change = |n: u64| Change { begun: begun(first + 2 * n), what: format!("{name} {n}"), outcome: None };
            (0..9).map(change).collect()
        };
        let row = |number: usize, state, shards| Row {
            name: format!("member-{number}"),
            state,
            pid: Some(1_234_567),
            shards,
            calls: (state == "live").then_some(123),
            rss_bytes: Some(123 << 20),
        };
        View {
            wanted: 200,
            phases: phases.into_iter().map(|(phase, count)| (phase.to_owned(), count)).collect(),
            recent: (Calls::default(), Duration::from_secs(4)),
            last_error: Some(("14:00:00".to_owned(), format!("a\nb\x1b[2J{}", "x".repeat(500)))),
            members: vec![row(1, "live", (128, 64)), row(2, "lost", (0, 0))],
            replicas: vec![ReplicaRow {
                name: "hook-1".to_owned(),
                state: "live",
                pid: Some(7_654_321),
                parents: 51,
                calls: Some(18),
            }],
            moved_parents: (200, 37),
            steady: Steady { calls: 900, again: 200, strayed: 0 },
            shards: (0..256).map(|n| if n < 128 { Cell::Owned(1) } else { Cell::Nobody }).collect(),
            changes: log("change", 2),
            acts: log("act", 1),
            ..View::default()
        }
    }

    #[test]
    fn a_screen_is_as_wide_as_it_may_be_and_shows_the_newest() {
        let lines = view().lines(80, 30);
        assert!(lines.iter().all(|line| measure_text_width(line) < 80), "{lines:#?}");
        let text = lines.join("\n");
        assert!(text.contains("Ready 150, Pending 30, Error 20"), "{text}");
        assert!(!text.contains("change 6") && text.contains("change 7") && text.contains("change 8"), "{text}");
        assert!(!text.contains("act 4") && text.contains("act 5") && text.contains("act 8"), "{text}");
        // In the order in which it was done.
        let [act7, change7, act8] = ["act 7", "change 7", "act 8"].map(|what| text.find(what).unwrap());
        assert!(act7 < change7 && change7 < act8, "{text}");
        assert_eq!(text.matches('█').count(), BAR);
        assert!(text.contains("a b [2Jx"), "{text}");
        // The whole of a member fits, and each shard has its place.
        assert!(text.contains("128 shards 64 moving    30.8 calls/s 123 MiB pid 1234567\n"), "{text}");
        assert!(text.contains(&"1".repeat(MAP)) && text.contains(&".".repeat(MAP)), "{text}");
        // Who has ended calls nobody.
        assert!(text.contains("member-2    lost       0 shards                           123 MiB"), "{text}");
        // A replica's line is in the same columns.
        assert!(
            text.contains("hook-1      live      51 websites             4.5 calls/s         pid 7654321\n"),
            "{text}"
        );
        assert!(text.contains("37 of 200 moved at the webhooks' last change; else 0 of 900 calls\n"), "{text}");
        // A small terminal has no room for the map, but for four members and six replicas more.
        let small = view().lines(80, 21);
        assert!(small.len() + 10 <= 27 && !small.join("\n").contains(&"1".repeat(MAP)), "{small:#?}");
        let tiny = view().lines(80, 13);
        assert!(tiny.len() == 13 && tiny[12].contains("change 8"), "{tiny:#?}");
        assert!(!tiny.join("\n").contains("act 6"), "{tiny:#?}");
        // Colours take no columns.
        console::set_colors_enabled(true);
        let coloured = view().lines(80, 30).join("\n");
        assert!(coloured.contains('\x1b'), "{coloured:?}");
        assert_eq!(console::strip_ansi_codes(&coloured), text);
    }

    #[test]
    fn ready_means_all_of_them() {
        let mut view = view();
        assert!(!view.is_ready());
        view.phases = [("Ready".to_owned(), 200)].into();
        assert!(view.is_ready());
        view.phases.insert(NEW.to_owned(), 1);
        assert!(!view.is_ready());
        assert!(!View::default().is_ready());
    }

    #[test]
    fn a_line_tells_without_a_terminal() {
        let mut view = view();
        view.last_error = Some(("14:00:00".to_owned(), "site-007: no".to_owned()));
        view.recent.0.of.insert("member-1-abcde".to_owned(), 100);
        let line = "websites: Ready 150, Pending 30, Error 20; 25.0 hook calls/s; shards: member-1 128, member-2 0; \
                    last error at 14:00:00: site-007: no";
        assert_eq!(view.line(), line);
        view.wrong = (2, Some("two calls".to_owned()));
        assert!(view.line().contains("; WRONG 2 times, first: two calls; last"), "{}", view.line());
    }
}
