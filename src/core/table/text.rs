//! A report as the text of an annotation.
//!
//! Never fails on what another version wrote: what can't be read is left out, and silence is never an acknowledgement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Report, RowId};
use crate::key::{Epoch, Uid};

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Text {
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    highest: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    warm: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    released: BTreeMap<String, u64>,
}

impl Report {
    /// The text of the annotation.
    #[must_use]
    pub fn to_text(&self) -> String {
        let rows = |rows: &BTreeMap<RowId, Epoch>| rows.iter().map(|(row, epoch)| (name(row), epoch.0)).collect();
        let text = Text {
            table: self.table.as_ref().map(ToString::to_string),
            highest: self.highest.0,
            warm: rows(&self.warm),
            released: rows(&self.released),
        };
        // Texts and numbers always have a JSON form.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// What an annotation says; nothing if it can't be read.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let text: Text = serde_json::from_str(text).unwrap_or_default();
        let rows = |rows: BTreeMap<String, u64>| {
            rows.into_iter().filter_map(|(row, epoch)| Some((row_id(&row)?, Epoch(epoch)))).collect()
        };
        Self {
            table: text.table.as_deref().map(Uid::new),
            highest: Epoch(text.highest),
            warm: rows(text.warm),
            released: rows(text.released),
        }
    }
}

fn name(row: &RowId) -> String {
    match row {
        RowId::Shard(shard) => format!("shard/{shard}"),
        RowId::Controller(uid) => format!("controller/{uid}"),
    }
}

fn row_id(text: &str) -> Option<RowId> {
    match text.split_once('/')? {
        ("shard", number) => number.parse().ok().map(RowId::Shard),
        ("controller", uid) => Some(RowId::Controller(Uid::new(uid))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_from_its_text() {
        let report = Report {
            table: Some(Uid::new("t")),
            highest: Epoch(1 << 52),
            warm: [(RowId::Shard(255), Epoch(5))].into(),
            released: [(RowId::Controller(Uid::new("a/b")), Epoch(6)), (RowId::Shard(0), Epoch(7))].into(),
        };
        assert_eq!(Report::from_text(&report.to_text()), report);
        assert_eq!(Report::from_text(&Report::default().to_text()), Report::default());
    }

    #[test]
    fn what_can_t_be_read_says_nothing() {
        for text in ["", "x", "[]", "{\"warm\":3}"] {
            assert_eq!(Report::from_text(text), Report::default(), "{text}");
        }
        let odd = r#"{"highest":4,"released":{"shard/256":1,"shard/-1":1,"row/1":1,"7":1},"new":true}"#;
        assert_eq!(Report::from_text(odd), Report { highest: Epoch(4), ..Report::default() });
    }
}
