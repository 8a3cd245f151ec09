//! The server's state and its verbs on objects, without HTTP: a parsed request and a body in, an answer out.
//!
//! Never serves a socket and never waits: what happens later (garbage, namespaces) is handed to one task by a channel.

use std::sync::Arc;

use parking_lot::Mutex;
use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::Object;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::addresses::Free;
use crate::apply::same_but_times;
use crate::error::{About, Error};
use crate::field_error::{FieldError, go_quote};
use crate::gc::{Deleted, FOREGROUND, ORPHAN, Work, consequences, delete_in_background, delete_now, finish_if_free};
use crate::meta::{self, Now};
use crate::read::Listed;
use crate::registry::{Definition, Registry};
use crate::request::{Request, Verb};
use crate::shape::{Managers, Prepared};
use crate::store::{KindKey, Limits, Store};
use crate::{crd, kinds, shape};

/// A write that somebody else was faster at is repeated so often when the client named no version (as the real server).
pub(crate) const PATCH_TRIES: usize = 5;

/// Where the time and random bits come from.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// An API server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) clock: Clock,
    /// Follow-up work: deletions lead to more of them. Unbounded in type, bounded by the objects that there are.
    pub(crate) later: mpsc::UnboundedSender<Work>,
}

/// Everything that changes.
pub struct State {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
}

/// An answer with one object or a Status.
#[derive(Debug)]
pub struct Answer {
    /// HTTP code.
    pub code: u16,
    /// The body.
    pub body: Value,
    /// `Warning` headers: what was ignored.
    pub warnings: Vec<String>,
}

pub(crate) fn about<'a>(definition: &'a Definition, name: &'a str) -> About<'a> {
    let resource = &definition.resource;
    About { group: resource.api_version.group(), plural: &resource.plural, kind: &resource.kind, name }
}

impl ApiServer {
    /// A server with the built-in kinds and the namespaces `default`, `kube-system` and `kube-public`; and the work
    /// that must run as a task beside it, until the server is dropped.
    pub fn new(limits: Limits, clock: Clock) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (server, work) = Self::empty(limits, clock);
        for name in ["default", "kube-system", "kube-public"] {
            let request = Request {
                verb: Verb::Create,
                group: String::new(),
                version: "v1".to_owned(),
                plural: "namespaces".to_owned(),
                namespace: String::new(),
                name: String::new(),
                subresource: String::new(),
                query: crate::request::Query::default(),
                agent: crate::ownership::SERVER.to_owned(),
                through: "",
            };
            // A fresh server accepts its own namespaces; if it didn't, the first request would say so.
            let _ =
                server.create(&request, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        }
        (server, work)
    }

