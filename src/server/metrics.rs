//! Metrics: `/metrics` from one shared registry, in the OpenMetrics text format for who asks for it (Prometheus does), else
//! in the older one that every tool reads.
//!
//! It never defines a metric and never changes one.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Largest answer, in bytes. A registry beyond it has a label whose values are not bounded.
pub const MAX_METRICS_BYTES: usize = 32 * 1024 * 1024;

/// The media type of OpenMetrics 1.0, section "Overall Structure".
const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_1: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of Prometheus' own text format.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What can go wrong with metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text would be larger than [`MAX_METRICS_BYTES`].
    #[error("the metrics are larger than {MAX_METRICS_BYTES} bytes: some label has too many values")]
    TooLarge,
    /// A metric can't be written.
    #[error("a metric cannot be encoded")]
    Encode(#[source] fmt::Error),
}

/// The metrics of a process. Clones share one registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
}

impl Metrics {
    /// The metrics of a complete registry.
    pub fn new(registry: Arc<Registry>) -> Metrics {
        Metrics { registry }
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// When the text would be too large, or a metric can't be written.
    pub fn encode(&self) -> Result<String, Error> {
        let mut text = Bounded { text: String::new(), limit: MAX_METRICS_BYTES, full: false };
        match encode(&mut text, &self.registry) {
            Ok(()) => Ok(text.text),
            Err(_) if text.full => Err(Error::TooLarge),
            Err(error) => Err(Error::Encode(error)),
        }
    }

    /// The routes of these metrics.
    pub(crate) fn routes(self) -> Router {
        Router::new().route("/metrics", get(metrics)).with_state(self)
    }
}

async fn metrics(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepted.into_iter().any(|value| value.contains(OPEN_METRICS));
    match metrics.encode() {
        Ok(text) if open => ([(header::CONTENT_TYPE, OPEN_METRICS_1)], text).into_response(),
        Ok(text) => ([(header::CONTENT_TYPE, PLAIN)], plain(&text)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// OpenMetrics as Prometheus' text format: there a counter's family is named as its sample is, and units and the end
/// aren't said.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                out.push_str(&format!("# HELP {name}{total} {help}\n"));
            }
            out.push_str(&format!("# TYPE {name}{total} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// A text that takes no more than its limit, in bytes.
struct Bounded {
    text: String,
    limit: usize,
    full: bool,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.text.len() + part.len() > self.limit {
            self.full = true;
            return Err(fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_plain_format_names_counters_as_their_samples() {
        let open = "# HELP a Things done.\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"# \"} 1\n\
            # HELP b Things.\n# TYPE b gauge\nb 2\n# EOF\n";
        let want = "# HELP a_total Things done.\n# TYPE a_total counter\na_total{x=\"# \"} 1\n\
            # HELP b Things.\n# TYPE b gauge\nb 2\n";
        assert_eq!(plain(open), want);
    }

    #[test]
    fn a_text_beyond_its_limit_is_an_error() {
        let mut text = Bounded { text: String::new(), limit: 4, full: false };
        assert!(text.write_str("abcd").is_ok() && !text.full);
        assert!(text.write_str("e").is_err() && text.full);
        assert_eq!(text.text, "abcd");
    }
}
