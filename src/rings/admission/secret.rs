//! How certificates are kept: a Secret of type `kubernetes.io/tls`, which every member reads.
//!
//! `tls.crt`, `tls.key` and `ca.crt` are what any tool expects there: the present certificate, and the bundle to trust.
//! `next.crt` and `next.key` are the next one's, and `rotation.json` says the rest. Never calls anybody. No error repeats
//! what a Secret holds.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringmaster_core::key::{ApiVersion, Resource};
use ringmaster_core::object::Object;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::certificate::{Kept, MAX_RETIRED, Pair, Retired};

/// Its name, in the namespace of the members' Leases.
pub const NAME: &str = "ringmaster-admission";

const TYPE: &str = "kubernetes.io/tls";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const BUNDLE: &str = "ca.crt";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const ROTATION: &str = "rotation.json";
/// Most names that one certificate is for.
const MAX_NAMES: usize = 64;

/// Why a Secret can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else made it.
    #[error("Secret {NAME} isn't Ringmaster's: its data has no {ROTATION}; delete it, and it is made anew")]
    Foreign,
    /// It was ours, and can't be read any more.
    #[error("Secret {NAME}: {field}: {problem}")]
    Broken {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The kind of Secrets.
#[must_use]
pub fn resource() -> Resource {
    Resource {
        api_version: ApiVersion::new("v1"),
        plural: "secrets".into(),
        kind: "Secret".into(),
        namespaced: true,
        status: false,
    }
}

/// What `rotation.json` holds. Moments are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Rotation {
    current: Side,
    next: Option<Side>,
    retired: Vec<Old>,
}

#[derive(Serialize, Deserialize)]
struct Side {
    authority: String,
    made: u64,
    ends: u64,
    names: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Old {
    authority: String,
    ends: u64,
}

impl Side {
    fn of(pair: &Pair) -> Self {
        let Pair { authority, made, ends, names, .. } = pair;
        Self { authority: authority.clone(), made: made.as_secs(), ends: ends.as_secs(), names: names.clone() }
    }

    fn pair(self, certificate: String, key: String) -> Pair {
        let (made, ends) = (Duration::from_secs(self.made), Duration::from_secs(self.ends));
        Pair { authority: self.authority, certificate, key, made, ends, names: self.names }
    }
}

/// The Secret that keeps this; `seen` is the one that it replaces, if it is as it was then.
#[must_use]
pub fn write(kept: &Kept, namespace: &str, seen: Option<&Object>) -> Value {
    let Kept { current, next, retired } = kept;
    let rotation = Rotation {
        current: Side::of(current),
        next: next.as_ref().map(Side::of),
        retired: retired.iter().map(|old| Old { authority: old.authority.clone(), ends: old.ends.as_secs() }).collect(),
    };
    let mut data = Map::new();
    let mut put = |name: &str, text: &str| data.insert(name.to_owned(), STANDARD.encode(text).into());
    put(CERTIFICATE, &current.certificate);
    put(KEY, &current.key);
    put(BUNDLE, &kept.bundle());
    put(ROTATION, &json!(rotation).to_string());
    if let Some(next) = next {
        put(NEXT_CERTIFICATE, &next.certificate);
        put(NEXT_KEY, &next.key);
    }
    let mut metadata = json!({
        "name": NAME,
        "namespace": namespace,
        "labels": {"app.kubernetes.io/managed-by": "ringmaster"},
    });
    if let Some(seen) = seen {
        metadata["uid"] = seen.uid().to_string().into();
        metadata["resourceVersion"] = seen.version().to_string().into();
    }
    json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": metadata, "data": data})
}

/// What a Secret keeps. All of it can be used: the keys are their certificates'.
///
/// # Errors
/// If it isn't ours, or was damaged.
pub fn read(secret: &Object) -> Result<Kept, Error> {
    let data: Map<String, Value> = secret.section("data").unwrap_or_default();
    if !data.contains_key(ROTATION) {
        return Err(Error::Foreign);
    }
    let text = |field: &'static str| {
        let found = data.get(field).and_then(Value::as_str).ok_or(Error::Broken { field, problem: "is missing" })?;
        let bytes = STANDARD.decode(found).map_err(|_| Error::Broken { field, problem: "isn't base64" })?;
        String::from_utf8(bytes).map_err(|_| Error::Broken { field, problem: "isn't text" })
    };
    let rotation = |problem| Error::Broken { field: ROTATION, problem };
    let said: Rotation = serde_json::from_str(&text(ROTATION)?).map_err(|_| rotation("isn't what was written"))?;
    let mut sides = std::iter::once(&said.current).chain(&said.next);
    if said.retired.len() > MAX_RETIRED || sides.any(|side| side.names.len() > MAX_NAMES) {
        return Err(rotation("says too much"));
    }
    let current = said.current.pair(text(CERTIFICATE)?, text(KEY)?);
    current.certified().map_err(|_| Error::Broken { field: CERTIFICATE, problem: "can't be used with tls.key" })?;
    let next = match said.next {
        None => None,
        Some(side) => {
            let next = side.pair(text(NEXT_CERTIFICATE)?, text(NEXT_KEY)?);
            let unusable = Error::Broken { field: NEXT_CERTIFICATE, problem: "can't be used with next.key" };
            next.certified().map_err(|_| unusable)?;
            Some(next)
        }
    };
    let old = |old: Old| Retired { authority: old.authority, ends: Duration::from_secs(old.ends) };
    Ok(Kept { current, next, retired: said.retired.into_iter().map(old).collect() })
}

