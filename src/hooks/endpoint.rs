//! One endpoint of a hook: its connections, its places, and whether it is left out.
//!
//! The shell around [`Health`], [`Gate`] and [`Limit`], which decide. Never chooses among endpoints, and never repeats a
//! call.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::{Mutex, RwLock};
use ringmaster_core::endpoints::{Begun, Ended, Entered, Gate, Health, Limit};
use ringmaster_core::key::ControllerId;
use rustls::ClientConfig;
use tokio::sync::{oneshot, watch};

use crate::client::{Post, Reply, answers};
use crate::connect::{HttpClient, client};
use crate::pool::{Pool, Site};
use crate::{Doorman, Error};

/// By HTTP/2, calls at once on one connection before another one is made.
const CALLS_PER_CONNECTION: usize = 16;
/// By TLS, connections of HTTP/2 at most.
const CONNECTIONS: usize = 4;
/// A probe is answered within this time.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// So long before a call's deadline it is looked whether its endpoint answers anything; half of the timeout, if that is
/// shorter.
const SUSPICION: Duration = Duration::from_millis(500);
/// It does if it answers a HEAD within this time, which is as long for a call with a short timeout: others call there too.
const EXAMINATION: Duration = Duration::from_millis(450);

/// Something changed that people, or failed parents, want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// An endpoint is left out from now on.
    Ejected {
        /// Which.
        endpoint: &'a str,
        /// Why.
        why: &'a str,
    },
    /// It is back.
    Returned {
        /// Which.
        endpoint: &'a str,
    },
    /// There are endpoints, and there were none before.
    Reachable,
    /// The endpoints are others than before.
    Changed,
    /// Calls carry another `Authorization`.
    Credentials,
}

/// Who is told. Calls must not block.
pub trait Listener: Send + Sync {
    /// See [`News`].
    fn told(&self, news: News<'_>);
}

/// The calls at one address: their places, and who waits for one.
pub(crate) struct Load {
    /// By which the queue knows it.
    number: u64,
    doorman: Arc<dyn Doorman>,
    state: Mutex<(Gates, Limit)>,
}

type Gates = Gate<ControllerId, oneshot::Sender<Seat>>;

/// A place; given back when it is dropped.
pub(crate) struct Seat {
    load: Arc<Load>,
    who: ControllerId,
    is_taken: bool,
}

/// A call that is to come: it finds a place, or room to wait for one.
pub struct Coming {
    load: Arc<Load>,
    who: ControllerId,
    is_here: bool,
}

/// A wish for a place; withdrawn when it is dropped.
struct Ticket<'a> {
    load: &'a Arc<Load>,
    who: ControllerId,
    number: u64,
}

impl Load {
    pub(crate) fn new(number: u64, limit: Limit, doorman: Arc<dyn Doorman>) -> Arc<Self> {
        let mut gate = Gate::new(limit.places());
        gate.set_places(limit.places(), limit.extra());
        Arc::new(Self { number, doorman, state: Mutex::new((gate, limit)) })
    }

    /// Gives free places to those who wait, and tells those who were refused if there is room. Those who have gone give
    /// theirs on.
    fn grant(self: &Arc<Self>) {
        loop {
            let next = self.state.lock().0.admit();
            let Some((who, ticket)) = next else { break };
            if let Err(mut seat) = ticket.send(Seat { load: Arc::clone(self), who, is_taken: true }) {
                seat.is_taken = false;
                self.state.lock().0.leave(&who);
            }
        }
        let room = self.state.lock().0.has_room();
        room.into_iter().for_each(|who| self.doorman.room(who, self.number));
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&Gates, &mut Limit)) {
        {
            let (gate, limit) = &mut *self.state.lock();
            change(gate, limit);
            gate.set_places(limit.places(), limit.extra());
        }
        self.grant();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.is_taken {
            self.load.state.lock().0.leave(&self.who);
            self.load.grant();
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if !self.is_here {
            self.load.state.lock().0.arrive(&self.who);
            self.load.grant();
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.load.state.lock().0.withdraw(&self.who, self.number);
        self.load.grant();
    }
}

/// What calls and those who wait are told.
#[derive(Clone, Copy, Default)]
struct Signals {
    ejected: bool,
    /// How often the calls that ran were given up.
    cuts: u32,
    /// The last time those with no more than this timeout: others have waited less long than is theirs.
    cut: Duration,
}

/// What is counted of an endpoint since it is known.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Calls that were answered with 200.
    pub(crate) good: AtomicU64,
    /// Calls that were answered otherwise.
    pub(crate) bad: AtomicU64,
    /// Calls that had no answer.
    pub(crate) lost: AtomicU64,
    /// How often it was left out.
    pub(crate) ejections: AtomicU64,
}

