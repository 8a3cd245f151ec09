//! From a hook and a parent's shard to the endpoint that is called, and to another one if that can't be.
//!
//! Never decides what is sent or what a reply means. A call goes to another endpoint at once only if nothing of it was
//! sent, or if the hook says that it may be repeated; everything else is the queue's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, IF_NONE_MATCH};
use http::{HeaderMap, Uri};
use parking_lot::Mutex;
use ringmaster_core::controller::{Address, Webhook};
use ringmaster_core::endpoints::{Choice, MAX_ENDPOINTS, Ready, Source, Standing};
use ringmaster_core::key::ControllerId;
use tokio::sync::watch;

use crate::auth::{Auth, Credential};
use crate::caller::{Caller, observed};
use crate::client::Reply;
use crate::endpoint::{Coming, Endpoint, Listener, News, Place};
use crate::etag::{Asked, Etags};
use crate::pool::{Pool, Site};
use crate::tls::{self, Pem};
use crate::{Error, policy};

/// Endpoints that are tried for one call.
const MAX_TRIES: usize = 3;
/// How often one call is sent elsewhere while it waits for its turn, before it fails.
const MAX_MOVES: usize = 16;
/// A call that found too many waiting before it comes again after this time, and up to as much more.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// A name is resolved and connected to within this time where there is only one.
const CONNECT_ALONE: Duration = Duration::from_secs(5);
/// The same where there are others, which are called instead.
const CONNECT_AMONG_NAMES: Duration = Duration::from_secs(2);
/// Addresses of the cluster are near, and need no resolving.
const CONNECT_AMONG_ADDRESSES: Duration = Duration::from_secs(1);

/// One call.
pub struct Call<'a> {
    /// Whose call it is: calls of several controllers at one endpoint take turns.
    pub controller: ControllerId,
    /// The parent's shard, which chooses the endpoint.
    pub shard: u8,
    /// Headers to send.
    pub headers: HeaderMap,
    /// The request's body.
    pub body: Bytes,
    /// What its reply is remembered by, where that was declared.
    pub asked: Option<Asked>,
    /// Asked before each try, and told of its end.
    pub caller: &'a dyn Caller,
}

/// A call that failed.
#[derive(Debug)]
pub struct Failure {
    /// The URL that was called last, or would have been.
    pub uri: Uri,
    /// The endpoint, where there is more than one.
    pub endpoint: Option<Arc<str>>,
    /// Why.
    pub error: Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "POST {}", self.uri)?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " at {endpoint}")?;
        }
        write!(f, ": {}", self.error)
    }
}

/// Where a Service's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its EndpointSlices.
    Slices(Ready),
    /// Its name, as there are no EndpointSlices, for this reason.
    Name(String),
    /// There can't be any, for this reason.
    Nothing(String),
}

/// The way to one hook.
pub struct Route {
    uris: Vec<Uri>,
    timeout: Duration,
    reply_limit: usize,
    idempotent: bool,
    pool: Arc<Pool>,
    tls: Mutex<Tls>,
    auth: Auth,
    etags: Option<Etags>,
    /// Told when TLS is another, or was found to be of no use.
    tls_told: watch::Sender<()>,
    targets: watch::Sender<Option<Arc<Targets>>>,
    /// Why what was told of it, of TLS too, can't be read anew.
    stale: Mutex<Option<String>>,
    /// Told when an endpoint that was left out is back.
    returned: watch::Sender<()>,
    listener: Arc<dyn Listener>,
    me: Weak<Self>,
}

enum Tls {
    /// The process's own.
    Common,
    /// Declared, but not read yet.
    Missing,
    /// The last that could be used, if any, and why a later one can't.
    Own(Option<Usable>, Option<String>),
}

/// Texts, and what was made of them.
struct Usable {
    pem: Pem,
    config: Arc<rustls::ClientConfig>,
}