    /// A server with the built-in kinds and no object, and its work.
    pub(crate) fn empty(limits: Limits, clock: Clock) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (later, waiting) = mpsc::unbounded_channel();
        let mut registry = Registry::default();
        shape::built_ins().into_iter().for_each(|definition| registry.insert(definition));
        let state = Arc::new(Mutex::new(State { store: Store::new(limits), registry }));
        let server = Self { state: Arc::clone(&state), clock: Arc::clone(&clock), later };
        (server, follow(Arc::downgrade(&state), clock, waiting))
    }

    pub(crate) fn definition(&self, request: &Request) -> Result<Arc<Definition>, Error> {
        let state = self.state.lock();
        let found = state.registry.find(&request.group, &request.version, &request.plural);
        let definition = found.ok_or_else(Error::no_resource)?;
        if !definition.resource.namespaced && !request.namespace.is_empty() {
            return Err(Error::no_resource());
        }
        let found = match request.subresource.as_str() {
            "" => Ok(definition),
            other if kinds::lacks(request.group.as_str(), &definition.resource.plural, other) => {
                Err(Error::not_implemented(&format!("the subresource {other} of {}", request.plural)))
            }
            "status" if definition.has_status() => Ok(definition),
            "finalize" if definition.key.plural.as_ref() == "namespaces" => Ok(definition),
            "scale" if definition.scale.is_some() => Ok(definition),
            _ if definition.is_built_in() => Err(Error::no_resource()),
            // The real server takes the path for one of the object.
            _ => Err(Error::not_found(about(&definition, &request.name))),
        }?;
        let allowed = match request.subresource.as_str() {
            "" => true,
            "finalize" => request.verb == Verb::Update,
            _ => matches!(request.verb, Verb::Get | Verb::Update | Verb::Patch),
        };
        match allowed {
            true => Ok(found),
            false if found.is_built_in() => Err(Error::method_not_allowed()),
            false => Err(Error::not_supported(about(&found, ""), request.verb.name())),
        }
    }

    /// Whether the kind is served, or another built-in one of its group and version.
    pub(crate) fn knows(&self, request: &Request) -> bool {
        let registry = &self.state.lock().registry;
        registry.find(&request.group, &request.version, &request.plural).is_some()
            || registry.iter().any(|known| {
                let version = &known.resource.api_version;
                known.is_built_in() && version.group() == request.group && version.version() == request.version
            })
    }

    /// Creates an object.
    ///
    /// # Errors
    /// If it is invalid, there already, or its namespace isn't.
    pub fn create(&self, request: &Request, body: Value) -> Result<Answer, Error> {
        let definition = self.definition(request)?;
        shape::check_kind(&definition, &body)?;
        let now = (self.clock)();
        check_namespace(&definition, request, &body)?;
        self.insert(&mut self.state.lock(), &definition, request, (body, Managers::Track(&Value::Null)), &now)
    }

    pub(crate) fn insert(
        &self,
        state: &mut State,
        definition: &Arc<Definition>,
        request: &Request,
        (mut body, managers): (Value, Managers<'_>),
        now: &Now,
    ) -> Result<Answer, Error> {
        let given = meta::text(&body, "name").to_owned();
        meta::create(&mut body, &request.namespace, definition.generation, now, about(definition, &given))?;
        let name = meta::text(&body, "name").to_owned();
        state.check_home(definition, &request.namespace, &name)?;
        let key = ObjectKey::new(&request.namespace, &name);
        if state.store.get(&definition.key, &key).is_some() {
            return Err(Error::already_exists(about(definition, &name)));
        }
        let free = &mut Free(&state.store);
        let Prepared { warnings, managed } =
            shape::prepare(definition, &mut body, None, request, (free, &now.time), managers)?;
        meta::set_managed(&mut body, managed.unwrap_or_default());
        if request.query.get("dryRun") == Some("All") {
            return Ok(Answer { code: 201, body, warnings });
        }
        let object = state
            .store
            .put(&definition.key, &definition.resource, None, shape::stored(definition, body))
            .map_err(|_| Error::already_exists(about(definition, &name)))?;
        let object = self.after_write(state, definition, None, object, now);
        Ok(Answer { code: 201, body: shape::shown(definition, &object), warnings })
    }

    /// Replaces an object, or its status.
    ///
    /// # Errors
    /// If it is invalid, isn't there, or isn't the version that the body names.
    pub fn update(&self, request: &Request, body: Value) -> Result<Answer, Error> {
        let definition = self.definition(request)?;
        if request.subresource == "scale" {
            return self.update_scale(&definition, request, &body);
        }
        shape::check_kind(&definition, &body)?;
        check_place(&definition, request, &body)?;
        if shape::needs_version(&definition) && meta::text(&body, "resourceVersion").is_empty() {
            let field = FieldError::invalid("metadata.resourceVersion", "0", "must be specified for an update");
            return Err(Error::invalid(about(&definition, &request.name), &[field]));
        }
        let now = (self.clock)();
        let mut state = self.state.lock();
        let seen = state.seen(&definition, request)?;
        self.replace(&mut state, &definition, request, &seen, (body, None), &now)
    }

    /// Changes an object, or its status, by what `change` makes of it.
    ///
    /// # Errors
    /// If the change fails, leads to an invalid object, or the object isn't there.
    pub fn patch(
        &self,
        request: &Request,
        change: impl Fn(&Definition, Value) -> Result<Value, Error>,
    ) -> Result<Answer, Error> {
        let definition = self.definition(request)?;
        if request.subresource == "scale" {
            return self.patch_scale(&definition, request, change);
        }
        self.rewrite(&definition, request, |seen| {
            let body = change(&definition, shape::shown(&definition, seen))?;
            shape::check_kind(&definition, &body)?;
            check_place(&definition, request, &body)?;
            Ok(body)
        })
    }

    /// Replaces an object by what `make` makes of it, again if somebody else was faster.
    pub(crate) fn rewrite(
        &self,
        definition: &Arc<Definition>,
        request: &Request,
        make: impl Fn(&Object) -> Result<Value, Error>,
    ) -> Result<Answer, Error> {
        let now = (self.clock)();
        for _ in 0..PATCH_TRIES {
            let seen = self.state.lock().seen(definition, request)?;
            // Without the lock: a patch may be large, and somebody else's turn is cheap.
            let body = make(&seen)?;
            let mut state = self.state.lock();
            let still = state.seen(definition, request)?;
            if Arc::ptr_eq(&still, &seen) {
                return self.replace(&mut state, definition, request, &seen, (body, None), &now);
            }
        }
        Err(Error::modified(about(definition, &request.name)))
    }

    pub(crate) fn replace(
        &self,
        state: &mut State,
        definition: &Arc<Definition>,
        request: &Request,
        seen: &Arc<Object>,
        (mut body, applied): (Value, Option<&str>),
        now: &Now,
    ) -> Result<Answer, Error> {
        let about = about(definition, &request.name);
        let mut old = shape::shown(definition, seen);
        let before = meta::take_managed(&mut old).unwrap_or_default();
        let given = meta::take_managed(&mut body);
        check_preconditions(definition, request, &body["metadata"], seen)?;
        meta::update(&mut body, &old, about)?;
        match request.subresource.as_str() {
            "status" => {
                let status = body["status"].take();
                let (labels, annotations) = (body["metadata"]["labels"].take(), body["metadata"]["annotations"].take());
                body = old.clone();
                set(&mut body, "status", status);
                if matches!(definition.source, crate::registry::Source::BuiltIn) {
                    set(&mut body["metadata"], "labels", labels);
                    set(&mut body["metadata"], "annotations", annotations);
                }
            }
            "finalize" => {
                let finalizers = body["spec"]["finalizers"].take();
                body = old.clone();
                body["spec"]["finalizers"] = finalizers;
            }
            _ if definition.has_status() => set(&mut body, "status", old["status"].clone()),
            _ => {}
        }
        meta::set_managed(&mut body, given.unwrap_or_default());
        let free = &mut Free(&state.store);
        let managers = applied.map_or(Managers::Track(&before), Managers::Applied);
        let Prepared { warnings, managed } =
            shape::prepare(definition, &mut body, Some(&old), request, (free, &now.time), managers)?;
        // Built-in kinds count by rules of their own.
        let custom = matches!(definition.source, crate::registry::Source::Crd { .. });
        if custom && meta::spec_differs(&body, &old) {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            body["metadata"]["generation"] = generation.into();
        }
        let same = !meta::differs(&body, &old);
        // A write that leads to the same object doesn't count, whatever was decided on what it was decoded to.
        let managed = managed.filter(|managed| !(same && (*managed == before || same_but_times(managed, &before))));
        let same = same && managed.is_none();
        meta::set_managed(&mut body, managed.unwrap_or(before));
        if request.query.get("dryRun") == Some("All") || same {
            if body["metadata"]["resourceVersion"].is_null() {
                body["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            }
            return Ok(Answer { code: 200, body, warnings });
        }
        let raced = |_| Error::modified(about);
        if let Some(last) = finish_if_free(&mut state.store, definition, seen, &body).map_err(raced)? {
            self.after_removal(state, definition, &last);
            body["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            return Ok(Answer { code: 200, body, warnings });
        }
        let object = state
            .store
            .put(&definition.key, &definition.resource, Some(seen), shape::stored(definition, body))
            .map_err(raced)?;
        let object = self.after_write(state, definition, Some(seen), object, now);
        Ok(Answer { code: 200, body: shape::shown(definition, &object), warnings })
    }

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
        let differs = |field: &str, is: &str| preconditions[field].as_str().is_some_and(|wanted| wanted != is);
        let (uid, version) = (seen.uid().to_string(), seen.version().to_string());
        if differs("uid", &uid) {
            let wanted = preconditions["uid"].as_str().unwrap_or_default();
            let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}");
            return Err(Error::conflict(about, &why));
        }
        if differs("resourceVersion", &version) {
            let wanted = preconditions["resourceVersion"].as_str().unwrap_or_default();
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
            );
            return Err(Error::conflict(about, &why));
        }
        let dry = request.query.get("dryRun") == Some("All")
            || options["dryRun"].as_array().is_some_and(|dry| dry.iter().any(|value| value == "All"));
        if dry {
            return Ok(deleted(&definition, &seen));
        }
        let policy = options["propagationPolicy"].as_str().or_else(|| request.query.get("propagationPolicy"));
        let orphan = options["orphanDependents"].as_bool();
        let store = &mut state.store;
        let outcome = match (policy, orphan) {
            (Some("Foreground"), _) => delete_now(store, &definition, &seen, &now, Some(FOREGROUND)),
            (Some("Orphan"), _) | (None, Some(true)) => delete_now(store, &definition, &seen, &now, Some(ORPHAN)),
            (Some("Background"), _) | (None, Some(false)) => delete_in_background(store, &definition, &seen, &now),
            (None, None) => delete_now(store, &definition, &seen, &now, None),
            (Some(other), _) => {
                return Err(wrong_policy(other, orphan.is_some()));
            }
        };
        match outcome.map_err(|_| Error::modified(about))? {
            Deleted::Gone(last) => {
                self.after_removal(&mut state, &definition, &last);
                Ok(deleted(&definition, &last))
            }
            Deleted::Marked(object) => {
                let object = self.after_write(&mut state, &definition, Some(&seen), object, &now);
                Ok(Answer { code: 200, body: shape::shown(&definition, &object), warnings: Vec::new() })
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

    fn after_write(
        &self,
        state: &mut State,
        definition: &Arc<Definition>,
        old: Option<&Arc<Object>>,
        object: Arc<Object>,
        now: &Now,
    ) -> Arc<Object> {
        self.follow_up(state, definition, old.map(|old| &**old), Some(&object));
        if definition.key.plural.as_ref() == "customresourcedefinitions" {
            return crd::establish(&mut state.store, &mut state.registry, definition, &object, now);
        }
        object
    }

    fn follow_up(&self, state: &State, definition: &Definition, old: Option<&Object>, new: Option<&Object>) {
        for work in consequences(&state.store, &state.registry, &definition.key, old, new) {
            // The task lives as long as the server does.
            let _ = self.later.send(work);
        }
    }

    fn after_removal(&self, state: &mut State, definition: &Arc<Definition>, last: &Arc<Object>) {
        self.follow_up(state, definition, Some(last), None);
        if definition.key.plural.as_ref() == "customresourcedefinitions" {
            crd::withdraw(&mut state.store, &mut state.registry, last);
        }
    }
}

impl State {
    fn seen(&self, definition: &Definition, request: &Request) -> Result<Arc<Object>, Error> {
        let key = ObjectKey::new(&request.namespace, &request.name);
        self.store.get(&definition.key, &key).ok_or_else(|| Error::not_found(about(definition, &request.name)))
    }

    /// Objects are made in namespaces that are there and stay (the NamespaceLifecycle admission plugin).
    fn check_home(&self, definition: &Definition, namespace: &str, name: &str) -> Result<(), Error> {
        if !definition.resource.namespaced {
            return Ok(());
        }
        if namespace.is_empty() {
            return Err(Error::bad_request("an empty namespace may not be set during creation"));
        }
        let namespaces = KindKey { group: "".into(), plural: "namespaces".into() };
        let home = self.store.get(&namespaces, &ObjectKey::new("", namespace));
        let about_home = About { group: "", plural: "namespaces", kind: "Namespace", name: namespace };
        match home {
            None => Err(Error::not_found(about_home)),
            Some(home) if home.is_deleting() => {
                let why =
                    format!("unable to create new content in namespace {namespace} because it is being terminated");
                let mut error = Error::forbidden(about(definition, name), &why);
                error.details["causes"] = json!([{
                    "reason": "NamespaceTerminating", "message": format!("namespace {namespace} is being terminated"),
                    "field": "metadata.namespace"}]);
                Err(error)
            }
            Some(_) => Ok(()),
        }
    }

    /// The entry of a served CRD's `spec.versions`.
    pub(crate) fn crd_version(&self, group: &str, version: &str, plural: &str) -> Option<Value> {
        let crds = KindKey { group: "apiextensions.k8s.io".into(), plural: "customresourcedefinitions".into() };
        let crd = self.store.get(&crds, &ObjectKey::new("", &format!("{plural}.{group}")))?.value();
        crd["spec"]["versions"].as_array()?.iter().find(|entry| entry["name"] == version).cloned()
    }
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        if value.is_null() {
            object.remove(field);
        } else {
            object.insert(field.to_owned(), value);
        }
    }
}

fn check_namespace(definition: &Definition, request: &Request, body: &Value) -> Result<(), Error> {
    let given = meta::text(body, "namespace");
    if definition.resource.namespaced && !given.is_empty() && given != request.namespace {
        return Err(Error::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Whether a body is of the object that the path names.
pub(crate) fn check_place(definition: &Definition, request: &Request, body: &Value) -> Result<(), Error> {
    check_namespace(definition, request, body)?;
    let wanted = &request.name;
    match meta::text(body, "name") {
        "" => Err(Error::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ))),
        name if name != wanted => Err(Error::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({wanted})"
        ))),
        _ => Ok(()),
    }
}

/// Whether the object that is there is the one that a body names.
fn check_preconditions(
    definition: &Definition,
    request: &Request,
    metadata: &Value,
    seen: &Object,
) -> Result<(), Error> {
    let about = about(definition, &request.name);
    let named = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
    let version = match named("resourceVersion") {
        Some(version) if version != seen.version().to_string() => Err(Error::modified(about)),
        _ => Ok(()),
    };
    let uid = match named("uid") {
        Some(uid) if uid == seen.uid().to_string() => Ok(()),
        None => Ok(()),
        // A patch changes the uid, which nothing may; its fault is found twice.
        Some(uid) if request.verb == Verb::Patch => {
            let fault = FieldError::invalid("metadata.uid", go_quote(uid), "field is immutable");
            Err(Error::invalid(about, &[fault.clone(), fault]))
        }
        Some(uid) => Err(other_uid(definition, request, uid, seen)),
    };
    if request.verb == Verb::Patch { version.and(uid) } else { uid.and(version) }
}

/// 409 where the object that is there isn't the one with this uid, as the real server's storage words it.
pub(crate) fn other_uid(definition: &Definition, request: &Request, uid: &str, seen: &Object) -> Error {
    let (plural, group) = (&*definition.resource.plural, definition.resource.api_version.group());
    let place = match plural {
        "ingresses" if definition.is_built_in() => "ingress".to_owned(),
        "services" if definition.is_built_in() => "services/specs".to_owned(),
        "customresourcedefinitions" => format!("{group}/{plural}"),
        _ if definition.is_built_in() => plural.to_owned(),
        _ => format!("{group}/{plural}"),
    };
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{place}/{}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
        seen.key(),
        seen.uid(),
    );
    Error::conflict(about(definition, &request.name), &why)
}

