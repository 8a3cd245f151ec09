//! The guarded client: a `kube::Client` whose writes ask the guard.
//!
//! Never repeats a call: a write is repeated by the next run or not at all. Reads and watches pass as they are.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri};
use kube::client::Body;
use ringmaster_core::lease::WRITE_GRACE;
use tower_service::Service;

use crate::clock::boot_time;
use crate::guard::{Guard, Refused};

/// An API server stops a request a little after its time is up.
const OUTCOME_MARGIN: Duration = Duration::from_millis(100);

/// A write wasn't answered before the right to work ended.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}, all that was left of this shard's right to work: it may have been written or not")]
struct Late(Duration);

/// A client like `inner` whose writes are refused once the guard refuses them, and are over soon after at the latest.
pub(crate) fn guarded(inner: kube::Client, guard: &Arc<Guard>) -> kube::Client {
    let namespace = inner.default_namespace().to_owned();
    kube::Client::new(Guarded { inner, guard: Arc::clone(guard) }, namespace)
}

struct Guarded {
    inner: kube::Client,
    guard: Arc<Guard>,
}

impl Service<Request<Body>> for Guarded {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, guard) = (self.inner.clone(), Arc::clone(&self.guard));
        Box::pin(async move {
            if is_read(request.method()) { inner.send(request).await } else { write(&inner, &guard, request).await }
        })
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

async fn write(
    client: &kube::Client,
    guard: &Arc<Guard>,
    mut request: Request<Body>,
) -> Result<Response<Body>, kube::Error> {
    let left = guard.left().ok_or_else(|| kube::Error::Service(Box::new(Refused::Lost)))?;
    let limit = left + WRITE_GRACE;
    if let Some(uri) = bounded(request.uri(), limit) {
        *request.uri_mut() = uri;
    }
    let mut writing = guard.writing(boot_time() + limit + OUTCOME_MARGIN);
    let Ok(outcome) = tokio::time::timeout(limit, client.send(request)).await else {
        return Err(kube::Error::Service(Box::new(Late(limit))));
    };
    let is_known = match &outcome {
        Ok(response) => response.status().as_u16() < 500,
        Err(error) => was_never_sent(error),
    };
    if is_known {
        writing.known();
    }
    outcome
}

/// The same address with a limit of the API server's time for it (`?timeout=`), which it counts from when it has the
/// request; `None` if the caller has set one.
fn bounded(uri: &Uri, limit: Duration) -> Option<Uri> {
    let query = uri.query().unwrap_or_default();
    if query.split('&').any(|pair| pair.starts_with("timeout=")) {
        return None;
    }
    let mark = if query.is_empty() { "" } else { "&" };
    let path = format!("{}?{query}{mark}timeout={}ms", uri.path(), limit.as_millis());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether no connection could be made for a call.
pub(crate) fn was_never_sent(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;

    use http::StatusCode;
    use parking_lot::Mutex;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Answers everything with a code, and notes what it was asked.
    #[derive(Clone)]
    struct Server {
        code: StatusCode,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Service<Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            self.asked.lock().push(format!("{} {}", request.method(), request.uri()));
            let mut response = Response::new(Body::empty());
            *response.status_mut() = self.code;
            ready(Ok(response))
        }
    }

    async fn send(client: &kube::Client, method: Method, uri: &str) -> Result<StatusCode, kube::Error> {
        let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        client.send(request).await.map(|response| response.status())
    }

    fn server(code: StatusCode) -> (kube::Client, Arc<Guard>, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let guard = Guard::new();
        let inner = kube::Client::new(Server { code, asked: Arc::clone(&asked) }, "default");
        (guarded(inner, &guard), guard, asked)
    }

    #[tokio::test]
    async fn writes_need_the_right_and_reads_do_not() {
        let (client, guard, asked) = server(StatusCode::OK);
        let refused = send(&client, Method::PUT, "/api/v1/pods/a").await.unwrap_err();
        assert_eq!(Refused::of(&refused), Some(Refused::Lost));
        assert_eq!(send(&client, Method::GET, "/api/v1/pods").await.unwrap(), StatusCode::OK);
        guard.renewed(boot_time() + HOUR);
        assert_eq!(send(&client, Method::DELETE, "/api/v1/pods/a?").await.unwrap(), StatusCode::OK);
        guard.end();
        assert!(send(&client, Method::PATCH, "/api/v1/pods/a").await.is_err());
        let asked = asked.lock().clone();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert_eq!(asked[0], "GET /api/v1/pods");
        assert!(asked[1].starts_with("DELETE /api/v1/pods/a?timeout=360"), "{asked:?}");
        assert!(guard.is_quiet(), "each write has an outcome");
    }

    #[tokio::test]
    async fn a_write_may_still_happen_that_the_server_gave_up() {
        for (code, is_known) in [(201, true), (409, true), (429, true), (500, false), (504, false)] {
            let (client, guard, _asked) = server(StatusCode::from_u16(code).unwrap());
            guard.renewed(boot_time() + HOUR);
            assert_eq!(send(&client, Method::POST, "/api/v1/pods").await.unwrap().as_u16(), code);
            assert_eq!(guard.is_quiet(), is_known, "{code}");
        }
    }

    #[test]
    fn a_limit_is_added_to_whatever_is_asked() {
        let bounded =
            |uri: &str| bounded(&uri.parse().unwrap(), Duration::from_millis(1500)).map(|uri| uri.to_string());
        assert_eq!(bounded("/a").unwrap(), "/a?timeout=1500ms");
        assert_eq!(bounded("/a?").unwrap(), "/a?timeout=1500ms");
        assert_eq!(bounded("/a?&b=c").unwrap(), "/a?&b=c&timeout=1500ms");
        assert_eq!(bounded("https://host:1/a?b=c").unwrap(), "https://host:1/a?b=c&timeout=1500ms");
        assert_eq!(bounded("/a?timeout=1s"), None);
    }

    #[test]
    fn a_refused_connection_has_carried_nothing() {
        let of = |kind: io::ErrorKind| kube::Error::Service(Box::new(io::Error::from(kind)));
        assert!(was_never_sent(&of(io::ErrorKind::ConnectionRefused)));
        assert!(!was_never_sent(&of(io::ErrorKind::ConnectionReset)));
    }
}
