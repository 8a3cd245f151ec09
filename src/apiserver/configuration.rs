//! Server-side apply as a verb of the server: a configuration becomes an object, or is merged into one.
//!
//! Never decides who manages what (`apply`), and writes as every other verb does (`server`).

use ringmaster_core::key::ObjectKey;
use serde_json::Value;

use crate::admission::{Made, waiting};
use crate::apply::named;
use crate::body::Written;
use crate::error::Error;
use crate::kinds::Undecodable;
use crate::meta;
use crate::ownership::{Writer, configured};
use crate::registry::Definition;
use crate::request::Request;
use crate::server::{ApiServer, PATCH_TRIES, about, check_place};
use crate::shape::{self, Managers};

impl ApiServer {
    /// Applies a configuration: makes an object of it, or merges it into the one that is there.
    ///
    /// # Errors
    /// If it doesn't fit the kind, sets what others manage without `force`, or leads to an invalid object.
    pub(crate) fn apply(&self, request: &Request, configuration: &Value) -> Result<Made, Error> {
        let definition = self.definition(request)?;
        if request.subresource == "scale" {
            return Err(Error::not_implemented("server-side apply of a Scale"));
        }
        let force = request.query.is_true("force");
        let now = (self.clock)();
        let key = ObjectKey::new(&request.namespace, &request.name);
        let named = named(configuration);
        for _ in 0..PATCH_TRIES {
            let state = self.state.lock();
            let seen = state.store.get(&definition.key, &key);
            let webhooks = if seen.is_none() { waiting(&state.store, &definition) } else { Vec::new() };
            drop(state);
            let old = seen.as_ref().map(|seen| shape::shown(&definition, seen));
            let writer = Writer::of(request, &now.time);
            let body = configured(&definition, &writer, old.as_ref(), configuration, force)?;
            let body = shape::decode(&definition, Written::of(body), None, request)?
                .map_err(|why| unconvertible(&definition, &named, why))?;
            check_applied(&definition, request, &body.0, seen.is_some())?;
            match &seen {
                Some(seen) => {
                    if let Some(answer) = self.replace(&definition, request, seen, body, true)? {
                        return Ok(Made::Answer(answer));
                    }
                }
                None if request.subresource.is_empty() => {
                    match self.insert(&definition, request, body, Managers::Applied, webhooks) {
                        Err(error) if error.reason == "AlreadyExists" => {}
                        other => return other,
                    }
                }
                None => return Err(Error::not_found(about(&definition, &request.name))),
            }
        }
        Err(Error::modified(about(&definition, &request.name)))
    }
}

/// 500 for an object of a built-in kind that came of an apply and can't be decoded.
fn unconvertible(definition: &Definition, named: &str, undecodable: Undecodable) -> Error {
    if !definition.is_built_in() || undecodable.why.starts_with("strict decoding error") {
        return undecodable.into();
    }
    let to = named.split_once("; ").map_or(named, |(_, kind)| kind);
    let what = format!("unable to convert unstructured object to {to}: {}", undecodable.why);
    Error::new(500, "", format!("failed to convert new object ({named}) to proper version: {what}"))
}

/// What must be true of the object that an apply leads to before anything else.
fn check_applied(definition: &Definition, request: &Request, body: &Value, exists: bool) -> Result<(), Error> {
    let uid = meta::text(body, "uid");
    if !exists && !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Error::conflict(about(definition, &request.name), &why));
    }
    check_place(definition, request, body)
}
