//! What was measured, as a table beside the budgets and as JSON.
//!
//! Never measures.

use std::time::Duration;

use serde_json::{Value, json};

/// One line of the table.
pub(crate) struct Row {
    what: String,
    ours: f64,
    raw: Option<f64>,
    unit: &'static str,
    budget: Option<Budget>,
}

/// What a line is held against.
#[derive(Clone, Copy)]
pub(crate) enum Budget {
    /// At least this share of the raw limit.
    OfRaw(f64),
    /// At most this.
    AtMost(f64),
}

impl Row {
    /// A figure of ours.
    pub(crate) fn new(what: impl Into<String>, ours: f64, unit: &'static str) -> Self {
        Self { what: what.into(), ours, raw: None, unit, budget: None }
    }

    /// Beside it, the raw limit's.
    pub(crate) fn raw(self, raw: f64) -> Self {
        Self { raw: Some(raw), ..self }
    }

    /// The budget that it has; `None` where it has none at this size.
    pub(crate) fn budget(self, budget: Option<Budget>) -> Self {
        Self { budget, ..self }
    }

    fn holds(&self) -> Option<bool> {
        match self.budget? {
            Budget::OfRaw(share) => Some(self.ours / self.raw? >= share),
            Budget::AtMost(most) => Some(self.ours <= most),
        }
    }

    fn line(&self) -> String {
        let raw = self.raw.map(number).unwrap_or_default();
        let ratio = self.raw.map(|raw| format!("{:.2}", self.ours / raw)).unwrap_or_default();
        let budget = match self.budget {
            Some(Budget::OfRaw(share)) => format!(">= {share:.2} of raw"),
            Some(Budget::AtMost(most)) => format!("<= {}", number(most)),
            None => String::new(),
        };
        let says = match self.holds() {
            Some(true) => "holds",
            Some(false) => "DOESN'T HOLD",
            None => "",
        };
        let what = format!("{}, {}", self.what, self.unit);
        format!("{what:<52}{:>10}{raw:>10}{ratio:>8}  {budget:<16}{says}", number(self.ours)).trim_end().to_owned()
    }

    fn json(&self) -> Value {
        json!({ "what": self.what, "unit": self.unit, "ours": self.ours, "raw": self.raw, "holds": self.holds() })
    }
}

/// The table with its head.
pub(crate) fn text(rows: &[Row]) -> String {
    let head = format!("{:<52}{:>10}{:>10}{:>8}  {}", "", "ringmaster", "raw", "ratio", "budget");
    std::iter::once(head).chain(rows.iter().map(Row::line)).collect::<Vec<_>>().join("\n")
}

/// The same for machines.
pub(crate) fn json(rows: &[Row]) -> Value {
    rows.iter().map(Row::json).collect()
}

fn number(value: f64) -> String {
    if value == 0.0 || value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// The value below which a share of all lies; `times` is sorted by this.
pub(crate) fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    let at = (times.len() as f64 * share).ceil() as usize;
    times.get(at.saturating_sub(1)).copied().unwrap_or_default()
}
