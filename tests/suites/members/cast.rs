//! The members of an installation as processes: who they are, who leads, and how each is stopped, killed and paused.
//!
//! Never guesses a member's full name: it is read from the Lease that the process made.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use serde_json::Value;

use crate::cluster::Context;
use crate::members::check::Pause;
use crate::members::table::Table;
use crate::members::tunnel::Tunnel;
use crate::objects::Resource;
use crate::process::{Build, Ringmaster};
use crate::scrape::{Scrape, free_port};

/// How long a process may take to make its Lease.
const JOIN: Duration = Duration::from_secs(30);
/// The variable that asks for a user's default durations.
const DEFAULTS: &str = "RINGMASTER_MEMBERS_DEFAULTS";

/// Durations of Leases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// `--lease-duration`.
    pub(crate) duration: Duration,
    /// `--renew-deadline`.
    pub(crate) deadline: Duration,
    /// `--retry-period`.
    pub(crate) retry: Duration,
}

impl Timing {
    /// Short ones, or those that a user has if the environment asks for them.
    pub(crate) fn asked() -> Self {
        let [duration, deadline, retry] =
            if std::env::var_os(DEFAULTS).is_some() { [15_000, 10_000, 2_000] } else { [5_000, 2_000, 500] };
        Self {
            duration: Duration::from_millis(duration),
            deadline: Duration::from_millis(deadline),
            retry: Duration::from_millis(retry),
        }
    }

    fn args(&self) -> [String; 3] {
        let Self { duration, deadline, retry } = self;
        [("lease-duration", duration), ("renew-deadline", deadline), ("retry-period", retry)]
            .map(|(flag, value)| format!("--{flag}={}ms", value.as_millis()))
    }
}

/// One process.
pub(crate) struct Member {
    /// `--member-name`.
    pub(crate) base: String,
    /// With its random part: its Lease's name.
    pub(crate) name: String,
    /// The process.
    pub(crate) process: Ringmaster,
    /// Between it and the API server, if the trial asked for one.
    pub(crate) tunnel: Option<Tunnel>,
    metrics: u16,
}

impl Member {
    /// What it counts.
    ///
    /// # Errors
    /// It doesn't answer.
    pub(crate) fn metrics(&self) -> anyhow::Result<Scrape> {
        Scrape::of(&format!("http://127.0.0.1:{}/metrics", self.metrics))
    }
}

/// All of an installation.
pub(crate) struct Cast {
    ctx: Arc<Context>,
    /// Of their Leases.
    pub(crate) lease_namespace: String,
    timing: Timing,
    members: Vec<Member>,
    known: BTreeSet<String>,
    /// When which of them was paused.
    pub(crate) pauses: Vec<Pause>,
}

impl Cast {
    /// Nobody yet.
    pub(crate) fn new(ctx: Arc<Context>, lease_namespace: String) -> Self {
        let timing = Timing::asked();
        Self { ctx, lease_namespace, timing, members: Vec::new(), known: BTreeSet::new(), pauses: Vec::new() }
    }

    /// Durations of the Leases.
    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    /// All Leases of the namespace.
    ///
    /// # Errors
    /// The API server refuses.
    pub(crate) async fn leases(&self) -> anyhow::Result<Vec<Value>> {
        self.ctx.admin.list(&self.lease_resource(), "").await
    }

    /// Where they are.
    pub(crate) fn lease_resource(&self) -> Resource {
        Resource::new("coordination.k8s.io/v1", "Lease", "leases", Some(&self.lease_namespace))
    }

    /// Starts these, all at once, and waits until each has its Lease.
    ///
    /// # Errors
    /// One can't be started, or ends.
    pub(crate) async fn start(&mut self, bases: &[&str]) -> anyhow::Result<()> {
        self.start_with(bases, |build| build).await
    }

