//! Kubernetes objects as plain JSON over raw requests: what a trial does to a cluster, as one user.
//!
//! Never caches, retries or hides an answer's code: each call here is one API request, save `apply_yaml`.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};

/// The field manager of everything the suites apply.
pub(crate) const FIELD_MANAGER: &str = "ringmaster-suites";
/// Most documents in one YAML file.
const MAX_DOCUMENTS: usize = 256;

/// A CRD of one version, `v1`, with a status subresource. Without a schema the whole object keeps unknown fields.
pub(crate) fn crd(group: &str, kind: &str, plural: &str, scope: &str, schema: Option<Value>) -> Value {
    let schema = schema.unwrap_or_else(|| json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": scope,
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": schema }, "subresources": { "status": {} },
            }],
        },
    })
}

/// A collection of objects: an API version, a plural, and a namespace unless it is cluster-scoped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// `v1`, or `group/version`.
    pub(crate) api_version: String,
    /// The kind that its objects carry; may be empty where bodies bring their own.
    pub(crate) kind: String,
    /// The plural name in paths.
    pub(crate) plural: String,
    /// The namespace, or `None` for a cluster-scoped kind (or, in a list, all namespaces).
    pub(crate) namespace: Option<String>,
}

impl Resource {
    /// A resource by its parts.
    pub(crate) fn new(api_version: &str, kind: &str, plural: &str, namespace: Option<&str>) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.map(ToOwned::to_owned),
        }
    }

    /// The same kind in another namespace (or in all of them).
    pub(crate) fn in_namespace(&self, namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(ToOwned::to_owned), ..self.clone() }
    }

    /// The API group, empty for the core group.
    pub(crate) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// The request path of the collection.
    pub(crate) fn path(&self) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let namespace = self.namespace.as_ref().map(|n| format!("/namespaces/{n}")).unwrap_or_default();
        format!("{root}/{}{namespace}/{}", self.api_version, self.plural)
    }

    /// The request path of one object.
    pub(crate) fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.path())
    }
}

/// The API as one user sees it.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
}

