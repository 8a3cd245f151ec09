//! What the tracking of fields must know of a kind: which lists are sets or maps and by which keys, which lists and maps
//! are one value, and which fields there are.
//!
//! Compiled once, from the OpenAPI documents of the built-in kinds or a CRD's structural schema; the rules are those of
//! kube-openapi's schemaconv and of apiextensions-apiserver's OpenAPI builder, v1.36.3. Never looks at an object.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use foldhash::fast::FixedState;
use serde::Deserialize;
use serde_json::Value;

use crate::kinds;

/// A type's place in [`Types`].
pub(crate) type TypeId = usize;

/// The schema of one version of a kind; cheap to clone.
#[derive(Clone)]
pub struct Schema {
    pub(crate) types: Arc<Types>,
    pub(crate) root: TypeId,
}

/// All types of a schema.
pub(crate) struct Types {
    atoms: Vec<Atom>,
}

/// What a value may be; more than one only where no type is said.
#[derive(Clone, Default)]
pub(crate) struct Atom {
    pub scalar: Option<Scalar>,
    pub list: Option<List>,
    pub map: Option<Map>,
}

/// A scalar.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Number,
    Text,
    Bool,
    Any,
}

/// A list.
#[derive(Clone)]
pub(crate) struct List {
    pub items: TypeId,
    pub kind: ListKind,
}

/// How a list's items are told apart.
#[derive(Clone)]
pub(crate) enum ListKind {
    /// The list is one value.
    Atomic,
    /// By their values.
    Set,
    /// By these fields.
    Map(Vec<String>),
}

/// A map, or a struct.
#[derive(Clone)]
pub(crate) struct Map {
    pub fields: HashMap<Box<str>, Field, FixedState>,
    /// Type of other members; without one there may be none.
    pub others: Option<TypeId>,
    /// Whether the map is one value.
    pub atomic: bool,
}

/// A named field.
#[derive(Clone)]
pub(crate) struct Field {
    pub of: TypeId,
    /// Its default, if it is a scalar: a list's key may lack.
    pub default: Option<Value>,
}

impl Map {
    /// The type of a member.
    pub(crate) fn member(&self, name: &str) -> Option<TypeId> {
        self.fields.get(name).map_or(self.others, |field| Some(field.of))
    }

    /// Whether it is free-form without any rule for its members.
    pub(crate) fn is_deduced(&self) -> bool {
        self.fields.is_empty() && self.others == Some(DEDUCED)
    }
}

impl Types {
    pub(crate) fn atom(&self, id: TypeId) -> &Atom {
        &self.atoms[id]
    }
}

/// Anything; lists and maps are one value.
const UNTYPED: TypeId = 0;
/// Anything; the members of maps stand for themselves.
const DEDUCED: TypeId = 1;

/// Go types that are written as scalars of their own.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
/// Any JSON.
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
/// Metadata of every object.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The smallest document that has the metadata.
const META_DOCUMENT: &str = "coordination.k8s.io/v1";

#[derive(Clone, Default, Deserialize)]
struct Raw {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    format: Option<String>,
    properties: Option<BTreeMap<String, Raw>>,
    #[serde(rename = "additionalProperties")]
    additional: Option<Additional>,
    items: Option<Box<Raw>>,
    #[serde(rename = "allOf")]
    all_of: Option<Vec<Raw>>,
    default: Option<Value>,
    #[serde(rename = "x-kubernetes-list-type")]
    list_type: Option<String>,
    #[serde(rename = "x-kubernetes-list-map-keys")]
    list_keys: Option<Vec<String>>,
    #[serde(rename = "x-kubernetes-map-type")]
    map_type: Option<String>,
    #[serde(rename = "x-kubernetes-patch-strategy")]
    patch_strategy: Option<String>,
    #[serde(rename = "x-kubernetes-patch-merge-key")]
    patch_merge_key: Option<String>,
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    preserve_unknown: Option<bool>,
    #[serde(rename = "x-kubernetes-embedded-resource")]
    embedded: Option<bool>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Additional {
    Flag(bool),
    Schema(Box<Raw>),
}

#[derive(Deserialize)]
struct Document {
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: BTreeMap<String, Raw>,
}

impl Raw {
    /// The name that a reference leads to, also one that stands alone under allOf.
    fn target(&self) -> Option<&str> {
        let reference = self.reference.as_deref().or(match self.all_of.as_deref() {
            Some([one]) => one.reference.as_deref(),
            _ => None,
        });
        reference.and_then(|reference| reference.rsplit('/').next())
    }

