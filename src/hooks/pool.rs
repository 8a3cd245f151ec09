//! All endpoints of a process, and what they share: the ways to connect, the room for replies, those that are remembered,
//! the probes of those that are left out.
//!
//! Never knows controllers: routes ask for endpoints, and endpoints live as long as a route has them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use parking_lot::Mutex;
use ringmaster_core::controller::Webhook;
use ringmaster_core::endpoints::Limit;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::client::Room;
use crate::connect::Connector;
use crate::endpoint::{Counts, Endpoint, Listener, Load};
use crate::etag::Replies;
use crate::tls::{self, Pem};
use crate::{Doorman, Error, Meter, Overrides, Policy, Route};

/// Endpoints that are probed at once; others wait.
const PROBES_AT_ONCE: usize = 32;
/// Nothing is waited for longer than this, probe or not.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// Where an endpoint is, and what is asked for there.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// What is called: Host, SNI and path.
    pub(crate) uri: Uri,
    /// What is connected to.
    host: Arc<str>,
    port: u16,
    within: Duration,
    /// What it is called, and chosen by.
    pub(crate) name: Arc<str>,
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        (&self.uri, &self.host, self.port) == (&other.uri, &other.host, other.port)
    }
}

impl Site {
    /// Wherever the URL's own name leads.
    pub(crate) fn of_name(uri: Uri, within: Duration) -> Self {
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default));
        let name = format!("{host}:{port}").into();
        // As an address is written where it isn't part of a URL.
        let host = host.trim_start_matches('[').trim_end_matches(']').into();
        Self { uri, host, port, within, name }
    }

    /// At an address.
    pub(crate) fn of_address(uri: Uri, address: std::net::SocketAddr, within: Duration) -> Self {
        let (host, port) = (address.ip().to_string().into(), address.port());
        Self { uri, host, port, within, name: address.to_string().into() }
    }

    /// Host and port of the URL, as it has them.
    fn authority(&self) -> String {
        self.uri.authority().map(ToString::to_string).unwrap_or_default()
    }
}

/// What is connected to: name or address, and port.
type Spot = (Arc<str>, u16);
/// What is measured: host and port of the URL, and the endpoint's name.
type Name = (String, Arc<str>);

/// What is known of an endpoint, for metrics.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// Host and port of the URL.
    pub host: String,
    /// The endpoint's name: its address, or the same.
    pub endpoint: String,
    /// Calls that run.
    pub running: usize,
    /// Calls that wait for a place.
    pub waiting: usize,
    /// Calls that may run at once.
    pub places: usize,
    /// It is left out.
    pub ejected: bool,
    /// Calls that were answered with 200, with anything else, and not at all; and how often it was left out.
    pub counts: [u64; 4],
}

/// What endpoints share.
pub(crate) struct Pool {
    policy: Arc<Policy>,
    overrides: Arc<Overrides>,
    workers: usize,
    room: Room,
    replies: Arc<Replies>,
    meter: Arc<dyn Meter>,
    doorman: Arc<dyn Doorman>,
    /// As many loads as there were.
    numbers: AtomicU64,
    random: fn() -> u64,
    start: Instant,
    tls: Arc<ClientConfig>,
    endpoints: Mutex<Vec<Weak<Endpoint>>>,
    /// Those with the common TLS, which routes share.
    shared: Mutex<Vec<Weak<Endpoint>>>,
    loads: Mutex<HashMap<Spot, Weak<Load>>>,
    /// Endpoints that differ in their TLS alone count together.
    counts: Mutex<HashMap<Name, Weak<Counts>>>,
    wake: Notify,
}

