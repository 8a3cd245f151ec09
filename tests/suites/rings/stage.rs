//! Where a scenario plays: a ring of Secrets and their ConfigMaps, Ringmaster's members, shards in each language, and the
//! record; and the end of each scenario, where all of it is checked.
//!
//! Never on a server that others use: rings run only where no member is limited to some controllers by a selector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};

use crate::cluster::Context;
use crate::members::cast::Cast;
use crate::objects::{Objects, Resource};
use crate::rings::checker::{Child, End, Finding, Main, check, told};
use crate::rings::language::{Language, programs};
use crate::rings::lease::leases;
use crate::rings::names::{Names, OURS};
use crate::rings::record::{History, Keys, Kind, Recorder};
use crate::rings::rights;
use crate::rings::secrets::{Secrets, sums};
use crate::rings::shard::{Line, Place, Shard};
use crate::server::User;
use crate::server::audit::{AuditEntry, Mark};
use crate::wait::POLL;

/// How many Secrets a trial has.
pub(crate) const SECRETS: usize = 150;
/// The variable that asks for figures: of an optimised build, on a machine that does nothing else.
const FIGURES: &str = "RINGMASTER_RINGS_FIGURES";
/// How long it may take until all is where it shall be and shown.
pub(crate) const SETTLED: Duration = Duration::from_secs(60);

/// Whether figures are asked for: then budgets hold as they are, and what counts objects counts as many as a budget says.
pub(crate) fn are_figures() -> bool {
    std::env::var_os(FIGURES).is_some_and(|value| !value.is_empty())
}

/// What a scenario begins with.
pub(crate) struct Plan {
    /// Its name in figures.
    pub(crate) name: &'static str,
    /// The ring's group.
    pub(crate) names: &'static Names,
    /// More fields of the ring's spec.
    pub(crate) spec: Value,
}

impl Plan {
    /// One of our rings that doesn't wait long before it moves objects.
    pub(crate) fn named(name: &'static str) -> Self {
        Self { name, names: &OURS, spec: json!({ "moves": { "settleSeconds": 1 } }) }
    }

    /// Another spec.
    pub(crate) fn spec(self, spec: Value) -> Self {
        Self { spec, ..self }
    }

    /// Another group.
    pub(crate) fn names(self, names: &'static Names) -> Self {
        Self { names, ..self }
    }
}

/// How many of a member's writes were answered well, by object.
#[derive(Debug, Default)]
pub(crate) struct Writes(BTreeMap<String, usize>);

impl Writes {
    /// Of all objects.
    pub(crate) fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Of the one that was written most often.
    pub(crate) fn most(&self) -> usize {
        self.0.values().copied().max().unwrap_or(0)
    }

    /// Of one object.
    pub(crate) fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// The stage.
pub(crate) struct Stage {
    /// Ringmaster's members. First, so that processes end before what they talk to.
    pub(crate) cast: Cast,
    /// Those that run, by name.
    pub(crate) shards: BTreeMap<String, Shard>,
    /// Who had what when.
    pub(crate) recorder: Recorder,
    /// The main objects.
    pub(crate) secrets: Arc<Secrets>,
    /// The ring's name.
    pub(crate) ring: String,
    /// The labels' keys.
    pub(crate) keys: Keys,
    /// Shards that live and are no process of ours: Leases that the trial keeps.
    pub(crate) kept: BTreeSet<String>,
    /// Whether the API server starts anew, which forgets versions that a watch hasn't shown yet: of an object that was
    /// written more often than once meanwhile, only the last is known.
    pub(crate) may_miss: bool,
    /// Of shards that have ended.
    pub(crate) lines: Vec<Line>,
    /// The trial's corner.
    pub(crate) ctx: Arc<Context>,
    user: User,
    plan: Plan,
    started: usize,
    set: Instant,
}

impl Stage {
    /// A ring, and nobody who serves it yet.
    ///
    /// # Errors
    /// A part can't be had.
    pub(crate) async fn set(ctx: Context, plan: Plan) -> anyhow::Result<Self> {
        let ctx = Arc::new(ctx);
        let user = ctx.server.lease_user()?;
        let ring = ctx.controller_name("ring");
        let keys = Keys { shard: plan.names.shard(&ring), drain: plan.names.drain(&ring) };
        let object = object(&ctx, &ring, &plan);
        rights::give(&ctx, &object, &user).await?;
        ctx.admin.create(&rings(plan.names), object).await?;
        let recorder = Recorder::start(&ctx.server.admin()?, &ctx.namespace, &keys).await?;
        let secrets = Arc::new(Secrets::new(ctx.server.admin()?, &ctx.namespace));
        let cast = Cast::new(Arc::clone(&ctx), ctx.namespace.clone());
        Ok(Self {
            cast,
            shards: BTreeMap::new(),
            recorder,
            secrets,
            ring,
            keys,
            kept: BTreeSet::new(),
            may_miss: false,
            lines: Vec::new(),
            ctx,
            user,
            plan,
            started: 0,
            set: Instant::now(),
        })
    }

