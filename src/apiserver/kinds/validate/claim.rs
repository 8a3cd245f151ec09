//! Checks of volume claims.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Check, list, text};
use crate::kinds::names;
use crate::kinds::quantity::Quantity;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn claim(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata_update(object, old);
    check.metadata(object, names::dns_subdomain);
    spec(check, "spec", &object["spec"]);
    if let Some(old) = old {
        update(check, object, old);
    }
}

/// What a claim asks for.
pub(super) fn spec(check: &mut Check<'_>, at: &str, spec: &Value) {
    let modes = list(spec, "accessModes");
    if modes.is_empty() {
        check.required(format!("{at}.accessModes"), "at least 1 access mode is required");
    }
    names::selector(&mut check.errors, &format!("{at}.selector"), &spec["selector"]);
    for mode in modes {
        check.one_of(format!("{at}.accessModes"), mode.as_str().unwrap_or_default(), &MODES);
    }
    let alone = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    if alone && modes.iter().any(|mode| mode != "ReadWriteOncePod" && MODES.iter().any(|known| mode == known)) {
        check.forbidden(format!("{at}.accessModes"), "may not use ReadWriteOncePod with other access modes");
    }
    let field = format!("{at}.resources[storage]");
    match spec["resources"]["requests"]["storage"].as_str().map(|text| (text, Quantity::parse(text))) {
        None => check.required(field, ""),
        Some((text, Ok(quantity))) if quantity.sign() <= 0 => {
            check.invalid_text(field, text, "must be greater than zero");
        }
        Some(_) => {}
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        check.named(&format!("{at}.storageClassName"), class, names::dns_subdomain(class));
    }
    if let Some(mode) = spec["volumeMode"].as_str() {
        check.one_of(format!("{at}.volumeMode"), mode, &["Block", "Filesystem"]);
    }
}

fn update(check: &mut Check<'_>, object: &Value, old: &Value) {
    let (new, before) = (&object["spec"], &old["spec"]);
    let mut same = new.clone();
    let bound = old["status"]["phase"] == "Bound";
    let mut free: Vec<&[&str]> = Vec::new();
    if text(before, "volumeName").is_empty() {
        free.push(&["volumeName"]);
    }
    if before["storageClassName"].is_null() {
        // A claim without a class may get one.
        free.push(&["storageClassName"]);
    }
    if bound {
        free.push(&["resources", "requests", "storage"]);
        free.push(&["volumeAttributesClassName"]);
    }
    for path in free {
        copy(&mut same, before, path);
    }
    if same != *before {
        let why =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        check.forbidden("spec", why);
    }
    let size = |object: &Value, list: &str, part: &str| {
        object[part][list]["storage"]
            .as_str()
            .or_else(|| object[part]["resources"][list]["storage"].as_str())
            .and_then(|text| Quantity::parse(text).ok())
    };
    if let (Some(wanted), Some(had)) = (size(object, "requests", "spec"), size(old, "requests", "spec"))
        && wanted.compare(&had) == Ordering::Less
        && size(old, "capacity", "status").is_some_and(|capacity| wanted.compare(&capacity) != Ordering::Greater)
    {
        check.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
    if new["volumeMode"] != before["volumeMode"] {
        let value = check.print(&["spec", "volumeMode"], &new["volumeMode"]);
        check.invalid("volumeMode", value, "field is immutable");
    }
}

/// Takes over one value.
fn copy(object: &mut Value, from: &Value, path: &[&str]) {
    let Some((name, rest)) = path.split_first() else { return };
    let Value::Object(members) = object else { return };
    if !rest.is_empty() {
        if let Some(inner) = members.get_mut(*name) {
            copy(inner, &from[*name], rest);
        }
    } else if from[*name].is_null() {
        members.remove(*name);
    } else {
        members.insert((*name).to_owned(), from[*name].clone());
    }
}
