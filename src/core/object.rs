//! An object as compact JSON bytes plus the metadata that we read.
//!
//! `metadata.managedFields` is dropped on the way in, but for the entries that are asked for; `apiVersion` and `kind` are put in where a list left them out.
//! Never holds a parsed tree of a whole object: sections are parsed when something is decided on them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::key::{ObjectKey, Resource, Uid, Version};
use crate::{managed, selector};

/// What one object costs beside its bytes: this struct, its key, its place in the maps. For accounting only.
pub const OVERHEAD_BYTES: usize = 320;

/// What a tree is likely to need as text; more is found as it goes.
const TREE_BYTES: usize = 2048;

/// Why bytes aren't an object that we can keep.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not of an object's shape.
    #[error("not a Kubernetes object: {0}")]
    Shape(#[from] serde_json::Error),
    /// A field that every object has isn't there.
    #[error("object without metadata.{0}")]
    Missing(&'static str),
    /// Offsets are kept in 32 bits; the API server's own limit is far below.
    #[error("object of {0} bytes is larger than 4 GiB")]
    TooLarge(usize),
}

#[derive(Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// One object of one kind.
pub struct Object {
    key: ObjectKey,
    json: Box<[u8]>,
    uid: Uid,
    version: Version,
    generation: i64,
    labels: Span,
    annotations: Span,
    owners: Span,
    finalizers: Span,
    controller: Option<Uid>,
    deleting: bool,
    /// What is kept of managedFields; empty if nothing is.
    managed: Box<str>,
    /// Where the text of the resource version begins in `json`; 0 where there is none.
    version_at: u32,
    settled: AtomicU64,
    /// The same of its status.
    settled_status: AtomicU64,
}

/// What [`Object::skim`] leaves of `metadata`, and what it only takes note of.
const KEPT: [&str; 3] = ["labels", "ownerReferences", "finalizers"];
const NOTED: [&str; 6] = ["name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp"];

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// Group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Uid of the owner.
    pub uid: Uid,
    /// Whether this is the owner that manages the object; at most one is.
    #[serde(default)]
    pub controller: bool,
}

impl Object {
    /// Takes an object as the API server sends it.
    ///
    /// # Errors
    /// If it isn't a JSON object with `metadata.name`; a uid may lack (a dry run has none).
    pub fn parse(text: &str, resource: &Resource) -> Result<Self, Error> {
        Self::parse_keeping(text, resource, &[])
    }

    /// As [`Self::parse`], and keeps what `managedFields` says of these managers; see [`Self::managed`].
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_keeping(text: &str, resource: &Resource, managers: &[Arc<str>]) -> Result<Self, Error> {
        let top: Entries<'_> = serde_json::from_str(text)?;
        let mut out = Vec::with_capacity(text.len() + 64);
        let mut meta = Meta { managers, ..Meta::default() };
        out.push(b'{');
        if !top.has("apiVersion") {
            write_member(&mut out, "apiVersion", &serde_json::to_string(resource.api_version.as_str())?);
        }
        if !top.has("kind") {
            write_member(&mut out, "kind", &serde_json::to_string(&*resource.kind)?);
        }
        for (name, raw) in &top.0 {
            if name == "metadata" {
                write_name(&mut out, name);
                meta.write(&mut out, raw)?;
            } else {
                write_member(&mut out, name, raw.get());
            }
        }
        out.push(b'}');
        Self::finish(out, meta)
    }

