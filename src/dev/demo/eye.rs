//! Who looks at a running demo: objects, the table, what passed the relay, processes.
//!
//! Never touches anything: it sees what anybody could see.

use std::collections::VecDeque;
use std::time::Duration;

use console::Term;
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use super::cast::{Cast, State};
use super::keys::Keys;
use super::record::Calls;
use super::replicas::{self, Replicas};
use super::scaling::Scale;
use super::screen::Screen;
use super::slices::State as ReplicaState;
use super::story::Act;
use super::view::{Cell, Change, Gaps, NEW, ReplicaRow, Row, View};
use super::{Error, LOOK, Stage, ownership, scene, summary};

/// Looks that "lately" is made of.
const LATELY: usize = 20;
/// Time between two lines without a terminal.
const LINE: Duration = Duration::from_secs(5);
/// How often keys are looked for.
const KEY: Duration = Duration::from_millis(50);
/// What keys do.
const HINT: &str = "members: + more, - fewer, k kill -9 one; webhooks: > < x; Ctrl-C ends";
/// How long a member that has ended is shown, once nobody waits for its shards.
const SHOWN: Duration = Duration::from_secs(10);

/// One who looks.
pub(crate) struct Eye<'a> {
    stage: &'a Stage,
    cast: &'a Cast,
    replicas: &'a Replicas,
    wanted: usize,
    start: Instant,
    /// The last [`LATELY`] figures.
    looks: VecDeque<(Instant, Calls)>,
    last_error: Option<(String, String)>,
    /// What was wrong with a Website at the last look.
    wrong: Option<String>,
    /// The newest warning that was seen.
    warned: u64,
    /// Moves that were counted, and what they came to.
    mark: u64,
    moved: Gaps,
    taken: Gaps,
    /// What was seen last, and how long it took until all Websites were ready for the first time.
    seen: Option<View>,
    ready: Option<Duration>,
    /// The last outcomes of acts and of changes that were printed.
    printed: (u64, u64),
}

impl<'a> Eye<'a> {
    pub(crate) fn new(stage: &'a Stage, cast: &'a Cast, replicas: &'a Replicas, wanted: usize) -> Self {
        Self {
            stage,
            cast,
            replicas,
            wanted,
            start: Instant::now(),
            looks: VecDeque::new(),
            last_error: None,
            wrong: None,
            warned: 0,
            mark: 0,
            moved: Gaps::default(),
            taken: Gaps::default(),
            seen: None,
            ready: None,
            printed: (0, 0),
        }
    }

    /// What all came to, as far as it was seen; nothing if nothing was.
    pub(crate) fn summary(&self) -> Option<String> {
        let view = self.seen.as_ref().filter(|view| view.total.begun() > 0)?;
        Some(summary::summary(view, self.ready, &self.stage.played.lock()))
    }

    async fn look(&mut self) -> Result<View, Error> {
        let mut view = View { elapsed: self.start.elapsed(), wanted: self.wanted, ..View::default() };
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let mut wrong = None;
        let websites = self.stage.objects.list(&scene::websites()).await?;
        for website in &websites {
            let phase = website["status"]["phase"].as_str().unwrap_or(NEW);
            *view.phases.entry(phase.to_owned()).or_default() += 1;
            if phase == "Error" {
                let (name, message) = (text(&website["metadata"]["name"]), text(&website["status"]["message"]));
                wrong.get_or_insert_with(|| format!("{name}: {message}"));
            }
        }
        #[expect(clippy::disallowed_methods, reason = "for people")]
        let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        if wrong.is_some() && wrong != self.wrong {
            self.last_error = wrong.clone().map(|wrong| (time.clone(), wrong));
        }
        self.wrong = wrong;
        if let Some(warning) = self.warning().await? {
            self.last_error = Some((time, warning));
        }
        view.last_error.clone_from(&self.last_error);
        let now = Instant::now();
        {
            let mut wishes = self.stage.wishes.lock();
            wishes.see(now, &websites);
            let (waiting, first) = wishes.waiting(now);
            view.wishes = (wishes.made(), waiting, first, wishes.longest());
        }
        {
            let record = self.stage.record.lock();
            view.total = record.calls().clone();
            (view.moved_parents, view.steady) = (record.affinity().moved(), record.affinity().steady());
            view.wrong = (record.wrong(), record.violations().first().cloned());
        }
        let (then, before) = self.looks.front().cloned().unwrap_or_else(|| (self.start, Calls::default()));
        view.recent = (view.total.since(&before), now - then);
        self.looks.push_back((now, view.total.clone()));
        if self.looks.len() > LATELY {
            self.looks.pop_front();
        }
        self.look_at_members(&mut view);
        self.look_at_replicas(&mut view);
        view.changes = self.stage.changes.all();
        view.acts = self.stage.acts.all();
        if view.is_ready() {
            self.ready.get_or_insert(view.elapsed);
        }
        self.seen = Some(view.clone());
        Ok(view)
    }

