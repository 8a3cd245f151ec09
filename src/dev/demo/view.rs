//! What is to be seen, as values; and as lines of text.
//!
//! Pure but for colours, which `console` gives where the terminal has them. Never looks at a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use console::{Style, measure_text_width, truncate_str};

use super::figures::Figures;

/// Changes that are shown.
pub(crate) const SHOWN_CHANGES: usize = 6;
/// Columns of the bar.
const BAR: usize = 30;
/// Phases in the order of the bar, with their colours; a Website without one comes last.
const PHASES: [&str; 4] = ["Ready", "Pending", "Error", NEW];
/// What a Website without a status is.
pub(crate) const NEW: &str = "New";

/// Something that was done to the objects, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Counted from 1.
    pub(crate) number: usize,
    /// Local time, `14:31:02`.
    pub(crate) time: String,
    /// What was done.
    pub(crate) what: String,
    /// What followed; `None` while it is awaited.
    pub(crate) outcome: Option<String>,
}

impl Change {
    /// One line for logs.
    pub(crate) fn line(&self) -> String {
        format!("{}  {}: {}", self.time, self.what, self.outcome.as_deref().unwrap_or("..."))
    }
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
    pub(crate) total: Figures,
    /// Over the last seconds, and how long that is.
    pub(crate) recent: (Figures, Duration),
    /// When, and what.
    pub(crate) last_error: Option<(String, String)>,
    /// The newest last.
    pub(crate) changes: VecDeque<Change>,
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
            text => format!("; hook {text}"),
        };
        let error = match &self.last_error {
            Some((time, text)) if self.count("Ready") < self.wanted => {
                format!("; last error at {time}: {}", plain(text))
            }
            _ => String::new(),
        };
        format!("websites: {}; {} syncs/s{hook}{error}", self.phases_text(), rate(recent.syncs, *over))
    }

    /// The whole screen, each line at most `width` columns.
    pub(crate) fn lines(&self, width: usize) -> Vec<String> {
        let (recent, over) = &self.recent;
        let bold = Style::new().bold();
        let row = |name: &str, text: String| format!("  {} {text}", bold.apply_to(format!("{name:<11}")));
        let mut lines = vec![
            row("websites", format!("{}  {}", self.bar(), self.phases_text())),
            row("syncs", format!("{}/s, {} since the start", rate(recent.syncs, *over), self.total.syncs)),
            row(
                "hook",
                match hook_text(recent) {
                    text if text.is_empty() => "no calls lately".to_owned(),
                    text => text,
                },
            ),
            row("API writes", format!("{}/s, {} since the start", rate(recent.writes, *over), self.total.writes)),
            row(
                "last error",
                match &self.last_error {
                    None => "none".to_owned(),
                    Some((time, text)) => format!("{time}  {}", plain(text)),
                },
            ),
            String::new(),
        ];
        let newest = self.changes.len().saturating_sub(SHOWN_CHANGES);
        for change in self.changes.iter().skip(newest) {
            let outcome = change.outcome.as_deref().unwrap_or("...");
            let space = 46usize.saturating_sub(measure_text_width(&change.what));
            lines.push(format!("  {}  {}{:space$} {outcome}", change.time, change.what, ""));
        }
        lines.into_iter().map(|line| truncate_str(&line, width.saturating_sub(1), "…").into_owned()).collect()
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

/// A message on one line, without what a terminal would take for an order.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Calls, latency and failures; empty without calls.
fn hook_text(figures: &Figures) -> String {
    let failed = if figures.failed > 0 { format!(", {} calls failed", figures.failed) } else { String::new() };
    match (figures.hook_quantile(0.5), figures.hook_quantile(0.99)) {
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
        View {
            wanted: 200,
            phases: phases.into_iter().map(|(phase, count)| (phase.to_owned(), count)).collect(),
            last_error: Some(("14:00:00".to_owned(), format!("a\nb\x1b[2J{}", "x".repeat(500)))),
            changes: (0..9)
                .map(|n| Change { number: n, time: "14:00:00".to_owned(), what: format!("change {n}"), outcome: None })
                .collect(),
            ..View::default()
        }
    }

    #[test]
    fn a_screen_is_as_wide_as_it_may_be_and_shows_the_newest() {
        let lines = view().lines(80);
        assert!(lines.iter().all(|line| measure_text_width(line) < 80), "{lines:#?}");
        let text = lines.join("\n");
        assert!(text.contains("Ready 150, Pending 30, Error 20"), "{text}");
        assert!(!text.contains("change 2") && text.contains("change 3") && text.contains("change 8"), "{text}");
        assert_eq!(text.matches('█').count(), BAR);
        assert!(text.contains("a b [2Jx"), "{text}");
        // Colours take no columns.
        console::set_colors_enabled(true);
        let coloured = view().lines(80).join("\n");
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
        view.recent = (Figures::parse("controller_runtime_reconcile_total 100"), Duration::from_secs(4));
        view.last_error = Some(("14:00:00".to_owned(), "site-007: no".to_owned()));
        let line = "websites: Ready 150, Pending 30, Error 20; 25.0 syncs/s; last error at 14:00:00: site-007: no";
        assert_eq!(view.line(), line);
    }
}
