//! Related objects: what the customize hook said of each parent, the watches that this needs, and whom a change concerns.
//!
//! Never calls a hook while an event is handled: what is known of a parent is what its last sync learned.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use ringmaster_core::cache::Change;
use ringmaster_core::hash::xxh;
use ringmaster_core::hook::Observed;
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, SyncKey, Uid};
use ringmaster_core::object::Object;
use ringmaster_core::queue::Priority;
use ringmaster_core::related::Related;
use ringmaster_core::watch::{Scope, Selection};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::dispatch::Dispatch;
use crate::host::UNREACHABLE;
use crate::hosted::Hosted;
use crate::route::running;
use crate::streams::{Shared, State};
use crate::watches::{Listener, Subscription, Watches};

/// Narrow watches of one kind that a controller's rules may need, and as many of whole namespaces for rules beyond them;
/// what is beyond those, too, shares one watch of the whole kind.
pub(crate) const MAX_NARROW_WATCHES: usize = 64;
/// An answer counts for so long even if its parent doesn't change (contract, 1.6): it may depend on more than that.
const MAX_AGE: Duration = Duration::from_secs(20 * 60);
/// A sync waits so long for the first list of what a new rule needs before its parent is queued again.
const PATIENCE: Duration = Duration::from_millis(300);

/// One kind in one scope, as a collection is known.
type Place = (Arc<Resource>, Scope);
/// Objects of one kind, in the order of requests.
type Objects = BTreeMap<ObjectKey, Arc<Object>>;
/// What is seen at places.
type Collections = HashMap<Place, Arc<Shared>>;
/// The parents whose rules need a place.
type Parents = HashSet<ObjectKey, FixedState>;

/// What a controller with a customize hook knows of its parents' related objects.
pub(crate) struct RelatedObjects {
    slot: Arc<OnceLock<Weak<Hosted>>>,
    dispatch: Arc<Dispatch>,
    watches: Arc<Watches>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    answers: HashMap<ObjectKey, Arc<Answer>, FixedState>,
    places: HashMap<Place, Watched>,
}

/// What the hook said of one parent.
struct Answer {
    uid: Uid,
    /// What it depended on, see [`fingerprint`].
    fingerprint: u64,
    at: Instant,
    rules: Vec<Rule>,
    /// Named by rules that reach nothing: they have an empty entry in requests.
    empty: Vec<Arc<Resource>>,
}

/// One rule, and where its objects are seen.
struct Rule {
    related: Related,
    places: Vec<Place>,
}

struct Watched {
    subscription: Subscription,
    /// Whose rules need it.
    parents: Parents,
}

/// Why a parent's related objects aren't there.
pub(crate) enum Missing {
    /// They are being listed.
    NotYet,
    /// They can't be watched: a word and a sentence for people.
    Troubled(&'static str, String),
    /// A kind of this group and version isn't served any more: what to say.
    NotServed(ApiVersion, String),
}

impl RelatedObjects {
    pub(crate) fn new(slot: Arc<OnceLock<Weak<Hosted>>>, dispatch: Arc<Dispatch>, watches: Arc<Watches>) -> Self {
        Self { slot, dispatch, watches, known: Mutex::default() }
    }

    /// Whether what the hook said of this very parent still counts.
    pub(crate) fn has_answer(&self, parent: &Object) -> bool {
        self.known.lock().answers.get(parent.key()).is_some_and(|answer| {
            answer.uid == *parent.uid() && answer.fingerprint == fingerprint(parent) && answer.at.elapsed() < MAX_AGE
        })
    }