#[cfg(test)]
mod tests {
    use super::super::certificate::{Step, follow};
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn names() -> Vec<String> {
        vec!["ringmaster.system.svc".to_owned()]
    }

    fn next(step: Step, kept: Option<Kept>) -> Kept {
        follow(step, NOW, kept, &names()).unwrap().unwrap()
    }

    fn object(tree: &Value) -> Object {
        Object::of(tree, &resource()).unwrap()
    }

    #[test]
    fn every_state_is_read_back() {
        let first = next(Step::Make, None);
        let announced = next(Step::Announce, Some(first.clone()));
        let switched = next(Step::Switch, Some(announced.clone()));
        for kept in [first, announced, switched] {
            let secret = write(&kept, "system", None);
            assert_eq!((&secret["type"], &secret["metadata"]["namespace"]), (&json!(TYPE), &json!("system")));
            assert_eq!(secret["metadata"].get("resourceVersion"), None);
            let bundle = STANDARD.decode(secret["data"][BUNDLE].as_str().unwrap()).unwrap();
            assert_eq!(bundle, kept.bundle().into_bytes());
            assert_eq!(secret["data"].get(NEXT_KEY).is_some(), kept.next.is_some());
            assert_eq!(read(&object(&secret)), Ok(kept));
        }
    }

    #[test]
    fn a_replacement_is_of_what_was_seen() {
        let kept = next(Step::Make, None);
        let mut secret = write(&kept, "system", None);
        secret["metadata"]["uid"] = json!("u1");
        secret["metadata"]["resourceVersion"] = json!("7");
        let again = write(&kept, "system", Some(&object(&secret)));
        assert_eq!((&again["metadata"]["uid"], &again["metadata"]["resourceVersion"]), (&json!("u1"), &json!("7")));
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        let announced = next(Step::Announce, Some(next(Step::Make, None)));
        let secret = write(&announced, "system", None);
        let with = |field: &str, text: Option<&str>| {
            let mut secret = secret.clone();
            let data = secret["data"].as_object_mut().unwrap();
            match text {
                None => drop(data.remove(field)),
                Some(text) => drop(data.insert(field.to_owned(), json!(text))),
            }
            read(&object(&secret)).unwrap_err()
        };
        assert_eq!(with(ROTATION, None), Error::Foreign);
        assert!(Error::Foreign.to_string().contains("delete it"));
        for field in [KEY, CERTIFICATE, NEXT_KEY, NEXT_CERTIFICATE] {
            assert_eq!(with(field, None), Error::Broken { field, problem: "is missing" });
            assert_eq!(with(field, Some("!")), Error::Broken { field, problem: "isn't base64" });
            assert_eq!(with(field, Some("/w==")), Error::Broken { field, problem: "isn't text" });
            let error = with(field, Some("c2VjcmV0")).to_string();
            assert!(error.contains("can't be used") && !error.contains("secret"), "{error}");
        }
        assert!(matches!(with(ROTATION, Some("e30=")), Error::Broken { field: ROTATION, .. }));
        let bare = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}});
        assert_eq!(read(&object(&bare)), Err(Error::Foreign));
    }
}
