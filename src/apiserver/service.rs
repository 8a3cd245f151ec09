//! The server as a tower service: for a client in the same process, such as `kube::Client`, and for a socket.
//!
//! Never skips a step that a request over a socket takes, but for asking who it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tower_service::Service;

use crate::auth::User;
use crate::http::Front;

/// A server as one user sees it; cheap to clone.
#[derive(Clone)]
pub struct InProcess {
    front: Front,
    user: Arc<User>,
}

impl InProcess {
    /// Requests come from this user, whatever their headers say.
    #[must_use]
    pub fn new(front: Front, user: User) -> Self {
        Self { front, user: Arc::new(user) }
    }
}

/// A server as whoever connects sees it: each request says who asks.
#[derive(Clone)]
pub(crate) struct OverSocket(pub(crate) Front);

impl Service<http::Request<Body>> for OverSocket {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let front = self.0.clone();
        async move { Ok(front.answer(request).await) }.boxed()
    }
}

impl<B> Service<http::Request<B>> for InProcess
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Self { front, user } = self.clone();
        async move { Ok(front.answer_to(Ok(user), request.map(Body::new)).await) }.boxed()
    }
}
