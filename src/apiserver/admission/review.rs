//! What a webhook is asked, and what its answer means: `admission.k8s.io/v1` AdmissionReviews.
//!
//! Values in, values out. Never sends anything and never changes an object: a patch is given back as it came.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Failure;
use crate::auth::User;
use crate::error::Error;
use crate::field_error::go_quote;
use crate::registry::Definition;
use crate::request::Request;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// A denial has at least this code: it can't pass for a success.
const LEAST_DENIAL: u16 = 400;

/// What is asked about.
pub(super) struct Subject<'a> {
    pub(super) definition: &'a Definition,
    pub(super) request: &'a Request,
    pub(super) user: &'a User,
    /// As the client named it; empty if the server is to.
    pub(super) name: &'a str,
}

/// The question about an object as it is now.
pub(super) fn question(uid: &str, subject: &Subject<'_>, object: &Value) -> Value {
    let Subject { definition, request, user, name } = subject;
    let resource = &definition.resource;
    let (group, version) = (resource.api_version.group(), resource.api_version.version());
    let kind = json!({ "group": group, "version": version, "kind": &*resource.kind });
    let plural = json!({ "group": group, "version": version, "resource": &*resource.plural });
    // A Namespace is in itself.
    let is_namespace = group.is_empty() && &*resource.plural == "namespaces";
    let namespace = if is_namespace { name } else { request.namespace.as_str() };
    let mut asked = json!({
        "uid": uid, "kind": kind, "resource": plural, "requestKind": kind, "requestResource": plural,
        "operation": "CREATE", "userInfo": { "username": user.name, "groups": user.groups }, "object": object,
        "oldObject": null, "dryRun": request.query.get("dryRun") == Some("All"), "options": options(request),
    });
    for (field, text) in [("name", *name), ("namespace", namespace)] {
        if !text.is_empty() {
            asked[field] = text.into();
        }
    }
    if !user.uid.is_empty() {
        asked["userInfo"]["uid"] = user.uid.as_str().into();
    }
    json!({ "kind": KIND, "apiVersion": API_VERSION, "request": asked })
}

fn options(request: &Request) -> Value {
    let mut options = json!({ "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" });
    for field in ["fieldManager", "fieldValidation"] {
        if let Some(value) = request.query.get(field) {
            options[field] = value.into();
        }
    }
    if let Some(value) = request.query.get("dryRun") {
        options["dryRun"] = json!([value]);
    }
    options
}

/// What a webhook says.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    /// Why the object isn't to be; `None` if it may.
    pub(super) denied: Option<Error>,
    /// A JSON patch of it; empty for none.
    pub(super) patch: Vec<u8>,
    /// To be told to the client.
    pub(super) warnings: Vec<String>,
}

/// Reads the answer of a webhook of this name to the question with this uid.
///
/// # Errors
/// If it isn't one.
pub(super) fn answer(name: &str, uid: &str, text: &[u8]) -> Result<Verdict, Failure> {
    let invalid = |why: String| Failure::Answer(why);
    let review: Value = serde_json::from_slice(text).map_err(|error| invalid(error.to_string()))?;
    let response = &review["response"];
    if !response.is_object() {
        return Err(invalid("webhook response was absent".to_owned()));
    }
    let said = |field: &str| response[field].as_str().unwrap_or_default();
    if said("uid") != uid {
        return Err(invalid(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(said("uid")))));
    }
    let of = |field: &str| review[field].as_str().unwrap_or_default();
    if (of("apiVersion"), of("kind")) != (API_VERSION, KIND) {
        let (group, version) = of("apiVersion").rsplit_once('/').unwrap_or_else(|| ("", of("apiVersion")));
        let got = format!("{group}/{version}, Kind={}", of("kind"));
        return Err(invalid(format!("expected webhook response of {API_VERSION}, Kind={KIND}, got {got}")));
    }
    let patch = STANDARD.decode(said("patch")).map_err(|error| invalid(format!("response.patch: {error}")))?;
    match (patch.is_empty(), response["patchType"].as_str()) {
        (true, None) | (false, Some("JSONPatch")) => {}
        (false, None) => {
            return Err(invalid("webhook returned response.patch but not response.patchType".to_owned()));
        }
        (true, Some(_)) => {
            return Err(invalid("webhook returned response.patchType but not response.patch".to_owned()));
        }
        (false, Some(other)) => return Err(invalid(format!("unsupported patch type {}", go_quote(other)))),
    }
    let Some(allowed) = response["allowed"].as_bool() else {
        return Err(invalid("response.allowed isn't a boolean".to_owned()));
    };
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let denied = (!allowed).then(|| denial(name, &response["status"]));
    Ok(Verdict { denied, patch, warnings: warnings.map(str::to_owned).collect() })
}

