//! Ringmaster on the real kube-apiserver beside the raw limit: create, update, paced creates, restart, a resync that
//! changes nothing.
//!
//! Never asks Ringmaster for figures: times are those of a watch and of the hook's calls, requests are counted by the API
//! server, CPU and memory by the kernel. The raw limit is measured before and after, and the mean counts.

mod board;
mod table;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use http::Method;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use crate::child::Child;
use crate::hook::{Hook, Reply};
use crate::load::{self, Call, Figures, Target};
use crate::objects::{self, Objects, Resource};
use crate::server::{Server, ServerKind, Setup, Started, lock, served, write_private};
use crate::{save, usage, wait, workload};

use board::Board;
use table::{Budget, Row, quantile};

/// Websites unless N says otherwise.
const WEBSITES: usize = 2_000;
/// Websites by hand before anything is measured.
const WARM_UP: usize = 500;
/// Websites of the paced creates, and how many a second.
const PACED: usize = 200;
const PACE: f64 = 20.0;
/// For one phase; a bound for a hang, not a budget.
const PHASE: Duration = Duration::from_secs(900);
/// How long Ringmaster may take to end.
const STOP: Duration = Duration::from_secs(20);
/// Every parent is synced so often after the restart.
const RESYNC_SECONDS: u64 = 15;
/// How often the hook's record is looked at: no figure is finer than this.
const LOOK: Duration = Duration::from_millis(5);

const RAW: &str = "bench-raw";
const OURS: &str = "bench-ringmaster";

/// What the raw limit came to.
struct Raw {
    creates: Figures,
    updates: Figures,
    paced: Vec<Duration>,
}

/// What Ringmaster came to.
struct Ours {
    create: Phase,
    create_hooks: usize,
    update: Phase,
    paced: Vec<Duration>,
    rss_mib: f64,
    restart: Duration,
    restart_cpu: Duration,
    restart_rss_mib: f64,
    noop_syncs: usize,
    noop_cpu: Duration,
    noop_requests: f64,
}

/// Many parents converged.
struct Phase {
    /// Parents per second.
    rate: f64,
    /// CPU time of Ringmaster, of the server's processes, and of the load.
    cpu: [Duration; 3],
}

/// Measures, prints the table, and writes the same as JSON.
pub(crate) fn run(size: Option<usize>) -> anyhow::Result<()> {
    let count = size.unwrap_or(WEBSITES);
    ensure!(count > 0, "N must be at least 1");
    let busy = std::fs::read_to_string("/proc/loadavg")?;
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores, load average before: {}", busy.split(' ').next().unwrap_or_default());
    let server = match Server::start(ServerKind::Real, Setup { unaudited: true, ..Setup::default() })? {
        Started::Running(server) => server,
        Started::Unavailable(reason) => bail!("there is no kube-apiserver: {reason}"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(&server, count));
    server.stop()?;
    let (raws, ours) = measured?;
    show(count, &raws, &ours)
}

async fn measure(server: &Server, count: usize) -> anyhow::Result<([Raw; 2], Ours)> {
    let address = server.url().trim_start_matches("https://").to_owned();
    let target = Target::new(&address, server.token("admin")?, Some(server.ca_der()))?;
    let processes: Vec<u32> = server.processes().iter().map(|(_, id)| *id).collect();
    let admin = server.admin()?;
    let crd = objects::crd(work::GROUP, "Website", "websites", "Namespaced", None);
    served(&admin, &admin.apply(&crd).await?).await?;
    for namespace in [RAW, OURS] {
        let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        admin.apply(&body).await?;
    }
    known_to_collector(&target).await?;
    // A server that has just started is slower.
    raw(&target, &processes, WARM_UP).await.context("warming up")?;
    println!("the raw limit, {count} Websites");
    let before = raw(&target, &processes, count).await.context("the raw limit")?;
    println!("ringmaster, {count} Websites");
    let mut bench = Bench { server, target: &target, processes: &processes, admin: &admin, count };
    let ours = bench.ours().await.context("ringmaster")?;
    println!("the raw limit again");
    let after = raw(&target, &processes, count).await.context("the raw limit")?;
    Ok(([before, after], ours))
}

/// The same writes by hand, with a watch of each kind open; all is gone afterwards.
async fn raw(target: &Target, processes: &[u32], count: usize) -> anyhow::Result<Raw> {
    let mut watches = Vec::new();
    for plural in work::PLURALS {
        let connection = target.connect().await?;
        let path = format!("{}?watch=true", work::collection(RAW, plural));
        watches.push(AbortOnDropHandle::new(tokio::spawn(async move { connection.follow(&path, |_| Ok(())).await })));
    }
    let creates =
        load::drive(target, processes, count, async |connection, number| work::create(connection, RAW, number).await);
    let creates = creates.await?;
    let updates = load::drive(target, processes, count, async |connection, number| {
        work::update(connection, RAW, number, 1).await
    });
    let updates = updates.await?;
    let paced = Mutex::new(Vec::new());
    let start = Instant::now();
    load::drive(target, processes, PACED, async |connection, number| {
        let begin = due(start, number).await;
        work::create(connection, RAW, count + number).await?;
        lock(&paced).push(begin.elapsed());
        Ok(())
    })
    .await?;
    ensure!(watches.iter().all(|watch| !watch.is_finished()), "a watch ended");
    clear(target, RAW).await?;
    let paced = lock(&paced).clone();
    Ok(Raw { creates, updates, paced })
}

/// Waits for the moment of a paced create, and gives it back: who comes late has lost that time.
async fn due(start: Instant, number: usize) -> Instant {
    let moment = start + Duration::from_secs_f64(number as f64 / PACE);
    tokio::time::sleep_until(moment.into()).await;
    moment
}

/// Deletes the workload's objects of a namespace, children first.
async fn clear(target: &Target, namespace: &str) -> anyhow::Result<()> {
    for plural in work::PLURALS.into_iter().rev() {
        let path = work::collection(namespace, plural);
        // A large deletion may take longer than the server lets one request.
        let gone = async || {
            let mut connection = target.connect().await?;
            let (method, content_type) = (Method::DELETE, "application/json");
            connection.call(&Call { method, path: path.clone(), content_type, body: String::new() }).await?;
            let (left, _) = connection.get(&format!("{path}?limit=1")).await?;
            let left: serde_json::Value = serde_json::from_slice(left)?;
            ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "some {plural} are left");
            Ok(())
        };
        wait::until("the objects are gone", PHASE, |_| {}, gone).await?;
    }
    Ok(())
}

