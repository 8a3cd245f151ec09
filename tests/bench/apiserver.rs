//! The embedded API server beside the real one: writes, lists, memory and CPU, by the same load.
//!
//! Never compares what isn't alike: both collect garbage and empty namespaces, the real one by its controller-manager, and
//! neither writes an audit log. The real one's etcd doesn't sync its files. Only the real one speaks TLS, as it can't do
//! without.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::embedded;
use crate::load::{self, Call, Connection, Figures, Target};
use crate::server::{Server, ServerKind, Setup, Started};
use crate::{save, usage};

/// Objects for the figures of memory.
const OBJECTS: usize = 100_000;
/// A tenth of them is listed.
const LISTED_SHARE: usize = 10;
/// A fifth as many updates of each kind are made.
const UPDATES_SHARE: usize = 5;
/// A created object's JSON as it is sent, in bytes.
const OBJECT_BYTES: usize = 1024;
/// What fills an object up.
static FILL: LazyLock<String> = LazyLock::new(|| "x".repeat(OBJECT_BYTES));
/// Objects in a page.
const PAGE: usize = 500;
/// Lists of which the middle one counts.
const LISTS: usize = 5;
/// Writes per second of the embedded server, in those of the real one, at least.
const LEAST_RATIO: f64 = 20.0;
/// Memory of [`OBJECTS`] objects in the embedded server, at most.
const MOST_MIB: f64 = 300.0;
/// From this share of its one core on, the load may be what limits.
const LOAD_LIMIT: f64 = 0.9;
/// The namespaces: of the objects that are listed, and of the others.
const LISTED: &str = "bench-listed";
const OTHERS: &str = "bench-others";

/// What one server came to.
struct Report {
    creates: Figures,
    patches: Figures,
    puts: Figures,
    list: Duration,
    list_bytes: usize,
    pages: Duration,
    rss_before: f64,
    rss_after: f64,
}

/// Measures both, prints the table, and writes the same as JSON.
pub(crate) fn run(size: Option<usize>) -> anyhow::Result<()> {
    let objects = size.unwrap_or(OBJECTS);
    ensure!(objects >= LISTED_SHARE * PAGE, "N must be at least {}", LISTED_SHARE * PAGE);
    // Other work takes more from the embedded server than from the real one, which has more threads; the ratio of CPU
    // per write doesn't depend on it.
    let busy = std::fs::read_to_string("/proc/loadavg")?;
    let cores = std::thread::available_parallelism()?;
    println!("{cores} cores, load average before: {}", busy.split(' ').next().unwrap_or_default());
    // The load has one thread: what is left of two cores is the server's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dir = tempfile::Builder::new().prefix("ringmaster-bench-").tempdir()?;
    let embedded = runtime.block_on(async {
        let token = "bench";
        let (mut child, address) = embedded::start(token, &dir.path().join("embedded.log")).await?;
        let report = measure(&Target::new(&address, token, None)?, &[child.id()], objects).await;
        child.check()?;
        child.kill()?;
        report.context("the embedded server")
    })?;
    let server = match Server::start(ServerKind::Real, Setup { unaudited: true, ..Setup::default() })? {
        Started::Running(server) => server,
        Started::Unavailable(reason) => bail!("nothing to compare with: {reason}"),
    };
    let address = server.url().trim_start_matches("https://").to_owned();
    let target = Target::new(&address, server.token("admin")?, Some(server.ca_der()))?;
    let processes: Vec<u32> = server.processes().iter().map(|(_, id)| *id).collect();
    let real = runtime.block_on(measure(&target, &processes, objects));
    server.stop()?;
    let real = real.context("the real server")?;
    show(objects, &embedded, &real)?;
    Ok(())
}