/// The Status that a webhook refuses an object with.
fn denial(name: &str, status: &Value) -> Error {
    let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty());
    let by = format!("admission webhook {} denied the request", go_quote(name));
    let message = match text("message").or_else(|| text("reason")) {
        Some(why) => format!("{by}: {why}"),
        None => format!("{by} without explanation"),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
    let reason = text("reason").unwrap_or_default().to_owned();
    let details = status["details"].as_object().cloned().map_or(Value::Null, |details: Map<_, _>| details.into());
    Error { reason: reason.into(), details, ..Error::new(code.max(LEAST_DENIAL), "", message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(response: &Value) -> Result<Verdict, String> {
        let review = json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response });
        answer("a.b.c", "u", review.to_string().as_bytes()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn answers_are_verdicts() {
        let verdict = read(&json!({ "uid": "u", "allowed": true, "warnings": ["w"] })).unwrap();
        assert_eq!(verdict, Verdict { denied: None, patch: Vec::new(), warnings: vec!["w".to_owned()] });
        let patch = STANDARD.encode("[]");
        let patched = json!({ "uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": patch });
        assert_eq!(read(&patched).unwrap().patch, b"[]");
        let denied = |status: Value| {
            read(&json!({ "uid": "u", "allowed": false, "status": status })).unwrap().denied.unwrap().status()
        };
        let why = denied(json!({ "code": 403, "reason": "Forbidden", "message": "no" }));
        assert_eq!((&why["code"], &why["reason"]), (&json!(403), &json!("Forbidden")));
        assert_eq!(why["message"], "admission webhook \"a.b.c\" denied the request: no");
        assert_eq!(
            denied(json!({ "reason": "Odd" }))["message"],
            "admission webhook \"a.b.c\" denied the request: Odd"
        );
        let bare = denied(Value::Null);
        assert_eq!((&bare["code"], &bare["reason"]), (&json!(400), &Value::Null));
        assert_eq!(bare["message"], "admission webhook \"a.b.c\" denied the request without explanation");
        assert_eq!(denied(json!({ "code": 200 }))["code"], 400);
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let rows = [
            (json!(null), "webhook response was absent"),
            (json!({ "uid": "v" }), "expected response.uid=\"u\", got \"v\""),
            (json!({ "uid": "u" }), "response.allowed"),
            (json!({ "uid": "u", "allowed": true, "patch": "W10=" }), "response.patch but not response.patchType"),
            (json!({ "uid": "u", "allowed": true, "patchType": "JSONPatch" }), "patchType but not response.patch"),
            (json!({ "uid": "u", "allowed": true, "patchType": "Odd", "patch": "W10=" }), "unsupported patch type"),
            (json!({ "uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": "?" }), "response.patch: "),
        ];
        for (response, wanted) in rows {
            let why = read(&response).unwrap_err();
            assert!(why.starts_with("received invalid webhook response: ") && why.contains(wanted), "{why}");
        }
        let old = json!({ "apiVersion": "admission.k8s.io/v1beta1", "kind": KIND, "response": { "uid": "u" } });
        let why = answer("a.b.c", "u", old.to_string().as_bytes()).unwrap_err().to_string();
        assert!(
            why.ends_with(
                "of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview"
            ),
            "{why}"
        );
        assert!(answer("a.b.c", "u", b"<html>").is_err());
    }
}
