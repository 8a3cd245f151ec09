//! DELETE as verbs of the server: of one object, and of all that a list would show.
//!
//! Never does what follows from it: see `gc`.

use std::sync::Arc;

use ringmaster_core::object::Object;
use serde_json::{Value, json};

use crate::answer::{Answer, Shown};
use crate::error::{About, Error};
use crate::gc::{Deleted, FOREGROUND, ORPHAN, delete_in_background, delete_now};
use crate::read::Listed;
use crate::registry::Definition;
use crate::request::Request;
use crate::server::{ApiServer, about};
use crate::{crd, shape};

/// Namespaces that stay (the NamespaceLifecycle admission plugin).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// What who deletes a Job without saying more is told.
const ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

impl ApiServer {
    /// Deletes an object.
    ///
    /// # Errors
    /// If it isn't there, or isn't the one that the preconditions name.
    pub fn delete(&self, request: &Request, options: &Value) -> Result<Answer, Error> {
        let definition = self.definition(request)?;
        let about = about(&definition, &request.name);
        let now = (self.clock)();
        let mut state = self.state.lock();
        let seen = state.seen(&definition, request)?;
        let preconditions = &options["preconditions"];
        let differs = |field: &str, is: &str| preconditions[field].as_str().filter(|wanted| *wanted != is);
        let (uid, version) = (seen.uid().to_string(), seen.version().to_string());
        // The real server names the kind where it means the resource.
        let kind = About { plural: about.kind, ..about };
        if let Some(wanted) = differs("uid", &uid) {
            let why = format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            );
            return Err(Error::conflict(kind, &why));
        }
        if let Some(wanted) = differs("resourceVersion", &version) {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
            );
            return Err(Error::conflict(kind, &why));
        }
        if definition.key.plural.as_ref() == "namespaces" && IMMORTAL.contains(&request.name.as_str()) {
            return Err(Error::forbidden(about, "this namespace may not be deleted"));
        }
        let orphans = shape::orphans_by_default(&definition);
        let unsaid = options["propagationPolicy"].is_null() && options["orphanDependents"].is_null();
        let warnings = if orphans && unsaid { vec![ORPHANS.to_owned()] } else { Vec::new() };
        if options["dryRun"].as_array().is_some_and(|dry| dry.iter().any(|value| value == "All")) {
            return Ok(deleted(&definition, &seen, warnings));
        }
        let held = seen.finalizers().iter().any(|finalizer| finalizer == FOREGROUND || finalizer == ORPHAN);
        let grace = options["gracePeriodSeconds"].as_i64();
        let policy = match (options["propagationPolicy"].as_str(), options["orphanDependents"].as_bool()) {
            (None, Some(true)) => Some("Orphan"),
            (None, Some(false)) => Some("Background"),
            (None, None) if orphans && !held => Some("Orphan"),
            (policy, _) => policy,
        };
        let store = &mut state.store;
        let outcome = match policy {
            _ if definition.key == crd::crds() && !seen.is_deleting() => {
                crd::mark(store, &definition, &seen, &now).map(Deleted::Marked)
            }
            Some("Foreground") => delete_now(store, &definition, &seen, &now, Some(FOREGROUND), grace),
            Some("Orphan") => delete_now(store, &definition, &seen, &now, Some(ORPHAN), grace),
            Some(_) => delete_in_background(store, &definition, &seen, &now, grace),
            None => delete_now(store, &definition, &seen, &now, None, grace),
        };
        match outcome.map_err(|_| Error::modified(about))? {
            Deleted::Gone(last) => {
                self.after_removal(&mut state, &definition, &last, &now);
                Ok(deleted(&definition, &last, warnings))
            }
            Deleted::Marked(object) => {
                self.after_write(&mut state, &definition, Some(&seen), &object, &now);
                // Clients of old are told that there is more to come, if they said what.
                let code = if options["orphanDependents"] == false { 202 } else { 200 };
                Ok(Answer { code, body: Shown::Stored(Arc::clone(&definition), object), warnings })
            }
        }
    }

    /// Deletes all objects that a list would show.
    ///
    /// # Errors
    /// If the list can't be made, or an object can't be deleted.
    pub fn delete_collection(&self, request: &Request, options: &Value) -> Result<Listed, Error> {
        let listed = self.list(request)?;
        for object in &listed.objects {
            let one = Request {
                name: object.key().name().to_owned(),
                namespace: object.key().namespace().to_owned(),
                ..request.clone()
            };
            match self.delete(&one, options) {
                Ok(_) => {}
                // Somebody else was faster.
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listed)
    }
}

fn deleted(definition: &Definition, last: &Object, warnings: Vec<String>) -> Answer {
    if shape::is_shown_when_deleted(definition) {
        return Answer { code: 200, body: shape::shown(definition, last).into(), warnings };
    }
    let resource = &definition.resource;
    let mut details = json!({ "name": last.key().name(), "kind": &*resource.plural, "uid": last.uid().to_string() });
    if !resource.api_version.group().is_empty() {
        details["group"] = resource.api_version.group().into();
    }
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Answer { code: 200, body: body.into(), warnings }
}
