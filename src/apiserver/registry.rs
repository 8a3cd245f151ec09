//! Which kinds are served: the built-in ones, and those that CRDs define.
//!
//! Never holds objects; a definition is data.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ringmaster_core::key::{ApiVersion, Resource};
use serde_json::{Value, json};

use crate::apply::Schema as Fields;
use crate::kinds::Kind;
use crate::scale::ScalePaths;
use crate::schema::Schema;
use crate::store::{KindKey, kind_key};

/// One kind in one version.
#[derive(Clone)]
pub struct Definition {
    /// Group, version, plural, kind, scope, and whether it has a status subresource.
    pub resource: Arc<Resource>,
    /// Under which its objects are stored; all versions of a kind share it.
    pub key: KindKey,
    /// Singular name.
    pub singular: String,
    /// Kind of lists.
    pub list_kind: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Whether objects have `metadata.generation`.
    pub generation: bool,
    /// Where its objects keep what the subresource `scale` shows; `None` if it has none.
    pub scale: Option<ScalePaths>,
    /// Where it comes from.
    pub source: Source,
    /// Fields beside name and namespace that it can be selected by.
    pub selectable: Vec<String>,
}

/// Where a definition comes from.
#[derive(Clone)]
pub enum Source {
    /// The server itself.
    BuiltIn(&'static Kind),
    /// A CRD, with its schema and printer columns.
    Crd {
        /// The schema of this version.
        schema: Schema,
        /// `additionalPrinterColumns` of this version.
        columns: Arc<Value>,
        /// What the tracking of fields knows of each version, by `apiVersion`.
        fields: Arc<BTreeMap<String, Fields>>,
        /// The schema of the version that is stored, if that is another: objects pass through it too.
        storage: Option<Schema>,
        /// Objects up to this revision were stored under another schema, and are read under this one.
        since: u64,
    },
}

impl Definition {
    /// Whether objects with status can be read and written apart from it.
    #[must_use]
    pub fn has_status(&self) -> bool {
        self.resource.status
    }

    /// Whether the server itself brings it.
    #[must_use]
    pub fn is_built_in(&self) -> bool {
        matches!(self.source, Source::BuiltIn(_))
    }

    /// The kind as discovery lists it, with its verbs.
    #[must_use]
    pub fn discovery(&self) -> Value {
        let mut entry = json!({
            "name": &*self.resource.plural, "singularName": self.singular, "namespaced": self.resource.namespaced,
            "kind": &*self.resource.kind, "verbs": VERBS,
        });
        if !self.short_names.is_empty() {
            entry["shortNames"] = json!(self.short_names);
        }
        if !self.categories.is_empty() {
            entry["categories"] = json!(self.categories);
        }
        entry
    }
}

/// What can be done with every kind.
pub const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The served kinds by group version and plural name.
#[derive(Default)]
pub struct Registry {
    /// Sorted by group version and plural name.
    kinds: Vec<Arc<Definition>>,
}

impl Registry {
    /// Serves a kind, in place of what was served under its name.
    pub fn insert(&mut self, definition: Definition) {
        let version = &definition.resource.api_version;
        match self.place(version.group(), version.version(), &definition.resource.plural) {
            Ok(at) => self.kinds[at] = Arc::new(definition),
            Err(at) => self.kinds.insert(at, Arc::new(definition)),
        }
    }

    /// Where a kind is, or would be.
    fn place(&self, group: &str, version: &str, plural: &str) -> Result<usize, usize> {
        self.kinds.binary_search_by(|known| {
            let known = &known.resource;
            order(&known.api_version, group, version).then_with(|| (*known.plural).cmp(plural))
        })
    }

    /// Serves all versions of a kind no longer.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.kinds.retain(|known| !(known.resource.api_version.group() == group && &*known.resource.plural == plural));
    }

    /// The versions of a kind.
    #[must_use]
    pub fn versions(&self, group: &str, plural: &str) -> HashSet<Arc<Resource>> {
        let of_kind =
            |known: &&Arc<Definition>| known.resource.api_version.group() == group && *known.resource.plural == *plural;
        self.kinds.iter().filter(of_kind).map(|known| Arc::clone(&known.resource)).collect()
    }

    /// Whether anything is served in this version of a group.
    #[must_use]
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.kinds.binary_search_by(|known| order(&known.resource.api_version, group, version)).is_ok()
    }

    /// One kind.
    #[must_use]
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Definition>> {
        self.place(group, version, plural).ok().map(|at| Arc::clone(&self.kinds[at]))
    }

    /// Any version of a stored kind.
    #[must_use]
    pub fn of(&self, key: &KindKey) -> Option<Arc<Definition>> {
        self.kinds.iter().find(|definition| definition.key == *key).cloned()
    }

    /// All kinds, by group version and plural name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.kinds.iter()
    }
}

/// How an `apiVersion` compares with a group and a version, as text.
fn order(known: &ApiVersion, group: &str, version: &str) -> Ordering {
    let slash = if group.is_empty() { "" } else { "/" };
    known.as_str().bytes().cmp(group.bytes().chain(slash.bytes()).chain(version.bytes()))
}

/// The definitions of a CRD as of a revision, one for each served version.
#[must_use]
pub fn of_crd(crd: &Value, since: u64) -> Vec<Definition> {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let names = &spec["names"];
    let (group, kind) = (text(&spec["group"]), text(&names["kind"]));
    let mut definitions = Vec::new();
    let fields = spec["versions"].as_array().into_iter().flatten().map(|version| {
        let fields = Fields::custom(&version["schema"]["openAPIV3Schema"]);
        (format!("{group}/{}", text(&version["name"])), fields)
    });
    let fields = Arc::new(fields.collect::<BTreeMap<String, Fields>>());
    let compiled = |version: &Value| {
        Schema::compile(
            &version["schema"]["openAPIV3Schema"],
            "spec.validation.openAPIV3Schema",
            !version["subresources"]["status"].is_null(),
        )
        .ok()
    };
    let versions = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().find(|version| version["storage"] == true).and_then(compiled);
    for version in spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true) {
        let api_version = ApiVersion::new(&format!("{group}/{}", text(&version["name"])));
        let Some(schema) = compiled(version) else { continue };
        let storage = stored.clone().filter(|_| version["storage"] != true);
        let plural = text(&names["plural"]);
        let resource = Arc::new(Resource {
            api_version: api_version.clone(),
            plural: plural.as_str().into(),
            kind: kind.as_str().into(),
            namespaced: spec["scope"] == "Namespaced",
            status: !version["subresources"]["status"].is_null(),
        });
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let list_kind = if names["listKind"].is_string() { text(&names["listKind"]) } else { format!("{kind}List") };
        let definition = Definition {
            key: kind_key(&api_version, &plural),
            resource,
            singular: if names["singular"].is_string() { text(&names["singular"]) } else { kind.to_lowercase() },
            list_kind,
            short_names: list(&names["shortNames"]),
            categories: list(&names["categories"]),
            generation: true,
            scale: ScalePaths::of_crd(version),
            source: Source::Crd {
                schema,
                columns: Arc::new(version["additionalPrinterColumns"].clone()),
                fields: Arc::clone(&fields),
                storage,
                since,
            },
            selectable: selectable.map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned()).collect(),
        };
        definitions.push(definition);
    }
    definitions
}
