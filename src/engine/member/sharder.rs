//! The sharder: every member observes the others and campaigns; the one that leads writes the table, takes the Leases of
//! lost members and tells what happened.
//!
//! Never decides: core's `Observer` says who lives and core's `Planner` what the table shall be. Two that believe to lead
//! do no harm, because every write is conditional on what it was decided on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringmaster_api::table::ShardTableStatus;
use ringmaster_cluster::{Client, Error, Lease, Preconditions, Subject};
use ringmaster_core::key::{MemberName, ObjectKey, Uid, Version};
use ringmaster_core::lease::{Life, Observer, Seen, Terms};
use ringmaster_core::table::calm::Settings;
use ringmaster_core::table::plan::{self, MemberView, Notice, Plan, Planner};
use ringmaster_core::table::{ControllerName, Mode, Report, RowId, Table, alone};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::declared::DeclaredControllers;
use super::guard::Guard;
use super::observe::{TableKind, TableObject, View, World, table_key, table_resource};
use super::pulse::{BEAT, Part, Pulse};
use super::{Identity, LEAVING_ANNOTATION, MEMBER_LABEL, REPORT_ANNOTATION, base};
use crate::clock::{boot_time, lease_time};
use crate::metrics::Metrics;
use crate::tell::Tell;

/// News is waited for so long after the first, so that acknowledgements that come together are answered together: a
/// second write of the table takes longer than this.
const COALESCE: Duration = Duration::from_millis(30);
/// A failed write is tried again after this long.
const RETRY: Duration = Duration::from_millis(500);

/// Observes, campaigns and, while it leads, plans.
pub(crate) struct Sharder {
    pub(crate) client: Client,
    pub(crate) identity: Arc<Identity>,
    pub(crate) installation: Arc<str>,
    pub(crate) terms: Terms,
    pub(crate) world: Arc<World>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) declared: Arc<DeclaredControllers>,
    pub(crate) tell: Tell,
    pub(crate) metrics: Arc<Metrics>,
}

struct State {
    observer: Observer,
    planner: Planner,
    listed: Option<Duration>,
    known: BTreeMap<MemberName, String>,
    leads: bool,
    told_foreign: bool,
    /// Steps in a row that failed.
    failures: u32,
    /// When each member's Lease was seen to change last.
    signs: BTreeMap<MemberName, Duration>,
    /// When this member's claim to work alone was seen on its Lease.
    claimed: Option<Duration>,
}