    /// Takes an object that is a tree already. Unlike [`Self::parse`] it drops nothing.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of(tree: &Value, resource: &Resource) -> Result<Self, Error> {
        let Value::Object(members) = tree else { return Err(Error::Missing("name")) };
        let mut out = Vec::with_capacity(TREE_BYTES);
        let mut meta = Meta::default();
        out.push(b'{');
        if !members.contains_key("apiVersion") {
            write_member(&mut out, "apiVersion", &serde_json::to_string(resource.api_version.as_str())?);
        }
        if !members.contains_key("kind") {
            write_member(&mut out, "kind", &serde_json::to_string(&*resource.kind)?);
        }
        for (name, value) in members {
            write_name(&mut out, name);
            match value {
                Value::Object(entries) if name == "metadata" => meta.write_tree(&mut out, entries)?,
                _ => serde_json::to_writer(&mut out, value)?,
            }
        }
        out.push(b'}');
        Self::finish(out, meta)
    }

    /// The object without its content, down to what [`Self::labels`], [`Self::owner_references`] and [`Self::finalizers`]
    /// say; its text says nothing else. `None` if it can't be read.
    #[must_use]
    pub fn skim(&self) -> Option<Self> {
        let top: Entries<'_> = serde_json::from_slice(&self.json).ok()?;
        let (_, metadata) = top.0.into_iter().find(|(name, _)| name == "metadata")?;
        let (mut out, mut meta) = (Vec::with_capacity(TREE_BYTES), Meta::default());
        out.extend_from_slice(br#"{"metadata":{"#);
        meta.write_some(&mut out, metadata).ok()?;
        out.extend_from_slice(b"}}");
        Self::finish(out, meta).ok()
    }

    fn finish(out: Vec<u8>, meta: Meta<'_>) -> Result<Self, Error> {
        if u32::try_from(out.len()).is_err() {
            return Err(Error::TooLarge(out.len()));
        }
        let name = meta.name.ok_or(Error::Missing("name"))?;
        Ok(Self {
            key: ObjectKey::new(meta.namespace.as_deref().unwrap_or(""), &name),
            json: out.into_boxed_slice(),
            uid: meta.uid.unwrap_or_else(|| Uid::new("")),
            version: meta.version,
            generation: meta.generation,
            labels: meta.labels,
            annotations: meta.annotations,
            owners: meta.owners,
            finalizers: meta.finalizers,
            controller: meta.controller,
            deleting: meta.deleting,
            managed: meta.managed,
            version_at: meta.version_at,
            settled: AtomicU64::new(0),
            settled_status: AtomicU64::new(0),
        })
    }

    /// Gives it another resource version, if that has as many digits as the one that it has; tells whether it could.
    #[must_use]
    pub fn renumber(&mut self, version: Version) -> bool {
        let (old, new) = (self.version.0.to_string(), version.0.to_string());
        let start = self.version_at as usize;
        let Some(place) = self.json.get_mut(start..start + new.len()).filter(|place| **place == *old.as_bytes()) else {
            return false;
        };
        place.copy_from_slice(new.as_bytes());
        self.version = version;
        true
    }

    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The whole object without managedFields, as JSON text.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// What was kept of `managedFields`, for [`managed::owned`]; empty if nothing was.
    #[must_use]
    pub fn managed(&self) -> &str {
        &self.managed
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &Uid {
        &self.uid
    }

    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// `metadata.generation`, 0 where the kind has none.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// Whether it has a `deletionTimestamp`.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.deleting
    }

    /// The uid of the owner whose reference says `controller: true`.
    #[must_use]
    pub fn controller(&self) -> Option<&Uid> {
        self.controller.as_ref()
    }

    /// `metadata.labels`.
    #[must_use]
    pub fn labels(&self) -> Labels<'_> {
        Labels(self.parsed::<Pairs<'_>>(self.labels).unwrap_or_default().0)
    }

    /// `metadata.annotations`, as a selector needs them.
    #[must_use]
    pub fn annotations(&self) -> Labels<'_> {
        Labels(self.parsed::<Pairs<'_>>(self.annotations).unwrap_or_default().0)
    }

    /// One of `metadata.annotations`.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.parsed::<Pairs<'_>>(self.annotations)?;
        pairs.0.into_iter().find_map(|(key, value)| (key == name).then_some(value))
    }

    /// `metadata.ownerReferences`.
    #[must_use]
    pub fn owner_references(&self) -> Vec<OwnerReference> {
        self.parsed(self.owners).unwrap_or_default()
    }

    /// `metadata.finalizers`.
    #[must_use]
    pub fn finalizers(&self) -> Vec<Cow<'_, str>> {
        self.parsed(self.finalizers).unwrap_or_default()
    }

    /// One top-level field, parsed; `None` where it is missing or of another shape.
    #[must_use]
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let top: Entries<'_> = serde_json::from_slice(&self.json).ok()?;
        let (_, raw) = top.0.into_iter().find(|(key, _)| key == name)?;
        serde_json::from_str(raw.get()).ok()
    }

    /// The whole object as a tree, for where something is decided on all of it; `Null` where it can't be one, such as
    /// with more levels than `serde_json` takes (127).
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or(Value::Null)
    }

    /// Whether generation, labels and annotations are those of `other` and neither is being deleted: what changed,
    /// if anything did, is status (Metacontroller's rule for `ignoreStatusChanges`). Never true for a kind without a
    /// generation, such as Service: nothing tells a change of its spec from one of its status.
    #[must_use]
    pub fn differs_in_status_only(&self, other: &Self) -> bool {
        let same = |a: Span, b: Span| a.of(&self.json) == b.of(&other.json);
        !self.deleting
            && !other.deleting
            && self.uid == other.uid
            && self.generation != 0
            && self.generation == other.generation
            && same(self.labels, other.labels)
            && same(self.annotations, other.annotations)
    }

    /// Whether a write of status alone may have led from `other` to this: all that we read of metadata is the same.
    #[must_use]
    pub fn is_same_but_status(&self, other: &Self) -> bool {
        let same = |a: Span, b: Span| a.of(&self.json) == b.of(&other.json);
        self.uid == other.uid
            && self.generation != 0
            && self.generation == other.generation
            && self.deleting == other.deleting
            && same(self.labels, other.labels)
            && same(self.annotations, other.annotations)
            && same(self.owners, other.owners)
            && same(self.finalizers, other.finalizers)
    }

    /// Notes that this version of the object is what the desired state hashed to `desired` leads to, so that the next
    /// sync need not compare them. A new version starts without the note, unless only its status is new.
    pub fn settle(&self, desired: u64) {
        self.settled.store(desired, Ordering::Relaxed);
    }

    /// Takes the note over from an earlier version that differs from this one in status only.
    pub(crate) fn settle_as(&self, earlier: &Self) {
        self.settle(earlier.settled.load(Ordering::Relaxed));
    }

    /// Notes that writing the status that is hashed to `desired` changed nothing of this version of the object, so that it
    /// isn't written again. A new version starts without the note.
    pub fn settle_status(&self, desired: u64) {
        self.settled_status.store(desired, Ordering::Relaxed);
    }

    /// Whether [`Self::settle_status`] was told of the same status for this version.
    #[must_use]
    pub fn is_status_settled(&self, desired: u64) -> bool {
        desired != 0 && self.settled_status.load(Ordering::Relaxed) == desired
    }

    /// Whether [`Self::settle`] was told of the same desired state for this version.
    #[must_use]
    pub fn is_settled(&self, desired: u64) -> bool {
        desired != 0 && self.settled.load(Ordering::Relaxed) == desired
    }

    /// What it costs in memory, for accounting.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.json.len() + self.managed.len() + OVERHEAD_BYTES
    }

    fn parsed<'a, T: Deserialize<'a>>(&'a self, span: Span) -> Option<T> {
        if span.start == span.end {
            return None;
        }
        serde_json::from_slice(span.of(&self.json)).ok()
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.version)
    }
}