impl Pool {
    pub(crate) fn meter(&self) -> &dyn Meter {
        &*self.meter
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    /// The replies that all hooks remember.
    pub(crate) fn replies(&self) -> &Arc<Replies> {
        &self.replies
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn random(&self) -> u64 {
        (self.random)()
    }

    /// Whether whoever runs this process said where the URL's host leads.
    pub(crate) fn is_overridden(&self, site: &Site) -> bool {
        self.overrides.find(&site.host, site.port).is_some()
    }

    /// There is something to probe.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn connector(&self, site: &Site) -> Connector {
        Connector {
            policy: Arc::clone(&self.policy),
            overrides: Arc::clone(&self.overrides),
            host: Arc::clone(&site.host),
            port: site.port,
            within: site.within,
        }
    }

    /// An endpoint with the common TLS; the same for all who ask.
    pub(crate) fn shared(self: &Arc<Self>, site: Site) -> Arc<Endpoint> {
        let mut shared = self.shared.lock();
        shared.retain(|endpoint| endpoint.strong_count() > 0);
        let known = shared.iter().filter_map(Weak::upgrade).find(|endpoint| *endpoint.site() == site);
        known.unwrap_or_else(|| {
            let endpoint = self.own(site, Some(&self.tls));
            shared.push(Arc::downgrade(&endpoint));
            endpoint
        })
    }

    /// An endpoint with a TLS of its own, which may not be there yet.
    pub(crate) fn own(self: &Arc<Self>, site: Site, tls: Option<&ClientConfig>) -> Arc<Endpoint> {
        let known = (self.load(&site), self.counts(&site));
        let endpoint = Endpoint::new(self, site, known, tls);
        let mut endpoints = self.endpoints.lock();
        endpoints.retain(|endpoint| endpoint.strong_count() > 0);
        endpoints.push(Arc::downgrade(&endpoint));
        endpoint
    }

    /// The places at an address, which all have in common who call there.
    fn load(&self, site: &Site) -> Arc<Load> {
        let mut loads = self.loads.lock();
        loads.retain(|_, load| load.strong_count() > 0);
        let key = (Arc::clone(&site.host), site.port);
        let known = loads.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let limit = Limit::new(self.workers.try_into().unwrap_or(std::num::NonZeroUsize::MIN));
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let load = Load::new(number, limit, Arc::clone(&self.doorman));
            loads.insert(key, Arc::downgrade(&load));
            load
        })
    }

    fn counts(&self, site: &Site) -> Arc<Counts> {
        let mut counts = self.counts.lock();
        counts.retain(|_, counts| counts.strong_count() > 0);
        let key = (site.authority(), Arc::clone(&site.name));
        let known = counts.get(&key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::<Counts>::default();
            counts.insert(key, Arc::downgrade(&new));
            new
        })
    }

    fn all(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// The hook calls of a process; cheap to clone.
#[derive(Clone)]
pub struct Hooks {
    pool: Arc<Pool>,
}

impl Hooks {
    /// Calls go where `policy` and `overrides` lead, up to `workers` at once at each address. `random` gives 64 fresh
    /// random bits.
    ///
    /// # Errors
    /// If the system's certificate store can't be read.
    pub fn new(
        policy: Policy,
        overrides: Overrides,
        workers: usize,
        meter: Arc<dyn Meter>,
        doorman: Arc<dyn Doorman>,
        random: fn() -> u64,
    ) -> Result<Self, Error> {
        let pool = Pool {
            policy: Arc::new(policy),
            overrides: Arc::new(overrides),
            workers,
            room: Room::new(Arc::clone(&meter)),
            replies: Arc::default(),
            meter,
            doorman,
            numbers: AtomicU64::new(0),
            random,
            start: Instant::now(),
            tls: tls::configure(&Pem::default())?,
            endpoints: Mutex::default(),
            shared: Mutex::default(),
            loads: Mutex::default(),
            counts: Mutex::default(),
            wake: Notify::new(),
        };
        Ok(Self { pool: Arc::new(pool) })
    }

    /// The way to a declared webhook; `reply_limit` in bytes, for a reply's body.
    ///
    /// # Errors
    /// If a URL can't be used, with the field.
    pub fn route(
        &self,
        webhook: &Webhook,
        plain_http: bool,
        reply_limit: usize,
        listener: Arc<dyn Listener>,
    ) -> Result<Arc<Route>, Error> {
        Route::new(&self.pool, webhook, plain_http, reply_limit, listener)
    }

    /// Probes what is left out, and looks at what seems to hang, until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let (mut probes, mut looks) = (JoinSet::new(), JoinSet::new());
        let note = |ended: Result<(), JoinError>| {
            if let Err(panic) = ended {
                error!("a probe panicked, which is a bug: {panic}");
            }
        };
        loop {
            let (now, mut next, mut is_full) = (self.pool.now(), MAX_SLEEP, false);
            for endpoint in self.pool.all() {
                // Calls wait for this one, at each endpoint a few at most: no bound of its own is needed.
                match endpoint.look_at() {
                    Some(at) if at > now => next = next.min(at - now),
                    Some(_) => {
                        if let Some(timeout) = endpoint.begin_look(now) {
                            looks.spawn(Arc::clone(&endpoint).examine(timeout));
                        }
                        next = next.min(endpoint.look_at().map_or(next, |at| at.saturating_sub(now)));
                    }
                    None => {}
                }
                let Some(at) = endpoint.probe_at() else { continue };
                if at > now {
                    next = next.min(at - now);
                } else if probes.len() < PROBES_AT_ONCE {
                    endpoint.begin_probe();
                    probes.spawn(endpoint.probe());
                } else {
                    is_full = true;
                }
            }
            if is_full {
                self.pool.meter.limit_hit("probes");
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.pool.wake.notified() => {}
                () = tokio::time::sleep(next) => {}
                Some(ended) = probes.join_next() => note(ended),
                Some(ended) = looks.join_next() => note(ended),
            }
        }
        probes.shutdown().await;
        looks.shutdown().await;
    }

    /// What the replies take that are remembered by their entity tags, in bytes.
    #[must_use]
    pub fn remembered_bytes(&self) -> usize {
        self.pool.replies.bytes()
    }

    /// What is known of each endpoint, for metrics. Those that differ in their TLS alone are one: they share their places.
    #[must_use]
    pub fn samples(&self) -> Vec<Sampled> {
        let mut sampled = BTreeMap::<_, Sampled>::new();
        for endpoint in self.pool.all() {
            let (host, name) = (endpoint.site().authority(), endpoint.name().to_string());
            let is_ejected = endpoint.is_ejected();
            let known = sampled.entry((host, name)).or_insert_with_key(|(host, name)| {
                let (running, waiting, places) = endpoint.load();
                let counts = &endpoint.counts;
                let counts = [&counts.good, &counts.bad, &counts.lost, &counts.ejections];
                let counts = counts.map(|count| count.load(Ordering::Relaxed));
                Sampled { host: host.clone(), endpoint: name.clone(), running, waiting, places, ejected: false, counts }
            });
            known.ejected |= is_ejected;
        }
        sampled.into_values().collect()
    }
}
