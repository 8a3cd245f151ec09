//! The state machine of a watch: list (streamed where served, else in pages), then watch, for ever.
//!
//! Rules: a watch that ends, by itself or by an error, goes on from the last version; a version that is too old (410)
//! leads to a new list; a list that breaks off concludes nothing. Failures back off with jitter.

use std::time::Duration;

use crate::queue::backoff;

/// Objects asked for in one page.
pub const PAGE_LIMIT: u32 = 500;
/// A failed request is repeated after at most this long.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// A watch that fails so often in a row begins again with a list: maybe one event is what it can't get over.
const FAILURES_BEFORE_LIST: u32 = 8;
/// An outage counts for at most so many failures once it is over: about a second passes until the next request.
const FAILURES_OF_OUTAGE: u32 = 3;
/// A watch is asked to end after 30 to 60 s, so that a connection that went silent costs at most that.
const WATCH_SECS: (u64, u64) = (30, 60);

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A page of a list.
    Page {
        /// The token of the page before; `None` for the first.
        next: Option<String>,
    },
    /// A watch that starts with all objects (streaming list, KEP-3157).
    Stream {
        /// The server is asked to end it after this many seconds.
        timeout_secs: u64,
    },
    /// A watch from a version.
    Watch {
        /// The version.
        version: String,
        /// The server is asked to end it after this many seconds.
        timeout_secs: u64,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Wait this long first.
    pub wait: Duration,
    /// Then ask.
    pub request: Request,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A page arrived, and its objects were applied.
    Page {
        /// The list's version.
        version: String,
        /// The token for the next page.
        next: Option<String>,
    },
    /// An event with this version was applied.
    Event {
        /// The object's version.
        version: String,
    },
    /// A bookmark arrived.
    Bookmark {
        /// Its version.
        version: String,
        /// It ends the initial events.
        initial_end: bool,
    },
    /// The stream ended as it should.
    Ended,
    /// The version or the page token is too old (410).
    Expired,
    /// The server doesn't stream lists (a 4xx for the request).
    NotStreamed,
    /// The request or the stream failed.
    Failed,
    /// The request was refused by a server that wants to be left alone for this long.
    Refused {
        /// The next request comes no sooner.
        pause: Duration,
    },
}

/// What follows for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The list is complete as of this version.
    ListComplete(String),
    /// A list broke off.
    ListAborted,
}

#[derive(Debug)]
enum Phase {
    /// About to list; nothing was asked yet.
    Start,
    /// In the middle of pages.
    Paging { next: Option<String> },
    /// In the middle of a streaming list.
    Streaming,
    /// Informed up to a version.
    Watching { version: String },
}

/// The state of one watch.
#[derive(Debug)]
pub struct Pump {
    phase: Phase,
    /// Whether to try a streaming list next time.
    stream: bool,
    failures: u32,
    /// An outage among these failures is over: those that follow are of another cause, or of one that comes and goes.
    outlived: bool,
    /// Lists in a row that led to a version which was too old at once.
    relists: u32,
    /// The next request waits at least this long.
    pause: Duration,
    /// Something arrived since the last request: a failure after progress starts the backoff anew.
    progressed: bool,
}

impl Default for Pump {
    fn default() -> Self {
        Self::new()
    }
}

