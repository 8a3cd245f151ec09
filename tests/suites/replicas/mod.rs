//! Replicas of a webhook as processes, behind a Service whose EndpointSlices a trial writes.
//!
//! ```text
//!   serve   one replica: this program again, which answers and writes each call down
//!   calls   what the replicas wrote, put together
//!   changes what parents want anew, and when that was served
//! ```
//!
//! EndpointSlices can't name loopback: each replica has an address that nobody has, and `--hook-resolve` says where it
//! really is. Never leaves a process behind.

pub(crate) mod calls;
pub(crate) mod changes;
pub(crate) mod serve;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::child::Child;
use crate::cluster::Context;
use crate::objects::Objects;
use crate::replicas::calls::{Call, Handshake, read};

/// The Service's name.
pub(crate) const SERVICE: &str = "hook";
/// The port in the EndpointSlices.
const PORT: u16 = 8080;
/// How long a replica may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(10);
/// How long it may take to listen.
const LISTENS: Duration = Duration::from_secs(20);

/// The words by which this program becomes a replica: see [`serve::run`].
pub(crate) const WORD: &str = "--replica";

/// A webhook's replicas, by number from 0.
pub(crate) struct Replicas {
    admin: Objects,
    namespace: String,
    slots: Vec<Slot>,
    log: PathBuf,
}

struct Slot {
    /// As the EndpointSlices name it.
    address: String,
    /// Where it really is.
    real: SocketAddr,
    /// Keeps the port until the replica takes it.
    reserved: Option<TcpListener>,
    child: Option<Child>,
    record: PathBuf,
}

