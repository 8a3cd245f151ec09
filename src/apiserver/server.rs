//! The server's state and its verbs on objects, without HTTP: a parsed request and a body in, an answer out.
//!
//! Never serves a socket and never waits: what happens later (garbage, namespaces) is handed to one task by a channel.

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::Object;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::addresses::Free;
use crate::admission::{self, Made};
use crate::answer::{Answer, Shown};
use crate::apply::same_but_times;
use crate::body::Written;
use crate::error::{About, Error};
use crate::field_error::FieldError;
use crate::gc::{Work, consequences, finish_if_free};
use crate::meta::{self, Now};
use crate::registry::{Definition, Registry, Source};
use crate::request::{Request, Verb};
use crate::shape::Managers;
use crate::store::{KindKey, Limits, Store, draft};
use crate::{crd, kinds, shape};

/// A write that somebody else was faster at is repeated so often when the client named no version (as the real server).
pub(crate) const PATCH_TRIES: usize = 5;

/// The key of namespaces.
pub(crate) static NAMESPACES: LazyLock<KindKey> =
    LazyLock::new(|| KindKey { group: "".into(), plural: "namespaces".into() });

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
        self.state.lock().definition(request)
    }

    /// Creates an object.
    ///
    /// # Errors
    /// If it is invalid, there already, or its namespace isn't.
    pub(crate) fn create(&self, request: &Request, body: impl Into<Written>) -> Result<Made, Error> {
        let state = self.state.lock();
        let definition = state.definition(request)?;
        let webhooks = admission::waiting(&state.store, &definition);
        drop(state);
        let (body, warnings) = shape::decode(&definition, body.into(), None, request)??;
        check_namespace(&definition, request, &body)?;
        self.insert(&definition, request, (body, warnings), Managers::Track(&Value::Null), webhooks)
    }

    /// Makes an object of a decoded body that nobody else is to be asked about. Most of the work is done without the lock.
    pub(crate) fn make(
        &self,
        definition: &Arc<Definition>,
        request: &Request,
        (mut body, warnings): (Value, Vec<String>),
        managers: Managers<'_>,
    ) -> Result<Answer, Error> {
        let now = &(self.clock)();
        let given = meta::text(&body, "name").to_owned();
        meta::create(&mut body, &request.namespace, definition.generation, now, about(definition, &given))?;
        let name = meta::text(&body, "name").to_owned();
        let state = self.state.lock();
        state.check_room(definition, &request.namespace, &name)?;
        let likely = state.store.revision() + 1;
        // What a Service takes must be taken before another one looks.
        let held = shape::takes_addresses(definition).then_some(state);
        let free = &mut Free(held.as_ref().map(|state| &state.store));
        let managed = shape::prepare(definition, &mut body, None, request, (free, &now.time), managers)?;
        meta::set_managed(&mut body, managed.unwrap_or_default());
        let not_stored = |why| Error::not_stored(why, Error::already_exists(about(definition, &name)));
        let dry = request.query.get("dryRun") == Some("All");
        let drafted = if dry {
            None
        } else {
            let mut stored = shape::stored(definition, std::mem::take(&mut body));
            Some(draft(likely, &mut stored, &definition.resource))
        };
        let mut state = held.unwrap_or_else(|| self.state.lock());
        state.check_room(definition, &request.namespace, &name)?;
        let store = &mut state.store;
        let stored = drafted.map(|drafted| {
            drafted.and_then(|drafted| store.commit(&definition.key, &definition.resource, None, drafted))
        });
        // It is looked for only where nothing was stored: most creates meet nothing.
        let there = || store.get(&definition.key, &ObjectKey::new(&request.namespace, &name));
        let object = match stored {
            Some(Ok(object)) => object,
            failed => {
                if let Some(there) = there() {
                    let mut error = Error::already_exists(about(definition, &name));
                    if there.is_deleting() {
                        error.message = format!("object is being deleted: {}", error.message);
                    }
                    return Err(error);
                }
                failed.transpose().map_err(not_stored)?;
                return Ok(Answer { code: 201, body: body.into(), warnings });
            }
        };
        self.after_write(&mut state, definition, None, &object, now);
        drop(state);
        Ok(Answer { code: 201, body: Shown::Stored(Arc::clone(definition), object), warnings })
    }

    /// Replaces an object, or its status.
    ///
    /// # Errors
    /// If it is invalid, isn't there, or isn't the version that the body names.
    pub(crate) fn update(&self, request: &Request, body: impl Into<Written>) -> Result<Made, Error> {
        let definition = self.definition(request)?;
        if request.subresource == "scale" {
            return self.update_scale(&definition, request, &body.into().value).map(Made::Answer);
        }
        let body = body.into();
        let claims = !body.value["metadata"]["managedFields"].is_null();
        let seen = claims.then(|| self.state.lock().seen(&definition, request).ok()).flatten();
        let kept = seen.and_then(|seen| meta::take_managed(&mut seen.value()));
        let (mut body, warnings) = shape::decode(&definition, body, kept.as_ref(), request)??;
        check_place(&definition, request, &body)?;
        let key = ObjectKey::new(&request.namespace, &request.name);
        for _ in 0..PATCH_TRIES {
            let there = self.state.lock().store.get(&definition.key, &key);
            let created = there.is_none() && shape::is_created_by_update(&definition, request);
            let uid = there.as_ref().map(|there| there.uid().to_string()).unwrap_or_default();
            let wanted = meta::text(&body, "uid");
            if !wanted.is_empty() && wanted != uid && (there.is_some() || created) {
                // The storage compares it before anything else.
                return Err(other_uid(&definition, &key, wanted, &uid));
            }
            if created {
                meta::metadata(&mut body)?.remove("resourceVersion");
                let webhooks = admission::waiting(&self.state.lock().store, &definition);
                return self.insert(&definition, request, (body, warnings), Managers::Track(&Value::Null), webhooks);
            }
            let seen = there.ok_or_else(|| Error::not_found(about(&definition, &request.name)))?;
            // Who names a version has lost once somebody else was faster.
            let again = meta::text(&body, "resourceVersion").is_empty().then(|| body.clone());
            if let Some(answer) = self.replace(&definition, request, &seen, (body, warnings.clone()), false)? {
                return Ok(Made::Answer(answer));
            }
            match again {
                Some(again) => body = again,
                None => break,
            }
        }
        Err(Error::modified(about(&definition, &request.name)))
    }

    /// Changes an object, or its status, by what `change` makes of it.
    ///
    /// # Errors
    /// If the change fails, leads to an invalid object, or the object isn't there.
    ///
    /// `refused` makes the error of what comes out and can't be read, of that and of the decoder's words.
    pub fn patch(
        &self,
        request: &Request,
        change: impl Fn(&Definition, Value) -> Result<Value, Error>,
        refused: impl Fn(&Value, &str) -> Error,
    ) -> Result<Answer, Error> {
        let definition = self.definition(request)?;
        if request.subresource == "scale" {
            return self.patch_scale(&definition, request, change);
        }
        self.rewrite(&definition, request, |seen| {
            let shown = shape::shown(&definition, seen);
            let kept = shown["metadata"].get("managedFields").cloned();
            let changed = change(&definition, shown)?;
            let decoded = shape::decode(&definition, Written::of(changed.clone()), kept.as_ref(), request)?
                .map_err(|error| refused(&changed, &error.why))?;
            check_place(&definition, request, &decoded.0)?;
            Ok(decoded)
        })
    }

    /// Replaces an object by what `make` makes of it, again if somebody else was faster.
    pub(crate) fn rewrite(
        &self,
        definition: &Arc<Definition>,
        request: &Request,
        make: impl Fn(&Object) -> Result<(Value, Vec<String>), Error>,
    ) -> Result<Answer, Error> {
        for _ in 0..PATCH_TRIES {
            let seen = self.state.lock().seen(definition, request)?;
            // Without the lock: a patch may be large, and somebody else's turn is cheap.
            let body = make(&seen)?;
            if let Some(answer) = self.replace(definition, request, &seen, body, false)? {
                return Ok(answer);
            }
        }
        Err(Error::modified(about(definition, &request.name)))
    }

    /// Puts a decoded body in the place of what was seen; `None` if that isn't there any more. Most of the work is done
    /// without the lock.
    pub(crate) fn replace(
        &self,
        definition: &Arc<Definition>,
        request: &Request,
        seen: &Arc<Object>,
        (mut body, warnings): (Value, Vec<String>),
        applied: bool,
    ) -> Result<Option<Answer>, Error> {
        let now = &(self.clock)();
        let about = about(definition, &request.name);
        let mut old = shape::shown(definition, seen);
        let before = meta::take_managed(&mut old).unwrap_or_default();
        let given = meta::take_managed(&mut body);
        check_version(definition, about, &body, seen)?;
        meta::update(&mut body, &old)?;
        match request.subresource.as_str() {
            "status" => {
                let status = body["status"].take();
                let (labels, annotations) = (body["metadata"]["labels"].take(), body["metadata"]["annotations"].take());
                body = old.clone();
                set(&mut body, "status", status);
                if definition.is_built_in() {
                    set(&mut body["metadata"], "labels", labels);
                    set(&mut body["metadata"], "annotations", annotations);
                }
            }
            "finalize" => {
                let finalizers = body["spec"]["finalizers"].take();
                body = old.clone();
                set(&mut body["spec"], "finalizers", finalizers);
            }
            _ if definition.has_status() => set(&mut body, "status", old["status"].clone()),
            _ => {}
        }
        meta::set_managed(&mut body, given.unwrap_or_default());
        let managers = if applied { Managers::Applied } else { Managers::Track(&before) };
        let state = self.state.lock();
        let likely = state.store.revision() + 1;
        let held = shape::takes_addresses(definition).then_some(state);
        let free = &mut Free(held.as_ref().map(|state| &state.store));
        let managed = shape::prepare(definition, &mut body, Some(&old), request, (free, &now.time), managers)?;
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
            return Ok(Some(Answer { code: 200, body: body.into(), warnings }));
        }
        let raced = |why| Error::not_stored(why, Error::modified(about));
        let drafted = if seen.is_deleting() {
            // The write may be its last.
            None
        } else {
            let mut stored = shape::stored(definition, std::mem::take(&mut body));
            Some(draft(likely, &mut stored, &definition.resource).map_err(raced)?)
        };
        let mut state = held.unwrap_or_else(|| self.state.lock());
        let key = ObjectKey::new(&request.namespace, &request.name);
        if state.store.get(&definition.key, &key).is_none_or(|still| !Arc::ptr_eq(&still, seen)) {
            return Ok(None);
        }
        let object = match drafted {
            Some(drafted) => state.store.commit(&definition.key, &definition.resource, Some(seen), drafted),
            None => {
                if let Some(last) = finish_if_free(&mut state.store, definition, seen, &body).map_err(raced)? {
                    self.after_removal(&mut state, definition, &last, now);
                    body["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
                    return Ok(Some(Answer { code: 200, body: body.into(), warnings }));
                }
                let stored = shape::stored(definition, body);
                state.store.put(&definition.key, &definition.resource, Some(seen), stored)
            }
        };
        let object = object.map_err(raced)?;
        self.after_write(&mut state, definition, Some(seen), &object, now);
        drop(state);
        Ok(Some(Answer { code: 200, body: Shown::Stored(Arc::clone(definition), object), warnings }))
    }

    pub(crate) fn after_write(
        &self,
        state: &mut State,
        definition: &Arc<Definition>,
        old: Option<&Arc<Object>>,
        object: &Arc<Object>,
        now: &Now,
    ) {
        self.follow_up(state, definition, old.map(|old| &**old), Some(object));
        if definition.key == crd::crds() {
            crd::establish(&mut state.store, &mut state.registry, definition, object, now);
        }
    }

    fn follow_up(&self, state: &State, definition: &Definition, old: Option<&Object>, new: Option<&Object>) {
        for work in consequences(&state.store, &state.registry, &definition.key, old, new) {
            // The task lives as long as the server does.
            let _ = self.later.send(work);
        }
    }

    pub(crate) fn after_removal(&self, state: &mut State, definition: &Arc<Definition>, last: &Arc<Object>, now: &Now) {
        self.follow_up(state, definition, Some(last), None);
        if definition.key == crd::crds() {
            crd::withdraw(&mut state.store, &mut state.registry, definition, last, now);
        }
    }
}

