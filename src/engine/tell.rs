//! Tells people what goes wrong: one log line a problem, an event on the parent, the hook's condition.
//!
//! Never decides what follows; the queue does. A failing hook is one line per change of its health, not one per parent.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_cluster::{Event, Events, Level, Subject};
use ringmaster_core::condition::HookHealth;
use ringmaster_core::hook::HookEvent;
use ringmaster_core::key::Resource;
use ringmaster_core::object::Object;
use ringmaster_core::queue::FREE_REPEATS;
use tracing::{debug, info, warn};

use crate::changes::Changes;
use crate::execute::Failures;
use crate::hosted::Hosted;
use crate::status::{Cause, Failure};

/// Our picture may be old this often in a row before anybody is told.
const QUIET_ATTEMPTS: u32 = 5;

/// A hook may ask so often in a row to be called later before anybody is told.
const QUIET_POSTPONEMENTS: u32 = 4;

/// So many syncs in a row that change something, beyond those that are free, are told.
const RESTLESS_SYNCS: u32 = 4;

/// How much of a reply that can't be read is logged.
const EXCERPT_BYTES: usize = 512;

/// Why a sync didn't do its work.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The parent is gone.
    Gone,
    /// The hook asks to be called later.
    Later(Option<Duration>),
    /// Too many calls wait for the endpoint already.
    Busy(Duration),
    /// The same of a call that the queue didn't announce, to this URL.
    Crowded(String),
    /// The parent itself can't be worked with.
    Parent(String),
    /// The hook's call failed.
    Hook(ringmaster_hooks::Failure),
    /// The same, for the state of the parent that a revision of this name keeps.
    OldState(Box<ringmaster_hooks::Failure>, String),
    /// The hook refused the parent until it changes.
    Terminal(ringmaster_hooks::Failure),
    /// The reply of the hook that the text names can't be used.
    Reply(String),
    /// The objects that the parent is related to aren't known: a word and a sentence.
    Related(&'static str, String),
    /// The API server couldn't be read.
    Read(ringmaster_cluster::Error),
    /// What we saw isn't what is.
    Stale(String),
    /// Writes failed.
    Write(Failures),
    /// A child goes to and fro between two controllers, and is left alone for so long.
    Contested(String, Duration),
}

impl Problem {
    fn text(&self) -> String {
        match self {
            Self::Gone => "the parent is gone".to_owned(),
            Self::Later(_) => "the hook asks to be called later".to_owned(),
            Self::Busy(_) => "its hook has more calls than it takes".to_owned(),
            Self::Crowded(url) => format!("POST {url}: more calls wait there than it takes"),
            Self::Parent(text)
            | Self::Stale(text)
            | Self::Related(_, text)
            | Self::Reply(text)
            | Self::Contested(text, _) => text.clone(),
            Self::Hook(failure) => failure.to_string(),
            Self::OldState(failure, name) => {
                format!("{failure} (asked for {})", old_state(name))
            }
            Self::Terminal(failure) => format!("{failure}; not called again until the parent changes"),
            Self::Read(error) => error.to_string(),
            Self::Write(failures) => failures.to_string(),
        }
    }

    /// It came of asking the hook for an older state of the parent, which this object keeps.
    pub(crate) fn of_revision(self, revision: Option<&Object>) -> Self {
        let Some(name) = revision.map(|revision| revision.key().name().to_owned()) else { return self };
        match self {
            Self::Reply(text) => Self::Reply(format!("{text} (asked for {})", old_state(&name))),
            Self::Hook(failure) => Self::OldState(Box::new(failure), name),
            other => other,
        }
    }

    /// The member may not work on it, or not now: nothing is wrong with the parent.
    pub(crate) fn is_fenced(&self) -> bool {
        match self {
            Self::Read(error) => error.is_fenced(),
            Self::Write(failures) => failures.is_fenced(),
            _ => false,
        }
    }

    /// How long the API server wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Read(error) => error.retry_after(),
            Self::Write(failures) => failures.retry_after(),
            Self::Contested(_, pause) => Some(*pause),
            _ => None,
        }
    }

    /// Whether it concerns the hook as such, and so is told once for all parents.
    fn is_of_the_hook(&self) -> bool {
        match self {
            Self::Hook(failure) => !failure.error.was_answered(),
            Self::OldState(failure, _) => !failure.error.was_answered(),
            _ => false,
        }
    }

    fn is_quiet(&self, attempt: u32) -> bool {
        let stale = match self {
            Self::Stale(_) | Self::Crowded(_) => true,
            Self::Write(failures) => failures.is_only_stale(),
            _ => false,
        };
        stale && attempt < QUIET_ATTEMPTS
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Gone | Self::Stale(_) => "Stale",
            Self::Later(_) | Self::Busy(_) | Self::Crowded(_) => "TooManyRequests",
            Self::Parent(_) => "InvalidParent",
            Self::Hook(failure) | Self::Terminal(failure) => failure.error.reason(),
            Self::OldState(failure, _) => failure.error.reason(),
            Self::Reply(_) => "BadReply",
            Self::Related(reason, _) => reason,
            Self::Read(error) => error.reason(),
            Self::Write(failures) => failures.reason(),
            Self::Contested(..) => "ContestedChild",
        }
    }
}

