//! Reads: one object, a list in pages, the beginning of a watch.
//!
//! Never writes, and holds the server's lock only while it looks.

use std::sync::Arc;

use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::Object;
use serde_json::json;

use crate::error::Error;
use crate::fields::FieldSelector;
use crate::labels::LabelSelector;
use crate::options;
use crate::registry::{Definition, Source};
use crate::request::Request;
use crate::server::{ApiServer, State, about};
use crate::shape;
use crate::store::{Event, Live};
use crate::table::ListMeta;

/// An answer with many objects.
pub struct Listed {
    /// The kind.
    pub definition: Arc<Definition>,
    /// The objects.
    pub objects: Vec<Arc<Object>>,
    /// The list's version.
    pub revision: u64,
    /// The token for the next page.
    pub next: Option<String>,
    /// How many come after this page, where that is known.
    pub remaining: Option<usize>,
}

/// What a watch starts with and goes on with.
pub struct Watched {
    /// The kind.
    pub definition: Arc<Definition>,
    /// What is wanted of it.
    pub filter: Filter,
    /// Objects to send first as ADDED.
    pub initial: Vec<Arc<Object>>,
    /// Events to send next.
    pub events: Vec<Arc<Event>>,
    /// All that follows.
    pub receiver: Live,
    /// The version that the initial objects are of, or behind which the watch begins.
    pub revision: u64,
    /// A bookmark ends the initial objects.
    pub bookmark_initial: bool,
}

/// Which objects of a kind are wanted.
#[derive(Clone, Default)]
pub struct Filter {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
}

impl Filter {
    /// Whether an object is wanted.
    #[must_use]
    pub fn matches(&self, object: &Object) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| object.key().namespace() == namespace)
            && self.name.as_ref().is_none_or(|name| object.key().name() == name)
            && (self.labels.is_everything() || self.labels.matches(&object.labels()))
            && (self.fields.is_everything() || self.fields.matches(&object.value()))
    }
}