    fn look_at_members(&mut self, view: &mut View) {
        let members = self.cast.members();
        let ownership = self.stage.ownership.lock();
        for one in ownership.moves_since(self.mark) {
            let gaps = if one.taken { &mut self.taken } else { &mut self.moved };
            gaps.count += 1;
            gaps.longest = gaps.longest.max(one.gap);
        }
        self.mark = ownership.mark();
        (view.moved, view.taken) = (self.moved, self.taken);
        let number = |name: &str| name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        view.shards = ownership
            .cells()
            .into_iter()
            .map(|cell| match cell {
                ownership::Cell::Owned(name) => Cell::Owned(number(name)),
                ownership::Cell::Moving(name) => Cell::Moving(number(name)),
                ownership::Cell::Nobody => Cell::Nobody,
            })
            .collect();
        let counts = ownership.counts();
        for (_, member) in members {
            let held = ownership.held_by(&member.name);
            let state = match &member.state {
                State::Runs if ownership.counts_on(&member.name) => "live",
                State::Runs => "starting",
                State::Leaving => "leaving",
                State::Ended { .. } if held > 0 => "lost",
                State::Ended { at, .. } if at.elapsed() < SHOWN => "ended",
                State::Ended { .. } => continue,
            };
            let calls = view.recent.0.of.iter().filter(|(name, _)| ownership::base(name) == member.name);
            view.members.push(Row {
                state,
                pid: (!member.has_ended()).then_some(member.process.pid),
                shards: counts.get(member.name.as_str()).copied().unwrap_or((held, 0)),
                calls: (!member.has_ended()).then(|| calls.map(|(_, count)| count).sum()),
                rss_bytes: member.rss_bytes(),
                name: member.name,
            });
        }
    }

    fn look_at_replicas(&self, view: &mut View) {
        let parents = self.stage.record.lock().affinity().parents();
        for (replica, it) in self.replicas.all() {
            let (state, runs) = match it.state {
                ReplicaState::Off => continue,
                ReplicaState::Starts => ("starting", true),
                ReplicaState::Runs => ("live", true),
                ReplicaState::Leaving => ("leaving", true),
                ReplicaState::Dead { .. } => ("dead", false),
            };
            view.replicas.push(ReplicaRow {
                name: replicas::name(replica),
                state,
                pid: it.process.filter(|_| runs).map(|process| process.pid),
                parents: parents.get(&replica).copied().unwrap_or(0),
                calls: runs.then(|| view.recent.0.at.get(&replica).copied().unwrap_or(0)),
            });
        }
    }

    /// The newest warning about a Website, if it came since the last look.
    async fn warning(&mut self) -> Result<Option<String>, Error> {
        let path = format!("/api/v1/namespaces/{}/events?fieldSelector=type%3DWarning", scene::NAMESPACE);
        let events = self.stage.objects.list(&path).await?;
        let version = |event: &Value| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
        let newest = events.into_iter().filter_map(|event| Some((version(&event)?, event))).max_by_key(|(v, _)| *v);
        let Some((version, event)) = newest.filter(|(version, _)| *version > self.warned) else { return Ok(None) };
        self.warned = version;
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        Ok(Some(format!("{}: {}", text(&event["involvedObject"]["name"]), text(&event["message"]))))
    }

