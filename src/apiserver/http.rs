//! HTTP in front of the server: who asks, bodies, encodings, streams, the audit log.
//!
//! Never decides on objects; see `server`. A body is bounded, a connection is served until the client or the server ends.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::ServiceExt;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use axum::serve::Listener;
use futures::FutureExt as _;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, RETRY_AFTER, USER_AGENT, VARY};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::admission::{Creation, Made};
use crate::answer::{Answer, Shown};
use crate::audit::{Audit, Record};
use crate::auth::{
    User, Users, authorize, authorize_path, check_review, impersonated, impersonates, review, rules_review, self_review,
};
use crate::body::{Repeated, Written};
use crate::error::Error;
use crate::field_error::go_text;
use crate::patch::{json_patch, merge_body, merge_patch, strategic, strategic_body};
use crate::registry::{Definition, Registry, Source};
use crate::request::{Refused, Request, Verb};
use crate::server::{ApiServer, PATCH_TRIES, about};
use crate::service::OverSocket;
use crate::table::{Client, Encoding, Endpoint, Include, negotiate};
use crate::view::{View, not_acceptable, plain, write};
use crate::{deadline, options, scale, shape, stream};

/// The content type of a configuration to apply.
const APPLY: &str = "application/apply-patch+yaml";
/// A request's body is at most this large, as at the real server.
const MAX_BODY_BYTES: usize = 3 << 20;

/// The server with its users and its audit log; cheap to clone.
#[derive(Clone)]
pub struct Front {
    server: ApiServer,
    users: Arc<Users>,
    audit: Option<Arc<Audit>>,
}

/// Why the server can't serve.
#[derive(Debug, thiserror::Error)]
#[error("serving the embedded API server: {0}")]
pub struct ServeError(#[from] std::io::Error);

/// What a request comes to.
enum Reply {
    Done(Response),
    /// Webhooks are to be asked first.
    Asks(Box<Creation>, Box<View>),
}

/// What is known of a request beside its body.
struct Asked<'a> {
    head: &'a Parts,
    user: Arc<User>,
}

impl Asked<'_> {
    fn header(&self, name: &HeaderName) -> &str {
        self.head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn query(&self) -> crate::request::Query {
        crate::request::Query::parse(self.head.uri.query().unwrap_or_default())
    }
}

impl Front {
    /// Puts HTTP in front of a server. Without users everybody is an administrator.
    #[must_use]
    pub fn new(server: ApiServer, users: Users, audit: Option<Audit>) -> Self {
        Self { server, users: Arc::new(users), audit: audit.map(Arc::new) }
    }

