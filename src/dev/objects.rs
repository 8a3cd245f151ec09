//! Objects of the local API server as plain JSON, by their paths.
//!
//! Never retries and never caches: one call here is one request.

use futures::Stream;
use http::{Method, Request};
use kube::core::WatchEvent;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Who applies, as `managedFields` shows it.
const FIELD_MANAGER: &str = "ringmaster-dev";

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The server refused, or can't be reached.
    #[error("{method} {path}")]
    Call {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// The server's answer.
        source: Box<kube::Error>,
    },
    /// The object is of a kind that isn't served.
    #[error("{api_version} {kind}: no such kind is served; apply its CRD first, in the same file or in one before it")]
    Kind {
        /// Of the object.
        api_version: String,
        /// Of the object.
        kind: String,
    },
    /// The object lacks what every object has.
    #[error("{0}: must be set")]
    Incomplete(&'static str),
}

/// The objects of a server, as one user may use them.
#[derive(Clone)]
pub(crate) struct Objects(kube::Client);

impl Objects {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self(client)
    }

    /// The object; `None` if it isn't there.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Value>, Error> {
        match self.call(Method::GET, path, "", Vec::new()).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects of a collection.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, Error> {
        let mut list = self.call(Method::GET, path, "", Vec::new()).await?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// What happens to the objects of a collection, from what they are now on.
    pub(crate) async fn watch<T>(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<T>, kube::Error>> + use<T>, kube::Error>
    where
        T: Clone + DeserializeOwned,
    {
        let request = Request::get(format!("{path}?watch=true")).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.0.request_events(request).await
    }

    /// Changes an object by a merge patch.
    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Result<Value, Error> {
        self.call(Method::PATCH, path, "application/merge-patch+json", patch.to_string().into_bytes()).await
    }

    /// Deletes an object; one that isn't there is fine.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        match self.call(Method::DELETE, path, "", Vec::new()).await {
            Err(error) if !error.is(404) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Makes an object, or changes it to what is wanted, whoever wanted otherwise: server-side apply by force.
    pub(crate) async fn apply(&self, object: &Value) -> Result<Value, Error> {
        let collection = self.collection(object).await?;
        let name = object["metadata"]["name"].as_str().ok_or(Error::Incomplete("metadata.name"))?;
        let path = format!("{collection}/{name}?fieldManager={FIELD_MANAGER}&force=true");
        self.call(Method::PATCH, &path, "application/apply-patch+yaml", object.to_string().into_bytes()).await
    }

    /// The path of the collection that an object belongs to, as discovery tells.
    async fn collection(&self, object: &Value) -> Result<String, Error> {
        let api_version = object["apiVersion"].as_str().ok_or(Error::Incomplete("apiVersion"))?;
        let kind = object["kind"].as_str().ok_or(Error::Incomplete("kind"))?;
        let root = if api_version.contains('/') { "/apis" } else { "/api" };
        let served = self.get(&format!("{root}/{api_version}")).await?.unwrap_or_default();
        let resources = served["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of_kind =
            |entry: &&Value| entry["kind"] == kind && !entry["name"].as_str().is_some_and(|n| n.contains('/'));
        let missing = || Error::Kind { api_version: api_version.to_owned(), kind: kind.to_owned() };
        let found = resources.iter().find(of_kind).ok_or_else(missing)?;
        let plural = found["name"].as_str().unwrap_or_default();
        if found["namespaced"] != true {
            return Ok(format!("{root}/{api_version}/{plural}"));
        }
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        Ok(format!("{root}/{api_version}/namespaces/{namespace}/{plural}"))
    }

    async fn call(&self, method: Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Value, Error> {
        let failed = |source| Error::Call { method: method.clone(), path: path.to_owned(), source: Box::new(source) };
        let mut request = Request::builder().method(method.clone()).uri(path);
        if !kind.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, kind);
        }
        let request = request.body(body).map_err(|error| failed(kube::Error::HttpError(error)))?;
        self.0.request(request).await.map_err(failed)
    }
}

impl Error {
    fn is(&self, code: u16) -> bool {
        matches!(self, Self::Call { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == code))
    }
}
