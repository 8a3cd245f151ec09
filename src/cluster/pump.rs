//! The watch pump: keeps a sink informed of one kind, as far as the sink's selectors go, for ever.
//!
//! The thin shell around [`Pump`], which decides what to ask. Never keeps an object: the sink does, which also says what
//! each list and each watch selects. A connection that went silent is given up after the time that the server was asked to end it, plus a margin.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::Method;
use http_body_util::{BodyExt, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ringmaster_core::key::{Resource, Version};
use ringmaster_core::object::Object;
use ringmaster_core::watch::{
    Effect, Input, Line, MAX_LINE_BYTES, PAGE_LIMIT, Pump, Request, decode_line, decode_page,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::client::{Accept, READ_TIMEOUT, kind_path, selected};
use crate::{Client, Error, MAX_ANSWER_BYTES};

/// The longest pause after a first refusal that nobody is told of.
const UNTOLD_PAUSE: Duration = Duration::from_secs(10);

/// A watch is given up this long after the server should have ended it.
const SILENCE_MARGIN: Duration = Duration::from_secs(5);

/// The head of a watch's answer comes at once; without it, a watch is given up after this long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A watch that ends sooner, and without a word, has failed.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Watch {
    /// The kind.
    pub resource: Arc<Resource>,
    /// The namespace; empty for all.
    pub namespace: String,
    /// The one object of this name; empty for all. Rights to a named object are enough for it.
    pub name: String,
    /// Only `metadata` of the objects is asked for; a server that can't give it alone gives all.
    pub metadata_only: bool,
    /// The version up to which the sink is informed; a list comes first without it.
    pub from: Option<Version>,
}

impl Watch {
    /// All objects of a kind, whole, from a list on.
    #[must_use]
    pub fn all(resource: Arc<Resource>) -> Self {
        Self { resource, namespace: String::new(), name: String::new(), metadata_only: false, from: None }
    }
}

/// Resolves once a pause should end early.
pub type Roused = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who is informed. Calls come from one task, in order, and must not block.
pub trait Sink: Send + Sync {
    /// A list begins: what it selects, as a label selector in its query form; empty for all objects.
    fn list_begins(&self) -> String;
    /// A watch is asked for, from `version`; the one before `ended` as it should, if it isn't the first. What it selects,
    /// and from which version, which may be an earlier one.
    fn watch_begins(&self, version: Version, ended: bool) -> (String, Version);
    /// An object is as given; within a list, or changed since.
    fn applied(&self, object: Object);
    /// An object is gone; its last state.
    fn deleted(&self, object: Object);
    /// All events up to this version were told.
    fn progressed(&self, version: Version);
    /// The list is complete as of this version.
    fn list_complete(&self, version: Version);
    /// The list broke off and begins again.
    fn list_aborted(&self);
    /// The watch can't go on from its version; a list will follow.
    fn lost_track(&self);
    /// A request failed, for the nth time in a row.
    fn trouble(&self, error: &Error, failures: u32);
    /// After trouble: it works again.
    fn recovered(&self);
    /// Resolves once a pause after trouble should end early, as others can reach the API server again.
    fn roused(&self) -> Roused {
        Box::pin(std::future::pending())
    }
}

/// Runs until cancelled. `random` gives 64 fresh random bits.
pub async fn run(
    client: Client,
    watch: Watch,
    sink: Arc<dyn Sink>,
    random: impl Fn() -> u64 + Send,
    cancel: CancellationToken,
) {
    let pump = watch.from.map_or_else(Pump::new, |version| Pump::following(version.to_string()));
    let selector = String::new();
    let mut shell =
        Shell { client, watch, sink, pump, selector, listing: false, ended: false, troubled: false, refused: false };
    loop {
        let step = shell.pump.next(random());
        // Who was refused wasn't out of reach, and waits as long as it shall.
        let roused = if shell.refused { Box::pin(std::future::pending()) } else { shell.sink.roused() };
        let turn = async {
            tokio::select! {
                () = tokio::time::sleep(step.wait) => {}
                () = roused => {}
            }
            shell.turn(step.request).await
        };
        let outcome = tokio::select! {
            () = cancel.cancelled() => return,
            outcome = turn => outcome,
        };
        match outcome {
            Ok(input) => shell.on(input),
            Err(failure) => shell.fail(failure),
        }
    }
}

struct Shell {
    client: Client,
    watch: Watch,
    sink: Arc<dyn Sink>,
    pump: Pump,
    /// Of the list that is under way.
    selector: String,
    listing: bool,
    /// The last request ended as it should.
    ended: bool,
    troubled: bool,
    /// The last request was answered with an error.
    refused: bool,
}

impl Shell {
    fn on(&mut self, input: Input) {
        self.ended = input == Input::Ended;
        let mark = match &input {
            Input::Bookmark { version, .. } if !self.listing => Some(Version::new(version)),
            _ => None,
        };
        let effect = self.pump.on(input);
        if let Some(version) = mark {
            self.sink.progressed(version);
        }
        if self.pump.must_list() && !self.listing {
            self.sink.lost_track();
        }
        if self.troubled && self.pump.failures() == 0 {
            self.troubled = false;
            self.sink.recovered();
        }
        match effect {
            Effect::None => {}
            Effect::ListComplete(version) => {
                self.listing = false;
                self.sink.list_complete(Version::new(&version));
            }
            Effect::ListAborted => {
                self.listing = false;
                self.sink.list_aborted();
            }
        }
    }

    fn fail(&mut self, error: Error) {
        let input = match error.code() {
            _ if error.is_expired() => Input::Expired,
            // A server that doesn't know `sendInitialEvents` refuses it by validation.
            Some(400 | 422) if self.listing => Input::NotStreamed,
            _ => error.retry_after().map_or(Input::Failed, |pause| Input::Refused { pause }),
        };
        let refused = error.code().is_some();
        if refused && !self.refused {
            self.pump.outage_over();
        }
        self.refused = refused;
        debug!(kind = %self.watch.resource, %error, "watch: request failed");
        self.on(input);
        let failures = self.pump.failures();
        // One broken connection is none of anybody's business; a refusal doesn't heal by itself, and a long pause leaves
        // everybody without news.
        let lasts = matches!(error.code(), Some(401 | 403 | 404)) || error.retry_after() >= Some(UNTOLD_PAUSE);
        if failures > 1 || (failures == 1 && lasts) {
            self.troubled = true;
            self.sink.trouble(&error, failures);
        }
    }

    async fn turn(&mut self, request: Request) -> Result<Input, Error> {
        let base = kind_path(&self.watch.resource, &self.watch.namespace);
        match request {
            Request::Page { next } => {
                self.begin_list();
                let token = next.map_or_else(String::new, |token| {
                    format!("&continue={}", utf8_percent_encode(&token, NON_ALPHANUMERIC))
                });
                let selected = self.selected(&self.selector);
                self.page(&format!("{base}?limit={PAGE_LIMIT}{token}{selected}")).await
            }
            Request::Stream { timeout_secs } => {
                self.begin_list();
                let selected = self.selected(&self.selector);
                let path = format!(
                    "{base}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true\
                     &resourceVersionMatch=NotOlderThan&timeoutSeconds={timeout_secs}{selected}"
                );
                self.stream(&path, timeout_secs).await
            }
            Request::Watch { mut version, timeout_secs } => {
                let known = Version::new(&version);
                let (selector, from) = self.sink.watch_begins(known, self.ended);
                if from != known {
                    version = from.to_string();
                    self.pump.rewind(version.clone());
                }
                let selected = self.selected(&selector);
                let path = format!(
                    "{base}?watch=true&allowWatchBookmarks=true&resourceVersion={version}\
                     &timeoutSeconds={timeout_secs}{selected}"
                );
                self.stream(&path, timeout_secs).await
            }
        }
    }

    /// The query that selects objects.
    fn selected(&self, labels: &str) -> String {
        let by_labels = selected(labels);
        if self.watch.name.is_empty() {
            return by_labels;
        }
        let name = utf8_percent_encode(&self.watch.name, NON_ALPHANUMERIC);
        format!("{by_labels}&fieldSelector=metadata.name%3D{name}")
    }

    fn begin_list(&mut self) {
        if !self.listing {
            self.listing = true;
            self.selector = self.sink.list_begins();
        }
    }

    async fn page(&mut self, path: &str) -> Result<Input, Error> {
        let call = || format!("GET {}", kind_path(&self.watch.resource, ""));
        let read = async {
            let accept = if self.watch.metadata_only { Accept::MetadataList } else { Accept::Json };
            let response = self.client.send(Method::GET, path, None, accept).await?;
            let (code, retry) = (response.status(), self.client.retry_after(&response));
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|source| Error::Connection { call: call(), source })?.to_bytes();
            self.client.meter().api_call(&Method::GET, Some(code.as_u16()), None);
            if !code.is_success() {
                return Err(Error::from_answer(call(), code.as_u16(), retry, &body));
            }
            Ok(body)
        };
        let body = tokio::time::timeout(READ_TIMEOUT, read)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout { call: call(), after: READ_TIMEOUT }))?;
        let problem = |problem: String| Error::Answer { call: call(), problem };
        let text = std::str::from_utf8(&body).map_err(|error| problem(error.to_string()))?;
        let page = decode_page(text).map_err(|error| problem(error.to_string()))?;
        for raw in &page.items {
            self.sink.applied(self.object(raw.get())?);
        }
        Ok(Input::Page { version: page.version, next: page.next })
    }

    async fn stream(&mut self, path: &str, timeout_secs: u64) -> Result<Input, Error> {
        let call = format!("WATCH {}", kind_path(&self.watch.resource, ""));
        let limit = Duration::from_secs(timeout_secs) + SILENCE_MARGIN;
        let deadline = tokio::time::Instant::now() + limit;
        let silent = || Error::Timeout { call: call.clone(), after: limit };
        let accept = if self.watch.metadata_only { Accept::Metadata } else { Accept::Json };
        let response = tokio::time::timeout(HEAD_TIMEOUT, self.client.send(Method::GET, path, None, accept))
            .await
            .map_err(|_| Error::Timeout { call: call.clone(), after: HEAD_TIMEOUT })??;
        let (code, retry) = (response.status(), self.client.retry_after(&response));
        self.client.meter().api_call(&Method::GET, Some(code.as_u16()), None);
        let mut body = response.into_body();
        if !code.is_success() {
            let text = tokio::time::timeout_at(deadline, Limited::new(body, MAX_LINE_BYTES).collect())
                .await
                .map_err(|_| silent())?
                .map_err(|source| Error::Connection { call: call.clone(), source })?
                .to_bytes();
            return Err(Error::from_answer(call, code.as_u16(), retry, &text));
        }
        if self.troubled && !self.listing {
            self.troubled = false;
            self.sink.recovered();
        }
        let mut buffer = BytesMut::new();
        let mut searched = 0;
        let (start, mut heard) = (tokio::time::Instant::now(), false);
        loop {
            let frame = tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_| silent())?;
            let Some(frame) = frame else {
                // One that ends before it began would be asked for again without a pause.
                return Ok(if heard || start.elapsed() >= SHORTEST_WATCH { Input::Ended } else { Input::Failed });
            };
            let frame = frame.map_err(|source| Error::Connection { call: call.clone(), source: source.into() })?;
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(at) = buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(searched + at);
                buffer.advance(1);
                searched = 0;
                if let Some(input) = self.line(&call, &line)? {
                    heard = true;
                    self.on(input);
                }
            }
            searched = buffer.len();
            if buffer.len() > MAX_LINE_BYTES {
                self.client.meter().limit_hit("watch_line_bytes");
                return Err(Error::Answer { call, problem: format!("an event is larger than {MAX_LINE_BYTES} bytes") });
            }
        }
    }

    fn line(&mut self, call: &str, line: &[u8]) -> Result<Option<Input>, Error> {
        let problem = |problem: String| Error::Answer { call: call.to_owned(), problem };
        let text = std::str::from_utf8(line).map_err(|error| problem(error.to_string()))?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(match decode_line(text).map_err(|error| problem(error.to_string()))? {
            Line::Applied(raw) => {
                let object = self.object(raw.get())?;
                let version = object.version().to_string();
                self.sink.applied(object);
                Some(Input::Event { version })
            }
            Line::Deleted(raw) => {
                let object = self.object(raw.get())?;
                let version = object.version().to_string();
                self.sink.deleted(object);
                Some(Input::Event { version })
            }
            Line::Bookmark { version, initial_end } => Some(Input::Bookmark { version, initial_end }),
            Line::Error { code, message } => {
                return Err(Error::Status {
                    call: call.to_owned(),
                    code,
                    reason: String::new(),
                    message,
                    retry_after: None,
                    object: false,
                });
            }
            Line::Other => None,
        })
    }

    fn object(&self, text: &str) -> Result<Object, Error> {
        self.client.object(text, &self.watch.resource).map_err(|error| Error::Answer {
            call: format!("WATCH {}", kind_path(&self.watch.resource, "")),
            problem: error.to_string(),
        })
    }
}
