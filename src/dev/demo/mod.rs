//! `ringmaster demo`: the Website example with many objects and several members on the local API server, to look at and
//! to play with.
//!
//! ```text
//!   scene      the objects and the webhook; language: what that is written in
//!   cast       the members, and replicas: those of the webhook; slices: how the API server names these. All are a process
//!   relay      between members and a replica: it notes each call in the record, which says what must not happen
//!   affinity   which replica serves which parent
//!   ownership  who has which shard, by the table
//!   load       titles change all the time; changes: what else happens to objects
//!   story      a member more, one less, one killed; scaling: the same with replicas
//!   eye        who looks; view: what is shown; screen, keys: the terminal; summary: what all came to
//! ```
//!
//! Never measures from within a member: it sees what anybody sees, objects, calls and processes.

mod affinity;
mod cast;
mod changes;
mod eye;
mod keys;
mod language;
mod load;
mod ownership;
mod process;
mod record;
mod relay;
mod replicas;
mod scaling;
mod scene;
mod screen;
mod slices;
mod story;
mod summary;
mod view;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use console::style;
use parking_lot::Mutex;
use ringmaster_engine::print::Printer;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::guardian::Guardian;
use crate::local::{self, Local, Place};
use crate::objects::{self, Objects};
use crate::session;
use crate::{Stop, quoted};
use cast::Cast;
use changes::Log;
use eye::Eye;
pub use language::Language;
use load::Wishes;
use ownership::Ownership;
use record::Record;
use replicas::MAX_REPLICAS;
use replicas::Replicas;
use story::{Act, Director, Outcome};
use summary::Played;

/// Fewest and most Websites of a demo.
pub const WEBSITES: std::ops::RangeInclusive<usize> = 1..=5000;
/// Shortest and longest time that a demo may have to get ready.
pub const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Fewest and most members that it starts with.
pub const MEMBERS: std::ops::RangeInclusive<usize> = 1..=5;

/// Fewest and most replicas of the webhook that it starts with.
pub const WEBHOOKS: std::ops::RangeInclusive<usize> = 1..=5;

/// How often everything is looked at and drawn.
const LOOK: Duration = Duration::from_millis(250);
/// Acts of somebody's keys that wait to be played.
const MAX_ACTS: usize = 4;
/// How long the last changes may take to show.
const SHOWN: Duration = Duration::from_secs(15);

/// The last line of `--once`.
const PASSED: &str =
    "passed: no Website was served by two at a time, none was called elsewhere without a change, none was forgotten";
/// The same if it was ended before.
const UNFINISHED: &str = "ended before the story was over: that proves nothing";

/// What `ringmaster demo` was asked for.
#[derive(Debug)]
pub struct Options {
    /// Plays the story once, and ends.
    pub once: bool,
    /// How long the Websites may take until all are ready.
    pub timeout: Duration,
    /// How many: see [`WEBSITES`].
    pub websites: usize,
    /// How many members to start with: see [`MEMBERS`].
    pub members: usize,
    /// How many replicas of the webhook to start with: see [`WEBHOOKS`].
    pub webhooks: usize,
    /// Where the API server listens.
    pub listen: SocketAddr,
    /// Where the kubeconfig is written.
    pub kubeconfig: PathBuf,
    /// What the webhook is written in.
    pub hook: Language,
    /// Draw on the terminal, or print lines.
    pub live: bool,
}

