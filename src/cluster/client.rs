//! Calls to the API server with raw objects: bytes in, bytes out.
//!
//! Never retries and never caches. Each call has a deadline, a limit on the answer, and a place among the calls in
//! flight. What is left of a write's deadline is told to the API server when it is sent, not when it begins to wait.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ringmaster_core::dialect::FIELD_MANAGER;
use ringmaster_core::key::{ObjectKey, Resource, Uid, Version};
use ringmaster_core::object::Object;
use ringmaster_core::watch::{PAGE_LIMIT, decode_page};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::Error;

mod apply;
mod metadata;

pub use metadata::Page;

/// Calls that may run at once; watches don't count. Each needs a connection of its own (HTTP/1.1).
pub const MAX_CALLS_IN_FLIGHT: usize = 128;
/// A write is given up after this long; its outcome is then unknown.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A read is given up after this long.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// An answer is at most this large: a page of a list holds 500 objects of at most 1.5 MiB, seldom near that.
pub const MAX_ANSWER_BYTES: usize = 512 << 20;

/// A Retry-After asks for at most this long: an API server that is well again must not be left alone for an hour.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// Objects of one page of their metadata: some KiB each, as `managedFields` and what appliers note in annotations are
/// among it. Each page costs the API server a look at all objects, whatever it selects.
const METADATA_PAGE_LIMIT: usize = 1_000;
/// Such pages in memory at once of lists that somebody waits for: whoever takes over many shards checks many kinds.
const MAX_METADATA_PAGES: usize = 8;
/// Such pages in memory at once of searches.
const MAX_SEARCH_PAGES: usize = 4;

/// Objects whose metadata one list may name: more than etcd holds.
pub const MAX_LISTED: usize = 4_000_000;
/// A list whose pages expire before the last is read begins again at most so often.
const LIST_TRIES: usize = 3;

/// What answers may look like. Metadata alone is what a server may leave out; then all of an object comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accept {
    /// The objects.
    Json,
    /// The metadata of one object, or of one in each event.
    Metadata,
    /// The metadata of a list's objects.
    MetadataList,
}

impl Accept {
    fn header(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Metadata => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
            Self::MetadataList => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
        }
    }
}

/// What one consistent list named, and nothing else of it.
#[derive(Debug, Default)]
pub struct Listed {
    /// The list's version.
    pub version: Version,
    /// Each object's key, uid and version.
    pub objects: Vec<(ObjectKey, Uid, Version)>,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// The objects' keys and versions.
    pub objects: Vec<(ObjectKey, Version)>,
    /// There are more.
    pub is_cut: bool,
}

/// Told of every call, for metrics.
pub trait Meter: Send + Sync {
    /// A call was answered with `code`, or wasn't (`None`); `took` is how long it took, where that tells of the API
    /// server: not for watches.
    fn api_call(&self, method: &Method, code: Option<u16>, took: Option<Duration>);
    /// A named limit was hit.
    fn limit_hit(&self, limit: &'static str);
}

/// The object that a write is about must still be this one.
#[derive(Clone, Copy, Debug)]
pub struct Preconditions<'a> {
    /// Its key.
    pub key: &'a ObjectKey,
    /// Its uid.
    pub uid: &'a Uid,
    /// Its version.
    pub version: Version,
}

impl<'a> From<&'a Object> for Preconditions<'a> {
    fn from(seen: &'a Object) -> Self {
        Self { key: seen.key(), uid: seen.uid(), version: seen.version() }
    }
}

/// The one client of a process; cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: kube::Client,
    in_flight: Arc<Semaphore>,
    metadata_pages: Arc<Semaphore>,
    search_pages: Arc<Semaphore>,
    meter: Arc<dyn Meter>,
    /// Whose entries of `managedFields` are kept.
    managers: Arc<[Arc<str>]>,
    /// When writes must have ended, on the clock of [`boot_time`]; none but [`WRITE_TIMEOUT`] each otherwise.
    writes_until: Option<Duration>,
}

