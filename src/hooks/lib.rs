//! HTTP out: hook calls.
//!
//! ```text
//!   pool      all endpoints of a process, and the probes of those that are left out
//!   route     from a hook and a shard to the endpoint that is called
//!   caller    who is asked whether a call may be sent, and told of it
//!   endpoint  one of them: its places, its health, its connections
//!   client    one exchange
//!   connect   one connection; tls: what it is made with; policy, resolve: where it may go
//!   auth      what calls carry to say who calls; etag: replies that needn't come again
//! ```
//!
//! Never decides what to send or what a reply means: bytes go out, bytes within a limit come back. A call goes to another
//! endpoint only if it may have had no effect there, or if the hook says that this doesn't matter: the queue knows when to
//! try again.

use ringmaster_core::key::ControllerId;

mod auth;
mod caller;
mod client;
mod connect;
mod endpoint;
mod error;
mod etag;
mod policy;
mod pool;
mod resolve;
mod route;
mod tls;

pub use auth::Credential;
pub use caller::{Caller, ConnectStep};
pub use client::Reply;
pub use endpoint::{Coming, Listener, News};
pub use error::Error;
pub use etag::Asked;
pub use policy::Policy;
pub use pool::{Hooks, Sampled};
pub use resolve::Overrides;
pub use route::{Call, Failure, Found, Route};
pub use tls::Pem;

/// Told when an endpoint has room again. Whoever tells holds no lock: the queue asks [`Route::admit`] while it is locked.
pub trait Doorman: Send + Sync {
    /// An endpoint for which [`Route::admit`] refused a call of this controller takes more now. Must not block.
    fn room(&self, controller: ControllerId, endpoint: u64);
}

/// Counts what a client's bounds hold back.
pub trait Meter: Send + Sync {
    /// A named bound was hit.
    fn limit_hit(&self, limit: &'static str);
}