/// What the hook is asked for where children follow an older state.
fn old_state(revision: &str) -> String {
    format!("the parent as ControllerRevision {revision} keeps it, which children follow")
}

/// Where it is told.
#[derive(Clone)]
pub(crate) struct Tell {
    events: Events,
}

impl Tell {
    pub(crate) fn new(events: Events) -> Self {
        Self { events }
    }

    /// A sync of `parent` failed; `attempt` failed before it.
    pub(crate) fn problem(&self, hosted: &Hosted, parent: &Object, attempt: u32, problem: &Problem) {
        let (controller, reason, text) = (&hosted.model.name, problem.reason(), problem.text());
        if problem.is_quiet(attempt) {
            debug!(%controller, parent = %parent.key(), "sync will be repeated: {text}");
            return;
        }
        // Each repetition is counted by metrics; lines and events are for the first and every doubling. What is final
        // has no repetition.
        let due = (attempt + 1).is_power_of_two() || matches!(problem, Problem::Terminal(_));
        let cause = match problem {
            Problem::Read(_) | Problem::Write(_) => Cause::Api,
            _ if problem.is_of_the_hook() => Cause::Hook,
            // Until it knows us, or calls carry something else: all are tried again then.
            Problem::Hook(failure) if matches!(failure.error.code(), 401 | 403) => Cause::Hook,
            _ => Cause::Parent,
        };
        let telling = hosted.board.failing(parent.key(), &Failure { text: &text, due, cause });
        if problem.is_of_the_hook() || !telling.event {
            debug!(%controller, parent = %parent.key(), attempt, reason, "sync failed: {text}");
        } else {
            let excerpt = match problem {
                Problem::Hook(failure) | Problem::Terminal(failure) => failure.error.excerpt(),
                _ => "",
            };
            if excerpt.is_empty() {
                warn!(%controller, parent = %parent.key(), attempt, reason, "sync failed: {text}");
            } else {
                warn!(%controller, parent = %parent.key(), attempt, reason, excerpt, "sync failed: {text}");
            }
        }
        if telling.event {
            let since = telling.since.map(|since| format!(" (failing since {since})")).unwrap_or_default();
            self.event(subject(&hosted.parent, parent), true, "SyncError", format!("{controller}: {text}{since}"));
        }
    }

    /// A sync did all that it wanted: the end of what was told by [`Self::problem`] or [`Self::postponed`].
    pub(crate) fn well(&self, hosted: &Hosted, parent: &Object) {
        let Some(failed_for) = hosted.board.not_failing(parent.key()) else { return };
        let controller = &hosted.model.name;
        debug!(%controller, parent = %parent.key(), "sync succeeded after {failed_for:?} of failures");
        let text = format!("{controller}: synced again, after failures for {}s", failed_for.as_secs());
        self.event(subject(&hosted.parent, parent), false, "SyncRecovered", text);
    }

    /// The hook asks to be called later: its good right, until it never does anything else.
    pub(crate) fn postponed(&self, hosted: &Hosted, parent: &Object, after: Option<Duration>) {
        let times = hosted.postponed(parent.key());
        if times < QUIET_POSTPONEMENTS {
            return;
        }
        let (controller, url) = (&hosted.model.name, hosted.hook_url(hosted.finalizes(parent)));
        let next = after.map_or_else(
            || "without a Retry-After that says when".to_owned(),
            |after| format!("the last time in {}s", after.as_secs()),
        );
        let text = format!("POST {url}: the hook asked {times} times in a row to be called later (429), {next}");
        let failure = Failure { text: &text, due: times.is_power_of_two(), cause: Cause::Parent };
        if hosted.board.failing(parent.key(), &failure).event {
            warn!(%controller, parent = %parent.key(), times, "sync is put off: {text}");
            self.event(subject(&hosted.parent, parent), true, "SyncPostponed", format!("{controller}: {text}"));
        }
    }

    /// The hook's answers change something at every call: see [`Hosted::restless`]. `change` says what, in a few words.
    pub(crate) fn restless(&self, hosted: &Hosted, parent: &Arc<Object>, change: impl FnOnce() -> String) {
        let times = hosted.restless(parent);
        if times < RESTLESS_SYNCS || !times.is_power_of_two() {
            return;
        }
        let (controller, url) = (&hosted.model.name, hosted.hook_url(hosted.finalizes(parent)));
        let text = format!(
            "POST {url}: the hook's answers for this object change at every call, {} times in a row, although the object \
             doesn't; the last change: {}. The same request must get the same answer: no times, no random values, no \
             order of a map. Calls are slowed down until they agree",
            times.saturating_add(FREE_REPEATS),
            change()
        );
        warn!(%controller, parent = %parent.key(), "the hook never comes to rest: {text}");
        self.event(subject(&hosted.parent, parent), true, "AnswersDiffer", format!("{controller}: {text}"));
    }