impl Client {
    /// Wraps a connected client.
    #[must_use]
    pub fn new(inner: kube::Client, meter: Arc<dyn Meter>) -> Self {
        let in_flight = Arc::new(Semaphore::new(MAX_CALLS_IN_FLIGHT));
        let metadata_pages = Arc::new(Semaphore::new(MAX_METADATA_PAGES));
        let search_pages = Arc::new(Semaphore::new(MAX_SEARCH_PAGES));
        let managers = Arc::from([]);
        Self { inner, in_flight, metadata_pages, search_pages, meter, managers, writes_until: None }
    }

    /// The same client with a limit for writes, counted from now: neither we nor the API server go on with one for longer
    /// (`?timeout=`, which the API server counts from when it has the request). One that gets its place among the calls in
    /// flight so late that nothing is left isn't sent.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { writes_until: Some(boot_time() + limit), ..self.clone() }
    }

    /// Reads one object; `None` if it isn't there.
    ///
    /// # Errors
    /// If the call fails otherwise.
    pub async fn get(&self, resource: &Resource, key: &ObjectKey) -> Result<Option<Object>, Error> {
        let path = object_path(resource, key);
        match self.read(&path, Accept::Json, READ_TIMEOUT).await {
            Ok(body) => self.parse(&Method::GET, &path, &body, resource).map(Some),
            Err(error) if error.is_object_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads few objects of a kind, at most a page of them; `query` is a selector in its query form. As of which version.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: &str,
        query: &str,
    ) -> Result<(Vec<Object>, Version), Error> {
        let path = format!("{}?limit={PAGE_LIMIT}&{query}", kind_path(resource, namespace));
        let text = self.get_text(&path).await?;
        let problem = |problem: String| answer(&Method::GET, &path, problem);
        let page = decode_page(&text).map_err(|error| problem(error.to_string()))?;
        let parse = |raw: &&RawValue| self.object(raw.get(), resource).map_err(|error| problem(error.to_string()));
        let objects: Result<Vec<Object>, Error> = page.items.iter().map(parse).collect();
        Ok((objects?, Version::new(&page.version)))
    }

    /// Lists what a label selector selects (its query form; empty for all), in all namespaces, as of one moment that isn't
    /// before the call. Only keys, uids and versions are kept.
    ///
    /// # Errors
    /// If a call fails, or there are more than [`MAX_LISTED`].
    pub async fn list_metadata(&self, resource: &Resource, selector: &str) -> Result<Listed, Error> {
        let take = |objects: &mut Vec<_>, object: Object| {
            objects.push((object.key().clone(), object.uid().clone(), object.version()));
            ControlFlow::Continue(())
        };
        let (objects, version) = self.list_pages(&self.metadata_pages, resource, ("", selector), take).await?;
        Ok(Listed { version, objects })
    }

    /// Finds what is wanted, going by metadata, of what a label selector selects in a namespace (empty for all): no more
    /// than `most` objects. As of one moment that isn't before the call.
    ///
    /// # Errors
    /// If a call fails, or more than [`MAX_LISTED`] are selected.
    pub async fn find_metadata(
        &self,
        resource: &Resource,
        (namespace, selector): (&str, &str),
        most: usize,
        is_wanted: impl Fn(&Object) -> bool,
    ) -> Result<Found, Error> {
        let take = |found: &mut Found, object: Object| {
            if !is_wanted(&object) {
                return ControlFlow::Continue(());
            }
            if found.objects.len() >= most {
                found.is_cut = true;
                return ControlFlow::Break(());
            }
            found.objects.push((object.key().clone(), object.version()));
            ControlFlow::Continue(())
        };
        Ok(self.list_pages(&self.search_pages, resource, (namespace, selector), take).await?.0)
    }

    /// Reads pages of metadata until the last, or until `take` breaks off; begins again if they expire.
    async fn list_pages<T: Default>(
        &self,
        places: &Semaphore,
        resource: &Resource,
        (namespace, selector): (&str, &str),
        take: impl Fn(&mut T, Object) -> ControlFlow<()>,
    ) -> Result<(T, Version), Error> {
        let base = format!("{}?limit={METADATA_PAGE_LIMIT}{}", kind_path(resource, namespace), selected(selector));
        let (mut taken, mut path, mut count, mut tries) = (T::default(), base.clone(), 0, 1);
        loop {
            let (body, _place) = match self.page(places, &path).await {
                // Its pages are those of one moment, which the server remembers for some minutes.
                Err(error) if error.is_expired() && tries < LIST_TRIES => {
                    (taken, path, count, tries) = (T::default(), base.clone(), 0, tries + 1);
                    continue;
                }
                answer => answer?,
            };
            let problem = |problem: String| answer(&Method::GET, &path, problem);
            let text = std::str::from_utf8(&body).map_err(|error| problem(error.to_string()))?;
            let page = decode_page(text).map_err(|error| problem(error.to_string()))?;
            count += page.items.len();
            if count > MAX_LISTED {
                self.meter.limit_hit("listed_objects");
                return Err(problem(format!("more than {MAX_LISTED} objects")));
            }
            let version = Version::new(&page.version);
            for item in &page.items {
                let object = Object::parse(item.get(), resource).map_err(|error| problem(error.to_string()))?;
                if take(&mut taken, object).is_break() {
                    return Ok((taken, version));
                }
            }
            let Some(next) = page.next else { return Ok((taken, version)) };
            path = format!("{base}&continue={}", utf8_percent_encode(&next, NON_ALPHANUMERIC));
        }
    }

    /// Reads a page of metadata, which has its place until it is let go.
    async fn page<'a>(&self, places: &'a Semaphore, path: &str) -> Result<(Bytes, SemaphorePermit<'a>), Error> {
        let start = Instant::now();
        let place = self.place(places, "metadata_pages");
        let Ok(Some(place)) = tokio::time::timeout(READ_TIMEOUT, place).await else {
            return Err(Error::NotSent { call: name(&Method::GET, path) });
        };
        let left = READ_TIMEOUT.saturating_sub(start.elapsed());
        let body = self.read(path, Accept::MetadataList, left).await?;
        Ok((body, place))
    }

    /// Reads any path, as text.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn get_text(&self, path: &str) -> Result<String, Error> {
        let body = self.read(path, Accept::Json, READ_TIMEOUT).await?;
        String::from_utf8(body.into()).map_err(|error| answer(&Method::GET, path, error.to_string()))
    }

    /// Creates an object, and gives back what became of it.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn create(&self, resource: &Resource, namespace: &str, body: Vec<u8>) -> Result<Object, Error> {
        let path = managed(&kind_path(resource, namespace));
        let body = self.write(Method::POST, &path, "application/json", body).await?;
        self.parse(&Method::POST, &path, &body, resource)
    }

    /// Replaces an object; the body's uid and resourceVersion are the preconditions.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn replace(&self, resource: &Resource, key: &ObjectKey, body: Vec<u8>) -> Result<Object, Error> {
        let path = managed(&object_path(resource, key));
        let body = self.write(Method::PUT, &path, "application/json", body).await?;
        self.parse(&Method::PUT, &path, &body, resource)
    }

    /// What would become of an object that is replaced; nothing does. The body's uid and resourceVersion are the
    /// preconditions.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn try_replace(&self, resource: &Resource, key: &ObjectKey, body: Vec<u8>) -> Result<Object, Error> {
        let path = format!("{}&dryRun=All", managed(&object_path(resource, key)));
        let body = self.write(Method::PUT, &path, "application/json", body).await?;
        self.parse(&Method::PUT, &path, &body, resource)
    }

    /// Replaces the status of an object; the body's uid and resourceVersion are the preconditions.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn replace_status(&self, resource: &Resource, key: &ObjectKey, body: Vec<u8>) -> Result<Object, Error> {
        let path = managed(&format!("{}/status", object_path(resource, key)));
        let body = self.write(Method::PUT, &path, "application/json", body).await?;
        self.parse(&Method::PUT, &path, &body, resource)
    }

    /// Merge-patches an object.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn merge_patch(&self, resource: &Resource, key: &ObjectKey, body: Vec<u8>) -> Result<Object, Error> {
        let path = managed(&object_path(resource, key));
        self.patch(resource, &path, "application/merge-patch+json", body).await
    }

    /// Applies a JSON patch to the status of an object.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn patch_status(&self, resource: &Resource, key: &ObjectKey, body: Vec<u8>) -> Result<Object, Error> {
        let path = managed(&format!("{}/status", object_path(resource, key)));
        self.patch(resource, &path, "application/json-patch+json", body).await
    }

    async fn patch(&self, resource: &Resource, path: &str, kind: &'static str, body: Vec<u8>) -> Result<Object, Error> {
        let body = self.write(Method::PATCH, path, kind, body).await?;
        self.parse(&Method::PATCH, path, &body, resource)
    }

    /// Deletes an object in the background if it is still the one that was seen. `Some` is the object as it is while
    /// its finalizers or its grace period hold it, `None` means that it is gone.
    ///
    /// # Errors
    /// If the call fails; see [`Error::outcome_is_unknown`].
    pub async fn delete(&self, resource: &Resource, seen: Preconditions<'_>) -> Result<Option<Object>, Error> {
        let path = object_path(resource, seen.key);
        let options = serde_json::json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": seen.uid.to_string(), "resourceVersion": seen.version.to_string()},
        });
        let options = options.to_string().into_bytes();
        let body = self.write(Method::DELETE, &path, "application/json", options).await?;
        // Either a Status, or the object: as it stays for now, or as it was at its end.
        let left = std::str::from_utf8(&body).ok().and_then(|text| Object::parse(text, resource).ok());
        Ok(left.filter(|left| left.is_deleting() && left.uid() == seen.uid))
    }

    /// Makes a write, whose limit is what is left once it has its place.
    async fn write(&self, method: Method, path: &str, kind: &'static str, body: Vec<u8>) -> Result<Bytes, Error> {
        self.write_for(method, path, (kind, body), Accept::Json).await
    }

    /// The same for an answer of some form.
    async fn write_for(
        &self,
        method: Method,
        path: &str,
        (kind, body): (&'static str, Vec<u8>),
        accept: Accept,
    ) -> Result<Bytes, Error> {
        let most = boot_time() + WRITE_TIMEOUT;
        let until = self.writes_until.map_or(most, |until| until.min(most));
        // Less than a millisecond is no limit to the API server.
        let left = || Some(until.saturating_sub(boot_time())).filter(|left| left.as_millis() > 0);
        let place = tokio::time::timeout(left().unwrap_or_default(), self.in_flight()).await.ok();
        let Some(left) = left().filter(|_| place.is_some()) else {
            return Err(Error::NotSent { call: name(&method, path) });
        };
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{mark}timeout={}ms", left.as_millis());
        self.answered(method, &path, Some((kind, body)), accept, left).await
    }

    /// A place among the calls in flight.
    async fn in_flight(&self) -> Option<SemaphorePermit<'_>> {
        self.place(&self.in_flight, "api_calls_in_flight").await
    }

    /// One of some places; having to wait for it is hitting `limit`.
    async fn place<'a>(&self, places: &'a Semaphore, limit: &'static str) -> Option<SemaphorePermit<'a>> {
        if places.available_permits() == 0 {
            self.meter.limit_hit(limit);
        }
        // Never closed.
        places.acquire().await.ok()
    }

    /// Reads, within a limit that the wait for a place is part of.
    async fn read(&self, path: &str, accept: Accept, timeout: Duration) -> Result<Bytes, Error> {
        let start = Instant::now();
        let Ok(_place) = tokio::time::timeout(timeout, self.in_flight()).await else {
            return Err(Error::NotSent { call: name(&Method::GET, path) });
        };
        self.answered(Method::GET, path, None, accept, timeout.saturating_sub(start.elapsed())).await
    }

    /// Makes a call that has its place.
    async fn answered(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
        accept: Accept,
        timeout: Duration,
    ) -> Result<Bytes, Error> {
        let start = Instant::now();
        let work = async {
            let response = self.send(method.clone(), path, body, accept).await?;
            let (code, retry_after) = (response.status(), self.retry_after(&response));
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(|source| Error::Connection { call: name(&method, path), source })?
                .to_bytes();
            self.meter.api_call(&method, Some(code.as_u16()), Some(start.elapsed()));
            if code.is_success() {
                return Ok(body);
            }
            Err(Error::from_answer(name(&method, path), code.as_u16(), retry_after, &body))
        };
        let outcome = tokio::time::timeout(timeout, work)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout { call: name(&method, path), after: timeout }));
        if let Err(error) = &outcome
            && error.code().is_none()
        {
            self.meter.api_call(&method, None, Some(start.elapsed()));
        }
        outcome
    }

    /// Sends a request and gives back the answer's head; for watches, whose bodies have no end.
    ///
    /// # Errors
    /// If there is no answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
        accept: Accept,
    ) -> Result<Response<Body>, Error> {
        let mut request = Request::builder().method(method.clone()).uri(path).header(ACCEPT, accept.header());
        if let Some((kind, _)) = &body {
            request = request.header(CONTENT_TYPE, *kind);
        }
        let body = body.map_or_else(Body::empty, |(_, bytes)| Body::from(bytes));
        let request = request.body(body).map_err(|error| answer(&method, path, error.to_string()))?;
        self.inner
            .send(request)
            .await
            .map_err(|source| Error::Connection { call: name(&method, path), source: source.into() })
    }

    /// What an answer's Retry-After asks for, in seconds; longer than [`MAX_RETRY_AFTER`] is cut.
    pub(crate) fn retry_after<B>(&self, response: &Response<B>) -> Option<Duration> {
        let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        let asked = Duration::from_secs(seconds);
        if asked > MAX_RETRY_AFTER {
            self.meter.limit_hit("retry_after");
        }
        Some(asked.min(MAX_RETRY_AFTER))
    }

    /// A named limit of whoever uses the client was hit.
    pub fn limit_hit(&self, limit: &'static str) {
        self.meter.limit_hit(limit);
    }

    fn parse(&self, method: &Method, path: &str, body: &[u8], resource: &Resource) -> Result<Object, Error> {
        let text = std::str::from_utf8(body).map_err(|error| answer(method, path, error.to_string()))?;
        self.object(text, resource).map_err(|error| answer(method, path, error.to_string()))
    }

    pub(crate) fn meter(&self) -> &dyn Meter {
        &*self.meter
    }
}