impl Objects {
    /// As the user of a kubeconfig; bound to the present runtime.
    ///
    /// # Errors
    /// It can't be read or used.
    pub(crate) async fn of_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let file = kube::config::Kubeconfig::read_from(path)?;
        let mut config =
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(Self::new(Client::try_from(config)?))
    }

    /// Over a client whose own retries are off.
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client beneath, for what has no helper here (watches, typed APIs).
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// One raw request with a JSON body.
    ///
    /// # Errors
    /// A [`Refused`] (see [`code`]), or no answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request =
            Request::builder().method(method.clone()).uri(path).header(http::header::ACCEPT, "application/json");
        let request = request.header(http::header::CONTENT_TYPE, content_type).body(bytes)?;
        let text = self.client.request_text(request).await.map_err(|error| match error {
            kube::Error::Api(status) => {
                let kube::core::Status { code, reason, message, .. } = *status;
                anyhow::Error::new(Refused { request: format!("{method} {path}"), code, reason, message })
            }
            other => anyhow::Error::new(other).context(format!("{method} {path}")),
        })?;
        // Health endpoints answer in plain text.
        Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// GET of any path.
    pub(crate) async fn get_path(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, "application/json", None).await
    }

    /// Creates an object; `apiVersion`, `kind` and the namespace are filled in where the body lacks them.
    pub(crate) async fn create(&self, resource: &Resource, mut body: Value) -> anyhow::Result<Value> {
        let object = body.as_object_mut().ok_or_else(|| anyhow!("create {}: not an object", resource.plural))?;
        object.entry("apiVersion").or_insert_with(|| resource.api_version.clone().into());
        if !resource.kind.is_empty() {
            object.entry("kind").or_insert_with(|| resource.kind.clone().into());
        }
        self.send(Method::POST, &resource.path(), "application/json", Some(&body)).await
    }

    /// The object, or an error with code 404.
    pub(crate) async fn get(&self, resource: &Resource, name: &str) -> anyhow::Result<Value> {
        self.get_path(&resource.object(name)).await
    }

    /// The object, or `None` if there is none.
    pub(crate) async fn find(&self, resource: &Resource, name: &str) -> anyhow::Result<Option<Value>> {
        match self.get(resource, name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if code(&error) == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The items of a list. `query` is the URL's query without `?` (`labelSelector=a%3Db`), or empty.
    pub(crate) async fn list(&self, resource: &Resource, query: &str) -> anyhow::Result<Vec<Value>> {
        let separator = if query.is_empty() { "" } else { "?" };
        let mut list = self.get_path(&format!("{}{separator}{query}", resource.path())).await?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            other => Err(anyhow!("list of {}: items is {other}", resource.plural)),
        }
    }

    /// Replaces an object (PUT); the body names its `resourceVersion` if it shall be checked.
    pub(crate) async fn replace(&self, resource: &Resource, name: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::PUT, &resource.object(name), "application/json", Some(body)).await
    }

    /// A JSON merge patch of an object, or of a subresource by `name/status`.
    pub(crate) async fn patch_merge(&self, resource: &Resource, name: &str, patch: &Value) -> anyhow::Result<Value> {
        self.send(Method::PATCH, &resource.object(name), "application/merge-patch+json", Some(patch)).await
    }

    /// A JSON merge patch of an object's status.
    pub(crate) async fn patch_status(&self, resource: &Resource, name: &str, patch: &Value) -> anyhow::Result<Value> {
        self.patch_merge(resource, &format!("{name}/status"), patch).await
    }

    /// Deletes an object in the background. Whether it was there is the answer.
    pub(crate) async fn delete(&self, resource: &Resource, name: &str) -> anyhow::Result<bool> {
        match self.send(Method::DELETE, &resource.object(name), "application/json", None).await {
            Ok(_) => Ok(true),
            Err(error) if code(&error) == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object with DeleteOptions.
    ///
    /// # Errors
    /// It isn't there, or the server refuses.
    pub(crate) async fn delete_with(&self, resource: &Resource, name: &str, options: &Value) -> anyhow::Result<()> {
        self.send(Method::DELETE, &resource.object(name), "application/json", Some(options)).await.map(drop)
    }

    /// Deletes what a label selector (`key=value`) matches. A kind that isn't served has nothing to delete.
    pub(crate) async fn delete_all(&self, resource: &Resource, selector: &str) -> anyhow::Result<()> {
        let path = format!("{}?labelSelector={}", resource.path(), selector.replace('=', "%3D"));
        match self.send(Method::DELETE, &path, "application/json", None).await {
            Err(error) if code(&error) != Some(404) => Err(error),
            _ => Ok(()),
        }
    }

    /// Creates an object of any served kind, by its `apiVersion` and `kind`, or merges it into the one that is there.
    ///
    /// # Errors
    /// A field that says what the object is lacks, its kind isn't served, or the server refuses it.
    pub(crate) async fn apply(&self, object: &Value) -> anyhow::Result<Value> {
        let text = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).ok_or_else(|| anyhow!("{pointer} is missing or no string"))
        };
        let (api_version, kind, name) = (text("/apiVersion")?, text("/kind")?, text("/metadata/name")?);
        let root = if api_version.contains('/') { "/apis" } else { "/api" };
        let served = self.get_path(&format!("{root}/{api_version}")).await?;
        let found =
            served["resources"].as_array().into_iter().flatten().find(|entry| {
                entry["kind"] == kind && entry["name"].as_str().is_some_and(|plural| !plural.contains('/'))
            });
        let Some(entry) = found else { bail!("kind {kind} of {api_version} isn't served") };
        let namespace = (entry["namespaced"] == true)
            .then(|| object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default"));
        let resource = Resource::new(api_version, kind, entry["name"].as_str().unwrap_or_default(), namespace);
        match self.create(&resource, object.clone()).await {
            Err(error) if code(&error) == Some(409) => self.patch_merge(&resource, name, object).await,
            made => made,
        }
    }

    /// Applies every document of a YAML file, in order; answers with the applied objects.
    ///
    /// # Errors
    /// The file can't be read or parsed, holds no document, or one of them can't be applied; the file is named.
    pub(crate) async fn apply_yaml(&self, path: &Path) -> anyhow::Result<Vec<Value>> {
        let documents = read_yaml(path)?;
        let mut applied = Vec::with_capacity(documents.len());
        for document in documents {
            let what = format!("{}: {} {}", path.display(), document["kind"], document["metadata"]["name"]);
            applied.push(self.apply(&document).await.context(what)?);
        }
        Ok(applied)
    }
}

/// The documents of a YAML file as JSON; empty documents are left out.
///
/// # Errors
/// The file can't be read or parsed, or holds no document, or more than [`MAX_DOCUMENTS`].
pub(crate) fn read_yaml(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    if documents.is_empty() || documents.len() > MAX_DOCUMENTS {
        bail!("{}: {} documents, want 1 to {MAX_DOCUMENTS}", path.display(), documents.len());
    }
    Ok(documents)
}

/// The API server's refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Method and path.
    pub(crate) request: String,
    /// The HTTP code.
    pub(crate) code: u16,
    /// The machine's word for it, such as `NotFound`.
    pub(crate) reason: String,
    /// The text for people.
    pub(crate) message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { request, code, reason, message } = self;
        write!(out, "{request}: {code} {reason}: {message}")
    }
}

impl std::error::Error for Refused {}

/// The HTTP code of a refusal, if the error is one.
pub(crate) fn code(error: &anyhow::Error) -> Option<u16> {
    error.downcast_ref::<Refused>().map(|refused| refused.code)
}