    /// The same with changes.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) async fn start_with(
        &mut self,
        bases: &[&str],
        change: impl for<'a> Fn(Build<'a>) -> Build<'a>,
    ) -> anyhow::Result<()> {
        let mut started = Vec::new();
        for base in bases {
            let (process, metrics) = self.launch(base, &change)?;
            started.push(((*base).to_owned(), process, metrics));
        }
        for (base, process, metrics) in started {
            let name = self.joined(&base, &process).await?;
            self.members.push(Member { base, name, process, tunnel: None, metrics });
        }
        Ok(())
    }

    /// Starts one whose connections to the API server go through a tunnel.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) async fn start_in_tunnel(&mut self, base: &str) -> anyhow::Result<()> {
        let server = &self.ctx.server;
        let upstream = server.url().strip_prefix("https://").context("no https address")?;
        let tunnel = Tunnel::start(upstream).await?;
        let url = format!("https://{}", tunnel.address());
        let path = self.kubeconfig(base, &url)?;
        let kubeconfig = format!("--kubeconfig={}", path.display());
        let (process, metrics) = self.launch(base, &|build| build.arg(kubeconfig.clone()))?;
        let name = self.joined(base, &process).await?;
        self.members.push(Member { base: base.to_owned(), name, process, tunnel: Some(tunnel), metrics });
        Ok(())
    }

    fn kubeconfig(&self, base: &str, url: &str) -> anyhow::Result<PathBuf> {
        let server = &self.ctx.server;
        let text = server.kubeconfig_at(url, &self.ctx.user.name, server.ca_file())?;
        // Beside the other one, where nobody else reads.
        let folder = self.ctx.user.kubeconfig.parent().context("a file in no folder")?;
        crate::server::write_private(folder, &format!("{}-{base}.kubeconfig", self.ctx.id), &text)
    }

    fn launch(&self, base: &str, change: &dyn for<'a> Fn(Build<'a>) -> Build<'a>) -> anyhow::Result<(Ringmaster, u16)> {
        let metrics = free_port()?;
        let mut build = Ringmaster::build(&self.ctx)
            .arg(format!("--member-name={base}"))
            .arg(format!("--lease-namespace={}", self.lease_namespace))
            .arg(format!("--metrics-address=127.0.0.1:{metrics}"));
        for arg in self.timing.args() {
            build = build.arg(arg);
        }
        Ok((change(build).start()?, metrics))
    }

    /// The name of the Lease that a new process made.
    async fn joined(&mut self, base: &str, process: &Ringmaster) -> anyhow::Result<String> {
        let ask = async || {
            if let Err(ended) = process.check() {
                return Ok(Err(ended));
            }
            let leases = self.leases().await?;
            let new = leases.iter().find_map(|lease| {
                let metadata = &lease["metadata"];
                let name = metadata["name"].as_str().filter(|name| !self.known.contains(*name))?;
                (metadata["labels"]["ringmaster.dev/member"] == base).then(|| name.to_owned())
            });
            Ok(Ok(new.with_context(|| format!("{} Leases, none new of {base}", leases.len()))?))
        };
        let name = self.ctx.wait(&format!("{base} has its Lease"), JOIN, ask).await??;
        self.known.insert(name.clone());
        Ok(name)
    }

    /// The full names of those that run.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.members.iter().map(|member| member.name.clone()).collect();
        names.sort();
        names
    }

    /// Those that run.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// One by the name that it was started with.
    ///
    /// # Errors
    /// It doesn't run.
    pub(crate) fn member(&self, base: &str) -> anyhow::Result<&Member> {
        self.members.iter().find(|member| member.base == base).ok_or_else(|| anyhow!("no member {base}"))
    }

    /// Takes one out, to do with its process what the trial wants.
    ///
    /// # Errors
    /// It doesn't run.
    pub(crate) fn take(&mut self, base: &str) -> anyhow::Result<Member> {
        let place = self.members.iter().position(|member| member.base == base);
        Ok(self.members.remove(place.ok_or_else(|| anyhow!("no member {base}"))?))
    }

    /// The base name of the member that leads.
    ///
    /// # Errors
    /// Nobody that runs does.
    pub(crate) async fn leader(&self, table: &Table) -> anyhow::Result<String> {
        let lease = self.ctx.admin.get(&self.lease_resource(), &table.name).await?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let leader = self.members.iter().find(|member| member.name == holder);
        Ok(leader.with_context(|| format!("the sharder's Lease names {holder:?}"))?.base.clone())
    }

    /// SIGTERM; how long it took.
    ///
    /// # Errors
    /// It fails, or doesn't end.
    pub(crate) async fn stop(&mut self, base: &str) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let status = self.take(base)?.process.stop().await?;
        ensure!(status.success(), "{base} ended with {status}");
        Ok(start.elapsed())
    }

    /// SIGTERM to all at once; how long the slowest took.
    ///
    /// # Errors
    /// One fails, or doesn't end.
    pub(crate) async fn stop_all(&mut self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let stops = std::mem::take(&mut self.members).into_iter().map(|member| member.process.stop());
        for status in futures::future::try_join_all(stops).await? {
            ensure!(status.success(), "one ended with {status}");
        }
        Ok(start.elapsed())
    }

    /// SIGKILL; its full name and when.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn kill(&mut self, base: &str) -> anyhow::Result<(String, Instant)> {
        let member = self.take(base)?;
        let at = Instant::now();
        member.process.kill()?;
        Ok((member.name, at))
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn pause(&mut self, base: &str) -> anyhow::Result<()> {
        let (member, stopped) = (self.member(base)?.name.clone(), Instant::now());
        self.pauses.push(Pause { member, stopped, resumed: None });
        self.member(base)?.process.freeze(true)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn resume(&mut self, base: &str) -> anyhow::Result<()> {
        let name = self.member(base)?.name.clone();
        self.member(base)?.process.freeze(false)?;
        let now = Instant::now();
        for pause in self.pauses.iter_mut().filter(|pause| pause.member == name && pause.resumed.is_none()) {
            pause.resumed = Some(now);
        }
        Ok(())
    }

    /// Takes out those that have ended by themselves; their base names.
    ///
    /// # Errors
    /// A process can't be looked at.
    pub(crate) fn bury(&mut self) -> Vec<String> {
        let (live, ended) = std::mem::take(&mut self.members).into_iter().partition(|m| m.process.check().is_ok());
        self.members = live;
        ended.into_iter().map(|member: Member| member.base).collect()
    }
}
