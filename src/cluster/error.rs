//! What went wrong with a call to the API server, classed by method.
//!
//! Never classes by text: the code and the Status reason of Kubernetes decide.

use std::time::Duration;

use serde::Deserialize;

/// A failed call. Each carries what was called.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error.
    #[error("{call}: {message} ({code}{}{reason})", if reason.is_empty() { "" } else { " " })]
    Status {
        /// Method and path.
        call: String,
        /// HTTP code.
        code: u16,
        /// Reason of the Status, such as `AlreadyExists`; empty if there was none.
        reason: String,
        /// Message of the Status.
        message: String,
        /// What a Retry-After header asked for.
        retry_after: Option<Duration>,
        /// The Status names an object: it, and not its kind or path, is meant.
        object: bool,
    },
    /// No answer: the connection failed, or broke.
    #[error("{call}: {}", causes(&**source))]
    Connection {
        /// Method and path.
        call: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{call}: no answer within {after:?}")]
    Timeout {
        /// Method and path.
        call: String,
        /// The limit.
        after: Duration,
    },
    /// An answer that can't be read.
    #[error("{call}: {problem}")]
    Answer {
        /// Method and path.
        call: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A call that this member may not make: it was never sent.
    #[error("{call}: not sent, because {why}")]
    Fenced {
        /// What was to be done.
        call: String,
        /// Why it may not.
        why: &'static str,
    },
    /// No place among the calls in flight became free in time: it was never sent.
    #[error("{call}: not sent, because other calls took all its time")]
    NotSent {
        /// Method and path.
        call: String,
    },
    /// The client can't be made.
    #[error("{0}")]
    Configuration(String),
}

/// A message of the API server is cut at this many characters.
const MAX_MESSAGE_CHARS: usize = 512;

impl Error {
    /// The same without what follows a mark in the API server's message, for where that repeats what was sent.
    pub(crate) fn without(mut self, mark: &str) -> Self {
        if let Self::Status { message, .. } = &mut self
            && let Some(at) = message.find(mark)
        {
            message.truncate(at);
            message.push_str("another (it isn't repeated here)");
        }
        self
    }

    pub(crate) fn from_answer(call: String, code: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct Status {
            #[serde(default)]
            reason: Option<String>,
            #[serde(default)]
            message: Option<String>,
            #[serde(default)]
            details: Option<Details>,
        }
        #[derive(Deserialize)]
        struct Details {
            #[serde(default)]
            name: String,
        }
        let status: Status = serde_json::from_slice(body).unwrap_or_else(|_| Status {
            message: Some(String::from_utf8_lossy(body).into_owned()),
            ..Status::default()
        });
        let object = status.details.is_some_and(|details| !details.name.is_empty());
        let message = status.message.unwrap_or_default().trim().chars().take(MAX_MESSAGE_CHARS).collect();
        Self::Status { call, code, reason: status.reason.unwrap_or_default(), message, retry_after, object }
    }

    /// The HTTP code, if there was an answer.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What a Retry-After header asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The object, or the kind, isn't there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// This very object isn't there; its kind is served.
    #[must_use]
    pub fn is_object_not_found(&self) -> bool {
        matches!(self, Self::Status { code: 404, object: true, .. })
    }

    /// Our rights don't allow it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// A create met an object of the same name.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Status { code: 409, reason, .. } if reason == "AlreadyExists")
    }

    /// What we saw isn't what is: another version, another uid.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && !self.is_already_exists()
    }

    /// The API server found fault with the object: repeating it won't help until something changes.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 405 | 413 | 415 | 422))
    }

    /// The version or page token is too old.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }

    /// Whether a write may have happened all the same.
    #[must_use]
    pub fn outcome_is_unknown(&self) -> bool {
        match self {
            Self::Status { code, .. } => *code >= 500,
            Self::Connection { .. } | Self::Timeout { .. } | Self::Answer { .. } => true,
            Self::Configuration(_) | Self::Fenced { .. } | Self::NotSent { .. } => false,
        }
    }

    /// It was never sent: this member may not work on it, or not now.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }

    /// A word for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Status { code: 401, .. } => "Unauthorized",
            Self::Status { code: 403, .. } => "Forbidden",
            Self::Status { code: 404, .. } => "NotFound",
            Self::Status { code: 409, .. } => "Conflict",
            Self::Status { code: 429, .. } => "TooManyRequests",
            Self::Status { code: 400 | 422, .. } => "Invalid",
            Self::Status { .. } => "ServerError",
            Self::Connection { .. } => "ConnectionFailed",
            Self::Timeout { .. } => "Timeout",
            Self::Answer { .. } => "BadAnswer",
            Self::Configuration(_) => "Configuration",
            Self::Fenced { .. } => "Fenced",
            Self::NotSent { .. } => "NotSent",
        }
    }
}

/// An error with all that led to it, each said once.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_classed_by_code_and_reason() {
        let status = |code: u16, reason: &str| {
            let body = format!(r#"{{"kind":"Status","reason":"{reason}","message":"m"}}"#);
            Error::from_answer("GET /x".into(), code, None, body.as_bytes())
        };
        let missing = br#"{"reason":"NotFound","message":"m","details":{"name":"a","kind":"things"}}"#;
        assert!(Error::from_answer("GET /x".into(), 404, None, missing).is_object_not_found());
        let no_kind = Error::from_answer("GET /x".into(), 404, None, b"404 page not found");
        assert!(no_kind.is_not_found() && !no_kind.is_object_not_found());
        assert!(status(409, "AlreadyExists").is_already_exists() && !status(409, "AlreadyExists").is_conflict());
        assert!(status(409, "Conflict").is_conflict());
        assert!(status(500, "").outcome_is_unknown() && !status(422, "Invalid").outcome_is_unknown());
        assert!(status(410, "Expired").is_expired() && status(403, "Forbidden").is_forbidden());
        let text = Error::from_answer("GET /x".into(), 503, None, b"<html>busy").to_string();
        assert!(text.contains("<html>busy") && text.contains("503"), "{text}");
    }
}