    /// Keeps what the hook said of a parent, and watches what it names. `namespaces` is the kind of namespaces, if a rule
    /// asks for their labels. Tells how many watches had to be wider, because there are too many narrow ones.
    pub(crate) fn keep(
        &self,
        parent: &Object,
        rules: Vec<Related>,
        empty: Vec<Arc<Resource>>,
        namespaces: Option<&Arc<Resource>>,
    ) -> usize {
        let mut crowded = 0;
        let mut known = self.known.lock();
        let mut placed = Vec::with_capacity(rules.len());
        let mut wanted: HashSet<Place> = HashSet::new();
        for related in rules {
            let mut places = Vec::new();
            for selection in related.selections() {
                let has_room = |place: &Place| {
                    // Those that this parent alone has had go below.
                    let is_kept = |watched: &Watched| watched.parents.iter().any(|other| other != parent.key());
                    let kept = known.places.iter().filter(|(_, watched)| is_kept(watched)).map(|(place, _)| place);
                    let is_new = |place: &&Place| !known.places.get(*place).is_some_and(is_kept);
                    let others = kept.chain(wanted.iter().filter(is_new));
                    let is_alike = |other: &&Place| other.0 == place.0 && width(&other.1) == width(&place.1);
                    others.filter(is_alike).count() < MAX_NARROW_WATCHES
                };
                let is_open = |place: &Place| known.places.contains_key(place) || wanted.contains(place);
                let around = Selection { namespace: selection.namespace.clone(), ..Selection::default() };
                let narrow = (Arc::clone(&related.resource), scope(selection));
                let wider = [scope(around), Scope::Everything].map(|scope| (Arc::clone(&related.resource), scope));
                let mut places_by_width = std::iter::once(narrow.clone()).chain(wider);
                let fits = |place: &Place| width(&place.1) == Width::All || is_open(place) || has_room(place);
                let place = places_by_width.find(fits).unwrap_or_else(|| narrow.clone());
                crowded += usize::from(place != narrow);
                wanted.insert(place.clone());
                if !places.contains(&place) {
                    places.push(place);
                }
            }
            placed.push(Rule { related, places });
        }
        if let Some(namespaces) = namespaces.filter(|_| placed.iter().any(|rule| rule.related.asks_for_namespaces())) {
            wanted.insert((Arc::clone(namespaces), Scope::Everything));
        }
        for place in &wanted {
            let watched = known
                .places
                .entry(place.clone())
                .or_insert_with(|| Watched { subscription: self.subscribe(place), parents: Parents::default() });
            watched.parents.insert(parent.key().clone());
        }
        let answer = Arc::new(Answer {
            uid: parent.uid().clone(),
            fingerprint: fingerprint(parent),
            at: Instant::now(),
            rules: placed,
            empty,
        });
        known.answers.insert(parent.key().clone(), answer);
        let unused = known.leave(|place, parents| !wanted.contains(place) && parents.remove(parent.key()));
        drop(known);
        // Watches end under no lock.
        drop(unused);
        crowded
    }

    fn subscribe(&self, place: &Place) -> Subscription {
        let listener =
            RelatedRoute { hosted: Arc::clone(&self.slot), dispatch: Arc::clone(&self.dispatch), place: place.clone() };
        self.watches.subscribe(Arc::clone(&place.0), place.1.clone(), Arc::new(listener))
    }

    /// The objects that an answer names, by kind; waits a little for those that are being listed.
    pub(crate) async fn objects(&self, parent: &ObjectKey) -> Result<Vec<Observed>, Missing> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let Some((answer, places)) = self.known.lock().of(parent) else { return Err(Missing::NotYet) };
        for shared in places.values() {
            let (kind, mut state) = (shared.resource(), shared.state());
            let was_read = shared.is_synced();
            let informed = state.wait_for(|state| was_read || *state != State::Starting);
            let Ok(informed) = tokio::time::timeout_at(deadline, informed).await else { return Err(Missing::NotYet) };
            match informed.ok().as_deref() {
                // What was read before goes on, as parents and children do; but not what isn't there, or ours to see.
                Some(State::Troubled(_, text, true)) => {
                    return Err(Missing::NotServed(kind.api_version.clone(), text.clone()));
                }
                Some(State::Troubled(reason, text, false)) if !was_read || *reason == "Forbidden" => {
                    return Err(Missing::Troubled(reason, unwatched(kind, reason, text)));
                }
                // Its sender goes with the watch: the rules have changed meanwhile.
                None => return Err(Missing::NotYet),
                Some(_) => {}
            }
        }
        let namespaces = places.iter().find(|(place, _)| is_all_namespaces(place));
        let namespaces = namespaces.map(|(_, shared)| Arc::clone(shared));
        let mut kinds: BTreeMap<String, (Arc<Resource>, Objects)> = BTreeMap::new();
        let kind = |resource: &Arc<Resource>| (resource.hook_key(), (Arc::clone(resource), Objects::new()));
        kinds.extend(answer.empty.iter().map(kind));
        for rule in &answer.rules {
            let (name, new) = kind(&rule.related.resource);
            let (_, objects) = kinds.entry(name).or_insert(new);
            for shared in rule.places.iter().filter_map(|place| places.get(place)) {
                // Taken out first: of two collections no lock is held at once.
                let found: Vec<Arc<Object>> = match (rule.related.keys(), shared.store()) {
                    (Some(keys), store) => keys.iter().filter_map(|key| store.get(key)).cloned().collect(),
                    (None, store) => store.iter().cloned().collect(),
                };
                let named = found.into_iter().filter(|object| names(&rule.related, object, namespaces.as_deref()));
                objects.extend(named.map(|object| (object.key().clone(), object)));
            }
        }
        let observed = kinds
            .into_values()
            .map(|(resource, objects)| Observed { resource, objects: objects.into_values().collect() });
        Ok(observed.collect())
    }

