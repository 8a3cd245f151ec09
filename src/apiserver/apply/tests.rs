//! Golden tests. golden.json is written by tests/golden/apply from the libraries that the real server v1.36.3 tracks and
//! applies with, and from its OpenAPI documents; main.go there says how.

use serde_json::{Value, json};

use super::*;

/// The versions of the CRD that the scenarios of Thing are of, or the one of a built-in kind.
struct Kinds {
    schema: Schema,
    versions: Vec<&'static str>,
}

impl Versions for Kinds {
    fn schema(&self, version: &str) -> Option<Schema> {
        self.versions.contains(&version).then(|| self.schema.clone())
    }

    fn convert(&self, object: &Value, version: &str) -> Value {
        let mut object = object.clone();
        object["apiVersion"] = version.into();
        object
    }
}

fn kinds(golden: &Value, kind: &str) -> Kinds {
    if kind == "Thing" {
        let versions = vec!["golden.dev/v1", "golden.dev/v2"];
        return Kinds { schema: Schema::custom(&golden["schema"]), versions };
    }
    let known = crate::kinds::all().iter().find(|known| known.kind == kind).unwrap();
    let version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    Kinds { schema: Schema::built_in(known).unwrap(), versions: vec![version] }
}

fn reset(kind: &str, subresource: &str) -> Reset {
    match (kind, subresource) {
        ("Deployment", "status") => Reset::SpecAndLabels,
        ("Service", "status") => Reset::Spec,
        ("Thing", "status") => Reset::SpecAndMetadata,
        ("Deployment" | "Service" | "Thing", "") => Reset::Status,
        _ => Reset::Nothing,
    }
}

/// The lines of a message: there, faults of a map's members come in no order.
fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Plays one scenario; says at which step it differs, and how.
fn play(golden: &Value, scenario: &Value) -> Result<(), String> {
    let kind = scenario["kind"].as_str().unwrap();
    let kinds = kinds(golden, kind);
    let empty = json!({ "apiVersion": kinds.versions[0], "kind": kind });
    let mut live: Option<Value> = None;
    for (index, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let text = |name: &str| step[name].as_str().unwrap_or_default();
        let version = if text("apiVersion").is_empty() { kinds.versions[0] } else { text("apiVersion") };
        let now = format!("2026-01-01T00:00:{:02}Z", index + 1);
        let write = Write {
            versions: &kinds,
            schema: kinds.schema(version).unwrap(),
            version,
            kind,
            subresource: text("subresource"),
            manager: text("manager"),
            now: &now,
            reset: reset(kind, text("subresource")),
        };
        let empty = kinds.convert(&empty, version);
        let old = live.as_ref().map(|live| kinds.convert(live, version));
        let (mut object, managed) = if step["apply"] == true {
            match apply(&write, old.as_ref(), &empty, &step["given"], step["force"] == true) {
                Ok(Applied { object, managed }) => (object, managed),
                Err(error) => {
                    let mut causes = error.details["causes"].clone();
                    causes.as_array_mut().into_iter().for_each(|causes| causes.sort_by_key(ToString::to_string));
                    let mut wanted = step["causes"].clone();
                    wanted.as_array_mut().into_iter().for_each(|causes| causes.sort_by_key(ToString::to_string));
                    let same = lines(text("error")) == lines(&error.message);
                    let right = same && step["code"] == error.code && causes == wanted;
                    if right {
                        continue;
                    }
                    return Err(format!("step {index}: wanted {} {}\ngot {error:?}", step["error"], step["managed"]));
                }
            }
        } else {
            let mut new = step["given"].clone();
            let given = new["metadata"].as_object_mut().unwrap().remove("managedFields");
            let mut before = old.clone().unwrap_or_else(|| empty.clone());
            let managed = before["metadata"].as_object_mut().and_then(|all| all.remove("managedFields"));
            let managed = managed.unwrap_or_default();
            let exists = live.is_some();
            let update = Update { old: &before, new: &new, exists, managed: &managed, given: given.as_ref() };
            let managed = match track(&write, &update) {
                Tracked::Same => managed.clone(),
                Tracked::Now(managed) => managed,
            };
            (new, managed)
        };
        if step.get("error").is_some() {
            return Err(format!("step {index}: wanted {}\ngot {object}", step["error"]));
        }
        object["metadata"]["uid"] = "u".into();
        // The libraries give it back in the version that is stored.
        object["apiVersion"] = kinds.versions[0].into();
        if managed != step["managed"] {
            return Err(format!("step {index}: wanted {}\ngot    {managed}", step["managed"]));
        }
        if step["apply"] == true && object != step["object"] {
            return Err(format!("step {index}: wanted {}\ngot    {object}", step["object"]));
        }
        if !managed.is_null() {
            object["metadata"]["managedFields"] = managed;
        }
        live = Some(object);
    }
    Ok(())
}

fn play_all(text: &str) -> usize {
    let golden: Value = serde_json::from_str(text).unwrap();
    let scenarios = golden["scenarios"].as_array().unwrap();
    let wrong: Vec<String> = scenarios
        .iter()
        .filter_map(|scenario| play(&golden, scenario).err().map(|why| format!("{why}\nin {scenario}")))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        scenarios.len(),
        wrong[..wrong.len().min(8)].join("\n\n")
    );
    scenarios.len()
}

#[test]
fn managers_and_objects_are_as_apimachinery_s() {
    assert!(play_all(include_str!("golden.json")) >= 100);
}