/// How a call waits for its place.
struct Wait {
    /// The endpoint isn't left out; otherwise all are.
    is_well: bool,
    /// Whether one that was left out is back since it was chosen.
    returned: watch::Receiver<()>,
    /// The room that was kept for it.
    coming: Option<Coming>,
}

/// The endpoints at one moment.
struct Targets {
    endpoints: Vec<Arc<Endpoint>>,
    unready: usize,
    source: Source,
    /// For those that weren't left out when it was asked last.
    chosen: Mutex<Option<(Vec<usize>, Arc<Choice>)>>,
}

impl Route {
    /// The way to a declared webhook. A Service's endpoints are unknown until [`Self::found`] tells them, TLS until
    /// [`Self::set_tls`] does, and what calls carry until [`Self::set_auth`] does, where anything was declared of it.
    ///
    /// # Errors
    /// If a URL can't be used, with the field.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        webhook: &Webhook,
        plain_http: bool,
        reply_limit: usize,
        listener: Arc<dyn Listener>,
    ) -> Result<Arc<Self>, Error> {
        let uris = policy::check_urls(webhook, plain_http)?;
        let is_own = webhook.tls.ca.is_some() || webhook.tls.client.is_some();
        let route = Arc::new_cyclic(|me| Self {
            uris,
            timeout: webhook.timeout,
            reply_limit,
            idempotent: webhook.idempotent,
            pool: Arc::clone(pool),
            tls: Mutex::new(if is_own { Tls::Missing } else { Tls::Common }),
            auth: Auth::new(Arc::clone(&webhook.credentials_in), webhook.auth.is_some()),
            etags: webhook.etag.as_ref().map(|etag| Etags::new(pool.replies(), etag.timeout)),
            tls_told: watch::Sender::new(()),
            targets: watch::Sender::new(None),
            stale: Mutex::default(),
            returned: watch::Sender::new(()),
            listener,
            me: Weak::clone(me),
        });
        if !matches!(webhook.address, Address::Service { .. }) {
            let within = if route.uris.len() > 1 { CONNECT_AMONG_NAMES } else { CONNECT_ALONE };
            let sites = route.uris.iter().map(|uri| Site::of_name(uri.clone(), within)).collect();
            route.set(sites, 0, Source::Declared);
        }
        Ok(route)
    }

    /// The URLs to call: one, or one for each replica that was declared.
    #[must_use]
    pub fn uris(&self) -> &[Uri] {
        &self.uris
    }

    /// Limit for one try.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Where a Service's endpoints are, from now on. Calls that run go on; those that wait for another endpoint move.
    pub fn found(&self, found: &Found) {
        let Some(uri) = self.uris.first() else { return };
        let by_name = Site::of_name(uri.clone(), CONNECT_ALONE);
        if self.pool.is_overridden(&by_name) {
            let why = "--hook-resolve says where it is".to_owned();
            return self.set(vec![by_name], 0, Source::Name(why));
        }
        match found {
            Found::Slices(ready) => {
                let site = |address| Site::of_address(uri.clone(), address, CONNECT_AMONG_ADDRESSES);
                let source = if ready.only_terminating { Source::Terminating } else { Source::Slices };
                self.set(ready.addresses.iter().map(|address| site(*address)).collect(), ready.unready, source);
            }
            Found::Name(why) => self.set(vec![by_name], 0, Source::Name(why.clone())),
            Found::Nothing(why) => self.set(Vec::new(), 0, Source::Nothing(why.clone())),
        }
    }

    /// Why what was told last can't be read anew, if that is so: it counts all the same.
    pub fn set_stale(&self, why: Option<String>) {
        *self.stale.lock() = why;
    }

    /// What TLS is made with, from now on. What can't be used changes nothing but what is told: calls go on with the last
    /// that could, if there was any.
    pub fn set_tls(&self, pem: Result<Pem, String>) {
        let mut tls = self.tls.lock();
        let known = match &mut *tls {
            Tls::Own(known, _) => known.take(),
            Tls::Common | Tls::Missing => None,
        };
        // The same again would only end connections.
        let is_same = |known: &Usable| pem.as_ref().is_ok_and(|pem| *pem == known.pem);
        let known = match known {
            Some(known) if is_same(&known) => {
                *tls = Tls::Own(Some(known), None);
                return;
            }
            known => known,
        };
        let made = pem.and_then(|pem| match tls::configure(&pem) {
            Ok(config) => Ok(Usable { pem, config }),
            Err(error) => Err(error.to_string()),
        });
        let is_first = known.is_none();
        match made {
            Err(text) => {
                *tls = Tls::Own(known, Some(text));
                drop(tls);
                self.tls_told.send_replace(());
            }
            Ok(usable) => {
                let config = Arc::clone(&usable.config);
                *tls = Tls::Own(Some(usable), None);
                // Under the lock: endpoints that are made meanwhile wait for it, and get this one.
                if let Some(targets) = &*self.targets.borrow() {
                    targets.endpoints.iter().for_each(|endpoint| endpoint.set_tls(&config));
                }
                drop(tls);
                self.tls_told.send_replace(());
                if is_first {
                    self.listener.told(News::Reachable);
                }
            }
        }
    }

    /// What calls carry to say who calls, from now on, on the connections that there are. What can't be used changes nothing
    /// but what is told: calls go on with the last that could, if there was any.
    pub fn set_auth(&self, read: Result<Credential, String>) {
        if self.auth.set(read) {
            self.listener.told(News::Credentials);
        }
    }

    /// A reply that can't be taken isn't remembered: the next call wants it anew.
    pub fn forget(&self, asked: &Asked) {
        self.etags.iter().for_each(|etags| etags.forget(asked));
    }

    /// What is known of its endpoints.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if matches!(&*self.tls.lock(), Tls::Missing) || self.auth.is_unread() {
            return Standing::unknown();
        }
        let credentials = self.credentials();
        let Some(targets) = self.targets.borrow().clone() else {
            return Standing { credentials, ..Standing::unknown() };
        };
        let ejected = targets.endpoints.iter().filter(|endpoint| endpoint.is_ejected());
        let erring = targets.endpoints.iter().filter_map(|endpoint| Some((endpoint, endpoint.erring()?)));
        Standing {
            ready: targets.endpoints.len(),
            unready: targets.unready,
            ejected: ejected.map(|endpoint| endpoint.name().to_string()).collect(),
            erring: erring.map(|(endpoint, code)| (endpoint.name().to_string(), code)).collect(),
            elsewhere: BTreeMap::new(),
            source: targets.source.clone(),
            credentials,
            stale: self.stale.lock().clone(),
        }
    }

    /// What is wrong with what TLS needs, and with what calls carry.
    fn credentials(&self) -> Option<String> {
        let tls = match &*self.tls.lock() {
            Tls::Missing => Some("what webhook.caBundle or webhook.clientTLS names was not read yet".to_owned()),
            Tls::Own(Some(_), Some(text)) => Some(format!("{text}; calls go on with the last that was usable")),
            Tls::Own(None, text) => text.clone(),
            Tls::Own(_, None) | Tls::Common => None,
        };
        let both: Vec<String> = tls.into_iter().chain(self.auth.problem()).collect();
        (!both.is_empty()).then(|| both.join("; "))
    }

    fn set(&self, mut sites: Vec<Site>, unready: usize, source: Source) {
        if sites.len() > MAX_ENDPOINTS {
            self.pool.meter().limit_hit("endpoints");
            sites.truncate(MAX_ENDPOINTS);
        }
        let before = self.targets.borrow().clone();
        if before.as_ref().is_some_and(|before| before.is_same(&sites, unready, &source)) {
            return;
        }
        let known = before.iter().flat_map(|targets| &targets.endpoints);
        let known: Vec<&Arc<Endpoint>> = known.collect();
        let tls = self.tls.lock();
        let endpoints = sites.into_iter().map(|site| {
            if let Some(endpoint) = known.iter().find(|endpoint| *endpoint.site() == site) {
                return Arc::clone(endpoint);
            }
            let endpoint = match &*tls {
                Tls::Common => self.pool.shared(site),
                // Until there is one, it isn't called.
                Tls::Missing | Tls::Own(None, _) => self.pool.own(site, None),
                Tls::Own(Some(usable), _) => self.pool.own(site, Some(&usable.config)),
            };
            endpoint.listen(self.me.clone());
            endpoint
        });
        let endpoints: Vec<_> = endpoints.collect();
        let any_well = |endpoints: &[Arc<Endpoint>]| endpoints.iter().any(|endpoint| !endpoint.is_ejected());
        let is_new = before.as_ref().is_some_and(|before| !any_well(&before.endpoints)) && any_well(&endpoints);
        let is_same = |before: &Arc<Targets>| {
            before.endpoints.len() == endpoints.len()
                && before.endpoints.iter().zip(&endpoints).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let has_changed = !before.as_ref().is_some_and(is_same);
        let targets = Targets { endpoints, unready, source, chosen: Mutex::default() };
        targets.choose();
        self.targets.send_replace(Some(Arc::new(targets)));
        drop(tls);
        if is_new {
            self.listener.told(News::Reachable);
        } else if has_changed {
            self.listener.told(News::Changed);
        }
    }

    /// Makes a call. `coming` is what [`Self::admit`] gave for it, if it was asked.
    ///
    /// # Errors
    /// If there is no whole reply with code 200 within the limits.
    pub async fn call(&self, call: Call<'_>, mut coming: Option<Coming>) -> Result<Reply, Failure> {
        let (mut tried, mut moves, mut has_left) = (Vec::new(), 0, false);
        let mut last: Option<Failure> = None;
        loop {
            let targets = tokio::select! {
                biased;
                () = call.caller.withdrawn() => return Err(self.failure(None, Error::Fenced)),
                targets = self.targets() => targets?,
            };
            // Before it is chosen: one that comes back meanwhile is another choice.
            let returned = self.returned.subscribe();
            let Some((endpoint, is_well)) = targets.pick(call.shard, &tried) else {
                return Err(last.unwrap_or_else(|| self.nothing()));
            };
            if matches!(&*self.tls.lock(), Tls::Missing | Tls::Own(None, _)) || self.auth.is_missing() {
                let why = self.credentials().unwrap_or_default();
                return Err(self.failure(None, Error::Credentials(why)));
            }
            let waits = Wait { is_well, returned, coming: coming.take() };
            let place = match self.enter(&endpoint, waits, &call).await {
                Ok(place) => place,
                Err(error) => return Err(self.failure(None, error)),
            };
            let Some(place) = place else {
                moves += 1;
                if moves > MAX_MOVES {
                    let text = "they come and go too fast to wait for one".to_owned();
                    return Err(last.unwrap_or_else(|| self.failure(None, Error::NoEndpoints(text))));
                }
                continue;
            };
            // As it is now: others may have come and gone meanwhile.
            let present = self.targets.borrow().clone();
            let is_other = |other: &Arc<Endpoint>| !other.is_ejected() && !Arc::ptr_eq(other, &endpoint);
            let has_others = present.is_some_and(|present| present.endpoints.iter().any(is_other));
            let error = match self.try_at(place, &call, has_others).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let again = error.was_not_sent() || (self.idempotent && error.was_lost());
            // A URL of its own says which it is.
            let is_named = targets.endpoints.len() > 1 && self.uris.len() == 1;
            let name = is_named.then(|| Arc::clone(endpoint.name()));
            let failure = Failure { uri: endpoint.site().uri.clone(), endpoint: name, error };
            // Whoever ended a connection takes another one (RFC 9113, 6.8).
            if matches!(failure.error, Error::Leaving) && !std::mem::replace(&mut has_left, true) {
                last = Some(failure);
                continue;
            }
            tried.push(endpoint);
            if !again || tried.len() >= MAX_TRIES {
                return Err(failure);
            }
            last = Some(failure);
        }
    }

    /// Announces a call of a parent in this shard; `None` while the endpoints aren't known. Of several endpoints none gets
    /// more than half of the workers.
    ///
    /// # Errors
    /// If there is no room for it at its endpoint: the number by which [`crate::Doorman`] tells when there is.
    pub fn admit(&self, controller: ControllerId, shard: u8) -> Result<Option<Coming>, u64> {
        let Some(targets) = self.targets.borrow().clone() else { return Ok(None) };
        let Some((endpoint, _)) = targets.pick(shard, &[]) else { return Ok(None) };
        let half = (self.pool.workers() / 2).max(1);
        let most = if targets.endpoints.len() > 1 { half } else { usize::MAX };
        endpoint.admit(controller, most).map(Some)
    }

    /// Whether the endpoint of a shard has this name.
    #[must_use]
    pub fn leads_to(&self, shard: u8, endpoint: &str) -> bool {
        let targets = self.targets.borrow().clone();
        let found = targets.and_then(|targets| targets.pick(shard, &[]));
        found.is_some_and(|(found, _)| **found.name() == *endpoint)
    }

    /// Spread, so that those who come again don't come together.
    fn pause(&self) -> Duration {
        let spread = BUSY_PAUSE.as_micros().max(1);
        BUSY_PAUSE + Duration::from_micros(u64::try_from(u128::from(self.pool.random()) % spread).unwrap_or(0))
    }

    /// The endpoints, once they, and what TLS needs and calls carry, are known.
    async fn targets(&self) -> Result<Arc<Targets>, Failure> {
        let mut targets = self.targets.subscribe();
        let mut told = self.tls_told.subscribe();
        let known = async {
            // The senders are this route's.
            let known = targets.wait_for(Option::is_some).await.ok().and_then(|known| known.clone());
            while matches!(&*self.tls.lock(), Tls::Missing) && told.changed().await.is_ok() {}
            self.auth.known().await;
            known
        };
        let known = tokio::time::timeout(self.timeout, known).await.unwrap_or_else(|_| self.targets.borrow().clone());
        known.ok_or_else(|| self.failure(None, Error::NoEndpoints("the Service was not read yet".to_owned())))
    }

    /// Waits for a place at an endpoint; `None` if another one is to be asked meanwhile.
    async fn enter(&self, endpoint: &Arc<Endpoint>, wait: Wait, call: &Call<'_>) -> Result<Option<Place>, Error> {
        let Wait { is_well, mut returned, coming } = wait;
        let mut targets = self.targets.subscribe();
        let is_gone = |targets: &Option<Arc<Targets>>| {
            targets.as_ref().is_some_and(|targets| !targets.endpoints.iter().any(|known| Arc::ptr_eq(known, endpoint)))
        };
        let gone = async {
            // The value, which holds a lock, ends here: what is given up below tells of its room.
            let _ = targets.wait_for(is_gone).await;
        };
        tokio::select! {
            biased;
            () = call.caller.withdrawn() => Err(Error::Fenced),
            // Before the place: those of calls that were given up with the endpoint come free at the same moment. If all are
            // left out, the call is made all the same, until one is back.
            () = endpoint.ejected(), if is_well => Ok(None),
            _ = returned.changed(), if !is_well => Ok(None),
            () = gone => Ok(None),
            place = endpoint.enter(call.controller, coming) => match place {
                // It may have been left out between the two.
                Ok(place) => Ok(Some(place).filter(|_| !(is_well && endpoint.is_ejected()))),
                Err(waiting) => Err(Error::Busy { waiting, after: self.pause() }),
            },
        }
    }

    async fn try_at(&self, place: Place, call: &Call<'_>, has_others: bool) -> Result<Reply, Error> {
        if !call.caller.may_send() {
            return Err(Error::Fenced);
        }
        let (mut headers, body) = (call.headers.clone(), call.body.clone());
        // As it is now: the call may have waited for its place.
        if let Some(value) = self.auth.value().map_err(Error::Credentials)? {
            headers.insert(AUTHORIZATION, value);
        }
        let remembers = self.etags.as_ref().zip(call.asked.as_ref());
        let known = remembers.and_then(|(etags, asked)| etags.known(asked, self.pool.now())).map(|(tag, body)| {
            headers.insert(IF_NONE_MATCH, tag);
            body
        });
        let post = (call.shard, headers, body, known);
        let trying = place.call(post, self.timeout, self.reply_limit, has_others);
        let (answer, took) = observed(call.caller, trying).await;
        if let (Some((etags, asked)), Ok(reply)) = (remembers, &answer)
            && etags.note(asked, reply, self.pool.now())
        {
            self.pool.meter().limit_hit("remembered_replies");
        }
        call.caller.tried(answer.as_ref().map_or_else(Error::code, |_| 200), took);
        answer
    }

    fn nothing(&self) -> Failure {
        let (_, _, text) = self.standing().condition();
        self.failure(None, Error::NoEndpoints(text))
    }

    fn failure(&self, endpoint: Option<Arc<str>>, error: Error) -> Failure {
        Failure { uri: self.uris.first().cloned().unwrap_or_default(), endpoint, error }
    }
}

