//! Membership: this process's Lease, what it sees of the others, and which rows of the table it works on.
//!
//! ```text
//!   keeper    the Lease, renewed from a thread of its own      guard    may this be done now?
//!   observe   all members' Leases and the table                rows     from the table to work on rows, and back
//!   sharder   the leader's part: the table                     posts    what each controller's host is told
//! ```
//!
//! Never decides: core's `lease` and `table` do. See docs/members.md for the whole picture.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_cluster::{Another, Client, Error, Meter};
use ringmaster_core::hash::xxh;
use ringmaster_core::key::{ApiVersion, MemberName, ObjectKey, Resource};
use ringmaster_core::table::duty::Duty;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::declared::DeclaredControllers;
use self::guard::Guard;
use self::keeper::{End, Keeper, Words};
use self::observe::{Observation, World};
use self::posts::Posts;
use self::pulse::Pulse;
use self::rows::Rows;
use self::sharder::Sharder;
use crate::clock::{boot_time, random};
use crate::config::Membership;
use crate::metrics::{Metrics, Sample, Samplers, count};
use crate::tell::Tell;
use crate::watches::Watches;

pub(crate) mod declared;
pub(crate) mod guard;
pub(crate) mod keeper;
mod latest;
pub(crate) mod metrics;
pub(crate) mod observe;
pub(crate) mod placement;
pub(crate) mod posts;
pub(crate) mod pulse;
pub(crate) mod rows;
pub(crate) mod sharder;

/// The label of a member's Lease; its value is the member's name without the random part.
pub(crate) const MEMBER_LABEL: &str = "ringmaster.dev/member";
/// The label of all Leases of one installation; its value is the table's name.
pub(crate) const TABLE_LABEL: &str = "ringmaster.dev/table";
/// What a member reports.
pub(crate) const REPORT_ANNOTATION: &str = "ringmaster.dev/report";
/// What a member knows of its parts of sharded controllers.
pub(crate) const PARTS_ANNOTATION: &str = "ringmaster.dev/parts";
/// On the Lease of a member that wants to go.
pub(crate) const LEAVING_ANNOTATION: &str = "ringmaster.dev/leaving";
/// The table's name where all controllers are run.
const TABLE: &str = "ringmaster";
/// Letters of a name's random part, as Kubernetes uses them.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Characters of a name's random part: one in 14 million.
const RANDOM_CHARS: usize = 5;

/// A start that fails is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// What membership is made of.
pub(crate) struct Member {
    pub(crate) settings: Membership,
    pub(crate) client: Client,
    pub(crate) another: Another,
    pub(crate) identity: Arc<Identity>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) world: Arc<World>,
    pub(crate) posts: Arc<Posts>,
    pub(crate) declared: Arc<DeclaredControllers>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) tell: Tell,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) samplers: Samplers,
}

