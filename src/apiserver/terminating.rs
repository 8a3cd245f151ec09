//! What a terminating namespace says of itself.
//!
//! The conditions are those of the namespace controller of Kubernetes 1.36. Never deletes anything.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::meta::Now;

/// The conditions of a terminating namespace, each with its type, reason and message when all is well.
const CONDITIONS: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

/// Sets the conditions by what remains, and by what finalizers hold, each with a count.
pub(crate) fn set_conditions(
    status: &mut Value,
    remaining: &BTreeMap<String, usize>,
    finalizers: &BTreeMap<String, usize>,
    now: &Now,
) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    let join = |counts: &BTreeMap<String, usize>, verb: &str| {
        let mut texts: Vec<String> =
            counts.iter().map(|(what, count)| format!("{what} {verb} {count} resource instances")).collect();
        // The whole texts are sorted, as there.
        texts.sort();
        texts.join(", ")
    };
    for (kind, reason, message) in CONDITIONS {
        let (status, reason, message) = match kind {
            "NamespaceContentRemaining" if !remaining.is_empty() => {
                let list = join(remaining, "has");
                ("True", "SomeResourcesRemain", format!("Some resources are remaining: {list}"))
            }
            "NamespaceFinalizersRemaining" if !finalizers.is_empty() => {
                let list = join(finalizers, "in");
                let message = format!("Some content in the namespace has finalizers remaining: {list}");
                ("True", "SomeFinalizersRemain", message)
            }
            _ => ("False", reason, message.to_owned()),
        };
        let mut new = json!({
            "type": kind, "status": status, "lastTransitionTime": now.time, "reason": reason, "message": message,
        });
        match conditions.iter_mut().find(|condition| condition["type"] == kind) {
            Some(old) => {
                if old["status"] == new["status"] {
                    new["lastTransitionTime"] = old["lastTransitionTime"].clone();
                }
                *old = new;
            }
            None => conditions.push(new),
        }
    }
}
