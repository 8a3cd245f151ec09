//! OpenAPI v3 documents of custom resources, made from their CRDs' schemas as kube-apiserver makes them.
//!
//! Never checks a schema: what the CRD says is published. What all documents share (parameters, `ObjectMeta` and
//! its like) is data taken from kube-apiserver v1.36.3, in `openapi_shared.json`.

use std::sync::LazyLock;

use ringmaster_core::key::Resource;
use serde_json::{Map, Value, json};

use crate::registry::Definition;

static SHARED: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("openapi_shared.json")).unwrap_or_default());

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const JSON_AND_YAML: [&str; 2] = ["application/json", "application/yaml"];
const PATCH_TYPES: [&str; 3] =
    ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
const LIST_QUERY: [&str; 11] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
const WRITE_QUERY: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const PATCH_QUERY: [&str; 4] = ["dryRun", "fieldManager/patch", "fieldValidation", "force"];
const DELETE_QUERY: [&str; 5] = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];

/// The document of one group version. Each kind comes with its entry of the CRD's `spec.versions`.
pub(super) fn document(kinds: &[(&Definition, Value)]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let scaled = kinds.iter().any(|(_, version)| has_scale(version));
    for (name, schema) in SHARED["schemas"].as_object().into_iter().flatten() {
        if scaled || !name.starts_with(SCALE) {
            schemas.insert(name.clone(), schema.clone());
        }
    }
    for (definition, version) in kinds {
        let writer = Writer::new(definition);
        writer.add_paths(version, &mut paths);
        writer.add_schemas(version, &mut schemas);
    }
    json!({
        "openapi": "3.0.0", "info": { "title": "Kubernetes CRD Swagger", "version": "v0.1.0" },
        "paths": paths, "components": { "schemas": schemas },
    })
}

/// Whether a CRD's version serves `/scale`.
pub(super) fn has_scale(version: &Value) -> bool {
    !version["subresources"]["scale"].is_null()
}

/// Writes the parts of one kind.
struct Writer<'a> {
    definition: &'a Definition,
    resource: &'a Resource,
    /// Name of the kind's component.
    component: String,
    /// Name of its list's component.
    list_component: String,
    /// Group and version in operation ids: `ShopExampleComV1`.
    camel: String,
}

impl<'a> Writer<'a> {
    fn new(definition: &'a Definition) -> Self {
        let resource = &*definition.resource;
        let (group, version) = (resource.api_version.group(), resource.api_version.version());
        let mut parts: Vec<&str> = group.split('.').collect();
        let camel = parts.iter().copied().chain([version]).map(capital).collect();
        parts.reverse();
        let prefix = format!("{}.{version}", parts.join("."));
        Self {
            definition,
            resource,
            component: format!("{prefix}.{}", resource.kind),
            list_component: format!("{prefix}.{}", definition.list_kind),
            camel,
        }
    }

    fn add_paths(&self, version: &Value, paths: &mut Map<String, Value>) {
        let Resource { api_version, plural, kind, namespaced, .. } = self.resource;
        let scope = if *namespaced { "Namespaced" } else { "" };
        let all = format!("/apis/{api_version}/{plural}");
        let collection =
            if *namespaced { format!("/apis/{api_version}/namespaces/{{namespace}}/{plural}") } else { all.clone() };
        let item = format!("{collection}/{{name}}");
        let item_parameters = || self.path_parameters(true);

        let list = |id: &str| {
            let answers = answers(&[200], &self.list_component);
            self.operation("list", &format!("list objects of kind {kind}"), id, &[], answers)
        };
        let mut listed = list(&format!("list{}{scope}{kind}", self.camel));
        listed["parameters"] = queries(&LIST_QUERY);
        paths.insert(
            collection,
            json!({
                "get": listed,
                "post": self.write("post", &format!("create a {kind}"), &format!("create{}{scope}{kind}", self.camel),
                    &[200, 201, 202], &self.component),
                "delete": self.operation("deletecollection", &format!("delete collection of {kind}"),
                    &format!("delete{}Collection{scope}{kind}", self.camel), &LIST_QUERY,
                    answers(&[200], &format!("{META}.Status"))),
                "parameters": self.path_parameters(false),
            }),
        );
        if *namespaced {
            let mut names = LIST_QUERY.to_vec();
            names.insert(5, "pretty");
            let id = format!("list{}{kind}ForAllNamespaces", self.camel);
            paths.insert(all, json!({ "get": list(&id), "parameters": queries(&names) }));
        }
        let mut main = self.item("", "", &self.component);
        let mut delete = self.operation(
            "delete",
            &format!("delete a {kind}"),
            &format!("delete{}{scope}{kind}", self.camel),
            &DELETE_QUERY,
            answers(&[200, 202], &format!("{META}.Status")),
        );
        delete["requestBody"] = json!({ "content": content(&JSON_AND_YAML, &format!("{META}.DeleteOptions")) });
        main["delete"] = delete;
        main["parameters"] = item_parameters();
        if self.definition.has_status() {
            let mut status = self.item("status of ", "Status", &self.component);
            status["parameters"] = item_parameters();
            paths.insert(format!("{item}/status"), status);
        }
        if has_scale(version) {
            let mut scale = self.item("scale of ", "Scale", SCALE);
            scale["parameters"] = item_parameters();
            paths.insert(format!("{item}/scale"), scale);
        }
        paths.insert(item, main);
    }