impl Member {
    /// Is a member until `leave` is cancelled and everything is given up, or until its Lease is lost. `rest` ends what
    /// observes.
    pub(crate) async fn run(self, leave: CancellationToken, rest: CancellationToken) -> End {
        let installation = tokio::select! {
            () = leave.cancelled() => return End::Released,
            found = self.installation() => found,
        };
        let terms = self.settings.terms;
        let world = Arc::clone(&self.world);
        let (words, said) = watch::channel(Words::default());
        let meter: Arc<dyn Meter> = self.metrics.clone();
        let keeper = Keeper {
            identity: Arc::clone(&self.identity),
            terms,
            another: Arc::clone(&self.another),
            meter,
            guard: Arc::clone(&self.guard),
            pulse: Arc::clone(&self.pulse),
            words: said,
            posts: Arc::clone(&self.posts),
        };
        let mut keeping = match keeper.start() {
            Ok(keeping) => keeping,
            Err(error) => return End::Failed(format!("no thread for its Lease: {error}")),
        };
        self.show(&world);
        let (tasks, observing) = (TaskTracker::new(), rest.child_token());
        let observation = Observation {
            client: self.client.clone(),
            world: Arc::clone(&world),
            identity: Arc::clone(&self.identity),
            interval: terms.retry_period,
        };
        observation.start(&tasks, &observing);
        let sharder = Sharder {
            client: self.client.clone(),
            identity: Arc::clone(&self.identity),
            installation,
            terms,
            world: Arc::clone(&world),
            guard: Arc::clone(&self.guard),
            pulse: Arc::clone(&self.pulse),
            declared: Arc::clone(&self.declared),
            tell: self.tell.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        tasks.spawn(sharder.run(observing.clone()));
        let rows = Rows {
            duty: Duty::new(self.identity.name.clone()),
            guard: Arc::clone(&self.guard),
            world,
            posts: Arc::clone(&self.posts),
            declared: Arc::clone(&self.declared),
            watches: Arc::clone(&self.watches),
            words,
            pulse: Arc::clone(&self.pulse),
            metrics: Arc::clone(&self.metrics),
        };
        let mut following = tokio::spawn(rows.run(leave));
        let end = tokio::select! {
            end = keeping.ended() => {
                following.abort();
                end
            }
            // Everything is given up, and the keeper was told so.
            done = &mut following => match done {
                Ok(()) => keeping.ended().await,
                Err(panic) => End::Failed(format!("what follows the table ended, a bug: {panic}")),
            },
        };
        observing.cancel();
        tasks.close();
        tasks.wait().await;
        end
    }

    /// The uid of the namespace of the Leases, which is made if it is missing and this isn't a pod.
    async fn installation(&self) -> Arc<str> {
        let resource = Resource {
            api_version: ApiVersion::new("v1"),
            plural: "namespaces".into(),
            kind: "Namespace".into(),
            namespaced: false,
            status: true,
        };
        let name = &self.settings.namespace;
        let mut failures = 0u32;
        loop {
            let found = match self.client.get(&resource, &ObjectKey::new("", name)).await {
                Ok(Some(found)) => Ok(found),
                Ok(None) if self.settings.make_namespace => {
                    info!(namespace = name, "making the namespace of the Leases");
                    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                    self.client.create(&resource, "", body.to_string().into_bytes()).await
                }
                Ok(None) => {
                    Err(Error::Configuration(format!("the namespace {name} isn't there; see --lease-namespace")))
                }
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => return found.uid().to_string().into(),
                // Another member was faster.
                Err(error) if error.is_already_exists() => {}
                Err(error) => {
                    failures = failures.saturating_add(1);
                    // One line when it begins, and a reminder at each doubling.
                    if failures.is_power_of_two() {
                        warn!(failures, "the namespace of the Leases: {error}");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// What a scrape shows of membership.
    fn show(&self, world: &Arc<World>) {
        let (world, guard, metrics) = (Arc::clone(world), Arc::clone(&self.guard), Arc::clone(&self.metrics));
        let (deadline, identity) = (self.settings.terms.renew_deadline, Arc::clone(&self.identity));
        self.samplers.add(Box::new(move || samples(&world, &guard, &metrics, (deadline, identity.table.as_str()))));
    }
}

fn samples(
    world: &World,
    guard: &Guard,
    metrics: &Metrics,
    (renew_deadline, sharders_lease): (Duration, &str),
) -> Vec<Sample> {
    let view = world.view();
    let mut shards: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
    if let Some(table) = view.table.as_ref().and_then(|object| object.table.as_ref()) {
        for member in &table.members {
            for state in ["owned", "moving"] {
                shards.insert((member.to_string(), state), 0);
            }
        }
        for row in &table.shards {
            let moving = row.releasing || row.next.is_some();
            let owner = row.owner.as_ref().map(ToString::to_string).unwrap_or_default();
            *shards.entry((owner, if moving { "moving" } else { "owned" })).or_default() += 1;
        }
    }
    let shards = shards
        .into_iter()
        .map(|((member, state), number)| (vec![("member", member), ("state", state.to_owned())], count(number)));
    let age = |seen: Duration| boot_time().saturating_sub(seen).as_secs_f64();
    let plain = |value: f64| vec![(Vec::new(), value)];
    let flag = |flag: bool| plain(if flag { 1.0 } else { 0.0 });
    let refusals = guard.refusals();
    let renewed = guard.ends().map(|ends| ends.saturating_sub(renew_deadline));
    vec![
        Sample::gauge(
            "ringmaster_shards",
            "Shards by member and state, as the table has them; no member: nobody's",
            shards.collect(),
        ),
        Sample::gauge(
            "ringmaster_members",
            "Members that the table counts on",
            plain(count(
                view.table.as_ref().and_then(|object| object.table.as_ref()).map_or(0, |table| table.members.len()),
            )),
        ),
        Sample::gauge("ringmaster_leader", "Whether this member writes the table", flag(metrics.members.leads())),
        Sample::gauge(
            "leader_election_master_status",
            "The same under the name that client-go's metrics have for it",
            vec![(vec![("name", sharders_lease.to_owned())], if metrics.members.leads() { 1.0 } else { 0.0 })],
        ),
        Sample::gauge(
            "ringmaster_rows_pending",
            "Shards and wholes that are on their way or whose owner doesn't live, as the leader planned last",
            plain(count(metrics.members.pending())),
        ),
        Sample::gauge(
            "ringmaster_lease_age_seconds",
            "How long ago this member's Lease was renewed",
            renewed.map(|renewed| (Vec::new(), age(renewed))).into_iter().collect(),
        ),
        Sample::gauge(
            "ringmaster_members_seen_seconds",
            "How long ago all members' Leases were seen last",
            view.listed.map(|seen| (Vec::new(), age(seen))).into_iter().collect(),
        ),
        Sample {
            name: "ringmaster_guard_refusals",
            help: "Syncs, calls and writes that were refused because this member had no right to them",
            counter: true,
            values: plain(count(usize::try_from(refusals).unwrap_or(usize::MAX))),
        },
    ]
}

/// Who this process is within its installation.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The member's name and its Lease's, used once.
    pub(crate) name: MemberName,
    /// The same without its random part.
    pub(crate) base: String,
    /// The namespace of the Leases.
    pub(crate) namespace: String,
    /// The name of the table, and of the sharder's Lease.
    pub(crate) table: String,
}

impl Identity {
    /// A new one. Processes that run the same controllers of a cluster are one installation: `selector` is
    /// `--target-label-selector`, and each has a table of its own.
    pub(crate) fn new(membership: &Membership, selector: &str) -> Self {
        let mut bits = random();
        let letters = LETTERS.len() as u64;
        let random: String = std::iter::repeat_with(|| {
            let letter = LETTERS[usize::try_from(bits % letters).unwrap_or_default()];
            bits /= letters;
            char::from(letter)
        })
        .take(RANDOM_CHARS)
        .collect();
        Self {
            name: MemberName::new(&format!("{}-{random}", membership.name)),
            base: membership.name.clone(),
            namespace: membership.namespace.clone(),
            table: table_name(selector),
        }
    }

    /// The labels of its Lease.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.labels_of(&self.base)
    }

    /// The labels of the Lease of a member of the installation; `base` is its name without the random part.
    pub(crate) fn labels_of(&self, base: &str) -> BTreeMap<String, String> {
        let mut labels = self.table_label();
        labels.insert(MEMBER_LABEL.to_owned(), base.to_owned());
        labels
    }

    /// The label of all that belongs to the installation.
    pub(crate) fn table_label(&self) -> BTreeMap<String, String> {
        [(TABLE_LABEL.to_owned(), self.table.clone())].into()
    }
}

/// What a member was called, known from its name: all but the random part.
pub(crate) fn base(name: &MemberName) -> &str {
    name.as_str().rsplit_once('-').map_or(name.as_str(), |(base, _)| base)
}

/// The table's name for a selector of controllers.
fn table_name(selector: &str) -> String {
    if selector.is_empty() {
        TABLE.to_owned()
    } else {
        format!("{TABLE}-{:08x}", xxh(selector.as_bytes()) & 0xffff_ffff)
    }
}