/// What is said of a field that a kind can't be selected by. Kinds that offer none have the one rule of all of them
/// (`DefaultMetaV1FieldSelectorConversion`), others their own.
fn unknown_field(definition: &Definition, field: &str) -> String {
    let resource = &definition.resource;
    let own = !definition.selectable.is_empty() || &*resource.plural == "namespaces" || !definition.is_built_in();
    if !own {
        return format!("\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"");
    }
    if &*resource.plural == "jobs" && definition.is_built_in() {
        return format!("field label \"{field}\" not supported for Job");
    }
    format!("field label not supported: {field}")
}

impl ApiServer {
    /// Reads one object.
    ///
    /// # Errors
    /// If it isn't there.
    pub fn get(&self, request: &Request) -> Result<(Arc<Definition>, Arc<Object>), Error> {
        let definition = self.definition(request)?;
        let key = ObjectKey::new(&request.namespace, &request.name);
        let version = request.query.get("resourceVersion").map(parse_watched_version).transpose()?;
        let state = self.state.lock();
        state.check_reached(version)?;
        let found = state.store.get(&definition.key, &key);
        drop(state);
        let object = found.ok_or_else(|| Error::not_found(about(&definition, &request.name)))?;
        Ok((definition, object))
    }

    fn filter(&self, definition: &Definition, request: &Request) -> Result<Filter, Error> {
        let labels = LabelSelector::parse(request.query.get("labelSelector").unwrap_or_default())?;
        let fields = FieldSelector::parse(
            request.query.get("fieldSelector").unwrap_or_default(),
            &definition.selectable,
            |field| unknown_field(definition, field),
        )?;
        let own = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Ok(Filter { namespace: own(&request.namespace), name: own(&request.name), labels, fields })
    }

    /// Reads many objects.
    ///
    /// # Errors
    /// If the selectors, the limit or the continue token can't be used, or the token is too old.
    pub fn list(&self, request: &Request) -> Result<Listed, Error> {
        let definition = self.definition(request)?;
        let limit = request.query.integer("limit")?.and_then(|limit| usize::try_from(limit).ok());
        // What may be of any version comes from a cache, which knows no pages.
        let limit = limit.filter(|limit| *limit > 0 && request.query.get("resourceVersion") != Some("0"));
        let filter = self.filter(&definition, request)?;
        options::check_list(&request.query, false)?;
        let token = request.query.get("continue").map(decode_token).transpose()?;
        let version = request.query.get("resourceVersion");
        if token.is_some() && version.is_some_and(|version| version != "0") {
            return Err(Error::bad_request("specifying resource version is not allowed when using continue"));
        }
        let state = self.state.lock();
        let exact = match (request.query.get("resourceVersionMatch"), version) {
            (Some("Exact"), Some(version)) => {
                let version = parse_version(version)?;
                state.check_reached(Some(version))?;
                Some(version)
            }
            (_, Some(version)) => {
                state.check_reached(Some(parse_version(version)?))?;
                None
            }
            (_, None) => None,
        };
        let (after, at) = match &token {
            Some((revision, after)) => (Some(after), Some(*revision)),
            None => (None, exact),
        };
        let namespace = filter.namespace.as_deref();
        let page = state
            .store
            .list(&definition.key, namespace, (after, at), limit, |object| filter.matches(object))
            .map_err(|_| Error::expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter."))?;
        let last = page.objects.last().map(|object| object.key().clone());
        let next = page.more.then(|| last.map(|last| encode_token(page.revision, &last))).flatten();
        let selected = !filter.labels.is_everything() || !filter.fields.is_everything();
        let remaining = (page.more && !selected).then_some(page.remaining);
        Ok(Listed { definition, objects: page.objects, revision: page.revision, next, remaining })
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// If the selectors or the version can't be used, or the version is too old.
    pub fn watch(&self, request: &Request) -> Result<Watched, Error> {
        let definition = self.definition(request)?;
        let query = &request.query;
        let filter = self.filter(&definition, request)?;
        options::check_list(query, true)?;
        let send_initial = query.is_true("sendInitialEvents");
        let version = query.get("resourceVersion").map(parse_watched_version).transpose()?;
        let mut state = self.state.lock();
        let now = state.store.revision();
        // Without initial events a watch waits for what is yet to come.
        if send_initial {
            state.check_reached(version)?;
        }
        let start_with_all = send_initial || version.is_none_or(|version| version == 0);
        let after = if start_with_all { now } else { version.unwrap_or(now) };
        let expired = |oldest: u64| Error::expired(format!("too old resource version: {after} ({oldest})"));
        let (events, receiver) = state.store.watch(&definition.key, after).map_err(|error| expired(error.oldest))?;
        let initial = if start_with_all {
            let page = state.store.list(&definition.key, filter.namespace.as_deref(), (None, None), None, |object| {
                filter.matches(object)
            });
            page.map_err(|error| expired(error.oldest))?.objects
        } else {
            Vec::new()
        };
        let bookmark_initial = send_initial && query.is_true("allowWatchBookmarks");
        Ok(Watched { definition, filter, initial, events, receiver, revision: now.max(after), bookmark_initial })
    }
}

fn parse_version(text: &str) -> Result<u64, Error> {
    parse_watched_version(text)
        .map_err(|error| Error::bad_request(format!("invalid resource version: {}", error.message)))
}

/// A get and a watch are refused by the storage itself.
fn parse_watched_version(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| {
        let text = crate::field_error::go_quote(text);
        let why = format!("resourceVersion: Invalid value: {text}: strconv.ParseUint: parsing {text}: invalid syntax");
        Error::new(500, "", why)
    })
}

impl State {
    /// 504 if a version is yet to come. The real server waits three seconds for it first.
    fn check_reached(&self, version: Option<u64>) -> Result<(), Error> {
        let now = self.store.revision();
        version.filter(|version| *version > now).map_or(Ok(()), |version| Err(too_large(version, now)))
    }
}

fn too_large(asked: u64, now: u64) -> Error {
    let message = format!("Too large resource version: {asked}, current: {now}");
    let mut error = Error::new(504, "Timeout", message);
    error.details = json!({ "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }], "retryAfterSeconds": 1 });
    error
}

fn encode_token(revision: u64, after: &ObjectKey) -> String {
    let text = format!("{revision}:{after}");
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode_token(token: &str) -> Result<(u64, ObjectKey), Error> {
    let bad = || Error::bad_request("continue key is not valid: it is not one that this server made");
    let bytes: Option<Vec<u8>> =
        (0..token.len()).step_by(2).map(|at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok()).collect();
    let text = String::from_utf8(bytes.ok_or_else(bad)?).map_err(|_| bad())?;
    let (revision, after) = text.split_once(':').ok_or_else(bad)?;
    let (namespace, name) = after.split_once('/').unwrap_or(("", after));
    Ok((revision.parse().map_err(|_| bad())?, ObjectKey::new(namespace, name)))
}

/// A list as JSON text: the objects are JSON already.
pub(crate) fn full_list(listed: &Listed, meta: &ListMeta<'_>) -> Vec<u8> {
    let resource = &listed.definition.resource;
    let mut metadata = json!({ "resourceVersion": meta.resource_version });
    if matches!(listed.definition.source, Source::Crd { .. }) {
        // Untyped lists always say it.
        metadata["continue"] = "".into();
    }
    if let Some(token) = meta.continue_token {
        metadata["continue"] = token.into();
    }
    if let Some(count) = meta.remaining_item_count {
        metadata["remainingItemCount"] = count.into();
    }
    let size: usize = listed.objects.iter().map(|object| object.json().len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    let head = json!({
        "kind": listed.definition.list_kind, "apiVersion": resource.api_version.as_str(), "metadata": metadata });
    let head = head.to_string();
    out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    out.extend_from_slice(br#","items":["#);
    for (index, object) in listed.objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        shape::write_item(&listed.definition, object, &mut out);
    }
    out.extend_from_slice(b"]}");
    out
}