    /// Serves connections until `cancel`.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve<L>(self, listener: L, cancel: CancellationToken) -> Result<(), ServeError>
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let app = ServiceExt::<http::Request<Body>>::into_make_service(OverSocket(self));
        // Watches have no end of their own: connections are dropped with the server, not drained.
        tokio::select! {
            served = axum::serve(listener, app).into_future() => Ok(served?),
            () = cancel.cancelled() => Ok(()),
        }
    }

    /// The server behind it.
    #[must_use]
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// Answers one request, for whom its token names.
    pub async fn answer(&self, request: http::Request<Body>) -> Response {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let user = self.users.user(header);
        self.answer_to(user, request).await
    }

    /// Answers one request of a user, or of somebody whose token isn't known.
    pub(crate) async fn answer_to(&self, user: Result<Arc<User>, Error>, request: http::Request<Body>) -> Response {
        let (head, body) = request.into_parts();
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        let (user, unknown) = match user {
            Ok(user) => (user, None),
            Err(error) => (Arc::new(User::anonymous()), Some(error)),
        };
        let mut asked = Asked { head: &head, user };
        let mut parsed = Request::parse(&head.method, path, query);
        if let Ok(Some(request)) = &mut parsed {
            request.agent = options::manager_of_agent(asked.header(&USER_AGENT));
        }
        let request = match &parsed {
            Ok(request) => request.as_ref(),
            Err(refused) => Some(&*refused.request),
        };
        // Before anybody asks who it is.
        let late = request.is_none_or(|request| request.verb != Verb::Watch);
        let late = if late { deadline::check(&asked.query()).err() } else { None };
        let unknown = late.or(unknown).or_else(|| {
            if !impersonates(&head.headers) {
                return None;
            }
            let (asker, what) = (Arc::clone(&asked.user), request.ok_or((&head.method, path)));
            match impersonated(&self.server.state.lock().store, asker, &head.headers, what) {
                Ok(user) => {
                    asked.user = user;
                    None
                }
                Err(error) => Some(error),
            }
        });
        let mut created = String::new();
        let result = match (unknown, &parsed) {
            (Some(error), _) => Err(error),
            (None, Err(refused)) => {
                let allowed = authorize(&self.server.state.lock().store, &asked.user, &refused.request);
                Err(allowed.err().unwrap_or_else(|| self.refuse(refused)))
            }
            (None, Ok(None)) => self.other(&asked, path),
            (None, Ok(Some(request))) => match to_bytes(body, MAX_BODY_BYTES).await {
                Ok(body) => match self.objects(&asked, request, &body, &mut created) {
                    Ok(Reply::Done(response)) => Ok(response),
                    // Boxed: few requests have it.
                    Ok(Reply::Asks(creation, view)) => self.admit(&asked, request, &body, creation, view).boxed().await,
                    Err(error) => Err(error),
                },
                Err(_) => {
                    let allowed = authorize(&self.server.state.lock().store, &asked.user, request);
                    let message = "Request entity too large: limit is 3145728";
                    Err(allowed.err().unwrap_or_else(|| Error::new(413, "RequestEntityTooLarge", message)))
                }
            },
        };
        self.record(&asked, request, &created, &result);
        result.unwrap_or_else(|error| refusal(&asked, &error))
    }

    /// A PUT or PATCH of a collection of custom objects lacks a name; of built-in ones, it has no route.
    fn refuse(&self, refused: &Refused) -> Error {
        let request = &refused.request;
        let found = self.server.state.lock().registry.find(&request.group, &request.version, &request.plural);
        let custom = found.is_some_and(|definition| matches!(definition.source, Source::Crd { .. }));
        if custom && request.name.is_empty() && matches!(request.verb, Verb::Update | Verb::Patch) {
            return Error::bad_request("name must be provided");
        }
        refused.error.clone()
    }

    /// One line before the answer goes out; one that can't be written doesn't hold it up.
    fn record(&self, asked: &Asked<'_>, request: Option<&Request>, created: &str, result: &Result<Response, Error>) {
        let Some(audit) = &self.audit else { return };
        let uri = asked.head.uri.to_string();
        let record = Record {
            user: &asked.user,
            method: &asked.head.method,
            uri: &uri,
            request,
            created,
            answer: result.as_ref().map(|response| response.status().as_u16()),
            time: &(self.server.clock)().time,
        };
        if let Err(error) = audit.record(&record) {
            tracing::warn!("audit: {error}");
        }
    }

    fn other(&self, asked: &Asked<'_>, path: &str) -> Result<Response, Error> {
        let state = self.server.state.lock();
        authorize_path(&state.store, &asked.user, &asked.head.method, path)?;
        let health = ["/healthz", "/livez", "/readyz"].contains(&path);
        if asked.head.method != Method::GET && !health {
            return Err(Error::method_not_allowed());
        }
        let crds = |group: &str, version: &str, plural: &str| state.crd_version(group, version, plural);
        let answer = match crate::discovery::answer(path, asked.header(&ACCEPT), &state.registry, &crds) {
            Some(answer) => answer?,
            None => crate::discovery::not_found(),
        };
        Ok(described(answer))
    }

    fn objects(&self, asked: &Asked<'_>, request: &Request, body: &[u8], created: &mut String) -> Result<Reply, Error> {
        let state = self.server.state.lock();
        authorize(&state.store, &asked.user, request)?;
        if matches!(request.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io") {
            drop(state);
            return self.review(asked, request, body).map(Reply::Done);
        }
        if is_elsewhere(&state.registry, request) {
            return Ok(Reply::Done(nowhere()));
        }
        let definition = state.definition(request)?;
        drop(state);
        check_method(&definition, request)?;
        let watch = request.verb == Verb::Watch;
        let endpoint = match definition.source {
            Source::BuiltIn(_) => Endpoint::BuiltIn { collection: request.name.is_empty() },
            Source::Crd { .. } => Endpoint::Custom,
        };
        let accepted = negotiate(client(asked, asked.query().get("pretty")), endpoint, watch)
            .map_err(|error| not_acceptable(&error))?;
        let view = View {
            accepted,
            definition: Arc::clone(&definition),
            scale: request.subresource == "scale",
            include: Include::parse(request.query.get("includeObject"))
                .map_err(|error| Error::bad_request(error.to_string()))?,
            clock: Arc::clone(&self.server.clock),
        };
        options::check_write(request.verb, content_type(asked) == APPLY, &request.query)?;
        let made = match request.verb {
            Verb::Create => {
                let body = parse(asked, &definition, body)?;
                body.value["metadata"]["name"].as_str().unwrap_or_default().clone_into(created);
                self.server.create(request, body)?
            }
            Verb::Update => self.server.update(request, parse(asked, &definition, body)?)?,
            Verb::Patch => self.patch(asked, request, body)?,
            _ => return self.unmade(asked, request, body, view).map(Reply::Done),
        };
        match made {
            Made::Answer(answer) => view.finished(answer).map(Reply::Done),
            Made::Asks(creation) => Ok(Reply::Asks(creation, Box::new(view))),
        }
    }

    /// Goes on with a creation once webhooks have seen it.
    async fn admit(
        &self,
        asked: &Asked<'_>,
        request: &Request,
        body: &[u8],
        mut creation: Box<Creation>,
        view: Box<View>,
    ) -> Result<Response, Error> {
        for _ in 0..PATCH_TRIES {
            let admitted = creation.ask(&asked.user, &self.server.clock).await?;
            match self.server.admitted(admitted) {
                // Somebody else made it meanwhile: the configuration is applied to that.
                Err(error) if request.verb == Verb::Patch && error.reason == "AlreadyExists" => {}
                other => return view.finished(other?),
            }
            match self.patch(asked, request, body)? {
                Made::Answer(answer) => return view.finished(answer),
                Made::Asks(again) => creation = again,
            }
        }
        Err(Error::modified(about(&view.definition, &request.name)))
    }

    /// The verbs that make no object of a body.
    fn unmade(&self, asked: &Asked<'_>, request: &Request, body: &[u8], view: View) -> Result<Response, Error> {
        match request.verb {
            Verb::Get => {
                let (definition, object) = self.server.get(request)?;
                let body = if request.subresource == "scale" {
                    scale::shown(&definition, &shape::shown(&definition, &object))?.into()
                } else {
                    Shown::Stored(definition, object)
                };
                view.finished(Answer { code: 200, body, warnings: Vec::new() })
            }
            Verb::List => view.many(&self.server.list(request)?),
            Verb::DeleteCollection => {
                let options = options::deletion(&request.query, Written::delete_options(content_type(asked), body)?)?;
                view.many(&self.server.delete_collection(request, &options)?)
            }
            Verb::Watch => {
                let timeout = request.query.integer("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok());
                let timeout = timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs);
                let bookmarks = request.query.is_true("allowWatchBookmarks");
                let body = match self.server.watch(request) {
                    Ok(watched) => Body::from_stream(stream::lines(watched, timeout, bookmarks, view.show())),
                    // Told in the stream: clients may try a refused watch again with the same version, forever.
                    Err(error) if error.code == 410 => Body::from(stream::failed(&error)),
                    Err(error) => return Err(error),
                };
                let mut response = Response::new(body);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok(response)
            }
            Verb::Delete => {
                let options = options::deletion(&request.query, Written::delete_options(content_type(asked), body)?)?;
                view.finished(self.server.delete(request, &options)?)
            }
            Verb::Create | Verb::Update | Verb::Patch => Err(Error::method_not_allowed()),
        }
    }

    fn apply(&self, asked: &Asked<'_>, request: &Request, body: &[u8]) -> Result<Made, Error> {
        let bad = |why: String| Error::bad_request(format!("error decoding YAML: {why}"));
        let text = std::str::from_utf8(body).map_err(|error| bad(error.to_string()))?;
        // Most clients send JSON, which is YAML, too.
        let configuration: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) => serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()))?,
        };
        if !(configuration.is_object() || configuration.is_null()) {
            let kind = crate::field_error::json_kind(&configuration);
            let what = "into Go value of type map[string]interface {}";
            return Err(bad(format!(
                "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {kind} {what}"
            )));
        }
        if self.server.get(request).is_err_and(|error| error.code == 404) {
            // It would be made.
            let create = Request { verb: Verb::Create, ..request.clone() };
            authorize(&self.server.state.lock().store, &asked.user, &create)?;
        }
        self.server.apply(request, &configuration)
    }

    fn patch(&self, asked: &Asked<'_>, request: &Request, body: &[u8]) -> Result<Made, Error> {
        let answer = match content_type(asked) {
            "application/json-patch+json" => {
                self.server.patch(request, |_, object| json_patch(object, body), unreadable)
            }
            "application/merge-patch+json" => {
                let patch = merge_body(body)?;
                self.server.patch(request, |_, object| Ok(merge_patch(object, &patch)), unreadable)
            }
            "application/strategic-merge-patch+json" => {
                let patch = strategic_body(body)?;
                let change = |definition: &Definition, object| {
                    let tree = shape::merge_tree(definition, &request.subresource)
                        .ok_or_else(|| unsupported_patch(definition))?;
                    strategic(object, &patch, &*tree)
                };
                let refused = |_: &Value, why: &str| Error::invalid_patch(&go_text(&patch), &shape::unconverted(why));
                self.server.patch(request, change, refused)
            }
            APPLY => return self.apply(asked, request, body),
            _ => Err(unsupported_patch(&*self.server.definition(request)?)),
        };
        answer.map(Made::Answer)
    }

    /// Reviews of who somebody is and what they may do: asked, answered, kept nowhere.
    fn review(&self, asked: &Asked<'_>, request: &Request, body: &[u8]) -> Result<Response, Error> {
        let kind = match request.plural.as_str() {
            "subjectaccessreviews" => "SubjectAccessReview",
            "selfsubjectaccessreviews" => "SelfSubjectAccessReview",
            "selfsubjectrulesreviews" => "SelfSubjectRulesReview",
            "selfsubjectreviews" => "SelfSubjectReview",
            _ => return Err(Error::no_resource()),
        };
        if request.verb != Verb::Create {
            return Err(if request.name.is_empty() { Error::method_not_allowed() } else { Error::no_resource() });
        }
        let mut answer = Written::read(content_type(asked), body, kind, Repeated::Merged)?.value;
        check_review(&answer, kind)?;
        answer["kind"] = kind.into();
        answer["apiVersion"] = format!("{}/{}", request.group, request.version).into();
        if answer["metadata"].is_null() {
            answer["metadata"] = json!({});
        }
        let (user, state) = (&*asked.user, self.server.state.lock());
        answer["status"] = match kind {
            "SubjectAccessReview" => review(&state.store, &answer["spec"], None),
            "SelfSubjectAccessReview" => review(&state.store, &answer["spec"], Some(user)),
            "SelfSubjectRulesReview" => {
                rules_review(&state.store, user, answer["spec"]["namespace"].as_str().unwrap_or_default())
            }
            _ => {
                answer["metadata"]["creationTimestamp"] = (self.server.clock)().time.into();
                self_review(user)
            }
        };
        write(Encoding::Json { pretty: false }, 201, &answer, &[])
    }
}