impl Sharder {
    /// Runs until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let mut state = State {
            observer: Observer::new(self.terms),
            planner: Planner::new(Settings::default()),
            listed: None,
            known: BTreeMap::new(),
            leads: false,
            told_foreign: false,
            failures: 0,
            signs: BTreeMap::new(),
            claimed: None,
        };
        let mut news = self.world.news();
        let mut declared = self.declared.news();
        loop {
            news.mark_unchanged();
            declared.mark_unchanged();
            let step = self.step(&mut state);
            let again = tokio::select! {
                () = cancel.cancelled() => return,
                again = self.alive(step) => again,
            };
            let wait = async {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    _ = news.changed() => tokio::time::sleep(COALESCE).await,
                    _ = declared.changed() => tokio::time::sleep(COALESCE).await,
                    () = at(again) => {}
                }
            };
            self.alive(wait).await;
            if cancel.is_cancelled() {
                return;
            }
        }
    }

    /// Does something that may take its time, and says meanwhile that it is alive.
    async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.pulse.beat(Part::Sharder);
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(BEAT) => {}
            }
        }
    }

    /// Looks once, and does what follows; when to look again at the latest, on the boot-time clock.
    async fn step(&self, state: &mut State) -> Option<Duration> {
        let view = self.world.view();
        let listed = view.listed?;
        let now = boot_time();
        self.observe(state, &view, listed, now);
        self.publish(state, &view, now);
        let again = state.observer.next_change(now);
        if self.guard.left().is_none() {
            state.leads = false;
            return again;
        }
        match self.lead(state, &view, now).await {
            Ok(later) => {
                if std::mem::take(&mut state.failures) > 0 {
                    info!("the table is well again");
                }
                [again, later].into_iter().flatten().min()
            }
            Err(error) => {
                if error.is_conflict() || error.is_already_exists() {
                    debug!("the table: {error}; looking again");
                } else {
                    state.failures = state.failures.saturating_add(1);
                    // One line when it begins, and a reminder at each doubling.
                    if state.failures.is_power_of_two() {
                        warn!(failures = state.failures, "the table: {error}; trying again");
                    }
                }
                Some(boot_time() + RETRY)
            }
        }
    }

    fn observe(&self, state: &mut State, view: &View, listed: Duration, now: Duration) {
        let leases = |view: &View| view.members.iter().map(|(name, lease)| (name.clone(), seen(lease))).collect();
        if state.listed != Some(listed) {
            state.listed = Some(listed);
            state.observer.listed(listed, &leases(view), &expected(view));
        } else {
            for (name, lease) in &view.members {
                if state.known.get(name) != lease.version.as_ref() {
                    state.observer.saw(now, name, Some(seen(lease)));
                }
            }
            for name in state.known.keys().filter(|name| !view.members.contains_key(*name)) {
                state.observer.saw(now, name, None);
            }
        }
        for (name, lease) in view.members.iter().filter(|(name, lease)| lease.holder == name.as_str()) {
            if state.known.get(name) != lease.version.as_ref() {
                state.signs.insert(name.clone(), now);
            }
        }
        state.signs.retain(|name, _| view.members.contains_key(name));
        let version = |lease: &Lease| lease.version.clone().unwrap_or_default();
        state.known = view.members.iter().map(|(name, lease)| (name.clone(), version(lease))).collect();
    }

    /// Tells the other parts what follows from what was observed.
    fn publish(&self, state: &mut State, view: &View, now: Duration) {
        let me = &self.identity.name;
        let stays = |(name, lease): (&MemberName, &Arc<Lease>)| {
            name != me
                && state.observer.life(now, name) == Life::Live
                && !lease.annotations.contains_key(LEAVING_ANNOTATION)
        };
        self.world.set_others_stay(view.members.iter().any(stays));
        let installation =
            view.table.as_ref().and_then(|object| object.table.as_ref()).map(|table| &table.installation);
        let foreign = installation.filter(|installation| **installation != self.installation);
        self.world.set_foreign(foreign.is_some());
        if let Some(foreign) = foreign {
            if !state.told_foreign {
                error!(
                    "the ShardTable {} is another installation's (its Leases are in the namespace with uid {foreign}): \
                     nothing is done here. Use the same --lease-namespace, or another --target-label-selector",
                    self.identity.table
                );
            }
            state.told_foreign = true;
        } else if installation.is_some() && state.told_foreign {
            info!("the ShardTable {} isn't another installation's any more", self.identity.table);
            state.told_foreign = false;
        }
    }

    async fn lead(&self, state: &mut State, view: &View, now: Duration) -> Result<Option<Duration>, Error> {
        let members = members(state, view, now);
        let leads = self.campaign(state, view, now).await?;
        if leads != state.leads {
            state.leads = leads;
            info!(leads, "the table is written by {}", if leads { "this member" } else { "another member" });
        }
        self.metrics.members.set_leads(leads);
        if view.kind != TableKind::Absent {
            self.world.set_solo(None);
        }
        if !leads || self.world.is_foreign() {
            self.world.set_solo(None);
            let (controllers, known) = self.declared.controllers();
            let object = view.table.as_deref();
            let table = object.and_then(|object| Some((&object.uid, object.table.as_deref()?)));
            let seen = self.plan_view(state, table, &members, (&controllers, known), now);
            state.planner.observe(&seen);
            return Ok(None);
        }
        self.bury(state, view, now).await?;
        // Who was there when the table was another one, or none, must have been seen since.
        if view.kind != TableKind::Unknown && (view.table_since.is_none() || view.list_began <= view.table_since) {
            self.world.ask();
            return Ok(Some(now + RETRY));
        }
        match view.kind {
            TableKind::Unknown => Ok(None),
            TableKind::Absent => Ok(self.work_alone(state, view, &members, now)),
            TableKind::Served => self.write_table(state, view, &members, now).await,
        }
    }

    fn plan_view<'a>(
        &'a self,
        state: &State,
        table: Option<(&'a Uid, &'a Table)>,
        members: &'a BTreeMap<MemberName, MemberView>,
        (controllers, controllers_known): (&'a BTreeMap<ControllerName, plan::Declared>, bool),
        now: Duration,
    ) -> plan::View<'a> {
        plan::View {
            installation: &self.installation,
            table,
            members,
            controllers,
            controllers_known,
            knows_all_from: state.observer.knows_all_from(now),
            me: &self.identity.name,
            now,
            wall_secs: lease_time().1,
        }
    }

    /// Whether this member leads; takes the sharder's Lease if nobody who lives does.
    async fn campaign(&self, state: &State, view: &View, now: Duration) -> Result<bool, Error> {
        let me = &self.identity.name;
        let resource = Lease::resource();
        let Some(sharder) = &view.sharder else {
            if self.is_leaving(view) {
                return Ok(false);
            }
            let (name, labels) = (&self.identity.table, self.identity.table_label());
            let lease = Lease::new(name, labels, me.as_str(), self.terms.duration, &lease_time().0);
            let created = self.client.create(&resource, &self.identity.namespace, lease.to_body()).await?;
            self.world.lease(&created, false);
            return Ok(true);
        };
        if sharder.holder == me.as_str() {
            return Ok(true);
        }
        let holder = MemberName::new(&sharder.holder);
        let free = sharder.holder.is_empty() || state.observer.life(now, &holder) != Life::Live;
        if !free || self.is_leaving(view) {
            return Ok(false);
        }
        let lease = sharder.taken(me.as_str(), &lease_time().0);
        let key = ObjectKey::new(&self.identity.namespace, &self.identity.table);
        let taken = self.client.replace(&resource, &key, lease.to_body()).await?;
        self.world.lease(&taken, false);
        Ok(true)
    }

    fn is_leaving(&self, view: &View) -> bool {
        view.members.get(&self.identity.name).is_some_and(|lease| lease.annotations.contains_key(LEAVING_ANNOTATION))
    }

    /// Takes the Leases of lost members, makes those that are missing, and deletes those that nobody needs any more.
    async fn bury(&self, state: &mut State, view: &View, now: Duration) -> Result<(), Error> {
        let resource = Lease::resource();
        let key = |name: &MemberName| ObjectKey::new(&self.identity.namespace, name.as_str());
        for (name, lease) in &view.members {
            if state.observer.life(now, name) != Life::Lost || *name == self.identity.name {
                continue;
            }
            let taken = lease.taken(&self.identity.table, &lease_time().0);
            let answer = self.client.replace(&resource, &key(name), taken.to_body()).await?;
            warn!(member = %name, "lost: its Lease wasn't renewed, and is taken");
            self.world.lease(&answer, false);
        }
        let missing: Vec<MemberName> = state.observer.missing(now).cloned().collect();
        for name in missing.iter().filter(|name| **name != self.identity.name && !view.members.contains_key(*name)) {
            let (labels, holder) = (self.identity.labels_of(base(name)), &self.identity.table);
            let lease = Lease::new(name.as_str(), labels, holder, self.terms.duration, &lease_time().0);
            let created = self.client.create(&resource, &self.identity.namespace, lease.to_body()).await;
            if created.as_ref().is_err_and(Error::is_already_exists) {
                // It is there, without the label by which it would be seen: its member puts that right.
                debug!(member = %name, "its Lease is there, but not among ours");
                continue;
            }
            let answer = created?;
            warn!(member = %name, "lost: its Lease is gone, and was made anew for the table");
            self.world.lease(&answer, false);
        }
        let named = expected(view);
        for name in state.observer.deletable(now, &named) {
            let Some(lease) = view.members.get(&name) else { continue };
            // What was seen has both.
            let (Some(uid), Some(version)) = (&lease.uid, &lease.version) else { continue };
            let seen = Preconditions { key: &key(&name), uid, version: Version::new(version) };
            match self.client.delete(&resource, seen).await {
                Ok(_) => debug!(member = %name, "its Lease was deleted"),
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write_table(
        &self,
        state: &mut State,
        view: &View,
        members: &BTreeMap<MemberName, MemberView>,
        now: Duration,
    ) -> Result<Option<Duration>, Error> {
        let Some(object) = view.table.as_deref() else {
            self.make_table(view).await?;
            return Ok(None);
        };
        // A status that nobody wrote, but for the first moment of a table's life: whoever edited it may have seen it in
        // any state, so it begins anew under another uid.
        let empty = object.is_empty;
        if object.table.is_none() && !empty {
            return self.remake_table(object).await;
        }
        let (controllers, known) = self.declared.controllers();
        let table = object.table.as_deref().map(|table| (&object.uid, table));
        let seen = self.plan_view(state, table, members, (&controllers, known), now);
        let plan = state.planner.plan(&seen);
        if plan.behind {
            let live = self.client.get(&table_resource(), &table_key(&self.identity)).await?;
            if live.as_ref().is_some_and(|live| live.version().to_string() == object.version) {
                warn!("the table is older than what members have seen of it");
                return self.remake_table(object).await;
            }
            if let Some(live) = live {
                self.world.table(&live, false);
            }
            return Ok(Some(boot_time() + RETRY));
        }
        self.metrics.members.set_pending(plan.pending);
        let Plan { write, look_again, notices, .. } = plan;
        let Some(next) = write else { return Ok(look_again) };
        let body = json!({
            "apiVersion": table_resource().api_version.as_str(),
            "kind": &*table_resource().kind,
            "metadata": {"name": self.identity.table, "uid": object.uid.to_string(), "resourceVersion": object.version},
            "status": ShardTableStatus::new(&next),
        });
        let body = body.to_string().into_bytes();
        let answer = self.client.replace_status(&table_resource(), &table_key(&self.identity), body).await?;
        debug!(counter = %next.counter, "wrote the table");
        self.world.table(&answer, false);
        for notice in notices {
            if let Notice::MemberLost(name) = &notice
                && let Some(sign) = state.signs.get(name)
            {
                self.metrics.members.takeover(boot_time().saturating_sub(*sign));
            }
            self.notify(object, &notice);
        }
        Ok(look_again)
    }

    async fn make_table(&self, view: &View) -> Result<(), Error> {
        let resource = table_resource();
        let body = json!({
            "apiVersion": resource.api_version.as_str(),
            "kind": &*resource.kind,
            "metadata": {"name": self.identity.table, "labels": self.identity.table_label()},
            "spec": {},
        });
        let created = self.client.create(&resource, "", body.to_string().into_bytes()).await?;
        info!(table = self.identity.table, members = view.members.len(), "made the table");
        self.world.table(&created, false);
        Ok(())
    }

    async fn remake_table(&self, object: &TableObject) -> Result<Option<Duration>, Error> {
        warn!(table = self.identity.table, "the table is made anew: it isn't what a sharder wrote last");
        let (key, version) = (table_key(&self.identity), Version::new(&object.version));
        let gone = self.client.delete(&table_resource(), Preconditions { key: &key, uid: &object.uid, version }).await;
        match gone {
            // Whoever watches learns of it later.
            Err(error) if !error.is_object_not_found() => Err(error),
            _ => Ok(Some(boot_time() + RETRY)),
        }
    }

    /// Without the kind of tables: everything is this member's as wholes, once everybody else has stopped.
    fn work_alone(
        &self,
        state: &mut State,
        view: &View,
        members: &BTreeMap<MemberName, MemberView>,
        now: Duration,
    ) -> Option<Duration> {
        let (all, known) = self.declared.controllers();
        let whole = |(name, declared): (&ControllerName, &plan::Declared)| {
            (name.clone(), plan::Declared { mode: Mode::Whole, ..declared.clone() })
        };
        let wholes = all.iter().map(whole).collect();
        let seen = self.plan_view(state, None, members, (&wholes, known), now);
        let Some((uid, table)) = self.world.solo() else {
            state.claimed = None;
            if alone::may_claim(&seen) {
                self.world.set_solo(Some((Uid::new(alone::ALONE), Arc::new(alone::table(&seen)))));
            }
            return seen.knows_all_from;
        };
        let says_so = members.get(&self.identity.name).is_some_and(|own| own.report.table.as_ref() == Some(&uid));
        if !says_so {
            return None;
        }
        // Whoever claimed before shows in a list that began after that.
        let claimed = *state.claimed.get_or_insert(now);
        if view.list_began.is_none_or(|began| began <= claimed) || !alone::may_begin(&seen) {
            return None;
        }
        let own: BTreeMap<_, _> = members
            .iter()
            .filter(|(name, _)| **name == self.identity.name)
            .map(|(name, member)| (name.clone(), member.clone()))
            .collect();
        let plan = state.planner.plan(&plan::View { table: Some((&uid, &table)), members: &own, ..seen });
        if let Some(next) = plan.write {
            self.world.set_solo(Some((uid, Arc::new(next))));
        }
        plan.look_again
    }

    fn notify(&self, object: &TableObject, notice: &Notice) {
        let (warning, reason, text) = match notice {
            Notice::MemberJoined(name) => (false, "MemberJoined", format!("{name} joined")),
            Notice::MemberLeft(name) => (false, "MemberLeft", format!("{name} left in order")),
            Notice::MemberLost(name) => (true, "MemberLost", format!("{name} is lost; its rows are given to others")),
            Notice::Poisoned(row) => {
                let what = match row {
                    RowId::Shard(shard) => format!("shard {shard}"),
                    RowId::Controller(uid) => format!("the controller with uid {uid}"),
                };
                let text = format!(
                    "{what} was taken from dying members three times in 10 minutes: an object in it may be the cause; its objects start with delays"
                );
                (true, "Poisoned", text)
            }
            Notice::CrashLoop(base, until) => {
                let wait = until.saturating_sub(boot_time()).as_secs();
                (
                    true,
                    "CrashLoop",
                    format!("{base} restarted again after it died; it gets nothing for {wait} s while others live"),
                )
            }
        };
        if warning {
            warn!(reason, "{text}");
        } else {
            info!(reason, "{text}");
        }
        let resource = table_resource();
        let subject = Subject {
            api_version: resource.api_version.to_string(),
            kind: resource.kind.to_string(),
            namespace: String::new(),
            name: self.identity.table.clone(),
            uid: object.uid.to_string(),
        };
        self.tell.event(subject, warning, reason, text);
    }
}

/// A Lease as core observes it.
pub(crate) fn seen(lease: &Lease) -> Seen {
    Seen {
        holder: lease.holder.clone(),
        version: Version::new(lease.version.as_deref().unwrap_or_default()),
        duration: Duration::from_secs(u64::try_from(lease.duration_secs).unwrap_or_default()),
        renewed: lease.renewed.clone(),
    }
}

/// Whose Leases must be there: the members that the table names, and the sharder.
fn expected(view: &View) -> BTreeSet<MemberName> {
    let table = view.table.as_ref().and_then(|object| object.table.as_ref());
    let mut names = table.map(|table| table.names()).unwrap_or_default();
    names.extend(
        view.sharder.as_ref().filter(|lease| !lease.holder.is_empty()).map(|lease| MemberName::new(&lease.holder)),
    );
    names
}

fn members(state: &State, view: &View, now: Duration) -> BTreeMap<MemberName, MemberView> {
    let mut members: BTreeMap<MemberName, MemberView> = BTreeMap::new();
    for name in expected(view).into_iter().chain(state.observer.names().cloned()) {
        let base = base(&name).into();
        let life = state.observer.life(now, &name);
        members.insert(name, MemberView { life, report: Report::default(), leaving: false, base });
    }
    for (name, lease) in &view.members {
        let text = |key: &str| lease.annotations.get(key).map(String::as_str);
        let member = MemberView {
            life: state.observer.life(now, name),
            report: text(REPORT_ANNOTATION).map(Report::from_text).unwrap_or_default(),
            leaving: text(LEAVING_ANNOTATION).is_some(),
            base: lease.labels.get(MEMBER_LABEL).map_or(name.as_str(), String::as_str).into(),
        };
        members.insert(name.clone(), member);
    }
    members
}

/// Waits for a moment on the boot-time clock; for ever if there is none.
async fn at(moment: Option<Duration>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(Instant::now() + moment.saturating_sub(boot_time())).await,
        None => std::future::pending().await,
    }
}