    /// Read, replace and patch of the object or of a subresource.
    fn item(&self, part: &str, suffix: &str, component: &str) -> Value {
        let kind = &self.resource.kind;
        let scope = if self.resource.namespaced { "Namespaced" } else { "" };
        let id = |verb: &str| format!("{verb}{}{scope}{kind}{suffix}", self.camel);
        let mut patch = self.operation(
            "patch",
            &format!("partially update {part}the specified {kind}"),
            &id("patch"),
            &PATCH_QUERY,
            answers(&[200], component),
        );
        patch["requestBody"] = json!({ "content": content(&PATCH_TYPES, &format!("{META}.Patch")), "required": true });
        json!({
            "get": self.operation("get", &format!("read {part}the specified {kind}"), &id("read"),
                &["resourceVersion"], answers(&[200], component)),
            "put": self.write("put", &format!("replace {part}the specified {kind}"), &id("replace"), &[200, 201],
                component),
            "patch": patch,
        })
    }

    fn write(&self, action: &str, description: &str, id: &str, codes: &[u16], component: &str) -> Value {
        let mut operation = self.operation(action, description, id, &WRITE_QUERY, answers(codes, component));
        operation["requestBody"] = json!({ "content": content(&JSON_AND_YAML, component), "required": true });
        operation
    }

    fn operation(&self, action: &str, description: &str, id: &str, query: &[&str], answers: Value) -> Value {
        let version = &self.resource.api_version;
        let mut parts = version.group().split('.');
        let tag: String =
            parts.next().map(str::to_owned).into_iter().chain(parts.map(capital)).collect::<Vec<_>>().concat();
        let mut operation = json!({
            "tags": [format!("{tag}_{}", version.version())], "description": description, "operationId": id,
            "responses": answers, "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {
                "group": version.group(), "version": version.version(), "kind": &*self.resource.kind,
            },
        });
        if !query.is_empty() {
            operation["parameters"] = queries(query);
        }
        operation
    }

    fn path_parameters(&self, name: bool) -> Value {
        let mut parameters = Vec::new();
        if name {
            parameters.push(json!({
                "name": "name", "in": "path", "description": format!("name of the {}", self.resource.kind),
                "required": true, "schema": { "type": "string", "uniqueItems": true },
            }));
        }
        if self.resource.namespaced {
            parameters.push(SHARED["parameters"]["namespace"].clone());
        }
        parameters.push(SHARED["parameters"]["pretty"].clone());
        Value::Array(parameters)
    }

    fn add_schemas(&self, version: &Value, schemas: &mut Map<String, Value>) {
        let Resource { api_version, kind, plural, .. } = self.resource;
        let gvk =
            |kind: &str| json!([{ "group": api_version.group(), "version": api_version.version(), "kind": kind }]);
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        if !schema.is_object() {
            schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        }
        published(&mut schema);
        merge_properties(&mut schema, &SHARED["object"]);
        schema["x-kubernetes-group-version-kind"] = gvk(kind);
        let list_kind = &self.definition.list_kind;
        let mut list = json!({
            "description": format!("{list_kind} is a list of {kind}"), "type": "object", "required": ["items"],
            "properties": { "items": {
                "description": format!("List of {plural}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"),
                "type": "array", "items": reference(&self.component),
            } },
            "x-kubernetes-group-version-kind": gvk(list_kind),
        });
        merge_properties(&mut list, &SHARED["list"]);
        if !self.definition.selectable.is_empty() {
            let fields: Vec<Value> =
                self.definition.selectable.iter().map(|field| json!({ "fieldPath": field })).collect();
            schema["x-kubernetes-selectable-fields"] = json!(fields);
            list["x-kubernetes-selectable-fields"] = json!(fields);
        }
        schemas.insert(self.component.clone(), schema);
        schemas.insert(self.list_component.clone(), list);
    }
}

fn answers(codes: &[u16], component: &str) -> Value {
    let mut answers = json!({ "401": { "description": "Unauthorized" } });
    for code in codes {
        let description = match code {
            200 => "OK",
            201 => "Created",
            _ => "Accepted",
        };
        answers[code.to_string()] =
            json!({ "description": description, "content": content(&JSON_AND_YAML, component) });
    }
    answers
}

/// A structural schema as kube-apiserver publishes it. CRD schemas are bounded in depth by the parser of their JSON.
fn published(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for dropped in ["example", "externalDocs", "id", "$schema"] {
        fields.remove(dropped);
    }
    for map in ["properties", "patternProperties"] {
        if let Some(Value::Object(children)) = fields.get_mut(map) {
            children.values_mut().for_each(published);
        }
    }
    for single in ["items", "additionalProperties"] {
        if let Some(child) = fields.get_mut(single) {
            published(child);
        }
    }
    if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        fields.entry("anyOf").or_insert_with(|| json!([{ "type": "integer" }, { "type": "string" }]));
    }
    if fields.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        let required = fields.entry("required").or_insert_with(|| json!([]));
        for name in ["kind", "apiVersion"] {
            if let Some(list) = required.as_array_mut().filter(|list| !list.iter().any(|item| item == name)) {
                list.push(name.into());
            }
        }
        merge_properties(schema, &SHARED["embedded"]);
    }
}

fn merge_properties(schema: &mut Value, properties: &Value) {
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    for (name, property) in properties.as_object().into_iter().flatten() {
        schema["properties"][name] = property.clone();
    }
}

fn queries(names: &[&str]) -> Value {
    names.iter().map(|name| SHARED["parameters"][name].clone()).collect()
}

fn content(types: &[&str], component: &str) -> Value {
    types.iter().map(|name| ((*name).to_owned(), json!({ "schema": reference(component) }))).collect()
}

fn reference(component: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{component}") })
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