/// An object's labels, or its annotations, borrowed from its bytes.
#[derive(Debug)]
pub struct Labels<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Labels<'_> {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl selector::Labels for Labels<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }
}

#[derive(Default)]
struct Meta<'m> {
    managers: &'m [Arc<str>],
    managed: Box<str>,
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<Uid>,
    version: Version,
    generation: i64,
    labels: Span,
    annotations: Span,
    owners: Span,
    finalizers: Span,
    controller: Option<Uid>,
    deleting: bool,
    version_at: u32,
}

impl Meta<'_> {
    fn write(&mut self, out: &mut Vec<u8>, raw: &RawValue) -> Result<(), Error> {
        let entries: Entries<'_> = serde_json::from_str(raw.get())?;
        out.push(b'{');
        for (name, raw) in &entries.0 {
            if name == "managedFields" {
                self.managed = managed::keep(raw.get(), self.managers);
                continue;
            }
            self.write_entry(out, name, raw)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// What tells whose an object is; what it is called is noted, and not written.
    fn write_some(&mut self, out: &mut Vec<u8>, raw: &RawValue) -> Result<(), Error> {
        let entries: Entries<'_> = serde_json::from_str(raw.get())?;
        for (name, raw) in &entries.0 {
            if KEPT.contains(&&**name) {
                self.write_entry(out, name, raw)?;
            } else if NOTED.contains(&&**name) {
                let end = out.len();
                self.write_entry(out, name, raw)?;
                out.truncate(end);
            }
        }
        self.version_at = 0;
        Ok(())
    }

    fn write_entry(&mut self, out: &mut Vec<u8>, name: &str, raw: &RawValue) -> Result<(), Error> {
        write_name(out, name);
        let start = out.len();
        out.extend_from_slice(raw.get().as_bytes());
        self.note(name, start, out)
    }

    fn write_tree(&mut self, out: &mut Vec<u8>, entries: &serde_json::Map<String, Value>) -> Result<(), Error> {
        out.push(b'{');
        for (name, value) in entries {
            write_name(out, name);
            let start = out.len();
            serde_json::to_writer(&mut *out, value)?;
            self.note(name, start, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Reads a member that was just written, from `start` to the end.
    fn note(&mut self, name: &str, start: usize, out: &[u8]) -> Result<(), Error> {
        let span = Span {
            start: u32::try_from(start).map_err(|_| Error::TooLarge(start))?,
            end: u32::try_from(out.len()).map_err(|_| Error::TooLarge(out.len()))?,
        };
        let json = &out[start..];
        match name {
            "name" => self.name = Some(serde_json::from_slice(json)?),
            "namespace" => self.namespace = serde_json::from_slice(json)?,
            "uid" => self.uid = serde_json::from_slice(json)?,
            "resourceVersion" => {
                self.version = Version::new(&serde_json::from_slice::<Text<'_>>(json)?.0);
                self.version_at = span.start + 1;
            }
            "generation" => self.generation = serde_json::from_slice(json)?,
            "deletionTimestamp" => self.deleting = json != b"null",
            "labels" => self.labels = span,
            "annotations" => self.annotations = span,
            "finalizers" => self.finalizers = span,
            "ownerReferences" => {
                self.owners = span;
                let owners: Option<Vec<OwnerFlags>> = serde_json::from_slice(json)?;
                self.controller = owners.unwrap_or_default().into_iter().find(|owner| owner.controller).map(|o| o.uid);
            }
            _ => {}
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct OwnerFlags {
    uid: Uid,
    #[serde(default)]
    controller: bool,
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    // Writing a string as JSON into memory can't fail.
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
}

fn write_member(out: &mut Vec<u8>, name: &str, json: &str) {
    write_name(out, name);
    out.extend_from_slice(json.as_bytes());
}

/// A string, borrowed where the text has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// The members of a JSON object in their order, values as they stand.
pub(crate) struct Entries<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl Entries<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(8);
                while let Some(Text(name)) = map.next_key()? {
                    entries.push((name, map.next_value::<&'de RawValue>()?));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A map of strings in its order; a null map or value is an empty one.
#[derive(Default)]
struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Pairs::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::with_capacity(4);
                while let Some((Text(name), value)) = map.next_entry::<_, Option<Text<'de>>>()? {
                    pairs.push((name, value.map_or(Cow::Borrowed(""), |value| value.0)));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_any(Members)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::key::ApiVersion;
    use crate::selector::Labels as _;

    pub(crate) fn config_maps() -> Resource {
        Resource {
            api_version: ApiVersion::new("v1"),
            plural: "configmaps".into(),
            kind: "ConfigMap".into(),
            namespaced: true,
            status: false,
        }
    }

    const FULL: &str = r#"{"metadata":{"name":"a","namespace":"n","uid":"0f8fad5b-d9cb-469f-a165-70867728950e",
        "resourceVersion":"41","generation":3,"labels":{"app":"x","tier":"y"},
        "annotations":{"note":"a \"quoted\" < text"},
        "ownerReferences":[{"apiVersion":"v1","kind":"K","name":"o","uid":"u1"},
                           {"apiVersion":"v1","kind":"K","name":"p","uid":"u2","controller":true}],
        "finalizers":["f"],
        "managedFields":[{"manager":"kubectl","fieldsV1":{"f:data":{}}}]},"data":{"k":"v"}}"#;

    #[test]
    fn a_skimmed_object_keeps_what_tells_whose_it_is() {
        let object = Object::parse(FULL, &config_maps()).unwrap();
        let skimmed = object.skim().unwrap();
        assert_eq!((skimmed.key(), skimmed.uid(), skimmed.version()), (object.key(), object.uid(), object.version()));
        assert_eq!(skimmed.controller(), object.controller());
        assert_eq!((skimmed.labels().get("app"), skimmed.finalizers().len()), (Some("x"), 1));
        let value = skimmed.value();
        assert_eq!(value.as_object().unwrap().len(), 1, "{value}");
        assert_eq!(value["metadata"].as_object().unwrap().len(), 3, "{value}");
        assert_eq!(skimmed.generation(), object.generation());
        assert_eq!(skimmed.owner_references(), object.owner_references());
        assert!(skimmed.cost_bytes() < object.cost_bytes());
    }

    #[test]
    fn reads_metadata_and_drops_managed_fields() {
        let object = Object::parse(FULL, &config_maps()).unwrap();
        assert_eq!(object.key().as_str(), "n/a");
        assert_eq!(object.version(), Version(41));
        assert_eq!(object.generation(), 3);
        assert_eq!(object.labels().get("tier"), Some("y"));
        assert_eq!(object.labels().get("none"), None);
        assert_eq!(object.annotation("note").as_deref(), Some("a \"quoted\" < text"));
        assert_eq!(object.controller(), Some(&Uid::new("u2")));
        assert_eq!(object.owner_references().len(), 2);
        assert_eq!(object.finalizers(), ["f"]);
        assert!(!object.is_deleting());
        let value = object.value();
        assert!(value["metadata"].get("managedFields").is_none());
        assert_eq!((value["apiVersion"].as_str(), value["kind"].as_str()), (Some("v1"), Some("ConfigMap")));
        let mut expected: Value = serde_json::from_str(FULL).unwrap();
        expected["metadata"].as_object_mut().unwrap().remove("managedFields");
        expected["apiVersion"] = "v1".into();
        expected["kind"] = "ConfigMap".into();
        assert_eq!(value, expected);
        assert_eq!(object.section::<Value>("data").unwrap(), serde_json::json!({"k": "v"}));
    }

    #[test]
    fn what_is_asked_for_of_managed_fields_is_kept_beside() {
        let full = FULL.replace(r#""kubectl""#, r#""kubectl","operation":"Apply""#);
        let dropped = Object::parse(&full, &config_maps()).unwrap();
        let managers: [Arc<str>; 1] = ["kubectl".into()];
        let kept = Object::parse_keeping(&full, &config_maps(), &managers).unwrap();
        assert_eq!((dropped.managed(), kept.json()), ("", dropped.json()));
        assert_eq!(kept.managed(), r#"[{"manager":"kubectl","operation":"Apply","fieldsV1":{"f:data":{}}}]"#);
        assert_eq!(kept.cost_bytes() - dropped.cost_bytes(), kept.managed().len());
    }

    #[test]
    fn a_tree_is_the_object_that_its_text_is() {
        let mut tree: Value = serde_json::from_str(FULL).unwrap();
        let whole = Object::of(&tree, &config_maps()).unwrap();
        assert_eq!(whole.value()["metadata"], tree["metadata"], "managedFields are kept");
        tree["metadata"].as_object_mut().unwrap().remove("managedFields");
        let (of, parsed) = (Object::of(&tree, &config_maps()).unwrap(), Object::parse(FULL, &config_maps()).unwrap());
        assert_eq!(of.value(), parsed.value());
        assert_eq!((of.key(), of.uid(), of.version()), (parsed.key(), parsed.uid(), parsed.version()));
        assert_eq!((of.generation(), of.controller()), (parsed.generation(), parsed.controller()));
        assert_eq!((of.is_deleting(), of.finalizers()), (parsed.is_deleting(), parsed.finalizers()));
        assert_eq!((of.owner_references(), of.annotation("a")), (parsed.owner_references(), parsed.annotation("a")));
        assert!(of.labels().iter().eq(parsed.labels().iter()));
        assert!(Object::of(&serde_json::json!({ "metadata": {} }), &config_maps()).is_err());
    }

    #[test]
    fn managed_fields_first_last_or_alone_leave_valid_json() {
        for metadata in [
            r#"{"managedFields":[],"name":"a"}"#,
            r#"{"name":"a","managedFields":[1]}"#,
            r#"{"name":"a","managedFields":null,"uid":"x"}"#,
        ] {
            let object = Object::parse(&format!(r#"{{"metadata":{metadata}}}"#), &config_maps()).unwrap();
            assert_eq!(object.value()["metadata"]["name"], "a");
            assert!(object.value()["metadata"].get("managedFields").is_none());
        }
    }

    #[test]
    fn odd_shapes_are_errors_not_panics() {
        for bad in ["", "[]", "{}", r#"{"metadata":[]}"#, r#"{"metadata":{}}"#, r#"{"metadata":{"name":7}}"#, "nul"] {
            assert!(Object::parse(bad, &config_maps()).is_err(), "{bad}");
        }
        let odd = r#"{"metadata":{"name":"a","labels":null,"annotations":null,"ownerReferences":null}}"#;
        let object = Object::parse(odd, &config_maps()).unwrap();
        assert_eq!(object.labels().iter().count(), 0);
        assert!(object.annotation("x").is_none());
        assert!(object.owner_references().is_empty());
    }

    #[test]
    fn status_only_changes_are_told_from_others() {
        let make = |labels: &str, generation: i64, status: &str, deleting: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"a","generation":{generation},"labels":{labels}{deleting}}},"status":{status}}}"#
            );
            Object::parse(&text, &config_maps()).unwrap()
        };
        let first = make(r#"{"a":"b"}"#, 1, "{}", "");
        assert!(make(r#"{"a":"b"}"#, 1, r#"{"x":1}"#, "").differs_in_status_only(&first));
        assert!(!make(r#"{"a":"c"}"#, 1, "{}", "").differs_in_status_only(&first));
        assert!(!make(r#"{"a":"b"}"#, 2, "{}", "").differs_in_status_only(&first));
        assert!(!make(r#"{"a":"b"}"#, 1, "{}", r#","deletionTimestamp":"2020""#).differs_in_status_only(&first));
        assert!(make(r#"{"a":"b"}"#, 1, r#"{"x":1}"#, "").is_same_but_status(&first));
        assert!(!make(r#"{"a":"b"}"#, 1, "{}", r#","finalizers":["f"]"#).is_same_but_status(&first));
        let without_generation = make(r#"{"a":"b"}"#, 0, "{}", "");
        assert!(!make(r#"{"a":"b"}"#, 0, r#"{"x":1}"#, "").differs_in_status_only(&without_generation));
        assert!(!make(r#"{"a":"b"}"#, 0, r#"{"x":1}"#, "").is_same_but_status(&without_generation));
    }

    #[test]
    fn settled_is_for_one_desired_state() {
        let object = Object::parse(FULL, &config_maps()).unwrap();
        assert!(!object.is_settled(0) && !object.is_settled(5));
        object.settle(5);
        assert!(object.is_settled(5) && !object.is_settled(6));
    }
}