/// One endpoint.
pub(crate) struct Endpoint {
    site: Site,
    pool: Weak<Pool>,
    load: Arc<Load>,
    clients: RwLock<Option<Arc<[Line]>>>,
    health: Mutex<Health>,
    signals: watch::Sender<Signals>,
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
    is_probed: AtomicBool,
    is_examined: AtomicBool,
    look: Mutex<Option<Look>>,
    pub(crate) counts: Arc<Counts>,
}

/// One HTTP client, and how many calls it has.
struct Line {
    http: HttpClient,
    calls: AtomicUsize,
}

/// A call on a line; it counts until this is dropped.
struct OnLine {
    lines: Arc<[Line]>,
    at: usize,
}

impl OnLine {
    /// The first line that has room, or the one with fewest calls: by HTTP/1.1 each line makes the connections that it
    /// needs, and a few calls need one line only.
    fn take(lines: Arc<[Line]>) -> Self {
        let calls = |at: &usize| lines[*at].calls.load(Ordering::Relaxed);
        let at = (0..lines.len()).find(|at| calls(at) < CALLS_PER_CONNECTION);
        let at = at.or_else(|| (0..lines.len()).min_by_key(calls)).unwrap_or(0);
        lines[at].calls.fetch_add(1, Ordering::Relaxed);
        Self { lines, at }
    }

    fn http(&self) -> &HttpClient {
        &self.lines[self.at].http
    }
}

impl Drop for OnLine {
    fn drop(&mut self) {
        self.lines[self.at].calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls wait for an answer: when it is to be looked whether there is any, and the longest of their timeouts.
struct Look {
    at: Duration,
    timeout: Duration,
}

/// Ends the time in which others needn't look.
struct Examined<'a>(&'a AtomicBool);

impl Drop for Examined<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A place at an endpoint, for one call.
pub(crate) struct Place {
    endpoint: Arc<Endpoint>,
    seat: Seat,
    begun: Begun,
    /// As many calls had been given up when it was taken.
    cuts: u32,
}

impl Endpoint {
    pub(crate) fn new(
        pool: &Arc<Pool>,
        site: Site,
        (load, counts): (Arc<Load>, Arc<Counts>),
        tls: Option<&ClientConfig>,
    ) -> Arc<Self> {
        let endpoint = Self {
            site,
            pool: Arc::downgrade(pool),
            load,
            clients: RwLock::default(),
            health: Mutex::default(),
            signals: watch::Sender::new(Signals::default()),
            listeners: Mutex::default(),
            is_probed: AtomicBool::new(false),
            is_examined: AtomicBool::new(false),
            look: Mutex::default(),
            counts,
        };
        if let Some(tls) = tls {
            endpoint.set_tls(tls);
        }
        Arc::new(endpoint)
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// What it is called, and chosen by.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.site.name
    }