    /// The same with a member, so many shards, and the usual Secrets, once each shard has its share.
    ///
    /// # Errors
    /// As [`Self::set`]; or it doesn't settle.
    pub(crate) async fn with(ctx: Context, plan: Plan, shards: usize) -> anyhow::Result<Self> {
        let mut stage = Self::set(ctx, plan).await?;
        stage.secrets.create_many(SECRETS).await?;
        stage.lead(&["m1"]).await?;
        stage.join(shards).await?;
        // The first had all until the others came.
        stage.balanced().await?;
        stage.settled(SETTLED).await?;
        Ok(stage)
    }

    /// The ring's names.
    pub(crate) fn names(&self) -> &'static Names {
        self.plan.names
    }

    /// The ring as it is.
    ///
    /// # Errors
    /// The API server doesn't say.
    pub(crate) async fn ring(&self) -> anyhow::Result<Value> {
        self.admin().get(&rings(self.plan.names), &self.ring).await
    }

    /// Changes the ring.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn change_ring(&self, spec: Value) -> anyhow::Result<Value> {
        self.admin().patch_merge(&rings(self.plan.names), &self.ring, &json!({ "spec": spec })).await
    }

    /// Deletes the ring; it may be there for a while yet.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn delete_ring(&self) -> anyhow::Result<()> {
        self.admin().delete(&rings(self.plan.names), &self.ring).await.map(drop)
    }

    /// The ring if it is there.
    ///
    /// # Errors
    /// The API server doesn't say.
    pub(crate) async fn find_ring(&self) -> anyhow::Result<Option<Value>> {
        self.admin().find(&rings(self.plan.names), &self.ring).await
    }

    /// The most that one shard may have of so many objects: 1.1 times the mean, rounded up; by tokens it is a matter of luck.
    pub(crate) fn bound(&self, total: usize, shards: usize) -> usize {
        let tenths = if self.plan.names.group == OURS.group { 11 } else { 18 };
        (total * tenths).div_ceil(shards.max(1) * 10)
    }

    /// The administrator's view.
    pub(crate) fn admin(&self) -> &Objects {
        &self.ctx.admin
    }

    /// Starts members and waits until each has its Lease.
    ///
    /// # Errors
    /// One can't be started, or ends.
    pub(crate) async fn lead(&mut self, bases: &[&str]) -> anyhow::Result<()> {
        // Rings aren't shared out by a selector: members that have one leave them alone.
        self.cast.start_with(bases, |build| build.arg("--target-label-selector=")).await
    }

    /// The base name of the member that leads.
    ///
    /// # Errors
    /// Nobody that runs does.
    pub(crate) async fn leader(&self) -> anyhow::Result<String> {
        let ask = async || {
            let leases = self.cast.leases().await?;
            let leads = |name: &str| {
                leases.iter().any(|lease| lease["metadata"]["name"] != name && lease["spec"]["holderIdentity"] == name)
            };
            let leader = self.cast.members().iter().find(|member| leads(&member.name));
            Ok(leader.context("nobody that runs leads")?.base.clone())
        };
        self.ctx.wait("somebody leads", SETTLED, ask).await
    }

    /// Starts so many shards, in each language by turns, and waits until each holds its Lease; their names.
    ///
    /// # Errors
    /// One can't be started, or ends.
    pub(crate) async fn join(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        let programs = programs()?;
        let mut names = Vec::new();
        for _ in 0..count {
            let program = programs.get(self.started % programs.len().max(1)).context("no example shard")?;
            self.started += 1;
            let name = format!("{}-{}", program.language, self.started);
            let shard = Shard::start(&self.place(), program, &name)?;
            self.shards.insert(name.clone(), shard);
            names.push(name);
        }
        for name in &names {
            self.shard(name)?.started(&self.ctx).await?;
        }
        Ok(names)
    }

    /// Starts a shard by a name of the trial's, in the language of another.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn rejoin(&mut self, name: &str, language: Language) -> anyhow::Result<()> {
        let program = programs()?.iter().find(|program| program.language == language).context("no such shard")?;
        let shard = Shard::start(&self.place(), program, name)?;
        self.shards.insert(name.to_owned(), shard);
        Ok(())
    }

    fn place(&self) -> Place<'_> {
        let Self { ctx, user, ring, plan, .. } = self;
        Place { ctx, user, ring, names: plan.names, namespace: &ctx.namespace }
    }

    /// A shard that runs.
    ///
    /// # Errors
    /// It doesn't.
    pub(crate) fn shard(&self, name: &str) -> anyhow::Result<&Shard> {
        self.shards.get(name).with_context(|| format!("no shard {name}"))
    }

    /// Takes one out, to do with its process what the trial wants.
    ///
    /// # Errors
    /// It doesn't run.
    pub(crate) fn take(&mut self, name: &str) -> anyhow::Result<Shard> {
        self.shards.remove(name).with_context(|| format!("no shard {name}"))
    }

    /// The names of those that run.
    pub(crate) fn shard_names(&self) -> Vec<String> {
        self.shards.keys().cloned().collect()
    }

    /// SIGTERM to one.
    ///
    /// # Errors
    /// It doesn't end in order.
    pub(crate) async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let lines = self.take(name)?.stop().await?;
        self.lines.extend(lines);
        Ok(())
    }

    /// SIGKILL to one; when.
    ///
    /// # Errors
    /// It doesn't run.
    pub(crate) fn kill(&mut self, name: &str) -> anyhow::Result<Instant> {
        let shard = self.take(name)?;
        let at = Instant::now();
        self.lines.extend(shard.kill()?);
        Ok(at)
    }

    /// Starts those again that have ended, under their names, as whoever runs them would; which.
    ///
    /// # Errors
    /// One can't be started.
    fn supervise(&mut self) -> anyhow::Result<Vec<String>> {
        let mut ended = Vec::new();
        for (name, shard) in &self.shards {
            if shard.status()?.is_some() {
                ended.push((name.clone(), shard.language));
            }
        }
        for (name, language) in &ended {
            let lines = self.take(name)?.lines()?;
            self.lines.extend(lines);
            self.rejoin(name, *language)?;
        }
        Ok(ended.into_iter().map(|(name, _)| name).collect())
    }

    /// Waits until every shard renews its Lease, and starts those again that have ended; how many that were.
    ///
    /// # Errors
    /// They don't in time.
    pub(crate) async fn renewing(&mut self) -> anyhow::Result<usize> {
        let (end, mut starts) = (Instant::now() + SETTLED, 0);
        let mut renewals: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        loop {
            for name in self.supervise()? {
                renewals.remove(&name);
                starts += 1;
            }
            for name in self.shard_names() {
                let Ok(lease) = self.admin().get(&leases(&self.ctx.namespace), &name).await else { continue };
                let renewed = lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
                if lease["spec"]["holderIdentity"] == *name {
                    renewals.entry(name).or_default().insert(renewed);
                }
            }
            // The first may be from before, and the second from a process that then finds its right gone.
            if self.shards.keys().all(|name| renewals.get(name).is_some_and(|renewals| renewals.len() > 2)) {
                return Ok(starts);
            }
            ensure!(Instant::now() < end, "not all renew their Leases: {renewals:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// All that shards have written down.
    ///
    /// # Errors
    /// A line isn't as agreed.
    pub(crate) fn all_lines(&self) -> anyhow::Result<Vec<Line>> {
        let mut lines = self.lines.clone();
        for shard in self.shards.values() {
            lines.extend(shard.lines()?);
        }
        Ok(lines)
    }

    /// What there is, with the shards that run as those that live.
    ///
    /// # Errors
    /// The API server doesn't say.
    pub(crate) async fn present(&self) -> anyhow::Result<End> {
        let label = |object: &Value| object["metadata"]["labels"][&self.keys.shard].as_str().map(ToOwned::to_owned);
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut mains = Vec::new();
        for secret in self.admin().list(self.secrets.resource(), "").await? {
            mains.push(Main {
                name: name(&secret),
                shard: label(&secret),
                is_draining: secret["metadata"]["labels"][&self.keys.drain].is_string(),
                sums: sums(&secret)?,
            });
        }
        let maps = self.admin().list(&self.ctx.configmaps(), "").await?;
        let held = |map: &Value| {
            let data = serde_json::from_value(map["data"].clone()).unwrap_or_default();
            (name(map), Child { shard: label(map), data })
        };
        let living = self.shards.keys().chain(&self.kept).cloned().collect();
        Ok(End { mains, children: maps.iter().map(held).collect(), living })
    }

    /// What the members wrote to objects of a kind since a mark: Secrets or ConfigMaps.
    ///
    /// # Errors
    /// The audit log can't be read.
    pub(crate) fn writes(&self, since: Mark, kind: Kind) -> anyhow::Result<Writes> {
        let plural = match kind {
            Kind::Secret => "secrets",
            Kind::ConfigMap => "configmaps",
        };
        let requests = self.ctx.requests(since)?;
        let is_write = |r: &&AuditEntry| {
            r.is_write() && r.resource == plural && r.namespace == self.ctx.namespace && (200..300).contains(&r.code)
        };
        let mut writes = Writes::default();
        for request in requests.iter().filter(is_write) {
            *writes.0.entry(request.name.clone()).or_default() += 1;
        }
        Ok(writes)
    }

    /// What is wrong in all that was until now.
    ///
    /// # Errors
    /// It can't be told.
    pub(crate) async fn findings(&self) -> anyhow::Result<Vec<Finding>> {
        let end = self.present().await?;
        let lines = self.all_lines()?;
        self.recorded().await?;
        if !self.may_miss {
            self.recorder.read(History::is_whole)?;
        }
        Ok(self.recorder.read(|history| check(&lines, history, &end)))
    }

    /// Waits until all is settled, checks everything, has all processes end in order, prints figures and `more`.
    ///
    /// # Errors
    /// Any finding, or a process that doesn't end in order.
    pub(crate) async fn end(self, more: &str) -> anyhow::Result<()> {
        self.check().await?;
        self.close(more).await
    }

    /// Waits until all is settled, and checks everything until now.
    ///
    /// # Errors
    /// Any finding.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        self.settled(SETTLED).await?;
        let findings = self.findings().await?;
        ensure!(findings.is_empty(), "{}", told(&findings));
        Ok(())
    }

    /// The same, where what there is at the end is the trial's own matter.
    ///
    /// # Errors
    /// A process doesn't end in order.
    pub(crate) async fn close(mut self, more: &str) -> anyhow::Result<()> {
        // The members first, so that the last shards' ends move nothing.
        self.cast.stop_all().await?;
        for name in self.shard_names() {
            self.stop(&name).await?;
        }
        let languages: BTreeSet<&str> = self.lines.iter().filter_map(|line| line.shard.split('-').next()).collect();
        println!(
            "rings {} ({}): {} Secrets, {} writes by shards in {languages:?}{}{more} ({:.0} s)",
            self.plan.name,
            self.ctx.server.kind().name(),
            self.recorder.read(|history| history.present(Kind::Secret).len()),
            self.lines.iter().filter(|line| line.event == "wrote").count(),
            if more.is_empty() { "" } else { "; " },
            self.set.elapsed().as_secs_f64(),
        );
        Ok(())
    }
}

/// Rings of a group.
pub(crate) fn rings(names: &Names) -> Resource {
    Resource::new(&format!("{}/v1alpha1", names.group), "ControllerRing", "controllerrings", None)
}

/// A ring of the Secrets and ConfigMaps of the trial's namespace.
fn object(ctx: &Context, name: &str, plan: &Plan) -> Value {
    let mut spec = Map::new();
    spec.insert("resources".to_owned(), resources(true));
    let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": ctx.namespace } });
    spec.insert("namespaceSelector".to_owned(), selector);
    spec.extend(plan.spec.as_object().cloned().unwrap_or_default());
    let names = rings(plan.names);
    json!({
        "apiVersion": names.api_version, "kind": names.kind,
        "metadata": { "name": name, "labels": { "suite": ctx.id } },
        "spec": spec,
    })
}

/// A ring's resources: Secrets, with or without ConfigMaps.
pub(crate) fn resources(with_children: bool) -> Value {
    let children = if with_children { json!([{ "group": "", "resource": "configmaps" }]) } else { json!([]) };
    json!([{ "group": "", "resource": "secrets", "controlledResources": children }])
}
