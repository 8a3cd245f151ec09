//! What a strategic merge patch has to know of a kind: which lists merge, and by which key.
//!
//! Never a schema in full: types of scalars, defaults and the like are elsewhere.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// How a field takes a patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Nothing said: objects merge, lists are replaced.
    #[default]
    Unset,
    /// Lists merge.
    Merge,
    /// Objects and lists are replaced.
    Replace,
}

/// A field.
pub struct FieldMerge<'a> {
    /// Whether it is a list.
    pub list: bool,
    /// How it takes a patch; `retainKeys` beside it needs no mark, the patch carries the directive.
    pub strategy: Strategy,
    /// Field that tells the list's objects apart; empty for none.
    pub merge_key: &'a str,
    /// Type of the field, for a list that of its items.
    pub of: Box<dyn MergeInfo + 'a>,
}

/// What is known of an object's type.
pub trait MergeInfo {
    /// Looks a field up.
    ///
    /// # Errors
    /// What the real server says if there is no such field.
    fn field(&self, name: &str) -> Result<FieldMerge<'_>, String>;
}

/// An OpenAPI document lacks a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the OpenAPI document has no schema `{0}`")]
pub struct MissingSchema(pub String);

/// The [`MergeInfo`] of a kind, compiled from an OpenAPI v3 document. Recursive types are fine.
#[derive(Clone, Debug)]
pub struct MergeTree {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Name of the Go type, for messages; empty for what isn't a struct.
    name: String,
    /// Kind of the Go type.
    kind: &'static str,
    fields: BTreeMap<String, Field>,
}

#[derive(Clone, Debug)]
struct Field {
    list: bool,
    strategy: Strategy,
    merge_key: String,
    of: usize,
}

const ROOT: usize = 0;

impl MergeTree {
    /// Compiles the schema called `name` of a document's `components.schemas` and what it reaches.
    ///
    /// # Errors
    /// If that schema, or one that is referred to, isn't there.
    pub fn compile(schemas: &Value, name: &str) -> Result<Self, MissingSchema> {
        let mut compiler = Compiler { schemas, nodes: Vec::new(), known: HashMap::new(), todo: Vec::new() };
        compiler.named(name)?;
        while let Some((node, schema)) = compiler.todo.pop() {
            compiler.fill(node, schema)?;
        }
        Ok(Self { nodes: compiler.nodes })
    }
}

impl MergeInfo for MergeTree {
    fn field(&self, name: &str) -> Result<FieldMerge<'_>, String> {
        Place { tree: self, node: ROOT }.into_field(name)
    }
}

struct Place<'a> {
    tree: &'a MergeTree,
    node: usize,
}

impl<'a> Place<'a> {
    fn into_field(self, name: &str) -> Result<FieldMerge<'a>, String> {
        let Some(node) = self.tree.nodes.get(self.node) else { return Err(format!("no type for the field {name}")) };
        if node.kind != "struct" {
            return Err(format!("merging an object in json but data type is not struct, instead is: {}", node.kind));
        }
        let Some(field) = node.fields.get(name) else {
            return Err(format!("unable to find api field in struct {} for the json field {name:?}", node.name));
        };
        Ok(FieldMerge {
            list: field.list,
            strategy: field.strategy,
            merge_key: &field.merge_key,
            of: Box::new(Place { tree: self.tree, node: field.of }),
        })
    }
}

impl MergeInfo for Place<'_> {
    fn field(&self, name: &str) -> Result<FieldMerge<'_>, String> {
        Place { tree: self.tree, node: self.node }.into_field(name)
    }
}

struct Compiler<'a> {
    schemas: &'a Value,
    nodes: Vec<Node>,
    known: HashMap<&'a str, usize>,
    todo: Vec<(usize, &'a Value)>,
}

impl<'a> Compiler<'a> {
    /// The node of a schema that has a name.
    fn named(&mut self, name: &str) -> Result<usize, MissingSchema> {
        if let Some(&node) = self.known.get(name) {
            return Ok(node);
        }
        let found = self.schemas.as_object().and_then(|schemas| schemas.get_key_value(name));
        let Some((key, schema)) = found else { return Err(MissingSchema(name.to_owned())) };
        let short = name.rsplit('.').next().unwrap_or(name);
        let node = self.push(short, "struct", schema);
        self.known.insert(key, node);
        Ok(node)
    }

    fn push(&mut self, name: &str, kind: &'static str, schema: &'a Value) -> usize {
        self.nodes.push(Node { name: name.to_owned(), kind, fields: BTreeMap::new() });
        self.todo.push((self.nodes.len() - 1, schema));
        self.nodes.len() - 1
    }

    /// The node of a schema in place: a reference, or a type without a name.
    fn place(&mut self, schema: &'a Value) -> Result<usize, MissingSchema> {
        let inner = schema.pointer("/allOf/0").unwrap_or(schema);
        if let Some(reference) = inner["$ref"].as_str() {
            return self.named(reference.strip_prefix("#/components/schemas/").unwrap_or(reference));
        }
        let kind = match inner["type"].as_str() {
            _ if inner.get("properties").is_some() => "struct",
            Some("object") => "map",
            Some("array") => "slice",
            Some("boolean") => "bool",
            Some("integer") => "int64",
            Some("number") => "float64",
            _ => "string",
        };
        Ok(self.push("", kind, inner))
    }

    fn fill(&mut self, node: usize, schema: &'a Value) -> Result<(), MissingSchema> {
        let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
        let mut fields = BTreeMap::new();
        for (name, property) in properties {
            let items = property.get("items");
            let words = property["x-kubernetes-patch-strategy"].as_str().unwrap_or_default();
            let strategy = match words.split(',').find(|word| *word != "retainKeys") {
                Some("merge") => Strategy::Merge,
                Some("replace") => Strategy::Replace,
                _ => Strategy::Unset,
            };
            let merge_key = property["x-kubernetes-patch-merge-key"].as_str().unwrap_or_default().to_owned();
            let of = self.place(items.unwrap_or(property))?;
            fields.insert(name.clone(), Field { list: items.is_some(), strategy, merge_key, of });
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.fields = fields;
        }
        Ok(())
    }
}
