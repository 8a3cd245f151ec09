//! Checks of the kinds that only hold data: namespaces, config maps, secrets, leases, revisions, events.

use serde_json::Value;

use super::{Check, entries, text};
use crate::field_error::FieldError;
use crate::kinds::{event as conversion, names, shape};

/// Bytes of all data of a config map or a secret (core.MaxSecretSize).
const MAX_DATA: usize = 1 << 20;
/// Bytes of an event's `reportingInstance`, `action` and `reason`.
const MAX_EVENT_FIELD: usize = 128;
/// Bytes of an event's message.
const MAX_EVENT_MESSAGE: usize = 1024;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub(super) fn namespace(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata(object, names::dns_label);
    for finalizer in object["spec"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        check.named("spec.finalizers", finalizer, names::qualified(finalizer));
        if !names::is_standard_finalizer(finalizer) && !finalizer.contains('/') {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            check.invalid_text("spec.finalizers", finalizer, why);
        }
    }
    check.metadata_update(object, old);
}

pub(super) fn namespace_status(check: &mut Check<'_>, object: &Value, old: &Value) {
    check.metadata_update(object, Some(old));
    let phase = text(&object["status"], "phase");
    let (wanted, emptiness) = if object["metadata"]["deletionTimestamp"].is_null() {
        ("Active", "empty")
    } else {
        ("Terminating", "not empty")
    };
    if phase != wanted {
        check.invalid_text(
            "status.Phase",
            phase,
            format!("may only be '{wanted}' if `deletionTimestamp` is {emptiness}"),
        );
    }
}

/// What may not change once `immutable` is set.
fn frozen(check: &mut Check<'_>, object: &Value, old: Option<&Value>, fields: &[&str]) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    if object["immutable"] != true {
        check.forbidden("immutable", IMMUTABLE);
    }
    for field in fields {
        if object[*field] != old[*field] {
            check.forbidden(*field, IMMUTABLE);
        }
    }
}

/// Length of what base64 text means.
fn decoded_len(text: &str) -> usize {
    let data = text.bytes().filter(|b| !matches!(b, b'=' | b'\r' | b'\n')).count();
    data * 3 / 4
}