/// Waits until the garbage collector watches the Websites: an owner that it doesn't know it asks for, one by one, for
/// minutes.
async fn known_to_collector(target: &Target) -> anyhow::Result<()> {
    let mut connection = target.connect().await?;
    work::create(&mut connection, RAW, 0).await?;
    let (method, content_type) = (Method::DELETE, "application/json");
    let path = format!("{}/{}", work::collection(RAW, "websites"), work::name(0));
    connection.call(&Call { method, path, content_type, body: String::new() }).await?;
    let gone = async || {
        let mut connection = target.connect().await?;
        for plural in work::PLURALS {
            let (left, _) = connection.get(&work::collection(RAW, plural)).await?;
            let left: serde_json::Value = serde_json::from_slice(left)?;
            ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "{plural} are left");
        }
        Ok(())
    };
    wait::until("the garbage collector deletes the children", PHASE, |_| {}, gone).await
}

struct Bench<'a> {
    server: &'a Server,
    target: &'a Target,
    processes: &'a [u32],
    admin: &'a Objects,
    count: usize,
}

/// How often the hook was called for each parent.
type Calls = Arc<Mutex<HashMap<String, usize>>>;

impl Bench<'_> {
    async fn ours(&mut self) -> anyhow::Result<Ours> {
        let Self { target, processes, count, .. } = *self;
        let calls = Calls::default();
        let hook = Hook::start({
            let calls = Arc::clone(&calls);
            move |request, _| {
                let name = request["parent"]["metadata"]["name"].as_str().unwrap_or_default();
                *lock(&calls).entry(name.to_owned()).or_default() += 1;
                Reply::json(&workload::answer(request))
            }
        })?;
        let controllers = Resource::new("ringmaster.dev/v1alpha1", "CompositeController", "compositecontrollers", None);
        let body =
            json!({ "metadata": { "name": "bench" }, "spec": workload::controller(&work::parents(), &hook.url("/")) });
        self.admin.create(&controllers, body).await?;
        let mut ringmaster = self.ringmaster()?;
        let board = Board::watch(target, OURS).await?;
        // One Website first: then all is connected and every cache synced.
        let warm = count + PACED;
        load::run(target, processes, 1, |_| work::create_parent(OURS, warm)).await?;
        board.ready(1, PHASE).await?;

        let hooks = hook.count();
        let create = self.converge(&ringmaster, &board, 0, |number| work::create_parent(OURS, number)).await?;
        let create_hooks = hook.count() - hooks;
        let update = self.converge(&ringmaster, &board, 1, |number| work::retitle(OURS, number, 1)).await?;

        board.begin(0);
        let start = Instant::now();
        load::drive(target, processes, PACED, async |connection, number| {
            due(start, number).await;
            connection.call(&work::create_parent(OURS, count + number)).await?;
            Ok(())
        })
        .await?;
        let ready = board.ready(PACED, PHASE).await?;
        let paced = (0..PACED).map(|number| {
            let at = ready.get(&work::name(count + number)).context("one that nobody made")?;
            Ok(*at - (start + Duration::from_secs_f64(number as f64 / PACE)))
        });
        let paced = paced.collect::<anyhow::Result<Vec<Duration>>>()?;
        let rss_mib = self.rss(&ringmaster)?;
        stop(&mut ringmaster)?;

        let all = count + PACED + 1;
        let spec = json!({ "spec": { "resyncPeriodSeconds": RESYNC_SECONDS } });
        self.admin.patch_merge(&controllers, "bench", &spec).await?;
        lock(&calls).clear();
        let start = Instant::now();
        let mut ringmaster = self.ringmaster()?;
        called(&calls, all, 1).await?;
        let (restart, restart_cpu) = (start.elapsed(), usage::cpu(ringmaster.id())?);
        let restart_rss_mib = self.rss(&ringmaster)?;
        let (requests, hooks) = (self.requests().await?, hook.count());
        called(&calls, all, 2).await?;
        let noop_requests = between(&requests, &self.requests().await?);
        let (noop_syncs, noop_cpu) = (hook.count() - hooks, usage::cpu(ringmaster.id())? - restart_cpu);
        stop(&mut ringmaster)?;
        self.admin.delete(&controllers, "bench").await?;
        clear(target, OURS).await?;
        Ok(Ours {
            create,
            create_hooks,
            update,
            paced,
            rss_mib,
            restart,
            restart_cpu,
            restart_rss_mib,
            noop_syncs,
            noop_cpu,
            noop_requests,
        })
    }

    /// A call for each parent, until all have a round's title and are ready.
    async fn converge(
        &self,
        ringmaster: &Child,
        board: &Board,
        round: usize,
        make: impl Fn(usize) -> Call,
    ) -> anyhow::Result<Phase> {
        let cpu = || -> anyhow::Result<[Duration; 3]> {
            let server: anyhow::Result<Vec<Duration>> = self.processes.iter().map(|id| usage::cpu(*id)).collect();
            Ok([usage::cpu(ringmaster.id())?, server?.iter().sum(), usage::cpu(std::process::id())?])
        };
        board.begin(round);
        let (start, before) = (Instant::now(), cpu()?);
        load::run(self.target, self.processes, self.count, make).await?;
        let took = last(&board.ready(self.count, PHASE).await?, start)?;
        let after = cpu()?;
        let cpu = std::array::from_fn(|who| after[who] - before[who]);
        Ok(Phase { rate: self.count as f64 / took.as_secs_f64(), cpu })
    }

    fn ringmaster(&self) -> anyhow::Result<Child> {
        let dir = self.server.logs();
        let config = write_private(dir, "bench.kubeconfig", &self.server.kubeconfig("admin", self.server.ca_file())?)?;
        let kubeconfig = format!("--kubeconfig={}", config.display());
        let args = ["run", &kubeconfig, "--metrics-address=0", "--health-probe-bind-address=0", "--log-level=warn"];
        let program = Path::new(env!("CARGO_BIN_EXE_ringmaster"));
        let log = dir.join("ringmaster.log");
        Child::start("ringmaster", program, &args.map(str::to_owned), &log, |command| {
            command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
        })
    }

    fn rss(&self, ringmaster: &Child) -> anyhow::Result<f64> {
        Ok(usage::rss_kib(ringmaster.id())? as f64 / 1024.0)
    }

    /// Requests about the workload's kinds that the server has answered, but for lists and watches, by their labels.
    async fn requests(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut connection = self.target.connect().await?;
        let (body, _) = connection.get("/metrics").await?;
        let mut counts = BTreeMap::new();
        for line in std::str::from_utf8(body)?.lines() {
            let Some(rest) = line.strip_prefix("apiserver_request_total{") else { continue };
            let (labels, value) = rest.rsplit_once("} ").context("a metric without a value")?;
            let has = |name: &str, value: &str| labels.contains(&format!("{name}=\"{value}\""));
            let counted = work::PLURALS.iter().any(|plural| has("resource", plural));
            if counted && !has("verb", "LIST") && !has("verb", "WATCH") {
                counts.insert(labels.to_owned(), value.parse::<f64>()?);
            }
        }
        Ok(counts)
    }
}