/// 422 for a propagation policy that isn't one.
fn wrong_policy(policy: &str, orphan: bool) -> Error {
    let field = "propagationPolicy";
    let both = "orphanDependents and deletionPropagation cannot be both set";
    let mut faults = Vec::new();
    if orphan {
        faults.push(FieldError::invalid(field, go_quote(policy), both));
    }
    let known = ["Foreground", "Background", "Orphan", "nil"];
    faults.push(FieldError::not_supported(field, go_quote(policy), &known));
    let about = About { group: "meta.k8s.io", plural: "", kind: "DeleteOptions", name: "" };
    Error::invalid(about, &faults)
}

fn deleted(definition: &Definition, last: &Object) -> Answer {
    let resource = &definition.resource;
    let mut details = json!({ "name": last.key().name(), "kind": &*resource.plural, "uid": last.uid().to_string() });
    if !resource.api_version.group().is_empty() {
        details["group"] = resource.api_version.group().into();
    }
    let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Answer { code: 200, body, warnings: Vec::new() }
}

/// Does what follows from deletions, until the server is gone.
async fn follow(state: std::sync::Weak<Mutex<State>>, clock: Clock, mut waiting: mpsc::UnboundedReceiver<Work>) {
    while let Some(work) = waiting.recv().await {
        let Some(state) = state.upgrade() else { return };
        let mut queue = std::collections::VecDeque::from([work]);
        while let Some(work) = queue.pop_front() {
            let now = clock();
            let mut state = state.lock();
            let State { store, registry } = &mut *state;
            queue.extend(crate::gc::step(store, registry, work, &now));
        }
    }
}