impl Pump {
    /// A watch that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::Start,
            stream: true,
            failures: 0,
            outlived: false,
            relists: 0,
            pause: Duration::ZERO,
            progressed: false,
        }
    }

    /// A watch that knows all up to a version.
    #[must_use]
    pub fn following(version: String) -> Self {
        Self { phase: Phase::Watching { version }, ..Self::new() }
    }

    /// Has a watch that is informed go on from another version.
    pub fn rewind(&mut self, to: String) {
        if let Phase::Watching { version } = &mut self.phase {
            *version = to;
        }
    }

    /// Whether it begins with a list next.
    #[must_use]
    pub fn must_list(&self) -> bool {
        matches!(self.phase, Phase::Start)
    }

    /// What to do next. A list begins where [`Request::Stream`] or a first [`Request::Page`] is returned.
    pub fn next(&mut self, random: u64) -> Step {
        // After an API server's restart everybody's version is too old at the same moment: the jitter spreads them.
        let relists = if matches!(self.phase, Phase::Start) { self.relists } else { 0 };
        // A page that follows another is asked for at once, whatever went before: its token doesn't last.
        let tries = if self.is_listing() { 0 } else { self.failures.max(relists) };
        let wait = if tries == 0 { Duration::ZERO } else { backoff(tries, random).min(MAX_WAIT) };
        let wait = wait.max(std::mem::take(&mut self.pause));
        let timeout_secs = WATCH_SECS.0 + random % (WATCH_SECS.1 - WATCH_SECS.0 + 1);
        self.progressed = false;
        let request = match &self.phase {
            Phase::Start if self.stream => {
                self.phase = Phase::Streaming;
                Request::Stream { timeout_secs }
            }
            Phase::Start => {
                self.phase = Phase::Paging { next: None };
                Request::Page { next: None }
            }
            Phase::Paging { next } => Request::Page { next: next.clone() },
            Phase::Streaming => Request::Stream { timeout_secs },
            Phase::Watching { version } => Request::Watch { version: version.clone(), timeout_secs },
        };
        Step { wait, request }
    }

    /// Whether a list is in progress.
    #[must_use]
    pub fn is_listing(&self) -> bool {
        matches!(self.phase, Phase::Paging { .. } | Phase::Streaming)
    }

    /// How many requests in a row failed.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The server answers again, if only with an error: how long it was away says nothing of how long that will last.
    pub fn outage_over(&mut self) {
        if !std::mem::replace(&mut self.outlived, true) {
            self.failures = self.failures.min(FAILURES_OF_OUTAGE);
        }
    }

    /// Takes what came of the last request.
    pub fn on(&mut self, input: Input) -> Effect {
        match (input, &mut self.phase) {
            (Input::Refused { pause }, _) => {
                self.pause = pause;
                self.on(Input::Failed)
            }
            (Input::Page { version, next: None }, Phase::Paging { .. })
            | (Input::Bookmark { version, initial_end: true }, Phase::Streaming) => {
                self.succeed();
                self.phase = Phase::Watching { version: version.clone() };
                Effect::ListComplete(version)
            }
            (Input::Page { next, .. }, Phase::Paging { next: token }) => {
                *token = next;
                Effect::None
            }
            (Input::Bookmark { version, .. } | Input::Event { version }, Phase::Watching { version: known }) => {
                known.clone_from(&version);
                self.relists = 0;
                self.succeed();
                Effect::None
            }
            (Input::NotStreamed, Phase::Streaming) => {
                self.stream = false;
                self.phase = Phase::Start;
                Effect::ListAborted
            }
            // The initial events didn't fit into one stream: pages take their time.
            (Input::Ended, Phase::Streaming) => {
                self.stream = false;
                self.restart()
            }
            (Input::Expired, Phase::Watching { .. }) => {
                self.phase = Phase::Start;
                self.relists = self.relists.saturating_add(1);
                Effect::None
            }
            (Input::Expired | Input::Failed | Input::NotStreamed, Phase::Streaming | Phase::Paging { .. }) => {
                self.restart()
            }
            (Input::Failed, _) => {
                self.fail();
                if self.failures.is_multiple_of(FAILURES_BEFORE_LIST) {
                    self.phase = Phase::Start;
                }
                Effect::None
            }
            // A watch lasted its time, whether or not it had anything to say.
            (Input::Ended, Phase::Watching { .. }) => {
                self.failures = 0;
                Effect::None
            }
            // Events inside a list, and inputs that don't fit the phase, change nothing.
            _ => {
                self.progressed = true;
                Effect::None
            }
        }
    }

    /// A list that breaks off was for nothing, however far it came: its failures add up until one is complete.
    fn restart(&mut self) -> Effect {
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::Start;
        Effect::ListAborted
    }

    fn succeed(&mut self) {
        self.failures = 0;
        self.outlived = false;
        self.progressed = true;
    }

    fn fail(&mut self) {
        self.failures = if self.progressed { 1 } else { self.failures.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pump: &mut Pump) -> Request {
        pump.next(0).request
    }

    fn page(version: &str, next: Option<&str>) -> Input {
        Input::Page { version: version.into(), next: next.map(Into::into) }
    }

    #[test]
    fn streams_a_list_then_watches_from_its_end() {
        let mut pump = Pump::new();
        assert_eq!(request(&mut pump), Request::Stream { timeout_secs: 30 });
        assert!(pump.is_listing());
        assert_eq!(pump.on(Input::Event { version: "3".into() }), Effect::None);
        let end = Input::Bookmark { version: "7".into(), initial_end: true };
        assert_eq!(pump.on(end), Effect::ListComplete("7".into()));
        pump.on(Input::Event { version: "8".into() });
        pump.on(Input::Bookmark { version: "9".into(), initial_end: false });
        pump.on(Input::Ended);
        let step = pump.next(30);
        assert_eq!(
            step,
            Step { wait: Duration::ZERO, request: Request::Watch { version: "9".into(), timeout_secs: 60 } }
        );
    }

    #[test]
    fn goes_on_from_where_it_is_told() {
        let mut pump = Pump::following("7".into());
        assert!(matches!(request(&mut pump), Request::Watch { version, .. } if version == "7"));
        pump.on(Input::Event { version: "9".into() });
        pump.on(Input::Ended);
        pump.rewind("8".into());
        assert!(matches!(request(&mut pump), Request::Watch { version, .. } if version == "8"));
        assert!(!pump.must_list());
        pump.on(Input::Expired);
        assert!(pump.must_list());
        pump.rewind("8".into());
        assert!(matches!(request(&mut pump), Request::Stream { .. }), "a list has no version to begin from");
    }

    #[test]
    fn pages_where_streams_are_not_served() {
        let mut pump = Pump::new();
        request(&mut pump);
        assert_eq!(pump.on(Input::NotStreamed), Effect::ListAborted);
        assert_eq!(pump.next(0), Step { wait: Duration::ZERO, request: Request::Page { next: None } });
        assert_eq!(pump.on(page("5", Some("t"))), Effect::None);
        assert_eq!(request(&mut pump), Request::Page { next: Some("t".into()) });
        assert_eq!(pump.on(page("5", None)), Effect::ListComplete("5".into()));
        assert!(matches!(request(&mut pump), Request::Watch { version, .. } if version == "5"));
    }

    #[test]
    fn too_old_a_version_lists_anew_and_again_only_later() {
        let mut pump = Pump::new();
        request(&mut pump);
        pump.on(Input::Bookmark { version: "7".into(), initial_end: true });
        request(&mut pump);
        assert_eq!(pump.on(Input::Expired), Effect::None);
        let step = pump.next(u64::MAX);
        assert!(step.wait <= Duration::from_millis(100));
        assert!(matches!(step.request, Request::Stream { .. }));
        let mut last = step.wait;
        for _ in 0..5 {
            pump.on(Input::Bookmark { version: "7".into(), initial_end: true });
            request(&mut pump);
            pump.on(Input::Expired);
            let wait = pump.next(u64::MAX).wait;
            assert!(wait > last, "{wait:?} after {last:?}");
            last = wait;
        }
        pump.on(Input::Bookmark { version: "9".into(), initial_end: true });
        request(&mut pump);
        pump.on(Input::Event { version: "10".into() });
        pump.on(Input::Expired);
        assert!(pump.next(u64::MAX).wait <= Duration::from_millis(100), "an event starts it anew");
    }

    #[test]
    fn a_broken_list_concludes_nothing_and_begins_again() {
        let mut pump = Pump::new();
        request(&mut pump);
        pump.on(Input::NotStreamed);
        request(&mut pump);
        pump.on(page("5", Some("t")));
        request(&mut pump);
        assert_eq!(pump.on(Input::Expired), Effect::ListAborted);
        assert_eq!(request(&mut pump), Request::Page { next: None });
        let mut streaming = Pump::new();
        request(&mut streaming);
        assert_eq!(streaming.on(Input::Ended), Effect::ListAborted);
        assert_eq!(request(&mut streaming), Request::Page { next: None });
    }

    #[test]
    fn a_list_that_always_breaks_off_halfway_backs_off() {
        for streams in [true, false] {
            let mut pump = Pump::new();
            pump.stream = streams;
            let mut waits = Vec::new();
            for _ in 0..12 {
                waits.push(pump.next(u64::MAX).wait);
                if streams {
                    pump.on(Input::Event { version: "3".into() });
                } else {
                    pump.on(page("5", Some("t")));
                    let step = pump.next(u64::MAX);
                    assert_eq!(step, Step { wait: Duration::ZERO, request: Request::Page { next: Some("t".into()) } });
                }
                assert_eq!(pump.on(Input::Failed), Effect::ListAborted);
            }
            assert_eq!(pump.failures(), 12);
            assert!(waits.windows(2).all(|pair| pair[1] > pair[0] || pair[1] == MAX_WAIT), "{waits:?}");
            pump.next(0);
            if streams {
                pump.on(Input::Bookmark { version: "7".into(), initial_end: true });
            } else {
                pump.on(page("7", None));
            }
            assert_eq!(pump.failures(), 0);
        }
    }

    #[test]
    fn failures_back_off() {
        let mut pump = Pump::new();
        request(&mut pump);
        pump.on(Input::Bookmark { version: "7".into(), initial_end: true });
        let mut waits = Vec::new();
        for _ in 0..20 {
            waits.push(pump.next(u64::MAX).wait);
            pump.on(Input::Failed);
        }
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[2] > waits[1] && *waits.last().unwrap() <= MAX_WAIT);
    }

    #[test]
    fn an_outage_leaves_a_short_pause() {
        let mut pump = Pump::new();
        request(&mut pump);
        pump.on(Input::Bookmark { version: "7".into(), initial_end: true });
        for _ in 0..20 {
            request(&mut pump);
            pump.on(Input::Failed);
        }
        pump.outage_over();
        pump.on(Input::Failed);
        let wait = pump.next(u64::MAX).wait;
        assert!(wait > Duration::from_millis(500) && wait < Duration::from_secs(1), "{wait:?}");
        for _ in 0..20 {
            pump.on(Input::Failed);
            pump.outage_over();
        }
        assert_eq!(pump.next(u64::MAX).wait, MAX_WAIT, "one that comes and goes is none");
        let mut pump = Pump::new();
        pump.outage_over();
        assert_eq!(pump.failures(), 0);
    }

    #[test]
    fn a_server_that_wants_to_be_left_alone_is() {
        let (pause, mut pump) = (Duration::from_secs(40), Pump::new());
        request(&mut pump);
        assert_eq!(pump.on(Input::Refused { pause }), Effect::ListAborted);
        assert_eq!(pump.next(0).wait, pause);
        pump.on(Input::Failed);
        assert!(pump.next(0).wait < pause, "once");
        let short = Duration::from_nanos(1);
        for _ in 0..3 {
            pump.on(Input::Refused { pause: short });
        }
        assert!(pump.next(0).wait > short, "failures back off all the same");
        assert_eq!(pump.failures(), 5);
    }

    #[test]
    fn a_watch_goes_on_from_its_version_and_begins_anew_when_it_can_t() {
        let mut pump = Pump::new();
        request(&mut pump);
        pump.on(Input::Bookmark { version: "7".into(), initial_end: true });
        request(&mut pump);
        pump.on(Input::Failed);
        pump.on(Input::Failed);
        assert!(matches!(request(&mut pump), Request::Watch { version, .. } if version == "7"));
        let late = pump.next(u64::MAX).wait;
        pump.on(Input::Event { version: "8".into() });
        pump.on(Input::Failed);
        assert!(pump.next(u64::MAX).wait < late, "progress starts the backoff anew");
        for _ in 1..FAILURES_BEFORE_LIST {
            pump.next(0);
            pump.on(Input::Failed);
        }
        assert!(matches!(request(&mut pump), Request::Stream { .. }));
    }
}