    pub(crate) fn listen(&self, listener: Weak<dyn Listener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    /// New connections are made with this; those that there are end with the calls that they carry.
    pub(crate) fn set_tls(&self, tls: &ClientConfig) {
        let Some(pool) = self.pool.upgrade() else { return };
        let lines = if self.site.uri.scheme() == Some(&http::uri::Scheme::HTTPS) { CONNECTIONS } else { 1 };
        let connector = pool.connector(&self.site);
        let lines = (0..lines)
            .map(|_| Line { http: client(connector.clone(), tls, pool.workers()), calls: AtomicUsize::new(0) });
        *self.clients.write() = Some(lines.collect());
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.signals.borrow().ejected
    }

    /// Resolves once it is left out.
    pub(crate) async fn ejected(&self) {
        // The sender is this endpoint's, which outlives the wait.
        let _ = self.signals.subscribe().wait_for(|signals| signals.ejected).await;
    }

    pub(crate) fn erring(&self) -> Option<u16> {
        self.health.lock().erring()
    }

    /// Announces a call of a controller, of which at most so many may be here at once.
    ///
    /// # Errors
    /// If there is no room: the number by which [`Doorman::room`] tells when there is.
    pub(crate) fn admit(&self, who: ControllerId, most: usize) -> Result<Coming, u64> {
        if self.load.state.lock().0.announce(&who, most) {
            Ok(Coming { load: Arc::clone(&self.load), who, is_here: false })
        } else {
            self.limit_hit("endpoint_waiting");
            Err(self.load.number)
        }
    }

    /// Calls that run, that wait, and that may run.
    pub(crate) fn load(&self) -> (usize, usize, usize) {
        let (gate, limit) = &*self.load.state.lock();
        (gate.running(), gate.waiting(), limit.places().get())
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// If too many of the controller's calls wait already: how many.
    pub(crate) async fn enter(self: &Arc<Self>, who: ControllerId, coming: Option<Coming>) -> Result<Place, usize> {
        let mut coming = coming.filter(|coming| Arc::ptr_eq(&coming.load, &self.load));
        loop {
            let (ticket, wait) = oneshot::channel();
            let entered = {
                let mut state = self.load.state.lock();
                // Both at once: nobody else gets the room that was kept for it.
                if let Some(coming) = coming.as_mut().filter(|coming| !coming.is_here) {
                    coming.is_here = true;
                    state.0.arrive(&who);
                }
                state.0.enter(&who, || ticket)
            };
            let seat = match entered {
                Entered::Now => Some(Seat { load: Arc::clone(&self.load), who, is_taken: true }),
                Entered::Full(waiting) => {
                    self.limit_hit("endpoint_waiting");
                    // It gave up the room that was kept for it.
                    self.load.grant();
                    return Err(waiting);
                }
                Entered::Waits(number) => {
                    self.limit_hit("endpoint_calls");
                    let _ticket = Ticket { load: &self.load, who, number };
                    // Never dropped unanswered; whoever loses its ticket stands in line again.
                    wait.await.ok()
                }
            };
            if let Some(seat) = seat {
                let (begun, cuts) = (self.load.state.lock().1.begin(), self.signals.borrow().cuts);
                return Ok(Place { endpoint: Arc::clone(self), seat, begun, cuts });
            }
        }
    }

    fn limit_hit(&self, limit: &'static str) {
        if let Some(pool) = self.pool.upgrade() {
            pool.meter().limit_hit(limit);
        }
    }

    /// When it is to be probed, if it is left out and isn't being probed.
    pub(crate) fn probe_at(&self) -> Option<Duration> {
        let at = self.health.lock().probe_at();
        at.filter(|_| !self.is_probed.load(Ordering::Acquire))
    }

    /// It is being probed from now on.
    pub(crate) fn begin_probe(&self) {
        self.is_probed.store(true, Ordering::Release);
    }

    /// Probes it while it is left out; it is back if it answers.
    pub(crate) async fn probe(self: Arc<Self>) {
        let _done = Examined(&self.is_probed);
        let answered = self.answers(PROBE_TIMEOUT).await;
        if let Some(pool) = self.pool.upgrade() {
            self.change_health(|health| health.probed(answered, pool.now(), pool.random()));
        }
    }

    async fn answers(&self, within: Duration) -> bool {
        let Some(lines) = self.clients.read().clone() else { return false };
        let line = OnLine::take(lines);
        answers(line.http(), &self.site.uri, within).await
    }

    /// `change` tells whether the endpoint is back.
    fn change_health(&self, change: impl FnOnce(&mut Health) -> bool) {
        let mut health = self.health.lock();
        let is_back = change(&mut health);
        if !is_back {
            return;
        }
        // Under the lock: what is signalled is what is known, whoever comes second.
        self.signals.send_modify(|signals| signals.ejected = false);
        drop(health);
        self.load.change(|_, limit| limit.begin_anew());
        self.tell(News::Returned { endpoint: &self.site.name });
    }

    /// It is left out, if it isn't already; and with it, if `cut` is given, the calls that run and have no longer a timeout.
    fn eject(&self, why: &str, cut: Option<Duration>) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut health = self.health.lock();
        let is_news = health.failed(pool.now(), pool.random());
        self.signals.send_modify(|signals| {
            signals.ejected = true;
            if let Some(timeout) = cut {
                (signals.cuts, signals.cut) = (signals.cuts.wrapping_add(1), timeout);
            }
        });
        drop(health);
        if is_news {
            self.counts.ejections.fetch_add(1, Ordering::Relaxed);
            self.tell(News::Ejected { endpoint: &self.site.name, why });
            pool.wake();
        }
    }

    fn tell(&self, news: News<'_>) {
        let listeners: Vec<_> = self.listeners.lock().iter().filter_map(Weak::upgrade).collect();
        listeners.iter().for_each(|listener| listener.told(news));
    }

    /// Has it looked, shortly before the deadline of a call that begins now, whether the endpoint answers anything at all.
    async fn suspect(&self, timeout: Duration) -> std::convert::Infallible {
        tokio::time::sleep(timeout.saturating_sub(SUSPICION.min(timeout / 2))).await;
        self.have_examined(timeout);
        std::future::pending().await
    }

    /// Has it looked, for a call with this timeout, once nothing was heard of it for half of that. One look is for all who
    /// wait.
    fn have_examined(&self, timeout: Duration) {
        let at = self.silent_at(timeout);
        let mut look = self.look.lock();
        *look = Some(match &*look {
            Some(known) => Look { at: known.at.min(at), timeout: known.timeout.max(timeout) },
            None => Look { at, timeout },
        });
        drop(look);
        if let Some(pool) = self.pool.upgrade() {
            pool.wake();
        }
    }

    fn silent_at(&self, timeout: Duration) -> Duration {
        self.health.lock().heard().unwrap_or_default() + timeout / 2
    }

    /// When it is to be looked at, if it is and isn't being looked at.
    pub(crate) fn look_at(&self) -> Option<Duration> {
        let at = self.look.lock().as_ref().map(|look| look.at);
        at.filter(|_| !self.is_examined.load(Ordering::Acquire))
    }

    /// The timeout of those for whom it is looked at from now on; `None` if it was heard of meanwhile, or nobody waits.
    pub(crate) fn begin_look(&self, now: Duration) -> Option<Duration> {
        let look = self.look.lock().take()?;
        if self.load().0 == 0 {
            return None;
        }
        let at = self.silent_at(look.timeout);
        if at > now && at > look.at {
            *self.look.lock() = Some(Look { at, ..look });
            return None;
        }
        self.is_examined.store(true, Ordering::Release);
        Some(look.timeout)
    }

    /// Leaves it out, with the calls that run and have no longer a timeout, unless it answers a HEAD, or anything else
    /// meanwhile.
    pub(crate) async fn examine(self: Arc<Self>, timeout: Duration) {
        let _done = Examined(&self.is_examined);
        let heard = self.health.lock().heard();
        let is_heard = || self.health.lock().heard() != heard;
        if !self.answers(EXAMINATION).await && !is_heard() {
            self.eject("it accepts calls and answers none, nor a HEAD beside them", Some(timeout));
        }
    }

    /// Notes how a call of a shard ended, and when it ran.
    fn ended(
        &self,
        answer: &Result<Reply, Error>,
        (shard, ran): (u8, Range<Duration>),
        begun: Begun,
        (timeout, has_others): (Duration, bool),
    ) {
        // What was answered and can't be taken has no code.
        let (code, was_answered) = answer.as_ref().map_or_else(|e| (e.code(), e.was_answered()), |_| (200, true));
        let counts = &self.counts;
        let count = match code {
            200 => &counts.good,
            _ if was_answered => &counts.bad,
            _ => &counts.lost,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if was_answered {
            // That there was no room here for a reply says nothing of the endpoint.
            let code = if matches!(answer, Err(Error::NoRoom { .. })) { 200 } else { code };
            self.change_health(|health| health.answered(shard, code, ran.start, ran.end));
        }
        if let Err(error) = answer
            && error.is_unreachable()
        {
            self.eject(&error.to_string(), None);
        }
        if has_others && matches!(answer, Err(Error::Timeout { .. })) {
            // It was heard of not long ago: it may have come to hang since.
            self.have_examined(timeout);
        }
        let shown = match (code, answer) {
            (429 | 503, _) | (_, Err(Error::Refused)) => Some(Ended::Refused),
            (_, Err(Error::Timeout { .. } | Error::Silent)) => Some(Ended::Late),
            // The time that a reply waited for room here says nothing of the endpoint.
            (_, Err(Error::NoRoom { .. })) => None,
            _ => was_answered.then_some(Ended::Answered),
        };
        if let Some(shown) = shown {
            self.load.change(|gate, limit| {
                limit.ended(begun, shown, ran.end - ran.start, timeout, gate.is_wanted());
            });
        }
    }
}

impl Place {
    /// Makes the call. `has_others` says whether there are endpoints that can do without this one. Also says how long it
    /// took.
    pub(crate) async fn call(
        self,
        (shard, headers, body, known): (u8, HeaderMap, Bytes, Option<Bytes>),
        timeout: Duration,
        reply_limit: usize,
        has_others: bool,
    ) -> (Result<Reply, Error>, Duration) {
        let endpoint = &self.endpoint;
        let (pool, lines) = (endpoint.pool.upgrade(), endpoint.clients.read().clone());
        let (Some(pool), Some(lines)) = (pool, lines) else {
            return (Err(Error::NoEndpoints("it is gone".to_owned())), Duration::ZERO);
        };
        let line = OnLine::take(lines);
        let began = pool.now();
        let mut signals = endpoint.signals.subscribe();
        let cuts = self.cuts;
        let post = Post { uri: &endpoint.site.uri, headers, body, known, timeout, reply_limit };
        let exchange = pool.room().exchange(line.http(), post);
        let cut = async {
            // The value holds a lock: it ends here.
            let _ = signals.wait_for(|signals| signals.cuts != cuts && timeout <= signals.cut).await;
        };
        let answer = if has_others {
            tokio::select! {
                biased;
                answer = exchange => answer,
                () = cut => Err(Error::Silent),
                never = endpoint.suspect(timeout) => match never {},
            }
        } else {
            exchange.await
        };
        let took = pool.now().saturating_sub(began);
        endpoint.ended(&answer, (shard, began..began + took), self.begun, (timeout, has_others));
        drop(self.seat);
        (answer, took)
    }
}