async fn measure(target: &Target, processes: &[u32], objects: usize) -> anyhow::Result<Report> {
    let mut connection = target.connect().await?;
    for namespace in [LISTED, OTHERS] {
        let body = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }).to_string();
        let path = "/api/v1/namespaces".to_owned();
        connection.call(&write(Method::POST, path, "application/json", body)).await?;
    }
    let (listed, updates) = (objects / LISTED_SHARE, objects / UPDATES_SHARE);
    let place = move |number: usize| if number < listed { LISTED } else { OTHERS };
    let collection = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps");
    let rss_before = rss(processes)?;
    let create = move |number| write(Method::POST, collection(place(number)), "application/json", object(number, "0"));
    let creates = load::run(target, processes, objects, create).await?;
    let rss_after = rss(processes)?;
    let one = move |number: usize| format!("/api/v1/namespaces/{}/configmaps/{}", place(number), name(number));
    let patch = move |number: usize| {
        let body = json!({ "data": { "value": format!("{number:08}") } }).to_string();
        write(Method::PATCH, one(number), "application/merge-patch+json", body)
    };
    let patches = load::run(target, processes, updates, patch).await?;
    let put = move |number: usize| write(Method::PUT, one(number), "application/json", object(number, "1"));
    let puts = load::run(target, processes, updates, put).await?;
    // The real server closes what was idle for so long.
    let mut connection = target.connect().await?;
    let (mut lists, mut list_bytes, mut pages) = (Vec::new(), 0, Vec::new());
    for _ in 0..LISTS {
        let (body, took) = connection.get(&collection(LISTED)).await?;
        list_bytes = body.len();
        lists.push(took);
        pages.push(paged(&mut connection, &collection(LISTED), listed).await?);
    }
    let [list, pages] = [lists, pages].map(|mut times| {
        times.sort();
        times[LISTS / 2]
    });
    Ok(Report { creates, patches, puts, list, list_bytes, pages, rss_before, rss_after })
}

/// Lists page by page; looking for the token isn't counted.
async fn paged(connection: &mut Connection, path: &str, objects: usize) -> anyhow::Result<Duration> {
    let (mut total, mut token, mut seen) = (Duration::ZERO, String::new(), 0);
    loop {
        let next = if token.is_empty() { String::new() } else { format!("&continue={token}") };
        let (body, took) = connection.get(&format!("{path}?limit={PAGE}{next}")).await?;
        total += took;
        seen += 1;
        let page: Value = serde_json::from_slice(body)?;
        let Some(more) = page["metadata"]["continue"].as_str().filter(|text| !text.is_empty()) else { break };
        more.clone_into(&mut token);
    }
    ensure!(seen == objects.div_ceil(PAGE), "{seen} pages of {objects} objects");
    Ok(total)
}

fn write(method: Method, path: String, content_type: &'static str, body: String) -> Call {
    Call { method, path, content_type, body }
}

fn name(number: usize) -> String {
    format!("object-{number:06}")
}

/// A ConfigMap of [`OBJECT_BYTES`].
fn object(number: usize, value: &str) -> String {
    let name = name(number);
    let mut text = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"app":"bench"}}}},"data":{{"value":"{value}","text":""#
    );
    // Copied, not formatted letter by letter: that would take more time than to send it.
    text.push_str(&FILL[..OBJECT_BYTES - text.len() - 3]);
    text.push_str("\"}}");
    text
}

/// Resident memory of all, in MiB.
fn rss(processes: &[u32]) -> anyhow::Result<f64> {
    let mut kib = 0;
    for process in processes {
        kib += usage::rss_kib(*process)?;
    }
    Ok(kib as f64 / 1024.0)
}

