//! The Secrets of a trial, the main objects of its ring: made and changed by their user.
//!
//! Never deletes one, and never touches a label of a ring but where the trial says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use futures::TryStreamExt as _;
use k8s_openapi::ByteString;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::objects::{Objects, Resource, code};
use crate::server::lock;

/// Requests at once where many are made.
const CONNECTIONS: usize = 16;
/// How soon a write that failed is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a write may take or fail before the trial does.
const GIVE_UP: Duration = Duration::from_secs(60);
/// What precedes a Secret's name in that of its ConfigMap.
const CHILD: &str = "checksums-";

/// The name of a Secret's ConfigMap.
pub(crate) fn child(secret: &str) -> String {
    format!("{CHILD}{secret}")
}

/// What the ConfigMap of a Secret must hold.
///
/// # Errors
/// It isn't a Secret.
pub(crate) fn sums(secret: &Value) -> anyhow::Result<BTreeMap<String, String>> {
    let values: BTreeMap<String, ByteString> =
        serde_json::from_value(secret["data"].clone()).with_context(|| format!("{}", secret["metadata"]["name"]))?;
    Ok(values.into_iter().map(|(key, value)| (key, sha256(&value.0))).collect())
}

fn sha256(value: &[u8]) -> String {
    digest(&SHA256, value).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A Secret as its user writes it.
pub(crate) fn secret(metadata: Value, number: u64) -> Value {
    json!({ "metadata": metadata, "data": data(number) })
}

fn data(number: u64) -> Value {
    json!({ "number": ByteString(number.to_string().into_bytes()) })
}

/// The Secrets of a trial.
pub(crate) struct Secrets {
    admin: Objects,
    resource: Resource,
    names: Mutex<Vec<String>>,
    number: AtomicU64,
}

impl Secrets {
    /// None yet.
    pub(crate) fn new(admin: Objects, namespace: &str) -> Self {
        let resource = Resource::new("v1", "Secret", "secrets", Some(namespace));
        Self { admin, resource, names: Mutex::default(), number: AtomicU64::new(0) }
    }

    /// What they are.
    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    fn number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// One more, with this metadata.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn create(&self, metadata: Value) -> anyhow::Result<String> {
        let made = self.admin.create(&self.resource, secret(metadata, self.number())).await?;
        let name = made["metadata"]["name"].as_str().context("a Secret without a name")?.to_owned();
        lock(&self.names).push(name.clone());
        Ok(name)
    }

    async fn create_next(&self) -> anyhow::Result<()> {
        self.create(json!({ "name": format!("s{}", self.number()) })).await.map(drop)
    }

    /// So many more, many at a time.
    ///
    /// # Errors
    /// The API server refuses one.
    pub(crate) async fn create_many(&self, count: usize) -> anyhow::Result<()> {
        let numbers = futures::stream::iter((0..count).map(anyhow::Ok));
        numbers.try_for_each_concurrent(CONNECTIONS, |_| self.create_next()).await
    }

    /// So many more, so many a second, each when its time has come.
    ///
    /// # Errors
    /// The API server refuses one.
    pub(crate) async fn create_at(&self, count: usize, rate: u32) -> anyhow::Result<()> {
        let start = tokio::time::Instant::now();
        let creates = (0..count).map(|turn| async move {
            tokio::time::sleep_until(start + Duration::from_secs(1) * u32::try_from(turn)? / rate).await;
            self.create_next().await
        });
        futures::future::try_join_all(creates).await.map(drop)
    }

    /// Their names.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        lock(&self.names).iter().cloned().collect()
    }

    /// Another value for one.
    ///
    /// # Errors
    /// The API server refuses it.
    async fn change(&self, name: &str) -> anyhow::Result<()> {
        let (patch, start) = (json!({ "data": data(self.number()) }), Instant::now());
        loop {
            let asked = tokio::time::timeout(GIVE_UP, self.admin.patch_merge(&self.resource, name, &patch)).await;
            let error = match asked {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => anyhow!("no answer within {GIVE_UP:?}"),
            };
            let is_final = matches!(code(&error), Some(400..=428 | 430..=499));
            ensure!(!is_final && start.elapsed() < GIVE_UP, "change Secret {name}: {error:#}");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Changes so many of them a second, by chance, until it is stopped.
    pub(crate) fn keep_changing(self: &Arc<Self>, rate: u32) -> Running {
        let (this, stop) = (Arc::clone(self), CancellationToken::new());
        let task = tokio::spawn({
            let stop = stop.clone();
            async move {
                let mut turns = tokio::time::interval(Duration::from_secs(1) / rate);
                turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut changes = 0;
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return anyhow::Ok(changes),
                        _ = turns.tick() => {}
                    }
                    let name = fastrand::choice(lock(&this.names).iter()).cloned();
                    if let Some(name) = name {
                        this.change(&name).await?;
                        changes += 1;
                    }
                }
            }
        });
        Running { stop, task }
    }
}

/// A user at work.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<usize>>,
}

impl Running {
    /// How many changes there were.
    ///
    /// # Errors
    /// The API server refused one.
    pub(crate) async fn stop(self) -> anyhow::Result<usize> {
        self.stop.cancel();
        self.task.await?
    }
}