    /// What is wrong with the watches of what was read before, and may be old by now: a word and a sentence for people.
    pub(crate) fn trouble(&self) -> Option<(&'static str, String)> {
        let known = self.known.lock();
        let troubles = known.places.iter().filter_map(|((kind, _), watched)| {
            let shared = watched.subscription.shared();
            let state = shared.state();
            let now = state.borrow();
            let State::Troubled(reason, text, not_served) = &*now else { return None };
            let word = match *reason {
                _ if *not_served => "RelatedKindNotServed",
                reason @ ("Forbidden" | UNREACHABLE) => reason,
                _ => "WatchFailing",
            };
            shared.is_synced().then(|| (word, unwatched(kind, reason, text)))
        });
        // So that the message doesn't change by itself.
        troubles.min()
    }

    /// Nothing is remembered of parents that don't stay.
    pub(crate) fn retain(&self, stays: impl Fn(&ObjectKey) -> bool) {
        let mut known = self.known.lock();
        known.answers.retain(|parent, _| stays(parent));
        let unused = known.leave(|_, parents| {
            parents.retain(|parent| stays(parent));
            true
        });
        drop(known);
        // Watches end under no lock.
        drop(unused);
    }

    /// Nothing is remembered of a parent.
    pub(crate) fn forget(&self, parent: &ObjectKey) {
        let mut known = self.known.lock();
        if known.answers.remove(parent).is_some() {
            let unused = known.leave(|_, parents| parents.remove(parent));
            drop(known);
            drop(unused);
        }
    }

    /// Watches that its rules need, and the objects and bytes in them.
    pub(crate) fn totals(&self) -> (usize, usize, usize) {
        let known = self.known.lock();
        let stores = known.places.values().map(|watched| watched.subscription.shared().store());
        let (objects, bytes) =
            stores.fold((0, 0), |(objects, bytes), store| (objects + store.len(), bytes + store.bytes()));
        (known.places.len(), objects, bytes)
    }

    /// The parents that a change at a place concerns.
    fn concerned(&self, place: &Place, change: &Change) -> Vec<ObjectKey> {
        let (old, new) = match change {
            Change::Applied { old, new } => (old.as_ref(), Some(new)),
            Change::Deleted { old, .. } => (Some(old), None),
        };
        let (parents, namespaces) = {
            let known = self.known.lock();
            let Some(watched) = known.places.get(place) else { return Vec::new() };
            // What its first list brings is read by those who wait for it.
            if !watched.subscription.shared().is_synced() {
                return Vec::new();
            }
            let answered = |parent: &ObjectKey| Some((parent.clone(), Arc::clone(known.answers.get(parent)?)));
            let parents: Vec<(ObjectKey, Arc<Answer>)> = watched.parents.iter().filter_map(answered).collect();
            (parents, known.namespaces())
        };
        let is_concerned = |answer: &Answer| {
            answer.rules.iter().any(|rule| {
                let is_named = |object: &Arc<Object>| {
                    rule.places.contains(place) && names(&rule.related, object, namespaces.as_deref())
                };
                old.is_some_and(is_named)
                    || new.is_some_and(is_named)
                    || (is_namespace(&place.0)
                        && rule.related.follows_namespace(old.map(|old| &**old), new.map(|new| &**new)))
            })
        };
        parents.into_iter().filter(|(_, answer)| is_concerned(answer)).map(|(parent, _)| parent).collect()
    }
}