fn show(objects: usize, embedded: &Report, real: &Report) -> anyhow::Result<()> {
    let listed = objects / LISTED_SHARE;
    println!("ConfigMaps of {OBJECT_BYTES} bytes, {} connections, the load on one core", load::CONNECTIONS);
    println!("{:<44}{:>12}{:>12}{:>9}", "", "embedded", "real", "ratio");
    let line = |what: &str, a: f64, b: f64, ratio: f64| println!("{what:<44}{a:>12.1}{b:>12.1}{ratio:>9.1}");
    let mut ratios = Vec::new();
    let writes = [
        (format!("creates/s, {objects} objects"), embedded.creates, real.creates),
        (format!("merge patches/s, {}", objects / UPDATES_SHARE), embedded.patches, real.patches),
        (format!("PUTs/s, {}", objects / UPDATES_SHARE), embedded.puts, real.puts),
    ];
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    for (what, a, b) in &writes {
        line(what, a.rate, b.rate, a.rate / b.rate);
        ratios.push(a.rate / b.rate);
        let (x, y) = (micros(a.server_cpu), micros(b.server_cpu));
        line("  CPU of the server, µs/write", x, y, y / x);
        let (x, y) = (micros(a.load_cpu), micros(b.load_cpu));
        line("  CPU of the load, µs/write", x, y, y / x);
        let (x, y) = (a.load_share * 100.0, b.load_share * 100.0);
        println!("{:<44}{x:>12.0}{y:>12.0}", "  the load's share of its core, %");
    }
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    for (what, a, b) in [
        (format!("list of {listed}, ms"), embedded.list, real.list),
        (format!("list of {listed} by {PAGE}, ms"), embedded.pages, real.pages),
    ] {
        line(&what, millis(a), millis(b), millis(b) / millis(a));
    }
    let speed = |report: &Report| report.list_bytes as f64 / 1e6 / report.list.as_secs_f64();
    line("  MB/s, whole", speed(embedded), speed(real), speed(embedded) / speed(real));
    let grown = |report: &Report| report.rss_after - report.rss_before;
    for (what, of) in [
        ("memory before, MiB (real: with etcd and controllers)".to_owned(), (|r| r.rss_before) as fn(&Report) -> f64),
        (format!("memory with {objects} objects, MiB"), |r| r.rss_after),
        ("  grown by, MiB".to_owned(), |r| r.rss_after - r.rss_before),
    ] {
        line(&what, of(embedded), of(real), of(real) / of(embedded));
    }
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let cpu = |(_, a, b): &(String, Figures, Figures)| b.server_cpu.as_secs_f64() / a.server_cpu.as_secs_f64();
    let least_cpu = writes.iter().map(cpu).fold(f64::INFINITY, f64::min);
    let says = |holds: bool| if holds { "holds" } else { "DOESN'T HOLD" };
    println!(
        "budget, writes/s at least {LEAST_RATIO} times the real server's: {} ({least:.1})",
        says(least >= LEAST_RATIO)
    );
    println!("by CPU per write: {least_cpu:.1} times");
    let memory = embedded.rss_after;
    if objects == OBJECTS {
        println!("budget, {OBJECTS} objects in at most {MOST_MIB} MiB: {} ({memory:.0})", says(memory <= MOST_MIB));
    }
    if writes.iter().any(|(_, figures, _)| figures.load_share > LOAD_LIMIT) {
        println!(
            "the load used more than {:.0} % of its core: the embedded server may do more than this",
            LOAD_LIMIT * 100.0
        );
    }
    let figures = |figures: &Figures| {
        json!({ "per_second": figures.rate, "server_cpu_us": micros(figures.server_cpu),
            "load_cpu_us": micros(figures.load_cpu), "load_core_share": figures.load_share })
    };
    let report = |report: &Report| {
        json!({
            "creates": figures(&report.creates), "merge_patches": figures(&report.patches), "puts": figures(&report.puts),
            "list_ms": millis(report.list), "list_bytes": report.list_bytes, "list_paged_ms": millis(report.pages),
            "rss_before_mib": report.rss_before, "rss_after_mib": report.rss_after, "rss_grown_mib": grown(report),
        })
    };
    let all = json!({ "objects": objects, "listed": listed, "object_bytes": OBJECT_BYTES, "least_ratio": least, "least_cpu_ratio": least_cpu,
        "embedded": report(embedded), "real": report(real) });
    save("apiserver", &all)
}
