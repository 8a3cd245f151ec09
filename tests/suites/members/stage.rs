//! Where a scenario plays: a kind of parents, controllers, the webhook, the load, the members, and the table's history;
//! and the end of each scenario, where all of it is checked and its figures are printed.
//!
//! Never passes with a violation: what a scenario allows, it names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::{Context, Scope};
use crate::members::cast::Cast;
use crate::members::check::{self, Child, Violation, shard_of};
use crate::members::figures::{Times, seconds, served_after, silent, taken_over};
use crate::members::load::{GROUP, Load, Naming, Running};
use crate::members::table::{History, Table, Watcher};
use crate::members::webhook::{Wanted, Webhook};
use crate::objects::Resource;
use crate::server::audit::Mark;

/// How long members may take to share the work evenly: moves for balance wait until membership was still for 10 s.
pub(crate) const BALANCE: Duration = Duration::from_secs(90);
/// How long the last changes may take to be served when the load has ended.
pub(crate) const SERVED: Duration = Duration::from_secs(60);
/// Without a call for so long, what led to calls has ended.
const REST: Duration = Duration::from_secs(2);
/// How many times as long as a look took the pause after it is.
const PAUSES: u32 = 4;
/// Most violations that are told of one trial.
const MAX_TOLD: usize = 20;

/// What a scenario begins with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its name in figures.
    pub(crate) name: &'static str,
    /// Parents at the begin.
    pub(crate) parents: usize,
    /// Children of each, for each controller.
    pub(crate) each: usize,
    /// Turns of the load a second.
    pub(crate) rate: u32,
    /// Of the parents.
    pub(crate) scope: Scope,
    /// Whether controllers are sharded, or wholes.
    pub(crate) is_sharded: bool,
    /// Controllers. Each parent has one of them, by its label `group`.
    pub(crate) controllers: u64,
    /// Whether the trial itself calls [`Stage::control`], after the parents are there.
    pub(crate) late: bool,
    /// Whether parents get their names from `generateName`.
    pub(crate) generated: bool,
}

impl Plan {
    /// Some parents with one child each, under a steady load.
    pub(crate) const fn named(name: &'static str) -> Self {
        Self {
            name,
            parents: 60,
            each: 1,
            rate: 15,
            scope: Scope::Namespaced,
            is_sharded: true,
            controllers: 1,
            late: false,
            generated: false,
        }
    }
}

/// The stage.
pub(crate) struct Stage {
    /// Who plays. First, so that processes end before what they talk to.
    pub(crate) cast: Cast,
    /// The webhook.
    pub(crate) hook: Webhook,
    /// The parents.
    pub(crate) load: Arc<Load>,
    /// The table.
    pub(crate) watcher: Watcher,
    /// The parents' kind.
    pub(crate) things: Resource,
    /// The first controller's full name.
    pub(crate) controller: String,
    /// Names of children that the trial deleted itself.
    pub(crate) allowed: BTreeSet<String>,
    /// Whether the trial writes the table itself, so that its versions prove nothing.
    pub(crate) edits_table: bool,
    /// The trial's corner.
    pub(crate) ctx: Arc<Context>,
    plan: Plan,
    running: Option<Running>,
    audited: Mark,
    set: Instant,
    /// When the members shared the work for the first time, and how many versions of the table there were.
    began: (Instant, usize),
}

impl Stage {
    /// Kind, webhook, controller and parents; no member yet and no load.
    ///
    /// # Errors
    /// A part can't be had.
    pub(crate) async fn set(ctx: Context, plan: Plan) -> anyhow::Result<Self> {
        let ctx = Arc::new(ctx);
        let things = ctx.crd("Thing", "things", plan.scope, None).await?;
        ctx.grant(&Context::rules_for(&[&things, &ctx.configmaps()])).await?;
        let hook = Webhook::start(Wanted::config_maps(plan.each))?;
        let child_namespace = (plan.scope == Scope::Cluster).then(|| ctx.namespace.clone());
        let naming = Naming { child_namespace, groups: plan.controllers, generated: plan.generated };
        let load = Arc::new(Load::new(ctx.admin.clone(), things.clone(), naming));
        let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
        let own = ctx.admin.get(&namespaces, &ctx.namespace).await?;
        let installation = own["metadata"]["uid"].as_str().context("a namespace without a uid")?.to_owned();
        let watcher = Watcher::start(ctx.server.admin()?, installation);
        let cast = Cast::new(Arc::clone(&ctx), ctx.namespace.clone());
        let (audited, set) = (ctx.mark()?, Instant::now());
        let controller = ctx.controller_name("c0");
        let parents = plan.parents;
        let stage = Self {
            cast,
            hook,
            load,
            watcher,
            things,
            controller,
            allowed: BTreeSet::new(),
            edits_table: false,
            ctx,
            plan,
            running: None,
            audited,
            set,
            began: (set, 0),
        };
        if !stage.plan.late {
            stage.control().await?;
        }
        stage.load.create_many(parents).await?;
        Ok(stage)
    }