impl Known {
    /// What the hook said of a parent, and where it is seen.
    fn of(&self, parent: &ObjectKey) -> Option<(Arc<Answer>, Collections)> {
        let answer = self.answers.get(parent)?;
        let of_parent = self.places.iter().filter(|(_, watched)| watched.parents.contains(parent));
        let places = of_parent.map(|(place, watched)| (place.clone(), Arc::clone(watched.subscription.shared())));
        Some((Arc::clone(answer), places.collect()))
    }

    /// All namespaces, if a rule asks for their labels.
    fn namespaces(&self) -> Option<Arc<Shared>> {
        let found = self.places.iter().find(|(place, _)| is_all_namespaces(place));
        found.map(|(_, watched)| Arc::clone(watched.subscription.shared()))
    }

    /// Takes parents off places, as `leave` does and tells; hands out what nobody needs any more, to be dropped under no
    /// lock.
    fn leave(&mut self, leave: impl Fn(&Place, &mut Parents) -> bool) -> Vec<Subscription> {
        let is_left =
            |place: &Place, watched: &mut Watched| leave(place, &mut watched.parents) && watched.parents.is_empty();
        self.places.extract_if(is_left).map(|(_, watched)| watched.subscription).collect()
    }
}

/// Listens to one place.
struct RelatedRoute {
    hosted: Arc<OnceLock<Weak<Hosted>>>,
    dispatch: Arc<Dispatch>,
    place: Place,
}

impl Listener for RelatedRoute {
    fn changed(&self, change: &Change, origin: Option<&SyncKey>) {
        let Some(hosted) = running(&self.hosted) else { return };
        let Some(related) = &hosted.related else { return };
        for parent in related.concerned(&self.place, change) {
            let key = hosted.key(&parent);
            if hosted.holds(&parent) && origin != Some(&key) {
                self.dispatch.add(key, Priority::Child);
            }
        }
    }
}

/// Whether a rule names an object, as far as the labels of namespaces are known.
fn names(related: &Related, object: &Object, namespaces: Option<&Shared>) -> bool {
    match namespaces {
        Some(namespaces) if related.asks_for_namespaces() => {
            let store = namespaces.store();
            related.matches(object, |name| store.get(&ObjectKey::new("", name)))
        }
        _ => related.matches(object, |_| None),
    }
}

/// Why objects of a kind can't be watched, and what to do about it.
fn unwatched(kind: &Resource, reason: &str, text: &str) -> String {
    let fix = if reason == "Forbidden" {
        format!("; grant get, list and watch on {} to Ringmaster's account", kind.plural)
    } else {
        String::new()
    };
    format!("related {} can't be watched: {text}{fix}", kind.plural)
}

fn is_namespace(resource: &Resource) -> bool {
    resource.api_version.as_str() == "v1" && *resource.plural == *"namespaces"
}

fn is_all_namespaces((resource, scope): &Place) -> bool {
    is_namespace(resource) && *scope == Scope::Everything
}

/// How much of a kind is watched at once.
#[derive(PartialEq, Eq)]
enum Width {
    /// What is named, or what labels select.
    Narrow,
    /// A namespace.
    Namespace,
    All,
}

fn width(scope: &Scope) -> Width {
    match scope {
        Scope::Selected(Selection { name, labels, .. }) if name.is_empty() && labels.is_empty() => Width::Namespace,
        Scope::Selected(_) => Width::Narrow,
        _ => Width::All,
    }
}

/// What shows everything is one collection, whoever asks for it.
fn scope(selection: Selection) -> Scope {
    if selection == Selection::default() { Scope::Everything } else { Scope::Selected(selection) }
}

/// What the hook's answer may depend on: generation, labels and annotations; not the status.
fn fingerprint(parent: &Object) -> u64 {
    #[derive(Deserialize, Default)]
    struct Metadata {
        #[serde(default)]
        labels: Option<Box<RawValue>>,
        #[serde(default)]
        annotations: Option<Box<RawValue>>,
    }
    let metadata: Metadata = parent.section("metadata").unwrap_or_default();
    let text = |raw: &Option<Box<RawValue>>| raw.as_ref().map_or_else(String::new, |raw| raw.get().to_owned());
    // What has no generation may have changed in anything.
    let state = match parent.generation() {
        0 => parent.version().to_string(),
        generation => generation.to_string(),
    };
    // A deletion is told by the request, too.
    let parts = [state, parent.is_deleting().to_string(), text(&metadata.labels), text(&metadata.annotations)];
    xxh(parts.join("\n").as_bytes())
}