fn answer(method: &Method, path: &str, problem: String) -> Error {
    Error::Answer { call: name(method, path), problem }
}

/// A call's name in errors.
fn name(method: &Method, path: &str) -> String {
    format!("{method} {}", path.split('?').next().unwrap_or(path))
}

/// The path of a write that leaves its writer's name in the object.
fn managed(path: &str) -> String {
    format!("{path}?fieldManager={FIELD_MANAGER}")
}

/// Time since the machine started, suspended or not: the clock that a member's right to work, and with it the limit of
/// its writes, is measured by.
#[must_use]
pub fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The path of a kind's objects, in one namespace or, for an empty one, in all.
pub(crate) fn kind_path(resource: &Resource, namespace: &str) -> String {
    let version = &resource.api_version;
    let root = if version.group().is_empty() { "/api" } else { "/apis" };
    let plural = &resource.plural;
    if namespace.is_empty() || !resource.namespaced {
        format!("{root}/{version}/{plural}")
    } else {
        format!("{root}/{version}/namespaces/{}/{plural}", utf8_percent_encode(namespace, IN_PATH))
    }
}

/// A label selector as a parameter that follows others.
pub(crate) fn selected(selector: &str) -> String {
    if selector.is_empty() {
        return String::new();
    }
    format!("&labelSelector={}", utf8_percent_encode(selector, NON_ALPHANUMERIC))
}

fn object_path(resource: &Resource, key: &ObjectKey) -> String {
    format!("{}/{}", kind_path(resource, key.namespace()), utf8_percent_encode(key.name(), IN_PATH))
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