    /// Creates the controllers.
    ///
    /// # Errors
    /// The API server refuses one.
    pub(crate) async fn control(&self) -> anyhow::Result<()> {
        for number in 0..self.plan.controllers {
            let children = self.ctx.configmaps();
            let mut spec = spec(&self.things, &children, &self.hook.url("/sync"), self.plan.is_sharded);
            if self.plan.controllers > 1 {
                spec["parentResource"]["labelSelector"] = json!({ "matchLabels": { GROUP: number.to_string() } });
            }
            self.ctx.controller(&format!("c{number}"), spec).await?;
        }
        Ok(())
    }

    /// The same, with these members, once they share the work; the load runs.
    ///
    /// # Errors
    /// As [`Self::set`]; or they don't.
    pub(crate) async fn with(ctx: Context, plan: Plan, members: &[&str]) -> anyhow::Result<Self> {
        let mut stage = Self::set(ctx, plan).await?;
        stage.cast.start(members).await?;
        stage.begin().await?;
        Ok(stage)
    }

    /// Waits until the members that run share the work and all parents are served; then begins the load.
    ///
    /// # Errors
    /// They aren't in time.
    pub(crate) async fn begin(&mut self) -> anyhow::Result<()> {
        self.balanced().await?;
        self.shown(SERVED).await?;
        self.began = (Instant::now(), self.mark());
        self.start_load();
        Ok(())
    }

    /// The base name of the member that leads.
    ///
    /// # Errors
    /// Nobody that runs does.
    pub(crate) async fn leader(&self) -> anyhow::Result<String> {
        let table = self.watcher.table()?;
        self.ctx.wait("somebody leads", BALANCE, async || self.cast.leader(&table).await).await
    }

    /// The base names of those that don't lead.
    ///
    /// # Errors
    /// As [`Self::leader`].
    pub(crate) async fn followers(&self) -> anyhow::Result<Vec<String>> {
        let leader = self.leader().await?;
        let bases = self.cast.members().iter().map(|member| member.base.clone());
        Ok(bases.filter(|base| *base != leader).collect())
    }

    /// Kills these at once; waits until others have called for each parent that was theirs: how long each waited.
    ///
    /// # Errors
    /// One isn't called for in time.
    pub(crate) async fn kill(&mut self, bases: &[&str]) -> anyhow::Result<Times> {
        let table = self.watcher.table()?;
        let (mut names, mut shards, mut since) = (Vec::new(), BTreeSet::new(), Instant::now());
        for base in bases {
            let name = self.cast.member(base)?.name.clone();
            shards.extend(table.of(&name));
            names.push(name);
        }
        for base in bases {
            (_, since) = self.cast.kill(base)?;
        }
        self.taken_over(since, &shards, &names).await
    }

    /// Waits until others than these have called for each parent in these shards: how long each waited.
    ///
    /// # Errors
    /// One isn't called for in time.
    pub(crate) async fn taken_over(
        &self,
        since: Instant,
        shards: &BTreeSet<usize>,
        names: &[String],
    ) -> anyhow::Result<Times> {
        let before = self.parents_in(shards);
        let deadline = self.cast.timing().duration * 2 + BALANCE;
        let ask = async || {
            // Those that were deleted meanwhile needn't be.
            let parents = &before & &self.parents_in(shards);
            let times = self.hook.read(|calls| taken_over(calls, since, &parents, names))?;
            ensure!(times.len() == parents.len(), "{} of {}", times.len(), parents.len());
            Ok(times)
        };
        self.ctx.wait("others serve what was theirs", deadline, async || paced(ask).await).await
    }

    /// A mark in the table's history.
    pub(crate) fn mark(&self) -> usize {
        self.watcher.history(History::mark)
    }