/// Why a demo failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Local(#[from] local::Error),
    /// The CRDs.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The example.
    #[error(transparent)]
    Scene(#[from] scene::Error),
    /// Nothing runs the webhook.
    #[error("{program} doesn't run ({why}): the demo's webhook needs it; {fix}")]
    Language {
        /// What doesn't run.
        program: &'static str,
        /// Why.
        why: String,
        /// What would help.
        fix: &'static str,
    },
    /// A folder or a port for the webhook.
    #[error("a place for the webhook")]
    Place(#[source] std::io::Error),
    /// The webhook can't be built.
    #[error("building the webhook: {0}")]
    Build(String),
    /// A replica of the webhook doesn't listen.
    #[error("the webhook doesn't listen: {why}; its last lines:{said}")]
    Hook {
        /// It ended, or it took too long.
        why: String,
        /// Its last lines, each behind a line break.
        said: String,
    },
    /// A member can't be started.
    #[error("starting a member")]
    Member(#[source] std::io::Error),
    /// A member or a replica ended that nobody asked to, or didn't leave when it was asked to.
    #[error("{0}")]
    Deserted(String),
    /// Not all became ready in time.
    #[error("{0}")]
    NotReady(String),
    /// Something happened that must not.
    #[error("{0}")]
    Proof(String),
}

impl From<objects::Error> for Error {
    fn from(error: objects::Error) -> Self {
        scene::Error::from(error).into()
    }
}

impl Options {
    /// Whether they can be followed, as far as it can be told before anything starts.
    ///
    /// # Errors
    /// Names the flag.
    pub fn check(&self) -> Result<(), String> {
        local::check_listen(self.listen).map_err(|error| error.to_string())?;
        local::check_file("--write-kubeconfig", &self.kubeconfig)?;
        let (shortest, longest) = (TIMEOUTS.start().as_secs(), TIMEOUTS.end().as_secs());
        if !TIMEOUTS.contains(&self.timeout) {
            return Err(format!("--timeout {}: give {shortest} to {longest} seconds", self.timeout.as_secs()));
        }
        let (websites, members) = (("websites", self.websites, WEBSITES), ("members", self.members, MEMBERS));
        for (flag, value, range) in [websites, members, ("webhooks", self.webhooks, WEBHOOKS)] {
            if !range.contains(&value) {
                return Err(format!("--{flag} {value}: give {} to {}", range.start(), range.end()));
            }
        }
        Ok(())
    }
}

/// Runs until it shall stop, or with [`Options::once`] until the story is over.
///
/// # Errors
/// If something can't start; with [`Options::once`], if not all Websites become ready in time, an object was served by two
/// at a time or, while the webhook's replicas stayed, at two of them, a change was forgotten, a replica's end delayed one,
/// or too few were made to say so.
pub async fn run(options: Options, stop: Stop) -> Result<(), Error> {
    runs(options.hook).await?;
    let folder = tempfile::Builder::new().prefix("ringmaster-demo-").tempdir().map_err(Error::Place)?;
    let place = Place { listen: options.listen, kubeconfig: options.kubeconfig.clone(), state: None };
    let local = Local::start(place).await?;
    let acts = Log::default();
    let stage = Stage {
        objects: Objects::new(local.client()),
        folder: folder.path().to_owned(),
        record: Arc::default(),
        ownership: Arc::default(),
        wishes: Arc::default(),
        changes: acts.beside(),
        acts,
        played: Mutex::default(),
        printer: Printer::start(),
        tasks: TaskTracker::new(),
        tasks_stop: Stop { now: stop.now.clone(), ..Stop::default() },
    };
    let ended = stage.run(&options, &local, &stop).await;
    stage.tasks_stop.gently.cancel();
    stage.tasks.close();
    stage.tasks.wait().await;
    let stopped = local.stop().await;
    stage.printer.finish();
    ended?;
    Ok(stopped?)
}

/// Whether the language's program runs.
async fn runs(language: Language) -> Result<(), Error> {
    let (program, argument, fix) = language.needs();
    let ran = tokio::process::Command::new(program).arg(argument).output().await;
    let why = match ran {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => output.status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Error::Language { program, why, fix })
}

/// What the parts of a running demo share.
struct Stage {
    objects: Objects,
    folder: PathBuf,
    record: Arc<Mutex<Record>>,
    ownership: Arc<Mutex<Ownership>>,
    wishes: Arc<Mutex<Wishes>>,
    /// What the story did.
    acts: Log,
    /// What else happened.
    changes: Log,
    /// What came of it, for the end.
    played: Mutex<Played>,
    printer: Printer,
    tasks: TaskTracker,
    tasks_stop: Stop,
}

impl Stage {
    async fn run(&self, options: &Options, local: &Local, stop: &Stop) -> Result<(), Error> {
        let guardian = Arc::new(Guardian::start().map_err(Error::Place)?);
        let replicas = Replicas::new(options.hook, &self.folder, &self.record, &guardian).map_err(Error::Place)?;
        let cast =
            Cast::new(local.kubeconfig(), replicas.flags(), &guardian, &self.ownership).map_err(Error::Member)?;
        let mut eye = Eye::new(self, &cast, &replicas, options.websites);
        let shown = tokio::select! {
            shown = self.show(options, local, &cast, &replicas, &mut eye) => shown,
            never = replicas.publish(&self.objects) => match never {},
            () = stop.gently.cancelled() => Ok(UNFINISHED),
        };
        if let Some(summary) = eye.summary() {
            self.printer.line(&format!("\n{summary}"));
        }
        cast.end(stop).await;
        replicas.end(stop).await;
        let verdict = shown?;
        if options.once {
            self.printer.line(verdict);
        }
        Ok(())
    }

    /// Everything but members and replicas.
    async fn prepare(&self, language: Language) -> Result<(), Error> {
        session::crds(&self.objects).await?;
        scene::set(&self.objects).await?;
        scene::pass_themes(&self.objects, &self.folder).await?;
        scene::write_hook(language, &self.folder)?;
        self.tasks.spawn(self.pass_themes());
        let (stop, ownership) = (self.tasks_stop.gently.clone(), Arc::clone(&self.ownership));
        let follow = ownership::follow(self.objects.clone(), ownership);
        self.tasks.spawn(async move {
            tokio::select! {
                () = follow => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(())
    }

    /// Tells the webhook of themes that come and go, until the end.
    fn pass_themes(&self) -> impl Future<Output = ()> + Send + use<> {
        let (objects, folder, stop) = (self.objects.clone(), self.folder.clone(), self.tasks_stop.gently.clone());
        async move {
            while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
                // It is tried again at once, and what is wrong shows as Websites that don't notice.
                let _ = scene::pass_themes(&objects, &folder).await;
            }
        }
    }

    /// Starts the webhook and the members, makes the Websites and shows what happens: until the story is over, with what is
    /// to be said of it then; or for ever.
    async fn show(
        &self,
        options: &Options,
        local: &Local,
        cast: &Cast,
        replicas: &Replicas,
        eye: &mut Eye<'_>,
    ) -> Result<&'static str, Error> {
        self.prepare(options.hook).await?;
        local.publish().await?;
        let director = Director::new(self, cast, replicas);
        let begun = async {
            director.begin(options.members, options.webhooks).await?;
            Ok(scene::populate(&self.objects, options.websites).await?)
        };
        if options.once {
            self.printer.line(&playbill(options));
            tokio::try_join!(begun, eye.until_ready(options.timeout))?;
            return self.once(&director, eye, options).await;
        }
        let introduction = introduction(local, options);
        let (sender, keys) = mpsc::channel(MAX_ACTS);
        let played = async {
            begun.await?;
            let objects = &self.objects;
            tokio::select! {
                () = load::run(objects, options.websites, &self.wishes) => Ok(()),
                () = changes::run(objects, options.websites, &self.wishes, &self.changes) => Ok(()),
                played = director.run(options.members, options.webhooks, keys) => played,
            }
        };
        let seen = async {
            if options.live {
                return eye.draw(&introduction, sender).await;
            }
            self.printer.line(&introduction);
            eye.print().await
        };
        tokio::try_join!(played, seen)?;
        Ok(UNFINISHED)
    }

    /// The story once, while titles change; and whether all went as it must.
    async fn once(&self, director: &Director<'_>, eye: &mut Eye<'_>, options: &Options) -> Result<&'static str, Error> {
        let Options { websites, members, webhooks, .. } = options;
        let story = async {
            if director.even().await.is_none() {
                return Err(Error::Proof(format!("{members} members don't come to share the shards evenly")));
            }
            director.once(*webhooks).await
        };
        let busy = async {
            load::run(&self.objects, *websites, &self.wishes).await;
            // It goes on for longer than anybody waits.
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        let (outcomes, scaled) = tokio::select! {
            played = story => played?,
            seen = eye.print() => return seen.map(|()| UNFINISHED),
            () = busy => return Ok(UNFINISHED),
        };
        let lasted = start.elapsed();
        self.is_as_it_must(&outcomes).await?;
        if let Some(wrong) = self.wishes.lock().too_few(lasted) {
            return Err(Error::Proof(wrong));
        }
        director.is_complete()?;
        if let Some(wrong) = scaled.wrong() {
            let strayed = self.record.lock().affinity().strayed().join("\n  ");
            return Err(Error::Proof(format!("{wrong}\n  {strayed}").trim_end().to_owned()));
        }
        let view = eye.last(SHOWN).await?;
        eye.print_outcomes(&view);
        Ok(PASSED)
    }

    /// Whether nothing was served twice at a time, or forgotten.
    async fn is_as_it_must(&self, outcomes: &[(Act, Outcome)]) -> Result<(), Error> {
        let wanted = self.wishes.lock().snapshot();
        let mut forgotten = story::still_forgotten(&self.objects, &wanted).await;
        forgotten.extend(outcomes.iter().flat_map(|(_, outcome)| outcome.forgotten.iter().cloned()));
        forgotten.extend(self.unshown().await?);
        forgotten.sort();
        forgotten.dedup();
        let (wrong, violations) = {
            let record = self.record.lock();
            (record.wrong(), record.violations().join("\n  "))
        };
        if wrong > 0 {
            return Err(Error::Proof(format!("{wrong} hook calls must not have been:\n  {violations}")));
        }
        if !forgotten.is_empty() {
            let (count, names) = (forgotten.len(), forgotten.join(", "));
            return Err(Error::Proof(format!("{count} Websites don't show their last change: {names}")));
        }
        match outcomes.iter().find(|(_, outcome)| outcome.late) {
            Some((act, outcome)) => {
                let act = match act {
                    Act::More => "a member that started has no even share",
                    Act::Fewer => "a member that was asked to leave is still there, or its shards are",
                    Act::Kill | Act::Webhooks(_) => "the shards of a member that was killed are still its own",
                };
                Err(Error::Proof(format!("{act} after {:.0} s", outcome.took.as_secs_f64())))
            }
            None => Ok(()),
        }
    }

    /// The Websites whose page hasn't the title that was asked for last.
    async fn unshown(&self) -> Result<Vec<String>, Error> {
        let titles = self.wishes.lock().titles();
        let look = async || {
            let pages = self.objects.list(&scene::pages()).await?;
            let shown: HashMap<&str, &str> = pages.iter().filter_map(page).collect();
            let wrong = |(name, title): &(&String, &String)| {
                shown.get(name.as_str()).is_none_or(|html| !html.contains(title.as_str()))
            };
            Ok::<_, Error>(titles.iter().filter(wrong).map(|(name, _)| name.clone()).collect::<Vec<_>>())
        };
        let wait = async {
            while !look().await?.is_empty() {
                tokio::time::sleep(LOOK).await;
            }
            Ok(Vec::new())
        };
        match tokio::time::timeout(SHOWN, wait).await {
            Ok(shown) => shown,
            Err(_) => look().await,
        }
    }
}

/// A page by its name.
fn page(object: &Value) -> Option<(&str, &str)> {
    Some((object["metadata"]["name"].as_str()?, object["data"]["index.html"].as_str()?))
}

/// What `--once` plays.
fn playbill(options: &Options) -> String {
    let Options { webhooks, .. } = options;
    format!(
        "{}, once, which takes about a minute: {}.\nWhile up to {} titles change a second, a member comes, one leaves, and one is killed (kill -9) and replaced;\n\
         then webhooks go from {webhooks} to {MAX_REPLICAS}, one is killed and started again, and they go back to {webhooks}.\n",
        style("Ringmaster demo").bold(),
        troupe(options),
        load::PER_SECOND,
    )
}

/// Who takes part.
fn troupe(options: &Options) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let Options { websites, members, webhooks, hook, .. } = options;
    let (websites, members) = (count(*websites, "Website"), count(*members, "member"));
    let webhooks = count(*webhooks, "webhook");
    format!("{websites}; {members} and {webhooks} ({}) at the start", hook.name())
}

fn introduction(local: &Local, options: &Options) -> String {
    let (namespace, site) = (scene::NAMESPACE, scene::name(0));
    let lines = [
        format!("kubectl get rcc,shardtables,websites -n {namespace}"),
        "kubectl get leases,endpointslices --all-namespaces".to_owned(),
        format!("kubectl get configmap,service,deployment {site} -n {namespace}"),
        format!("kubectl patch website {site} -n {namespace} --type merge -p '{{\"spec\":{{\"title\":\"Mine\"}}}}'"),
        format!("kubectl delete deployment {site} -n {namespace}"),
        format!("kubectl patch theme {} --type merge -p '{{\"spec\":{{\"color\":\"gold\"}}}}'", scene::FICKLE),
    ];
    format!(
        "{}: {}.\nIn another terminal:\n  export KUBECONFIG={}\n  {}\nCtrl-C ends it.",
        style("Ringmaster demo").bold(),
        troupe(options),
        quoted(local.kubeconfig()),
        lines.join("\n  "),
    )
}
