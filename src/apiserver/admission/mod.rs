//! Mutating admission webhooks: what they make of an object before it is created.
//!
//! ```text
//!   creation   an insert that webhooks want to see: how it waits for them, and goes on
//!   select     which webhooks want to see it
//!   review     what one is asked, and what its answer means
//!   call       the question on its way
//! ```
//!
//! Creations only, be it by POST, PUT or apply: no update, deletion or subresource is ever shown to a webhook. Rules match
//! the version that the request names, not equivalent ones (`matchPolicy: Equivalent` does as `Exact`), nothing is asked
//! again (`reinvocationPolicy`), and there is no ValidatingWebhookConfiguration. A webhook that needs what isn't here, a
//! Service's address or CEL, counts as one that can't be called, and its `failurePolicy` decides. Without a
//! configuration nothing of this runs.

mod call;
mod creation;
mod review;
mod select;
#[cfg(test)]
mod tests;

pub(crate) use creation::{Creation, Made, waiting};

use serde_json::Value;

/// One webhook of a configuration, as it is stored.
struct Webhook<'a>(&'a Value);

impl<'a> Webhook<'a> {
    fn name(&self) -> &'a str {
        self.0["name"].as_str().unwrap_or_default()
    }

    /// Whether an object is created without it where it can't be called.
    fn is_ignorable(&self) -> bool {
        self.0["failurePolicy"] == "Ignore"
    }
}

/// Why a webhook gave no verdict.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It is of a form that can't be called from here.
    #[error("{0}")]
    Unsupported(&'static str),
    /// It can't be reached, or answers something else.
    #[error("failed to call webhook: {0}")]
    Call(#[from] call::Error),
    /// Its answer isn't one to the question.
    #[error("received invalid webhook response: {0}")]
    Answer(String),
    /// Its patch isn't one.
    #[error("received undecodable patch in webhook response: {0}")]
    Patch(String),
}