    fn text() -> Self {
        Self { kind: Some("string".to_owned()), ..Self::default() }
    }

    fn refers_to(name: &str) -> Self {
        Self { reference: Some(name.to_owned()), ..Self::default() }
    }

    /// The fields of every object, at the root and in embedded ones.
    fn add_object_fields(&mut self) {
        let fields = self.properties.get_or_insert_default();
        fields.insert("metadata".to_owned(), Self::refers_to(OBJECT_META));
        for name in ["apiVersion", "kind"] {
            fields.insert(name.to_owned(), Self::text());
        }
    }

    fn add_embedded(&mut self) {
        for field in self.properties.iter_mut().flat_map(BTreeMap::values_mut) {
            field.add_embedded();
        }
        if let Some(items) = &mut self.items {
            items.add_embedded();
        }
        if let Some(Additional::Schema(members)) = &mut self.additional {
            members.add_embedded();
        }
        if self.embedded == Some(true) {
            self.add_object_fields();
        }
    }
}

struct Compiler<'a> {
    known: HashMap<&'a str, TypeId, FixedState>,
    atoms: Vec<Atom>,
    /// References that say otherwise whether a map is one value.
    overrides: Vec<(TypeId, TypeId, bool)>,
}

impl<'a> Compiler<'a> {
    fn new() -> Self {
        let anything = |of: TypeId, atomic: bool| Atom {
            scalar: Some(Scalar::Any),
            list: Some(List { items: UNTYPED, kind: ListKind::Atomic }),
            map: Some(Map { fields: HashMap::default(), others: Some(of), atomic }),
        };
        Self {
            known: HashMap::default(),
            atoms: vec![anything(UNTYPED, true), anything(DEDUCED, false)],
            overrides: Vec::new(),
        }
    }

    fn name_all(&mut self, schemas: &'a BTreeMap<String, Raw>) {
        for name in schemas.keys() {
            let id = self.push(Atom::default());
            self.known.insert(name, id);
        }
    }

    fn push(&mut self, atom: Atom) -> TypeId {
        self.atoms.push(atom);
        self.atoms.len() - 1
    }

    fn compile_all(&mut self, schemas: &'a BTreeMap<String, Raw>) {
        for (name, raw) in schemas {
            let atom = match name.as_str() {
                QUANTITY => Atom { scalar: Some(Scalar::Any), ..Atom::default() },
                RAW => self.atoms[UNTYPED].clone(),
                _ => self.atom(raw, false),
            };
            if let Some(id) = self.known.get(name.as_str()) {
                self.atoms[*id] = atom;
            }
        }
    }

    fn finish(mut self) -> Types {
        for (id, target, atomic) in std::mem::take(&mut self.overrides) {
            let mut atom = self.atoms[target].clone();
            if let Some(map) = &mut atom.map {
                map.atomic = atomic;
            } else if let Some(list) = atom.list.as_mut().filter(|_| atomic) {
                list.kind = ListKind::Atomic;
            }
            self.atoms[id] = atom;
        }
        Types { atoms: self.atoms }
    }

    /// `preserve` says that unknown fields are kept here because they are further up.
    fn atom(&mut self, raw: &Raw, preserve: bool) -> Atom {
        let preserve = preserve || raw.preserve_unknown == Some(true);
        match raw.kind.as_deref().unwrap_or_default() {
            "" => Atom {
                scalar: Some(Scalar::Any),
                list: Some(self.list(raw, preserve)),
                map: Some(self.map(raw, preserve)),
            },
            "object" => Atom { map: Some(self.map(raw, preserve)), ..Atom::default() },
            "array" => Atom { list: Some(self.list(raw, preserve)), ..Atom::default() },
            kind => {
                let scalar = match (kind, raw.format.as_deref().unwrap_or_default()) {
                    ("integer" | "number", _) => Scalar::Number,
                    ("string", "" | "byte") => Scalar::Text,
                    ("boolean", _) => Scalar::Bool,
                    _ => Scalar::Any,
                };
                Atom { scalar: Some(scalar), ..Atom::default() }
            }
        }
    }