/// How many requests were answered between two looks; each kind of them is told.
fn between(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> f64 {
    let more = after.iter().map(|(labels, count)| (labels, count - before.get(labels).copied().unwrap_or_default()));
    let mut total = 0.0;
    for (labels, more) in more.filter(|(_, more)| *more > 0.0) {
        println!("requests while nothing changed: {more} of {labels}");
        total += more;
    }
    total
}

fn stop(ringmaster: &mut Child) -> anyhow::Result<()> {
    let log = std::fs::read_to_string(ringmaster.log_path())?;
    let (status, by_itself) = ringmaster.stop(STOP)?;
    ensure!(by_itself && status.success(), "ringmaster ended with {status}");
    ensure!(log.trim().is_empty(), "ringmaster's log has warnings or errors:\n{log}");
    Ok(())
}

/// How long after `start` the last became ready.
fn last(ready: &HashMap<String, Instant>, start: Instant) -> anyhow::Result<Duration> {
    Ok(*ready.values().max().context("nobody became ready")? - start)
}

/// Waits until the hook was called so often for each of `all` parents.
async fn called(calls: &Calls, all: usize, times: usize) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let enough = lock(calls).values().filter(|count| **count >= times).count();
        if enough == all {
            return Ok(());
        }
        ensure!(start.elapsed() < PHASE, "{enough} of {all} parents were synced {times} times within {PHASE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

fn show(count: usize, raws: &[Raw; 2], ours: &Ours) -> anyhow::Result<()> {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let per = |time: Duration, what: usize| millis(time) / what.max(1) as f64;
    let mut chains: Vec<Duration> = raws.iter().flat_map(|raw| raw.paced.iter().copied()).collect();
    let mut paced = ours.paced.clone();
    let at = |five, two| match count {
        5_000 => Some(Budget::AtMost(five)),
        2_000 => two,
        _ => None,
    };
    let phase = |what: &str, phase: &Phase, of: fn(&Raw) -> Figures, budget: Option<Budget>, cpu: Option<Budget>| {
        let [own, server, load] = phase.cpu.map(|time| per(time, count));
        let raw = |figure: fn(Figures) -> f64| raws.iter().map(|raw| figure(of(raw))).sum::<f64>() / raws.len() as f64;
        [
            Row::new(format!("converged by {what}"), phase.rate, "parents/s").raw(raw(|raw| raw.rate)).budget(budget),
            Row::new("  CPU of Ringmaster", own, "ms/parent").budget(cpu),
            Row::new("  CPU of the API server and etcd", server, "ms/parent")
                .raw(raw(|raw| raw.server_cpu.as_secs_f64() * 1e3)),
            Row::new("  CPU of the load with its hook", load, "ms/parent")
                .raw(raw(|raw| raw.load_cpu.as_secs_f64() * 1e3)),
        ]
    };
    let mut rows = Vec::new();
    rows.extend(phase("create", &ours.create, |raw| raw.creates, Some(Budget::OfRaw(0.9)), Some(Budget::AtMost(0.5))));
    rows.push(Row::new("  hook calls", ours.create_hooks as f64 / count as f64, "per parent"));
    rows.extend(phase("update", &ours.update, |raw| raw.updates, None, None));
    rows.extend([
        Row::new(format!("create to ready at {PACE}/s, p50"), millis(quantile(&mut paced, 0.5)), "ms")
            .raw(millis(quantile(&mut chains, 0.5)))
            .budget(Some(Budget::AtMost(10.0))),
        Row::new(format!("create to ready at {PACE}/s, p99"), millis(quantile(&mut paced, 0.99)), "ms")
            .raw(millis(quantile(&mut chains, 0.99)))
            .budget(Some(Budget::AtMost(25.0))),
        Row::new(format!("RSS at {} objects", (count + PACED + 1) * 4), ours.rss_mib, "MiB")
            .budget(at(55.0, Some(Budget::AtMost(30.0)))),
        Row::new("restart to all synced", ours.restart.as_secs_f64(), "s").budget(at(1.2, None)),
        Row::new("  CPU", ours.restart_cpu.as_secs_f64(), "s").budget(at(0.8, None)),
        Row::new("  RSS", ours.restart_rss_mib, "MiB"),
        Row::new(format!("requests in {} syncs that change nothing", ours.noop_syncs), ours.noop_requests, "all")
            .budget(Some(Budget::AtMost(0.0))),
        Row::new("  CPU", per(ours.noop_cpu, ours.noop_syncs), "ms/sync"),
    ]);
    let creates = raws.each_ref().map(|raw| raw.creates.rate);
    let [before, after] = creates;
    println!(
        "{count} Websites with three children each; the raw limit's creates: {before:.0}/s before, {after:.0}/s after"
    );
    println!("{}", table::text(&rows));
    let all = json!({ "websites": count, "rows": table::json(&rows), "raw_creates_per_second": creates });
    save("controllers", &all)
}
