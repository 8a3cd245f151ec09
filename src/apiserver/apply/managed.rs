//! `metadata.managedFields`: who set which fields, when and how; JSON both ways.
//!
//! The rules are those of apimachinery v0.36.3 (pkg/util/managedfields/internal/managedfields.go, capmanagers.go). Never
//! decides who owns what.

use serde_json::{Map, Value, json};

use super::{Error, fields, set::Set};

/// Entries of updates that an object keeps; older ones become one.
const MAX_UPDATERS: usize = 10;
/// The name of entries that older ones became.
const ANCIENT: &str = "ancient-changes";

/// What tells an entry from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    /// Name of the manager.
    pub manager: String,
    /// Whether it applied; otherwise it updated.
    pub applied: bool,
    /// The version that it updated in; empty for one that applied.
    pub version: String,
    /// The subresource through which it wrote.
    pub subresource: String,
}

impl Id {
    /// The text by which the real server sorts entries.
    pub(super) fn text(&self) -> String {
        let mut text = String::from("{");
        let mut member = |name: &str, value: &str| {
            if !value.is_empty() {
                let comma = if text.len() > 1 { "," } else { "" };
                text.push_str(&format!("{comma}\"{name}\":{}", crate::patch::go_json(&value.into())));
            }
        };
        member("manager", &self.manager);
        member("operation", self.operation());
        member("apiVersion", &self.version);
        member("subresource", &self.subresource);
        text.push('}');
        text
    }

    fn operation(&self) -> &'static str {
        if self.applied { "Apply" } else { "Update" }
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub id: Id,
    /// The version that the fields are of.
    pub version: String,
    /// RFC 3339.
    pub time: Option<String>,
    pub set: Set,
    /// The set as JSON, while it is as it was read.
    pub fields: Option<Value>,
}

impl Entry {
    /// Changes the set.
    pub(super) fn put(&mut self, set: Set) {
        self.set = set;
        self.fields = None;
    }
}

/// All entries of an object; no two have the same id.
#[derive(Clone, Debug, Default)]
pub(super) struct Managed(pub Vec<Entry>);

impl Managed {
    /// Reads `metadata.managedFields`; missing and null are none.
    pub(super) fn parse(value: &Value) -> Result<Self, Error> {
        let mut managed = Self::default();
        let entries = match value {
            Value::Null => return Ok(managed),
            Value::Array(entries) => entries,
            _ => return Err(Error::Fields("managedFields is not a list".to_owned())),
        };
        for (index, entry) in entries.iter().enumerate() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let applied = match entry["operation"].as_str() {
                Some("Apply") => true,
                Some("Update") => false,
                _ => return Err(Error::Fields("operation must be `Apply` or `Update`".to_owned())),
            };
            let version = text("apiVersion");
            if version.is_empty() {
                return Err(Error::Fields("apiVersion must not be empty".to_owned()));
            }
            match entry["fieldsType"].as_str().unwrap_or_default() {
                "FieldsV1" => {}
                "" => return Err(Error::Fields(format!("missing fieldsType in managed fields entry {index}"))),
                other => {
                    let why = format!("invalid fieldsType {other:?} in managed fields entry {index}");
                    return Err(Error::Fields(why));
                }
            }
            let id = Id {
                manager: text("manager"),
                applied,
                version: if applied { String::new() } else { version.clone() },
                subresource: text("subresource"),
            };
            let set = fields::parse(&entry["fieldsV1"])?;
            let time = entry["time"].as_str().map(str::to_owned);
            let fields = Some(entry["fieldsV1"].clone()).filter(Value::is_object);
            managed.0.retain(|known| known.id != id);
            managed.0.push(Entry { id, version, time, set, fields });
        }
        Ok(managed)
    }

    /// Writes `metadata.managedFields`, sorted; null for none.
    pub(super) fn write(mut self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        // Times are all written in one form, so that their texts are in order.
        self.0.sort_by(|a, b| {
            let key = |entry: &Entry| (!entry.id.applied, entry.time.clone().unwrap_or_default());
            let rest = |entry: &Entry| (entry.id.manager.clone(), entry.version.clone(), entry.id.subresource.clone());
            key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
        });
        Value::Array(self.0.into_iter().map(entry).collect())
    }

    /// The entry of an id.
    pub(super) fn get_mut(&mut self, id: &Id) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.id == *id)
    }

    /// Merges the oldest entries of updates, so that few enough are left.
    pub(super) fn cap(&mut self) {
        let updaters = self.0.iter().filter(|entry| !entry.id.applied);
        let mut count = updaters.clone().count();
        if count <= MAX_UPDATERS {
            return;
        }
        let mut updaters: Vec<(String, String, Id)> =
            updaters.map(|entry| (entry.time.clone().unwrap_or_default(), entry.id.text(), entry.id.clone())).collect();
        updaters.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let mut first: Vec<(String, Id)> = Vec::new();
        for (_, _, id) in updaters {
            if count <= MAX_UPDATERS {
                break;
            }
            let Some(at) = self.0.iter().position(|entry| entry.id == id) else { continue };
            let version = self.0[at].version.clone();
            let Some((_, known)) = first.iter().find(|(of, _)| *of == version) else {
                first.push((version, id));
                continue;
            };
            let bucket = Id {
                manager: ANCIENT.to_owned(),
                applied: false,
                version: version.clone(),
                subresource: String::new(),
            };
            if self.get_mut(&bucket).is_none()
                && let Some(entry) = self.get_mut(known)
            {
                entry.id = bucket.clone();
            }
            let merged = self.0.remove(at);
            if let Some(entry) = self.get_mut(&bucket) {
                let set = merged.set.union(&entry.set);
                entry.put(set);
                entry.time = merged.time;
            }
            count -= 1;
        }
    }
}

fn entry(entry: Entry) -> Value {
    let mut out = Map::new();
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            out.insert(name.to_owned(), value.into());
        }
    };
    text("manager", &entry.id.manager);
    text("operation", entry.id.operation());
    text("apiVersion", &entry.version);
    text("time", entry.time.as_deref().unwrap_or_default());
    text("subresource", &entry.id.subresource);
    out.insert("fieldsType".to_owned(), "FieldsV1".into());
    out.insert("fieldsV1".to_owned(), entry.fields.unwrap_or_else(|| fields::write(&entry.set)));
    Value::Object(out)
}

/// Whether an entry, as JSON, has this id.
pub(super) fn is_of(entry: &Value, id: &Id) -> bool {
    let is = |name: &str, text: &str| entry[name].as_str().unwrap_or_default() == text;
    is("manager", &id.manager)
        && is("operation", id.operation())
        && (id.applied || is("apiVersion", &id.version))
        && is("subresource", &id.subresource)
}

/// Whether a client asks for all entries to be forgotten: an empty list, or one empty entry.
pub(super) fn is_reset(value: &Value) -> bool {
    match value.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => *one == json!({}),
        _ => false,
    }
}

/// Whether two lists of entries differ in nothing but times.
#[must_use]
pub fn same_but_times(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else { return false };
    let rest = |entry: &Value, other: &Value| match (entry.as_object(), other.as_object()) {
        (Some(entry), Some(other)) => {
            let count = |members: &Map<String, Value>| members.len() - usize::from(members.contains_key("time"));
            count(entry) == count(other)
                && entry.iter().all(|(name, value)| name == "time" || other.get(name) == Some(value))
        }
        _ => false,
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| rest(a, b))
}