    fn map(&mut self, raw: &Raw, preserve: bool) -> Map {
        let mut fields = HashMap::default();
        for (name, property) in raw.properties.iter().flatten() {
            let default = property.default.clone().filter(|value| !(value.is_object() || value.is_array()));
            fields.insert(name.as_str().into(), Field { of: self.place(property, preserve), default });
        }
        let others = match &raw.additional {
            None if preserve || fields.is_empty() => Some(DEDUCED),
            Some(Additional::Flag(true)) => Some(DEDUCED),
            None | Some(Additional::Flag(false)) => None,
            Some(Additional::Schema(members)) => Some(self.place(members, preserve)),
        };
        Map { fields, others, atomic: raw.map_type.as_deref() == Some("atomic") }
    }

    fn list(&mut self, raw: &Raw, preserve: bool) -> List {
        let items = raw.items.as_ref().map_or(UNTYPED, |items| self.place(items, preserve));
        let kind = match (raw.list_type.as_deref(), raw.patch_strategy.as_deref()) {
            (Some("set"), _) => ListKind::Set,
            (Some("map"), _) => ListKind::Map(raw.list_keys.clone().unwrap_or_default()),
            (None, Some("merge" | "merge,retainKeys")) => match &raw.patch_merge_key {
                Some(key) => ListKind::Map(vec![key.clone()]),
                None => ListKind::Set,
            },
            _ => ListKind::Atomic,
        };
        List { items, kind }
    }

    /// The type of a schema in place.
    fn place(&mut self, raw: &Raw, preserve: bool) -> TypeId {
        if let Some(name) = raw.target() {
            let Some(target) = self.known.get(name).copied() else { return UNTYPED };
            let Some(kind) = &raw.map_type else { return target };
            let id = self.push(Atom::default());
            self.overrides.push((id, target, kind == "atomic"));
            return id;
        }
        let atom = self.atom(raw, preserve);
        self.push(atom)
    }
}

fn document(group_version: &str) -> BTreeMap<String, Raw> {
    let text = kinds::openapi_v3(group_version).unwrap_or_default();
    // Nothing is known if the data can't be read, which the tests exclude.
    serde_json::from_slice(text).map(|document: Document| document.components.schemas).unwrap_or_default()
}

/// The types of a group version, and the roots of its kinds by the names of their schemas.
type Compiled = (Arc<Types>, HashMap<String, TypeId, FixedState>);

fn compile_document(group_version: &str) -> Compiled {
    let schemas = document(group_version);
    let mut compiler = Compiler::new();
    compiler.name_all(&schemas);
    compiler.compile_all(&schemas);
    let roots = kinds::all().iter().filter(|kind| kind.api_version() == group_version);
    let roots = roots.filter_map(|kind| Some((kind.schema.clone(), *compiler.known.get(kind.schema.as_str())?)));
    let roots = roots.collect();
    (Arc::new(compiler.finish()), roots)
}

/// One group version, compiled once something of it is written.
type Lazily = LazyLock<Compiled, Box<dyn FnOnce() -> Compiled + Send>>;

static DOCUMENTS: LazyLock<BTreeMap<String, Lazily>> = LazyLock::new(|| {
    let group_versions = kinds::all().iter().map(kinds::Kind::api_version);
    group_versions
        .map(|name| {
            let of = name.clone();
            let compile: Box<dyn FnOnce() -> Compiled + Send> = Box::new(move || compile_document(&of));
            (name, LazyLock::new(compile))
        })
        .collect()
});

static META: LazyLock<BTreeMap<String, Raw>> = LazyLock::new(|| {
    let mut schemas = document(META_DOCUMENT);
    schemas.retain(|name, _| name.starts_with("io.k8s.apimachinery.pkg.apis.meta.v1."));
    schemas
});

impl Schema {
    /// The schema of a built-in kind; `None` only for one that the documents don't have.
    #[must_use]
    pub fn built_in(kind: &kinds::Kind) -> Option<Self> {
        let (types, roots) = &**DOCUMENTS.get(&kind.api_version())?;
        Some(Self { types: Arc::clone(types), root: *roots.get(&kind.schema)? })
    }

    /// The schema of one version of a custom kind, from its `openAPIV3Schema`, which was accepted before.
    #[must_use]
    pub fn custom(open_api_v3_schema: &Value) -> Self {
        let mut raw = Raw::deserialize(open_api_v3_schema).unwrap_or_default();
        raw.add_object_fields();
        raw.add_embedded();
        let mut compiler = Compiler::new();
        compiler.name_all(&META);
        compiler.compile_all(&META);
        let root = compiler.place(&raw, false);
        Self { types: Arc::new(compiler.finish()), root }
    }
}