pub(super) fn config_map(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata_update(object, old);
    frozen(check, object, old, &["data", "binaryData"]);
    check.metadata(object, names::dns_subdomain);
    let mut size = 0;
    for (key, value) in entries(object, "data") {
        let field = format!("data[{key}]");
        check.named(&field, key, names::config_key(key));
        if object["binaryData"].get(key).is_some() {
            check.invalid_text(field, key, "duplicate of key present in binaryData");
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(object, "binaryData") {
        check.named(&format!("binaryData[{key}]"), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > MAX_DATA {
        // The path of an empty name, as Go prints it.
        check.errors.push(FieldError::too_long("[]", MAX_DATA as i64));
    }
}

pub(super) fn secret(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata_update(object, old);
    if let Some(old) = old {
        check.immutable(&["type"], object, old);
    }
    frozen(check, object, old, &["data"]);
    check.metadata(object, names::dns_subdomain);
    let mut size = 0;
    for (key, value) in entries(object, "data") {
        check.named(&format!("data[{key}]"), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > MAX_DATA {
        check.errors.push(FieldError::too_long("data", MAX_DATA as i64));
    }
    let has = |key: &str| object["data"].get(key).is_some();
    let required: &[&str] = match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            if text(&object["metadata"]["annotations"], NAME).is_empty() {
                check.required(format!("metadata.annotations[{NAME}]"), "");
            }
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
        "kubernetes.io/ssh-auth" if text(&object["data"], "ssh-privatekey").is_empty() => {
            check.required("data[ssh-privatekey]", "");
            &[]
        }
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in required {
        if !has(key) {
            check.required(format!("data[{key}]"), "");
        }
    }
}

pub(super) fn lease(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    match old {
        Some(_) => check.metadata_update(object, old),
        None => check.metadata(object, names::dns_subdomain),
    }
    let spec = &object["spec"];
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        check.invalid("spec.leaseDurationSeconds", seconds.to_string(), "must be greater than 0");
    }
    check.nonnegative("spec.leaseTransitions", &spec["leaseTransitions"]);
    // `strategy` and `preferredHolder` are dropped: the feature gate CoordinatedLeaderElection is off.
}

pub(super) fn revision(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata_update(object, old);
    check.metadata(object, names::dns_subdomain);
    check.nonnegative("revision", &object["revision"]);
    match (&object["data"], old) {
        (_, Some(old)) => check.immutable(&["data"], object, old),
        (Value::Null, None) => check.required("data", "data is mandatory"),
        (Value::Object(_), None) => {}
        (_, None) => check.required("data", "data must be a valid JSON object"),
    }
}

/// What holds for the events of both kinds.
pub(super) fn event(check: &mut Check<'_>, object: &Value, controller_field: &str) {
    let namespace = text(&object["metadata"], "namespace");
    let involved = text(&object["involvedObject"], "namespace");
    let with_time = !object["eventTime"].is_null();
    let fits = match (with_time, involved) {
        (false, "") => matches!(namespace, "" | "default"),
        (false, involved) => involved == namespace,
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (true, _) => true,
    };
    if !fits {
        check.invalid_text("involvedObject.namespace", involved, "does not match event.namespace");
    }
    if with_time {
        let controller = text(object, "reportingComponent");
        if controller.is_empty() {
            check.required(controller_field, "");
        }
        check.named(controller_field, controller, names::qualified(controller));
        for field in ["reportingInstance", "action", "reason"] {
            let value = text(object, field);
            if value.is_empty() {
                check.required(field, "");
            }
            if value.len() > MAX_EVENT_FIELD {
                check.invalid(field, "\"\"", format!("can have at most {MAX_EVENT_FIELD} characters"));
            }
        }
        if text(object, "message").len() > MAX_EVENT_MESSAGE {
            check.invalid("message", "\"\"", format!("can have at most {MAX_EVENT_MESSAGE} characters"));
        }
    }
    check.named("namespace", namespace, names::dns_subdomain(namespace));
}

/// An event of `events.k8s.io/v1`.
pub(super) fn event_of_events(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    let object = conversion::as_core(object);
    event(check, &object, "reportingController");
    let Some(old) = old.map(conversion::as_core) else {
        check.metadata(&object, names::dns_subdomain);
        series(check, &object);
        if object["eventTime"].is_null() {
            check.required("eventTime", "");
        }
        let kind = text(&object, "type");
        if !matches!(kind, "Normal" | "Warning") {
            check.invalid("type", "\"\"", format!("has invalid value: {kind}"));
        }
        for field in ["firstTimestamp", "lastTimestamp", "count"] {
            if !object[field].is_null() {
                check.invalid(field, "\"\"", "needs to be unset");
            }
        }
        if object["source"].as_object().is_some_and(|source| !source.is_empty()) {
            check.invalid("source", "\"\"", "needs to be unset");
        }
        return;
    };
    check.metadata_update(&object, Some(&old));
    if object["series"] != old["series"] {
        series(check, &object);
    }
    let fields = [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ];
    for field in fields {
        if object[field] != old[field] {
            let value = match (&object[field], field) {
                (Value::Null, "count") => "0".to_owned(),
                (Value::Null, "reason" | "message" | "type" | "action") => "\"\"".to_owned(),
                (Value::String(text), _) => crate::field_error::go_quote(text),
                (value, "involvedObject" | "related") => internal_reference(value),
                (value, _) => shape::go_json("k8s.io/api/core/v1.Event", &[field], value),
            };
            let name = if field == "reportingComponent" { "reportingController" } else { field };
            check.invalid(name, value, "field is immutable");
        }
    }
}

/// An object reference as Go prints the internal type, whose fields have no JSON names.
fn internal_reference(reference: &Value) -> String {
    if reference.is_null() {
        return "null".to_owned();
    }
    let fields = [
        ("Kind", "kind"),
        ("Namespace", "namespace"),
        ("Name", "name"),
        ("UID", "uid"),
        ("APIVersion", "apiVersion"),
        ("ResourceVersion", "resourceVersion"),
        ("FieldPath", "fieldPath"),
    ];
    let fields: Vec<String> =
        fields.iter().map(|(go, name)| format!("\"{go}\":{}", Value::from(text(reference, name)))).collect();
    format!("{{{}}}", fields.join(","))
}

fn series(check: &mut Check<'_>, object: &Value) {
    let series = &object["series"];
    if series.is_null() {
        return;
    }
    if series["count"].as_i64().unwrap_or_default() < 2 {
        check.invalid("series.count", "\"\"", "should be at least 2");
    }
    if series["lastObservedTime"].is_null() {
        check.required("series.lastObservedTime", "");
    }
}