impl Listener for Route {
    fn told(&self, news: News<'_>) {
        if let News::Returned { .. } = news {
            self.returned.send_replace(());
        }
        // With one endpoint, whether it is left out is whether the hook can be reached.
        let targets = self.targets.borrow().clone();
        if let Some(targets) = &targets {
            targets.choose();
        }
        let is_alone = targets.is_some_and(|targets| targets.endpoints.len() == 1);
        match news {
            News::Ejected { .. } if is_alone => {}
            News::Returned { .. } if is_alone => self.listener.told(News::Reachable),
            news => self.listener.told(news),
        }
    }
}

impl Targets {
    /// Finds the endpoints of all shards anew, if they are others: it takes longest with many of them, and the queue must
    /// not wait for that.
    fn choose(&self) {
        let _ = self.pick(0, &[]);
    }

    fn is_same(&self, sites: &[Site], unready: usize, source: &Source) -> bool {
        let same_sites = self.endpoints.len() == sites.len()
            && self.endpoints.iter().zip(sites).all(|(endpoint, site)| endpoint.site() == site);
        same_sites && (self.unready, &self.source) == (unready, source)
    }

    /// The endpoint of a shard among those that weren't tried and aren't left out; among all that weren't tried if every
    /// one of those is. Also says which it was.
    fn pick(&self, shard: u8, tried: &[Arc<Endpoint>]) -> Option<(Arc<Endpoint>, bool)> {
        let is_tried = |endpoint: &Arc<Endpoint>| tried.iter().any(|tried| Arc::ptr_eq(tried, endpoint));
        let untried: Vec<usize> = (0..self.endpoints.len()).filter(|at| !is_tried(&self.endpoints[*at])).collect();
        let well: Vec<usize> = untried.iter().copied().filter(|at| !self.endpoints[*at].is_ejected()).collect();
        let is_well = !well.is_empty();
        let among = if is_well { well } else { untried };
        let mut chosen = self.chosen.lock();
        let choice = match &*chosen {
            Some((of, choice)) if *of == among => Arc::clone(choice),
            _ => {
                let names: Vec<&str> = among.iter().map(|at| &**self.endpoints[*at].name()).collect();
                let choice = Arc::new(Choice::among(&names)?);
                if tried.is_empty() {
                    *chosen = Some((among.clone(), Arc::clone(&choice)));
                }
                choice
            }
        };
        drop(chosen);
        among.get(choice.endpoint(shard)).map(|at| (Arc::clone(&self.endpoints[*at]), is_well))
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "tls_route_tests.rs"]
mod tls_tests;