impl State {
    /// The kind that a request is about, if it has what the request asks of it.
    pub(crate) fn definition(&self, request: &Request) -> Result<Arc<Definition>, Error> {
        let found = self.registry.find(&request.group, &request.version, &request.plural);
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

    pub(crate) fn seen(&self, definition: &Definition, request: &Request) -> Result<Arc<Object>, Error> {
        let key = ObjectKey::new(&request.namespace, &request.name);
        self.store.get(&definition.key, &key).ok_or_else(|| Error::not_found(about(definition, &request.name)))
    }

    /// Whether there is room for a new object: its namespace stays, and so does its kind.
    pub(crate) fn check_room(&self, definition: &Definition, namespace: &str, name: &str) -> Result<(), Error> {
        self.check_home(definition, namespace, name)?;
        if matches!(definition.source, Source::Crd { .. }) && crd::is_ending(&self.store, &definition.key) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Error::forbidden(about(definition, name), why));
        }
        Ok(())
    }

    /// Objects are made in namespaces that are there and stay (the NamespaceLifecycle admission plugin).
    fn check_home(&self, definition: &Definition, namespace: &str, name: &str) -> Result<(), Error> {
        if !definition.resource.namespaced {
            return Ok(());
        }
        if namespace.is_empty() {
            return Err(Error::bad_request("an empty namespace may not be set during creation"));
        }
        let home = self.store.get(&NAMESPACES, &ObjectKey::new("", namespace));
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

/// 409 where the object that is there isn't the one with this uid, as the real server's storage words it.
pub(crate) fn other_uid(definition: &Definition, key: &ObjectKey, uid: &str, is: &str) -> Error {
    let (plural, group) = (&*definition.resource.plural, definition.resource.api_version.group());
    let place = match plural {
        "ingresses" if definition.is_built_in() => "ingress".to_owned(),
        "services" if definition.is_built_in() => "services/specs".to_owned(),
        "customresourcedefinitions" => format!("{group}/{plural}"),
        _ if definition.is_built_in() => plural.to_owned(),
        _ => format!("{group}/{plural}"),
    };
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{place}/{key}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {uid}, UID in object meta: {is}"
    );
    Error::conflict(about(definition, key.name()), &why)
}

fn check_version(definition: &Definition, about: About<'_>, body: &Value, seen: &Object) -> Result<(), Error> {
    let text = meta::text(body, "resourceVersion");
    if text.is_empty() || text == "0" {
        if !shape::needs_version(definition) {
            return Ok(());
        }
        let field = FieldError::invalid("metadata.resourceVersion", "0", "must be specified for an update");
        return Err(Error::invalid(About { kind: about.plural, ..about }, &[field]));
    }
    match text.parse::<u64>() {
        Ok(version) if version.to_string() == seen.version().to_string() => Ok(()),
        Ok(_) => Err(Error::modified(about)),
        Err(_) => {
            let text = crate::field_error::go_quote(text);
            Err(Error::new(500, "", format!("strconv.ParseUint: parsing {text}: invalid syntax")))
        }
    }
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
