//! Makes a kube-rs controller a shard of an external ring: a `ControllerRing` of Ringmaster's or controller-sharding's.
//!
//! ```text
//!   sharder --label shard=a--> main objects --filtered watch--> Controller --reconciler(f)--> f: the user's function
//!      |                            ^                                          |
//!      |--label drain------------>  |------ takes both labels off <------------| a drained object
//!      '--watches--> Lease a <-- keeper (own thread) --> guard <-- asked before each run and each write
//! ```
//!
//! One process is one [`Shard`], which has objects of its own as long as it keeps its Lease. It may work until its renew
//! deadline after it *sent* the last renewal that succeeded, by a clock that goes on while the process is stopped.
//!
//! Never assigns an object, and never works on one that isn't its own. See `examples/checksums.rs` for a whole shard.
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! # use futures::StreamExt;
//! # use k8s_openapi::api::core::v1::{ConfigMap, Secret};
//! # use kube::Api;
//! # use kube_runtime::controller::{Action, Controller};
//! # use kube_runtime::reflector;
//! # use ringmaster_shard::{Options, RunError, Shard};
//! # async fn reconcile(_: Arc<Secret>, _: Arc<()>) -> Result<Action, kube::Error> { Ok(Action::await_change()) }
//! # fn error_policy(_: Arc<Secret>, _: &RunError<kube::Error>, _: Arc<()>) -> Action {
//! #     Action::requeue(Duration::from_secs(1))
//! # }
//! # async fn run(config: kube::Config) -> Result<(), ringmaster_shard::Error> {
//! let shard = Shard::join(config, Options::new("checksums")).await?;
//! let (secrets, config_maps) = (Api::<Secret>::all(shard.client()), Api::<ConfigMap>::all(shard.client()));
//! // Runs look into the second store for what they own.
//! let ((store, writer), (_owned, owned_writer)) = (reflector::store(), reflector::store());
//! let controller = Controller::for_stream(shard.objects(secrets, writer), store)
//!     .owns_stream(shard.children(config_maps, owned_writer))
//!     .shutdown_on_signal()
//!     .run(shard.reconciler(reconcile), error_policy, Arc::new(()))
//!     .for_each(|_| std::future::ready(()));
//! tokio::select! {
//!     () = controller => shard.leave(Duration::from_secs(10)).await,
//!     lost = shard.lost() => Err(lost.into()),
//! }
//! # }
//! ```

mod client;
mod clock;
mod guard;
mod keeper;
mod lease;
mod object;
mod options;
mod reconcile;
mod shard;
mod streams;

pub use guard::Refused;
pub use lease::Lost;
pub use options::{Acknowledged, Invalid, MAX_NAME_BYTES, OnAcknowledged, Options};
pub use reconcile::RunError;
pub use ringmaster_core::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING, RingDialect};
pub use ringmaster_core::lease::Terms;
pub use shard::{Error, Permit, Shard};
