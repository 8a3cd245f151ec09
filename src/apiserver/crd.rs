//! The life of CRDs: accepted names, conditions, served kinds.
//!
//! Never converts between versions: a CRD with several versions must have the conversion strategy None.

use std::sync::Arc;

use ringmaster_core::object::Object;
use serde_json::{Value, json};

use crate::error::Error;
use crate::field_error::FieldError;
use crate::meta::Now;
use crate::ownership::{SERVER, Writer, follow};
use crate::registry::{Definition, Registry, of_crd};
use crate::schema::Schema;
use crate::store::{KindKey, Store};

/// Accepts a CRD's names, serves its kinds, and says so in its status.
pub(crate) fn establish(
    store: &mut Store,
    registry: &mut Registry,
    definition: &Definition,
    crd: &Arc<Object>,
    now: &Now,
) -> Arc<Object> {
    let mut value = crd.value();
    let (group, plural) = (text(&value["spec"]["group"]), text(&value["spec"]["names"]["plural"]));
    registry.remove(&group, &plural);
    if crd.is_deleting() {
        return Arc::clone(crd);
    }
    for (kind, _) in of_crd(&value) {
        registry.insert(kind);
    }
    let status = status(&value, now);
    if value["status"] == status {
        return Arc::clone(crd);
    }
    value["status"] = status;
    let writer = Writer { manager: SERVER, subresource: "status", now: &now.time };
    follow(definition, &writer, crd, &mut value);
    // Nobody else writes between: the lock is held.
    store.put(&definition.key, &definition.resource, Some(crd), value).unwrap_or_else(|_| Arc::clone(crd))
}

/// What is wrong with the schemas of a CRD.
///
/// # Errors
/// If it asks for conversion by a webhook, which isn't done here.
pub(crate) fn check(crd: &Value) -> Result<Vec<FieldError>, Error> {
    let spec = &crd["spec"];
    if spec["conversion"]["strategy"] == "Webhook" {
        return Err(Error::not_implemented("conversion between versions by a webhook"));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    let one = versions.windows(2).all(|pair| schema(&pair[0]) == schema(&pair[1]));
    let mut errors = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let path = if one {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{index}].schema.openAPIV3Schema")
        };
        let status = !version["subresources"]["status"].is_null();
        if let Err(faults) = Schema::compile(&schema(version), &path, status) {
            errors.extend(faults);
        }
        if one {
            break;
        }
    }
    Ok(errors)
}

/// Serves the kinds of a CRD no longer, and drops their objects.
pub(crate) fn withdraw(store: &mut Store, registry: &mut Registry, crd: &Object) {
    let value = crd.value();
    let (group, plural) = (text(&value["spec"]["group"]), text(&value["spec"]["names"]["plural"]));
    registry.remove(&group, &plural);
    store.drop_kind(&KindKey { group: group.as_str().into(), plural: plural.as_str().into() });
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn status(crd: &Value, now: &Now) -> Value {
    let spec = &crd["spec"];
    let since = |kind: &str| {
        let known = crd["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
        known.map_or_else(|| now.time.clone(), |condition| text(&condition["lastTransitionTime"]))
    };
    let stored: Vec<&Value> = spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|v| v["storage"] == true)
        .map(|v| &v["name"])
        .collect();
    json!({
        "conditions": [
            { "lastTransitionTime": since("NamesAccepted"), "message": "no conflicts found", "reason": "NoConflicts",
              "status": "True", "type": "NamesAccepted" },
            { "lastTransitionTime": since("Established"), "message": "the initial names have been accepted",
              "reason": "InitialNamesAccepted", "status": "True", "type": "Established" },
        ],
        "acceptedNames": spec["names"],
        "storedVersions": stored,
    })
}