/// Whether a path means no kind, in a way that the real server finds before it looks at the kinds: a version of a group
/// that has none, or a group of custom kinds, which are asked for one by one.
fn is_elsewhere(registry: &Registry, request: &Request) -> bool {
    let everywhere = request.namespace.is_empty() && !matches!(request.verb, Verb::List | Verb::Watch);
    match registry.find(&request.group, &request.version, &request.plural) {
        Some(definition) if definition.is_built_in() => false,
        Some(definition) if definition.resource.namespaced => everywhere,
        Some(_) => !request.namespace.is_empty(),
        None => {
            !registry.has_version(&request.group, &request.version)
                || registry.iter().any(|known| {
                    known.resource.api_version.group() == request.group && matches!(known.source, Source::Crd { .. })
                })
        }
    }
}

fn client<'a>(asked: &'a Asked<'_>, pretty: Option<&'a str>) -> Client<'a> {
    Client { accept: asked.header(&ACCEPT), pretty, user_agent: asked.header(&USER_AGENT) }
}

fn content_type<'a>(asked: &'a Asked<'_>) -> &'a str {
    asked.header(&CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
}

/// What the routes of a kind don't know: a verb that it hasn't, objects of all namespaces written at once.
fn check_method(definition: &Definition, request: &Request) -> Result<(), Error> {
    let everywhere = definition.resource.namespaced && request.namespace.is_empty();
    let written = matches!(request.verb, Verb::Create | Verb::DeleteCollection);
    if (everywhere && written) || !shape::has_verb(definition, request.verb) {
        return Err(Error::method_not_allowed());
    }
    Ok(())
}

fn nowhere() -> Response {
    described(crate::discovery::not_found())
}

/// What is served, to whoever discovers it.
fn described(answer: crate::discovery::Answer) -> Response {
    let body = match answer.body {
        Cow::Borrowed(bytes) => Body::from(bytes),
        Cow::Owned(bytes) => Body::from(bytes),
    };
    let mut response = plain(answer.code, answer.content_type, body);
    if !answer.hash.is_empty()
        && let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", answer.hash))
    {
        response.headers_mut().insert(ETAG, tag);
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    }
    response
}

fn unsupported_patch(definition: &Definition) -> Error {
    if matches!(definition.source, Source::Crd { .. }) {
        let types = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        return crate::body::unsupported(types);
    }
    let error = Error::new(415, "UnsupportedMediaType", "415: Unsupported Media Type");
    Error { details: json!({}), ..error }
}

/// For a patch that is made on JSON.
fn unreadable(patched: &Value, why: &str) -> Error {
    Error::invalid_patch(&crate::patch::go_json(patched), why)
}

fn parse(asked: &Asked<'_>, definition: &Definition, body: &[u8]) -> Result<Written, Error> {
    Written::read(content_type(asked), body, &definition.resource.kind, shape::repeated(definition))
}

fn refusal(asked: &Asked<'_>, error: &Error) -> Response {
    let query = asked.query();
    let encoding = negotiate(client(asked, query.get("pretty")), Endpoint::Status, false)
        .map_or(Encoding::Json { pretty: false }, |accepted| accepted.encoding);
    let mut response = write(encoding, error.code, &error.status(), &[])
        .unwrap_or_else(|_| plain(500, "text/plain", Body::from("the answer can't be written")));
    if let Some(seconds) = error.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
