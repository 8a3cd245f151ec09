//! Server-side apply, and the raw reads and patches that hand fields over to it.
//!
//! Also keeps which kinds' objects come with what `managedFields` says of us: of all others it is dropped as it is read.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use parking_lot::RwLock;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ringmaster_core::key::{ObjectKey, Resource};
use ringmaster_core::object::{self, Object};
use serde_json::Value;

use super::{Accept, Client, READ_TIMEOUT, answer, kind_path, managed, object_path};
use crate::Error;

/// Whose entries of `managedFields` are kept, by kind.
pub(super) type Managers = RwLock<HashMap<Resource, Arc<[Arc<str>]>>>;

impl Client {
    /// From now on, objects of this kind come with what `managedFields` says of these managers too. What was read before
    /// comes without until it changes.
    pub fn keep_managed(&self, resource: &Resource, managers: &[Arc<str>]) {
        let mut kept = self.managers.write();
        let known = kept.get(resource).map_or(&[][..], |known| &**known);
        let missing: Vec<Arc<str>> = managers.iter().filter(|manager| !known.contains(manager)).cloned().collect();
        if !missing.is_empty() {
            let all = known.iter().cloned().chain(missing).collect();
            kept.insert(resource.clone(), all);
        }
    }

    /// Reads an object's text.
    pub(crate) fn object(&self, text: &str, resource: &Resource) -> Result<Object, object::Error> {
        let managers = self.managers.read().get(resource).map(Arc::clone);
        Object::parse_keeping(text, resource, managers.as_deref().unwrap_or_default())
    }

    /// Reads one object as it is, with its `managedFields`; `None` if it isn't there.
    ///
    /// # Errors
    /// If the call fails otherwise.
    pub async fn get_tree(&self, resource: &Resource, key: &ObjectKey) -> Result<Option<Value>, Error> {
        let path = object_path(resource, key);
        match self.read(&path, Accept::Json, READ_TIMEOUT).await {
            Ok(body) => {
                serde_json::from_slice(&body).map(Some).map_err(|error| answer(&Method::GET, &path, error.to_string()))
            }
            Err(error) if error.is_object_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an object in the name of a field manager.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn create_as(
        &self,
        resource: &Resource,
        namespace: &str,
        manager: &str,
        body: Vec<u8>,
    ) -> Result<Object, Error> {
        let path = format!("{}?{}", kind_path(resource, namespace), field_manager(manager));
        let body = self.write(Method::POST, &path, "application/json", body).await?;
        self.parse(&Method::POST, &path, &body, resource)
    }

    /// Applies a JSON patch to an object.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn json_patch(&self, resource: &Resource, key: &ObjectKey, body: Vec<u8>) -> Result<Object, Error> {
        let path = managed(&object_path(resource, key));
        self.patch(resource, &path, "application/json-patch+json", body).await
    }

    /// Applies an object (server-side) in the name of a field manager, who takes the fields that are others'. The body's
    /// uid and resourceVersion are the preconditions: without a uid, an object that isn't there would be made. Without
    /// effect, the answer is what the object would become.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn apply(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        manager: &str,
        body: Vec<u8>,
        without_effect: bool,
    ) -> Result<Object, Error> {
        let dry_run = if without_effect { "&dryRun=All" } else { "" };
        let path = format!("{}?{}&force=true{dry_run}", object_path(resource, key), field_manager(manager));
        // JSON is YAML.
        self.patch(resource, &path, "application/apply-patch+yaml", body).await
    }
}

fn field_manager(manager: &str) -> String {
    format!("fieldManager={}", utf8_percent_encode(manager, NON_ALPHANUMERIC))
}