    /// Looks until all Websites are ready.
    ///
    /// # Errors
    /// [`Error::NotReady`] if that takes longer than it may.
    pub(crate) async fn until_ready(&mut self, timeout: Duration) -> Result<View, Error> {
        let mut told = Instant::now();
        loop {
            let view = self.look().await?;
            if view.is_ready() {
                return Ok(view);
            }
            if let Some(gone) = self.cast.deserter().or_else(|| self.replicas.deserter()) {
                return Err(Error::Deserted(gone));
            }
            if view.elapsed >= timeout {
                return Err(Error::NotReady(self.reason(&view)));
            }
            if told.elapsed() >= LINE {
                self.stage.printer.line(&view.line());
                told = Instant::now();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn reason(&self, view: &View) -> String {
        let mut reason = format!(
            "{} of {} Websites ready after {:.0} s ({})",
            view.count("Ready"),
            view.wanted,
            view.elapsed.as_secs_f64(),
            view.phases_text()
        );
        if let Some((_, error)) = &view.last_error {
            reason.push_str(&format!("; last error: {error}"));
        }
        let said = self.replicas.said();
        if !said.is_empty() {
            reason.push_str(&format!("; the webhook's last lines:{said}"));
        }
        reason
    }

    /// Draws on the terminal, and passes its keys on. Never ends well.
    pub(crate) async fn draw(&mut self, introduction: &str, acts: Sender<Act>) -> Result<(), Error> {
        let screen = Screen::open(&self.stage.printer, introduction);
        let keys = Keys::open();
        let hint = keys.as_ref().map(|_| HINT);
        let term = Term::stdout();
        loop {
            let view = View { hint, ..self.look().await? };
            let (rows, columns) = term.size();
            screen.draw(&view, usize::from(rows), usize::from(columns));
            let end = Instant::now() + LOOK;
            while Instant::now() < end {
                let act = match keys.as_ref().and_then(Keys::pressed) {
                    Some(b'+' | b'=') => Some(Act::More),
                    Some(b'-') => Some(Act::Fewer),
                    Some(b'k') => Some(Act::Kill),
                    Some(b'>' | b'.') => Some(Act::Webhooks(Scale::More)),
                    Some(b'<' | b',') => Some(Act::Webhooks(Scale::Fewer)),
                    Some(b'x') => Some(Act::Webhooks(Scale::Kill)),
                    _ => None,
                };
                if let Some(act) = act {
                    // One that finds too many waiting is lost, as somebody's cat may sleep on the keyboard.
                    let _ = acts.try_send(act);
                }
                tokio::time::sleep(KEY).await;
            }
        }
    }

    /// Prints lines: what was done and came of it, and now and then how things are. Without an end, or until it is
    /// dropped.
    pub(crate) async fn print(&mut self) -> Result<(), Error> {
        let printer = self.stage.printer.clone();
        let (mut told, mut phases) = (None::<Instant>, String::new());
        loop {
            let view = self.look().await?;
            self.print_outcomes(&view);
            let news = phases != view.phases_text();
            if news || told.is_none_or(|told| told.elapsed() >= LINE) {
                phases = view.phases_text();
                printer.line(&view.line());
                told = Some(Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Prints what came of what was done, each once and in the order in which it came.
    pub(crate) fn print_outcomes(&mut self, view: &View) {
        let mut news = Vec::new();
        for (log, printed) in [(&view.acts, &mut self.printed.0), (&view.changes, &mut self.printed.1)] {
            let at = |change: &Change| change.outcome.as_ref().map_or(0, |(at, _)| at.number);
            let last = *printed;
            for change in log.iter().filter(|change| at(change) > last) {
                *printed = (*printed).max(at(change));
                news.push((at(change), change.line()));
            }
        }
        news.sort();
        news.iter().for_each(|(_, line)| self.stage.printer.line(line));
    }

    /// Looks until all Websites are ready.
    ///
    /// # Errors
    /// If some aren't after so long: their syncs failed for good.
    pub(crate) async fn last(&mut self, patience: Duration) -> Result<View, Error> {
        let start = Instant::now();
        loop {
            let view = self.look().await?;
            if view.is_ready() {
                return Ok(view);
            }
            if start.elapsed() >= patience {
                return Err(Error::Proof(format!("at the end, {}", self.reason(&view))));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