    /// The hand-overs since a mark: from the moment at which the owner was told to stop, to the one at which the table
    /// names the next, and to the next one's first call for a parent of that shard.
    ///
    /// # Errors
    /// The record isn't whole.
    pub(crate) fn gaps(&self, mark: usize) -> anyhow::Result<[Times; 2]> {
        let gaps = self.watcher.history(|history| history.gaps(mark));
        let called = self.hook.read(|calls| silent(calls, &gaps))?;
        Ok([Times::of(gaps.iter().map(|gap| gap.wait)), called])
    }

    /// How many shards changed hands since a mark.
    pub(crate) fn moved(&self, mark: usize) -> usize {
        self.watcher.history(|history| history.moved(mark))
    }

    /// Begins the load.
    pub(crate) fn start_load(&mut self) {
        if self.plan.rate > 0 {
            self.running = Some(self.load.run(self.plan.rate));
        }
    }

    /// Ends the load.
    ///
    /// # Errors
    /// One of its writes was refused.
    pub(crate) async fn stop_load(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(running) => running.stop().await,
            None => Ok(()),
        }
    }

    /// Waits until the members that run, and no others, share the work evenly and nothing moves; how long it took.
    ///
    /// # Errors
    /// They don't in time.
    pub(crate) async fn balanced(&self) -> anyhow::Result<Duration> {
        self.balanced_within(BALANCE).await
    }

    /// The same with another deadline.
    ///
    /// # Errors
    /// As [`Self::balanced`].
    pub(crate) async fn balanced_within(&self, deadline: Duration) -> anyhow::Result<Duration> {
        let (start, names) = (Instant::now(), self.cast.names());
        let what = format!("{names:?} share the work");
        self.ctx.wait(&what, deadline, async || self.watcher.table()?.balanced(&names)).await?;
        Ok(start.elapsed())
    }

    /// Waits for something of the table.
    ///
    /// # Errors
    /// It isn't so in time.
    pub(crate) async fn table<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut is: impl FnMut(&Table) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.ctx.wait(what, deadline, async || is(&*self.watcher.table()?)).await
    }

    /// The keys of the parents in these shards.
    pub(crate) fn parents_in(&self, shards: &BTreeSet<usize>) -> BTreeSet<String> {
        let group = self.things.group();
        let keys = self.load.wishes().into_iter().map(|wish| wish.parent);
        keys.filter(|key| shards.contains(&shard_of(group, &self.things.kind, key))).collect()
    }

    /// Lets the load go on for a while.
    pub(crate) async fn play(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// The children as they are.
    ///
    /// # Errors
    /// The API server doesn't say.
    pub(crate) async fn children(&self) -> anyhow::Result<Vec<Child>> {
        let maps = self.ctx.admin.list(&self.ctx.configmaps(), "resourceVersion=0").await?;
        Ok(maps.iter().filter(|map| map["metadata"]["ownerReferences"].is_array()).map(child).collect())
    }

    /// The names of the children of parents that were deleted. One that the garbage collector takes before Ringmaster
    /// sees that its parent has gone is made once more, and taken again.
    pub(crate) fn deleted_children(&self) -> BTreeSet<String> {
        let names = self.load.deleted().into_iter().map(|key| key.rsplit('/').next().unwrap_or_default().to_owned());
        names.flat_map(|name| self.hook.children_of(&name)).collect()
    }

    /// Waits until every parent's last change is served, and its children show it; how long it took.
    ///
    /// # Errors
    /// What isn't served in time.
    pub(crate) async fn shown(&self, deadline: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let ask = async || {
            let wishes = self.load.wishes();
            // Children are looked at once there is a reason to: they are many.
            let called = self.hook.read(|calls| check::served(calls, &wishes, &[], 0))?;
            ensure!(called.is_empty(), "{}", told(&called));
            let children = self.children().await?;
            let wrong = self.hook.read(|calls| check::served(calls, &wishes, &children, self.plan.each))?;
            ensure!(wrong.is_empty(), "{}", told(&wrong));
            Ok(())
        };
        self.ctx.wait("every change is served", deadline, async || paced(ask).await).await?;
        Ok(start.elapsed())
    }

    /// Waits until all is served and nobody has called for a while: what is written from then on has another cause.
    ///
    /// # Errors
    /// It doesn't come to rest in time.
    pub(crate) async fn quiet(&self, deadline: Duration) -> anyhow::Result<()> {
        // Looking at all objects loads the API server, which would count for whoever is at work.
        self.silent(deadline).await?;
        self.shown(deadline).await?;
        self.silent(deadline).await
    }

    /// Waits until nobody has called for a while.
    async fn silent(&self, deadline: Duration) -> anyhow::Result<()> {
        let (mut calls, mut since) = (self.hook.count(), Instant::now());
        let ask = async || {
            let now = self.hook.count();
            if now != calls {
                (calls, since) = (now, Instant::now());
            }
            ensure!(since.elapsed() >= REST, "{now} calls");
            Ok(())
        };
        self.ctx.wait("nobody calls", deadline, ask).await
    }

    /// Ends the load, waits until all is served, checks everything, prints figures and `more`.
    ///
    /// # Errors
    /// Any violation.
    pub(crate) async fn end(&mut self, more: &str) -> anyhow::Result<()> {
        self.stop_load().await?;
        let settled = self.shown(SERVED).await?;
        let calls = self.hook.calls()?;
        let requests = self.ctx.requests(self.audited)?;
        let order = check::order(&calls, &self.cast.pauses);
        let mut violations = order.violations;
        violations.extend(check::epochs(&calls));
        violations.extend(check::headers(&calls, self.things.group(), &self.things.kind));
        violations.extend(check::finalized(&calls, &self.load.deleted()));
        let allowed = &self.deleted_children() | &self.allowed;
        violations.extend(check::children(&requests, "configmaps", &allowed));
        let (began, mark) = self.began;
        let mut changes = self.load.changes();
        changes.retain(|change| change.at >= began);
        let waits = served_after(&calls, &changes);
        let count = |resource: &str| requests.iter().filter(|r| r.is_write() && r.resource == resource).count();
        let (moved, wrong) = self.watcher.history(|history| (history.moved(mark), history.wrong()));
        let [rows, gaps] = self.gaps(mark)?;
        let handed = if gaps.len() + rows.len() == 0 {
            "none handed over".to_owned()
        } else {
            format!("handed over within {rows} (first call after {gaps})")
        };
        println!(
            "members {} ({}): {} parents, {} calls, {} changes served after {waits}; all {} after the end; {moved} shards \
             moved, {handed}, {} writes of the table in all; {} late calls of paused processes{}{more} ({:.0} s)",
            self.plan.name,
            self.ctx.server.kind().name(),
            self.load.wishes().len(),
            calls.len(),
            changes.len(),
            seconds(settled),
            count("shardtables"),
            order.late,
            if more.is_empty() { "" } else { "; " },
            self.set.elapsed().as_secs_f64(),
        );
        ensure!(self.edits_table || wrong.is_empty(), "the table: {wrong:?}");
        ensure!(violations.is_empty(), "{}", told(&violations));
        Ok(())
    }
}

