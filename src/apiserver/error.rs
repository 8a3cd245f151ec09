//! What the server answers when it can't do what was asked: a Status, as Kubernetes makes it.
//!
//! Never a bare text: clients branch on code and reason.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::field_error::{FieldError, go_quote};
use crate::store::NotStored;

/// An answer that isn't a success.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// HTTP code.
    pub code: u16,
    /// Reason of the Status.
    pub reason: Cow<'static, str>,
    /// Message of the Status.
    pub message: String,
    /// Details of the Status; null for none.
    pub details: Value,
}

/// What an error is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// API group.
    pub group: &'a str,
    /// Plural name.
    pub plural: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Name of the object.
    pub name: &'a str,
}

impl About<'_> {
    fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    fn details(&self) -> Value {
        let mut details = json!({ "name": self.name, "kind": self.plural });
        if !self.group.is_empty() {
            details["group"] = self.group.into();
        }
        details
    }
}

impl Error {
    /// Any other error.
    #[must_use]
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into(), details: Value::Null }
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404 for a path or a kind.
    #[must_use]
    pub fn no_resource() -> Self {
        Self { details: json!({}), ..Self::new(404, "NotFound", "the server could not find the requested resource") }
    }

    /// 404 for an object.
    #[must_use]
    pub fn not_found(about: About<'_>) -> Self {
        let message = format!("{} \"{}\" not found", about.resource(), about.name);
        Self { details: about.details(), ..Self::new(404, "NotFound", message) }
    }

    /// 409 for a create.
    #[must_use]
    pub fn already_exists(about: About<'_>) -> Self {
        let message = format!("{} \"{}\" already exists", about.resource(), about.name);
        Self { details: about.details(), ..Self::new(409, "AlreadyExists", message) }
    }

    /// 409 for an update or a delete.
    #[must_use]
    pub fn conflict(about: About<'_>, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{}\": {why}", about.resource(), about.name);
        Self { details: about.details(), ..Self::new(409, "Conflict", message) }
    }

    /// 409 for an update of what is no longer the version that was read.
    #[must_use]
    pub fn modified(about: About<'_>) -> Self {
        Self::conflict(
            about,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403.
    #[must_use]
    pub fn forbidden(about: About<'_>, why: &str) -> Self {
        let message = format!("{} \"{}\" is forbidden: {why}", about.resource(), about.name);
        Self { details: about.details(), ..Self::new(403, "Forbidden", message) }
    }

    /// 422 with the fields that are wrong.
    #[must_use]
    pub fn invalid(about: About<'_>, errors: &[FieldError]) -> Self {
        // The message says each fault once; the causes keep all (apimachinery's NewInvalid).
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for text in errors.iter().map(ToString::to_string) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        let kind =
            if about.group.is_empty() { about.kind.to_owned() } else { format!("{}.{}", about.kind, about.group) };
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| {
                let text = error.to_string();
                let message = text.strip_prefix(&format!("{}: ", error.field)).unwrap_or(&text).to_owned();
                json!({ "reason": error.kind.reason(), "message": message, "field": error.field })
            })
            .collect();
        let mut details = json!({ "causes": causes });
        for (field, text) in [("name", about.name), ("kind", about.kind), ("group", about.group)] {
            if !text.is_empty() {
                details[field] = text.into();
            }
        }
        let message = format!("{kind} \"{}\" is invalid: {list}", about.name);
        Self { details, ..Self::new(422, "Invalid", message) }
    }

    /// 422 for a patch whose outcome can't be decoded; `shown` is the outcome, or the patch, as text. The real server
    /// keeps the order of an outcome's fields; here they are sorted.
    #[must_use]
    pub fn invalid_patch(shown: &str, why: &str) -> Self {
        let fault = FieldError::invalid("patch", go_quote(shown), why);
        Self::invalid(About { group: "", plural: "", kind: "", name: "" }, &[fault])
    }

    /// Why the store refused an object; `raced` if somebody else was faster. The words are etcd's.
    #[must_use]
    pub fn not_stored(why: NotStored, raced: Self) -> Self {
        match why {
            NotStored::Raced => raced,
            NotStored::TooLarge => Self::new(500, "", "etcdserver: request is too large"),
        }
    }

    /// 410.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self {
            details: json!({}),
            ..Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        }
    }

    /// 405 for what can't be done with a custom resource.
    #[must_use]
    pub fn not_supported(about: About<'_>, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", about.resource());
        let details = json!({ "group": about.group, "kind": about.plural });
        Self { details, ..Self::new(405, "MethodNotAllowed", message) }
    }

    /// 501 for what the real server can and this one can't.
    #[must_use]
    pub fn not_implemented(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("{what} is not implemented by the embedded API server"))
    }

    /// The Status object.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.as_ref().into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

impl From<crate::kinds::Undecodable> for Error {
    fn from(why: crate::kinds::Undecodable) -> Self {
        Self::bad_request(why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_look_like_the_real_server_s() {
        let about = About { group: "apps", plural: "deployments", kind: "Deployment", name: "a" };
        let status = Error::not_found(about).status();
        assert_eq!(status["message"], "deployments.apps \"a\" not found");
        assert_eq!(status["details"], json!({ "name": "a", "group": "apps", "kind": "deployments" }));
        let core = About { group: "", plural: "pods", kind: "Pod", name: "b" };
        assert_eq!(Error::already_exists(core).message, "pods \"b\" already exists");
        assert!(Error::modified(core).message.starts_with("Operation cannot be fulfilled on pods \"b\": the object"));
    }
}