impl Replicas {
    /// A Service, and room for so many replicas, none of which runs.
    ///
    /// # Errors
    /// The API server refuses the Service, or there is no port.
    pub(crate) async fn new(ctx: &Context, count: usize) -> anyhow::Result<Self> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": SERVICE, "namespace": ctx.namespace },
            "spec": { "selector": { "app": SERVICE },
                "ports": [{ "name": "http", "port": 80, "targetPort": "http" }, { "name": "https", "port": 443 }] },
        });
        ctx.admin.apply(&service).await?;
        let log = ctx.log_file("replicas");
        let slot = |number: usize| {
            let reserved = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let real = reserved.local_addr()?;
            let record = log.with_extension(format!("calls-{number}"));
            let address = format!("10.77.0.{}", number + 1);
            anyhow::Ok(Slot { address, real, reserved: Some(reserved), child: None, record })
        };
        let slots: anyhow::Result<Vec<Slot>> = (0..count).map(slot).collect();
        Ok(Self { admin: ctx.admin.clone(), namespace: ctx.namespace.clone(), slots: slots?, log })
    }

    /// Flags of `ringmaster run` that say where the replicas are.
    pub(crate) fn flags(&self) -> Vec<String> {
        let flag = |slot: &Slot| format!("--hook-resolve={}:{PORT}={}", slot.address, slot.real);
        self.slots.iter().map(flag).collect()
    }

    /// A `webhook.service` of a controller.
    pub(crate) fn webhook(&self) -> Value {
        json!({ "service": { "name": SERVICE, "namespace": self.namespace }, "path": "/sync" })
    }

    /// A flag of `ringmaster run` that leads from this host and port to a replica.
    pub(crate) fn flag_to(&self, number: usize, from: &str) -> String {
        format!("--hook-resolve={from}={}", self.slots[number].real)
    }

    /// The address of a replica as EndpointSlices name it, without a port.
    pub(crate) fn address(&self, number: usize) -> &str {
        &self.slots[number].address
    }

    /// Where a replica really is, as a URL without a path.
    pub(crate) fn url(&self, number: usize) -> String {
        format!("http://{}", self.slots[number].real)
    }

    /// What a replica is called in conditions and metrics.
    pub(crate) fn name(&self, number: usize) -> String {
        format!("{}:{PORT}", self.slots[number].address)
    }

    /// Starts a replica; see [`serve::Options`] for what `options` may say, as `name=value`.
    ///
    /// # Errors
    /// It doesn't start, or doesn't listen in time.
    pub(crate) async fn start(&mut self, ctx: &Context, number: usize, options: &[String]) -> anyhow::Result<()> {
        let slot = &mut self.slots[number];
        slot.reserved = None;
        let mut args = vec![WORD.to_owned(), slot.real.to_string(), slot.record.display().to_string()];
        args.extend_from_slice(options);
        let program = std::env::current_exe()?;
        slot.child = Some(Child::start(&format!("replica {number}"), &program, &args, &self.log, |_| {})?);
        let (real, child) = (slot.real, &mut slot.child);
        ctx.wait(&format!("replica {number} listens"), LISTENS, async || {
            child.as_mut().map_or(Ok(()), Child::check)?;
            tokio::net::TcpStream::connect(real).await.context("it doesn't")?;
            Ok(())
        })
        .await
    }

    /// Writes the EndpointSlice: these are ready, and those are being shut down.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn publish(&self, ready: &[usize], terminating: &[usize]) -> anyhow::Result<()> {
        let address = |number: &usize| self.slots[*number].address.clone();
        let slice = slice(
            (&self.namespace, SERVICE),
            ready.iter().map(address).collect(),
            terminating.iter().map(address).collect(),
        );
        self.admin.apply(&slice).await.map(drop)
    }

    /// SIGTERM, and its end.
    ///
    /// # Errors
    /// It doesn't end by itself.
    pub(crate) async fn stop(&mut self, number: usize) -> anyhow::Result<()> {
        let Some(mut child) = self.slots[number].child.take() else { return Ok(()) };
        let (status, by_itself) = tokio::task::spawn_blocking(move || child.stop(STOP)).await??;
        ensure!(by_itself && status.success(), "replica {number}: {status}");
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It can't be sent.
    pub(crate) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        self.slots[number].child.as_mut().map_or(Ok(()), |child| child.kill().map(drop))
    }

    /// Stops it in its tracks, or lets it go on: it still accepts connections, and answers nothing.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn freeze(&mut self, number: usize, frozen: bool) -> anyhow::Result<()> {
        self.slots[number].child.as_mut().map_or(Ok(()), |child| child.freeze(frozen))
    }

    /// All calls so far, in the order in which they began.
    ///
    /// # Errors
    /// A record can't be read.
    pub(crate) fn calls(&self) -> anyhow::Result<Vec<Call>> {
        let mut calls = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            calls.extend(read(&slot.record, number)?.calls);
        }
        calls.sort_by_key(|call| call.began);
        Ok(calls)
    }

    /// All TLS connections so far.
    ///
    /// # Errors
    /// A record can't be read.
    pub(crate) fn handshakes(&self) -> anyhow::Result<Vec<Handshake>> {
        let records = self.slots.iter().enumerate().map(|(number, slot)| Ok(read(&slot.record, number)?.handshakes));
        Ok(records.collect::<anyhow::Result<Vec<_>>>()?.concat())
    }
}

/// The EndpointSlice of a Service, by namespace and name: these addresses are ready, and those are being shut down.
pub(crate) fn slice((namespace, service): (&str, &str), ready: Vec<String>, terminating: Vec<String>) -> Value {
    let endpoint = |address: String, is_ready: bool| {
        let conditions = json!({ "ready": is_ready, "serving": true, "terminating": !is_ready });
        json!({ "addresses": [address], "conditions": conditions })
    };
    let ready = ready.into_iter().map(|address| endpoint(address, true));
    let endpoints: Vec<Value> = ready.chain(terminating.into_iter().map(|address| endpoint(address, false))).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{service}-1"), "namespace": namespace,
            "labels": { "kubernetes.io/service-name": service } },
        "ports": [{ "name": "http", "port": PORT, "protocol": "TCP" }, { "name": "https", "port": PORT }],
        "endpoints": endpoints,
    })
}