/// Asks, and pauses after a "not yet" that took its time: with many objects, looking must not be what keeps all busy.
async fn paced<T>(ask: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    let answer = ask().await;
    if answer.is_err() {
        tokio::time::sleep(start.elapsed() * PAUSES).await;
    }
    answer
}

/// A controller of things whose children are of one kind and are updated in place.
pub(crate) fn spec(things: &Resource, children: &Resource, url: &str, is_sharded: bool) -> Value {
    let mut spec = json!({
        "parentResource": { "apiVersion": things.api_version, "resource": things.plural },
        "childResources": [{
            "apiVersion": children.api_version, "resource": children.plural, "updateStrategy": { "method": "InPlace" },
        }],
        "generateSelector": true,
        "hooks": { "sync": { "webhook": { "url": url } } },
    });
    if is_sharded {
        spec["sharding"] = json!({});
    }
    spec
}

fn child(object: &Value) -> Child {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let owner = owners.filter(|owner| owner["controller"] == true).find_map(|owner| owner["uid"].as_str());
    Child {
        name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        owner: owner.unwrap_or_default().to_owned(),
        number: object["data"]["number"].as_str().and_then(|number| number.parse().ok()).unwrap_or(0),
    }
}

/// The first violations, and how many there are.
pub(crate) fn told(violations: &[Violation]) -> String {
    let lines: Vec<String> = violations.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    format!("{} violations:\n{}", violations.len(), lines.join("\n"))
}
