//! Server-side apply, and the raw reads and patches that hand fields over to it.
//!
//! Also keeps whose entries of `managedFields` objects come with: all others are dropped as they are read.

use std::sync::Arc;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ringmaster_core::dialect::CREATOR;
use ringmaster_core::key::{ObjectKey, Resource};
use ringmaster_core::object::{self, Object};
use serde_json::Value;

use super::{Accept, Client, READ_TIMEOUT, answer, kind_path, managed, object_path};
use crate::Error;

impl Client {
    /// The same client, whose objects come with what `managedFields` says of what these managers applied, and of what was
    /// created for them.
    #[must_use]
    pub fn keeping_managed(mut self, managers: &[Arc<str>]) -> Self {
        self.managers = managers.into();
        self
    }

    /// Reads an object's text.
    pub(crate) fn object(&self, text: &str, resource: &Resource) -> Result<Object, object::Error> {
        Object::parse_keeping(text, resource, &self.managers)
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
        // What the schema doesn't know would be dropped with a warning here, and refuse each apply later.
        let strict = if manager == CREATOR { "&fieldValidation=Strict" } else { "" };
        let path = format!("{}?{}{strict}", kind_path(resource, namespace), field_manager(manager));
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
        // JSON is YAML. Where a type is wrong, the answer repeats the value, which may be secret.
        let applied = self.patch(resource, &path, "application/apply-patch+yaml", body).await;
        applied.map_err(|error| error.without("got &"))
    }
}

fn field_manager(manager: &str) -> String {
    format!("fieldManager={}", utf8_percent_encode(manager, NON_ALPHANUMERIC))
}
