//! The admission webhook of external rings: it labels objects as they are created, so that nobody has to afterwards.
//!
//! ```text
//!   review         a question of the API server's, and its answer
//!   serve          HTTPS, within limits
//!   certificate    who we are to the API server, and when that changes
//!   secret         how certificates are kept, so that all members show the same
//!   keeper         reads, decides, writes, shows
//!   configuration  what the API server is told of a ring's webhook
//!   apply          tells it, and takes it back
//!   host           all of it on one member
//!   counts         what metrics show
//! ```
//!
//! It is a short cut, never needed: an object that comes by without it is assigned by the watch. So it fails open,
//! everywhere: nobody's request is denied because of it, or takes longer than the webhook's timeout.

mod apply;
pub mod certificate;
pub mod configuration;
pub mod counts;
pub mod host;
pub mod keeper;
pub mod review;
pub mod secret;
pub mod serve;
