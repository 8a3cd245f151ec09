//! Metrics: `/metrics` in the OpenMetrics text format, from one shared registry.
//!
//! It never defines a metric and never changes one.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// Largest answer, in bytes. A registry beyond it has a label whose values are not bounded.
pub const MAX_METRICS_BYTES: usize = 32 * 1024 * 1024;

/// The media type of the format: OpenMetrics 1.0, section "Overall Structure".
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

async fn metrics(State(metrics): State<Metrics>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
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
    fn a_text_beyond_its_limit_is_an_error() {
        let mut text = Bounded { text: String::new(), limit: 4, full: false };
        assert!(text.write_str("abcd").is_ok() && !text.full);
        assert!(text.write_str("e").is_err() && text.full);
        assert_eq!(text.text, "abcd");
    }
}