    /// The parents' kind doesn't keep a field of the status that is wanted; once for each field, on the controller.
    pub(crate) fn dropped(&self, hosted: &Hosted, parent: &Object, field: &str) {
        if !hosted.board.is_first_dropped(field) {
            return;
        }
        let (controller, kind) = (&hosted.model.name, &hosted.parent.kind);
        let text = format!(
            "status.{field} of {kind} {} isn't kept: the kind's schema has no such field, or another type; add it to its CRD, \
             or leave it out of the hook's answer",
            parent.key()
        );
        warn!(%controller, "{text}");
        self.event(hosted.about.clone(), true, "StatusDropped", text);
    }

    /// What a sync did to the parent's children: an event for each kind of change.
    pub(crate) fn children(&self, hosted: &Hosted, parent: &Object, changes: Changes) {
        let kind = |index: usize| hosted.children.get(index).map_or("", |child| &*child.resource.kind);
        for (reason, text) in changes.tell(parent.key().namespace(), kind) {
            let (subject, note) = (subject(&hosted.parent, parent), format!("{}: {text}", hosted.model.name));
            self.events.send(Event { subject, level: Level::Routine, reason: reason.to_owned(), note });
        }
    }

    /// What the hook wants said of the parent, as it says it; once, for as long as it goes on wanting the same.
    pub(crate) fn said(&self, hosted: &Hosted, parent: &Object, events: &[HookEvent]) {
        if !hosted.says_anew(parent.key(), HookEvent::fingerprint(events)) {
            return;
        }
        for HookEvent { warning, reason, message } in events {
            let level = if *warning { Level::HookWarning } else { Level::HookNotice };
            let (subject, reason, note) = (subject(&hosted.parent, parent), reason.clone(), message.clone());
            self.events.send(Event { subject, level, reason, note });
        }
    }

    /// The beginning of a reply that can't be read, for whoever looks at the log.
    pub(crate) fn bad_reply(&self, hosted: &Hosted, parent: &Object, body: &[u8]) {
        let start = String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES)]);
        let excerpt: String = start.chars().filter(|c| !c.is_control()).collect();
        debug!(controller = %hosted.model.name, parent = %parent.key(), excerpt, "a reply that can't be read");
    }

    /// Something in a reply is odd, but was read all the same.
    pub(crate) fn remark(&self, hosted: &Hosted, parent: &Object, remark: &str) {
        debug!(controller = %hosted.model.name, parent = %parent.key(), "hook reply: {remark}");
    }

    /// The hook's health as the last call showed it, for this parent, which may say of that one call only; a change is a
    /// line in the log.
    pub(crate) fn hook(
        &self,
        hosted: &Hosted,
        (hook, parent): (&'static str, &Object),
        health: HookHealth,
        is_of_one_call: bool,
    ) {
        let line = match &health {
            HookHealth::Failing(reason, message) => Some((reason.clone(), message.clone())),
            _ => None,
        };
        if !hosted.board.set_hook((hook, parent.key()), health, is_of_one_call) {
            return;
        }
        let controller = &hosted.model.name;
        match line {
            Some((reason, message)) => warn!(%controller, %reason, "the hook fails: {message}"),
            None => info!(%controller, hook, "the hook answers"),
        }
    }

    /// What is wrong with what TLS needs and calls carry, once for each cause, and that it is over: on the controller, where
    /// no conditions tell.
    pub(crate) fn credentials(&self, hosted: &Hosted) {
        if hosted.model.dialect.conditions {
            return;
        }
        let Some(problems) = hosted.routes.bad_credentials() else { return };
        let problem = problems.into_iter().collect::<Vec<_>>().join("; ");
        if !hosted.board.set_credentials(&problem) {
            return;
        }
        let controller = &hosted.model.name;
        if problem.is_empty() {
            info!(%controller, "the hook's credentials can be used again");
            let note = "what the webhook's credentials and TLS need can be used again".to_owned();
            self.event(hosted.about.clone(), false, "CredentialsBack", note);
        } else {
            warn!(%controller, "the hook's credentials can't be used: {problem}");
            self.event(hosted.about.clone(), true, "BadCredentials", problem);
        }
    }

    /// An event on any object, of what is wrong or of what began or ended.
    pub(crate) fn event(&self, subject: Subject, warning: bool, reason: &str, note: String) {
        let level = if warning { Level::Warning } else { Level::Notice };
        self.events.send(Event { subject, level, reason: reason.to_owned(), note });
    }
}

/// What an event about an object refers to.
pub(crate) fn subject(resource: &Resource, object: &Object) -> Subject {
    Subject {
        api_version: resource.api_version.to_string(),
        kind: resource.kind.to_string(),
        namespace: object.key().namespace().to_owned(),
        name: object.key().name().to_owned(),
        uid: object.uid().to_string(),
    }
}
