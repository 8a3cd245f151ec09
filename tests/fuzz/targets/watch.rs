//! The watch pump against a server that answers with any bytes in any pieces: what a plain reading of the same bytes
//! says is what the sink is told, in order, and what a store holds in the end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::Iter;
use http::{Method, Request, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use ringmaster_cluster::{Client, Error, Meter, Sink, Watch, run_pump};
use ringmaster_core::cache::{FOR_EVER, Relist, Store};
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, Uid, Version};
use ringmaster_core::object::Object;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::source::{Source, says_twice};

/// Answers of one session.
const MAX_ANSWERS: usize = 12;
/// Virtual time for one session: all waits together are far below.
const SESSION: Duration = Duration::from_secs(3600);

/// Answers, each as its first byte says: as they stand, parted by bytes of 255, or made by the grammar.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let (grammar, pieces) = (source.flag(), source.byte());
    let answers: VecDeque<Answer> = if grammar {
        let count = 1 + source.below(MAX_ANSWERS);
        (0..count).map(|_| Answer { how: source.byte(), body: body(&mut source) }).collect()
    } else {
        let parts = source.rest().split(|byte| *byte == u8::MAX).take(MAX_ANSWERS);
        let parts = parts.filter_map(|part| part.split_first());
        parts.map(|(how, body)| Answer { how: *how, body: body.to_vec() }).collect()
    };
    let log = play(answers, pieces);
    check(&log);
}

/// What the server answers a request with.
#[derive(Clone, Debug)]
struct Answer {
    how: u8,
    body: Vec<u8>,
}

impl Answer {
    /// Most succeed.
    fn code(&self) -> u16 {
        match self.how % 16 {
            12 => 410,
            13 => 400,
            14 => 500,
            15 => 404,
            _ => 200,
        }
    }

    /// Whether the connection breaks behind the body.
    fn breaks(&self) -> bool {
        matches!(self.how % 16, 10 | 11)
    }
}

type Piece = Result<Frame<Bytes>, std::io::Error>;
type Pieces = StreamBody<Iter<std::vec::IntoIter<Piece>>>;

#[derive(Debug)]
enum Entry {
    Asked { query: String, answer: Answer },
    Begins,
    Applied(Object),
    Deleted(Object),
    Progressed(Version),
    Complete(Version),
    Aborted,
}

/// Server and sink in one, so that one log holds what happened in its order.
struct Scene {
    answers: Mutex<VecDeque<Answer>>,
    log: Mutex<Vec<Entry>>,
    done: CancellationToken,
    pieces: u8,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scene {
    fn note(&self, entry: Entry) {
        held(&self.log).push(entry);
    }

    async fn answer(&self, query: String) -> Result<Response<Pieces>, Infallible> {
        let Some(answer) = held(&self.answers).pop_front() else {
            self.done.cancel();
            return std::future::pending().await;
        };
        self.note(Entry::Asked { query, answer: answer.clone() });
        let mut frames: Vec<Piece> = Vec::new();
        let (mut left, mut at) = (answer.body.as_slice(), u32::from(self.pieces));
        while !left.is_empty() {
            // 0 sends all at once; the others pieces of all sizes.
            at = at.wrapping_mul(1_103_515_245).wrapping_add(12345);
            let size = if self.pieces == 0 { left.len() } else { (at >> 16) as usize % (2 * usize::from(self.pieces)) };
            let (piece, rest) = left.split_at(size.min(left.len()));
            frames.push(Ok(Frame::data(Bytes::copy_from_slice(piece))));
            left = rest;
        }
        if answer.breaks() {
            frames.push(Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        }
        let body = StreamBody::new(futures::stream::iter(frames));
        Ok(Response::builder().status(answer.code()).body(body).expect("a response"))
    }
}

impl Sink for Scene {
    fn list_begins(&self) -> String {
        self.note(Entry::Begins);
        String::new()
    }
    fn watch_begins(&self, version: Version, _: bool) -> (String, Version) {
        (String::new(), version)
    }
    fn applied(&self, object: Object) {
        self.note(Entry::Applied(object));
    }
    fn deleted(&self, object: Object) {
        self.note(Entry::Deleted(object));
    }
    fn progressed(&self, version: Version) {
        self.note(Entry::Progressed(version));
    }
    fn list_complete(&self, version: Version) {
        self.note(Entry::Complete(version));
    }
    fn list_aborted(&self) {
        self.note(Entry::Aborted);
    }
    fn lost_track(&self) {}
    fn trouble(&self, error: &Error, failures: u32) {
        assert!(failures > 0 && !error.to_string().is_empty());
    }
    fn recovered(&self) {}
}

struct Silent;

impl Meter for Silent {
    fn api_call(&self, _: &Method, _: Option<u16>, _: Option<Duration>) {}
    fn limit_hit(&self, _: &'static str) {}
}

fn things() -> Resource {
    Resource {
        api_version: ApiVersion::new("example.com/v1"),
        plural: "things".into(),
        kind: "Thing".into(),
        namespaced: true,
        status: false,
    }
}

/// Runs the pump until the answers are used up, without waiting for anything.
fn play(answers: VecDeque<Answer>, pieces: u8) -> Vec<Entry> {
    let done = CancellationToken::new();
    let scene = Arc::new(Scene { answers: Mutex::new(answers), log: Mutex::default(), done: done.clone(), pieces });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let server = Arc::clone(&scene);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = Arc::clone(&server);
            async move { server.answer(request.uri().query().unwrap_or_default().to_owned()).await }
        });
        let client = Client::new(kube::Client::new(service, "default"), Arc::new(Silent));
        let watch = Watch::all(Arc::new(things()));
        let sink: Arc<dyn Sink> = Arc::clone(&scene) as Arc<dyn Sink>;
        let session = tokio::time::timeout(SESSION, run_pump(client, watch, sink, || 0, done));
        session.await.expect("the pump asks on");
    });
    std::mem::take(&mut *held(&scene.log))
}

/// What one line, or one item of a page, says.
#[derive(Debug)]
enum Said {
    Applied(Plain),
    Deleted(Plain),
    Mark { version: String, initial_end: bool },
    Other,
}

/// An object as a plain reading has it.
#[derive(Clone, Debug)]
struct Plain {
    key: String,
    uid: String,
    version: Version,
    tree: Value,
}

/// What an answer says until it ends or something in it can't be used.
#[derive(Default)]
struct Reading {
    said: Vec<Said>,
    /// The version and the next token of a page.
    page: Option<(String, String)>,
    /// Something can't be compared: it says something twice, and nobody promises which counts, is JSON that a
    /// tree can't hold, or has a list of values where serde takes one for an object. The pump passes over all that.
    beyond: bool,
}

fn check(log: &[Entry]) {
    let mut model = Model::default();
    let mut store = Store::new();
    let mut relist: Option<Relist> = None;
    // Up to where the watch is informed; none while a list isn't complete.
    let mut known: Option<String> = None;
    let mut at = 0;
    while at < log.len() {
        let Entry::Asked { query, answer } = &log[at] else {
            // A list begins before it is asked for.
            assert!(matches!(log[at], Entry::Begins), "told before anything was asked");
            relist = Some(Relist::default());
            model.begin();
            known = None;
            at += 1;
            continue;
        };
        let end = log[at + 1..].iter().position(|entry| matches!(entry, Entry::Asked { .. } | Entry::Begins));
        let told = &log[at + 1..end.map_or(log.len(), |end| at + 1 + end)];
        at += 1 + told.len();

        let watches = query.contains("watch=true");
        let lists = query.contains("sendInitialEvents=true") || !watches;
        if lists {
            known = None;
        } else {
            let asked = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
            assert_eq!(asked, known.as_deref(), "asked on from elsewhere");
        }
        let reading = match (answer.code(), watches) {
            (200, true) => stream(&answer.body),
            (200, false) if !answer.breaks() => page(&answer.body),
            _ => Reading::default(),
        };
        if reading.beyond {
            return;
        }
        let mut told = told.iter();
        for said in reading.said {
            match said {
                Said::Applied(plain) => {
                    let Some(Entry::Applied(object)) = told.next() else { panic!("{plain:?} got lost") };
                    same(object, &plain);
                    known = known.map(|_| object.version().to_string());
                    if let Some(relist) = &mut relist {
                        relist.saw(object.key(), object.uid());
                    }
                    store.apply(clone(object));
                    model.observe(plain);
                }
                Said::Deleted(plain) => {
                    let Some(Entry::Deleted(object)) = told.next() else { panic!("the end of {plain:?} got lost") };
                    same(object, &plain);
                    known = known.map(|_| object.version().to_string());
                    store.delete(object.key(), object.uid(), object.version());
                    model.delete(&plain);
                }
                Said::Mark { version, initial_end } => {
                    if initial_end && lists && known.is_none() {
                        complete(told.next(), &version, relist.take(), &mut store, &mut model);
                        known = Some(version);
                    } else if known.is_some() {
                        let Some(Entry::Progressed(to)) = told.next() else { panic!("a bookmark got lost") };
                        assert_eq!(*to, Version::new(&version));
                        known = Some(version);
                    }
                }
                Said::Other => {}
            }
        }
        if let Some((version, next)) = reading.page
            && next.is_empty()
        {
            complete(told.next(), &version, relist.take(), &mut store, &mut model);
            known = Some(version);
        }
        for entry in told {
            assert!(matches!(entry, Entry::Aborted), "told of what nobody said: {entry:?}");
            relist = None;
            model.relist = None;
        }
        model.compare(&store);
    }
}

fn complete(told: Option<&Entry>, version: &str, relist: Option<Relist>, store: &mut Store, model: &mut Model) {
    let Some(Entry::Complete(as_of)) = told else { panic!("a list's end got lost") };
    assert_eq!(*as_of, Version::new(version));
    store.end_relist(&relist.expect("a list that began"), *as_of, |_| true);
    model.complete(*as_of);
}

fn clone(object: &Object) -> Object {
    Object::parse(&String::from_utf8_lossy(object.json()), &things()).expect("an object reads as it was written")
}

fn same(object: &Object, plain: &Plain) {
    assert_eq!(object.value(), plain.tree);
    assert_eq!(object.key().as_str(), plain.key);
    assert_eq!((object.uid().to_string(), object.version()), (plain.uid.clone(), plain.version));
    // Read from the bytes that are kept.
    assert_eq!(clone(object).json(), object.json());
    let metadata = &plain.tree["metadata"];
    assert_eq!(object.is_deleting(), metadata.get("deletionTimestamp").is_some_and(|at| !at.is_null()));
    assert_eq!(object.generation(), metadata["generation"].as_i64().unwrap_or_default());
    let owners = metadata["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    let controller = owners.iter().find(|owner| owner["controller"] == true);
    assert_eq!(object.controller().map(ToString::to_string), controller.map(|o| text(&o["uid"])));
    let labels = metadata["labels"].as_object().filter(|all| all.values().all(|v| v.is_string() || v.is_null()));
    let labels: BTreeMap<String, String> = labels.into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect();
    let read: BTreeMap<String, String> = object.labels().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    assert_eq!(read, labels);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// See [`Reading::beyond`].
fn is_beyond(text: &str) -> bool {
    let Ok(tree) = serde_json::from_str::<Value>(text) else {
        return serde_json::from_str::<&RawValue>(text).is_ok();
    };
    let metadata = [&tree["metadata"], &tree["object"]["metadata"]];
    let items = tree["items"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|item| &item["metadata"]);
    let owners = items.chain(metadata).filter_map(|metadata| metadata["ownerReferences"].as_array()).flatten();
    says_twice(text) || metadata.into_iter().chain(owners).any(Value::is_array)
}

/// A watch's lines; one that no newline ends isn't one.
fn stream(body: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
    lines.pop();
    for line in lines {
        let Ok(text) = std::str::from_utf8(line) else { break };
        if text.trim().is_empty() {
            continue;
        }
        reading.beyond |= is_beyond(text);
        let Some(said) = event(text) else { break };
        reading.said.push(said);
    }
    reading
}

/// `None` for what ends the watch.
fn event(line: &str) -> Option<Said> {
    let value: Value = serde_json::from_str(line).ok()?;
    let fields = value.as_object()?;
    let (kind, object) = (fields.get("type")?.as_str()?, fields.get("object")?);
    Some(match kind {
        "ADDED" | "MODIFIED" => Said::Applied(plain(object)?),
        "DELETED" => Said::Deleted(plain(object)?),
        "BOOKMARK" => {
            let metadata = object.get("metadata")?;
            let annotations = metadata.get("annotations").filter(|all| !all.is_null());
            if !annotations.is_none_or(|all| all.as_object().is_some_and(|all| all.values().all(Value::is_string))) {
                return None;
            }
            let initial_end = annotations.is_some_and(|all| all["k8s.io/initial-events-end"] == "true");
            Said::Mark { version: metadata.get("resourceVersion")?.as_str()?.to_owned(), initial_end }
        }
        "ERROR" => return None,
        _ => Said::Other,
    })
}

fn page(body: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let Ok(text) = std::str::from_utf8(body) else { return reading };
    reading.beyond = is_beyond(text);
    let Ok(value) = serde_json::from_str::<Value>(text) else { return reading };
    let Some(fields) = value.as_object() else { return reading };
    let empty = Value::Object(Map::new());
    let metadata = fields.get("metadata").unwrap_or(&empty);
    let word = |name: &str| metadata.get(name).map_or(Some(String::new()), |word| word.as_str().map(ToOwned::to_owned));
    let (Some(version), Some(next), true) = (word("resourceVersion"), word("continue"), metadata.is_object()) else {
        return reading;
    };
    let items = match fields.get("items") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(items)) => items,
        Some(_) => return reading,
    };
    for item in items {
        let Some(object) = plain(item) else { return reading };
        reading.said.push(Said::Applied(object));
    }
    reading.page = Some((version, next));
    reading
}

/// What every object has, of its type; `None` if it isn't so.
fn plain(object: &Value) -> Option<Plain> {
    let mut tree = object.as_object()?.clone();
    let metadata = tree.get_mut("metadata")?.as_object_mut()?;
    let of = |name: &str| metadata.get(name);
    let word = |name: &str| of(name).filter(|value| !value.is_null()).map_or(Some(""), Value::as_str);
    let (name, namespace, uid) = (of("name")?.as_str()?, word("namespace")?, word("uid")?);
    let version = of("resourceVersion").map_or(Some("0"), Value::as_str)?;
    of("generation").map_or(Some(0), Value::as_i64)?;
    let owners = of("ownerReferences").filter(|owners| !owners.is_null());
    let good = |owner: &Value| {
        owner.is_object() && owner["uid"].is_string() && owner.get("controller").is_none_or(Value::is_boolean)
    };
    if !owners.is_none_or(|owners| owners.as_array().is_some_and(|owners| owners.iter().all(good))) {
        return None;
    }
    let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let (uid, version) = (uid.to_owned(), Version::new(version));
    metadata.remove("managedFields");
    tree.entry("apiVersion").or_insert_with(|| "example.com/v1".into());
    tree.entry("kind").or_insert_with(|| "Thing".into());
    Some(Plain { key, uid, version, tree: Value::Object(tree) })
}

/// What a store should hold, by walking.
#[derive(Default)]
struct Model {
    objects: BTreeMap<String, Plain>,
    gone: HashMap<String, Version>,
    /// The uid of each object that it named last, by key.
    relist: Option<HashMap<String, String>>,
}

impl Model {
    fn begin(&mut self) {
        self.relist = Some(HashMap::new());
    }

    fn observe(&mut self, object: Plain) {
        if let Some(seen) = &mut self.relist {
            seen.insert(object.key.clone(), object.uid.clone());
        }
        if let Some(again) = self.gone.get(&object.uid) {
            if *again == Version::UNKNOWN || object.version < *again {
                let older = |known: &&Plain| known.uid != object.uid && known.version.is_before(object.version);
                if let Some(known) = self.objects.get(&object.key).filter(older) {
                    self.gone.insert(known.uid.clone(), FOR_EVER);
                    self.objects.remove(&object.key);
                }
                return;
            }
            self.gone.remove(&object.uid);
        }
        if let Some(known) = self.objects.get(&object.key) {
            let same = known.version == object.version && known.version != Version::UNKNOWN;
            if same || object.version.is_before(known.version) {
                return;
            }
            if known.uid != object.uid {
                self.gone.insert(known.uid.clone(), FOR_EVER);
            }
        }
        self.objects.insert(object.key.clone(), object);
    }

    fn delete(&mut self, object: &Plain) {
        self.bury(object.uid.clone(), object.version);
        let gone = |known: &Plain| known.uid == object.uid && !object.version.is_before(known.version);
        if self.objects.get(&object.key).is_some_and(gone) {
            self.objects.remove(&object.key);
        }
    }

    fn bury(&mut self, uid: String, until: Version) {
        let known = self.gone.entry(uid).or_insert(until);
        *known = (*known).max(until);
    }

    fn complete(&mut self, version: Version) {
        let Some(seen) = self.relist.take() else { return };
        let missing: Vec<Plain> = self
            .objects
            .values()
            .filter(|object| seen.get(&object.key) != Some(&object.uid))
            .filter(|object| !version.is_before(object.version))
            .cloned()
            .collect();
        for object in missing {
            let again = if object.version == Version::UNKNOWN || version == Version::UNKNOWN {
                Version::UNKNOWN
            } else {
                version.max(Version(object.version.0.saturating_add(1)))
            };
            self.bury(object.uid, again);
            self.objects.remove(&object.key);
        }
    }

    fn compare(&self, store: &Store) {
        assert_eq!(store.len(), self.objects.len());
        for (key, plain) in &self.objects {
            let (namespace, name) = key.split_once('/').unwrap_or(("", key));
            let object = store.get(&ObjectKey::new(namespace, name)).expect("an object that should be there");
            same(object, plain);
            assert_eq!(object.uid(), &Uid::new(&plain.uid));
        }
        assert_eq!(store.bytes(), store.iter().map(|object| object.cost_bytes()).sum::<usize>());
    }
}

/// A body that the API server might send, and now and then one that it wouldn't.
fn body(source: &mut Source<'_>) -> Vec<u8> {
    if source.below(4) == 3 {
        let items: Vec<Value> = (0..source.below(4)).map(|_| object(source)).collect();
        let next = if source.flag() { "t" } else { "" };
        let list = json!({"metadata": {"resourceVersion": version(source), "continue": next}, "items": items});
        return list.to_string().into_bytes();
    }
    let mut lines = Vec::new();
    for _ in 0..source.below(8) {
        let event = match source.below(16) {
            0 => json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version(source)}}}),
            1..=4 => json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version(source),
                "annotations": {"k8s.io/initial-events-end": "true"}}}}),
            5 => json!({"type": "ERROR", "object": {"code": source.pick(&[410, 500, 200]), "message": source.text()}}),
            6 => json!({"type": source.text(), "object": source.value()}),
            7..=8 => json!({"type": "DELETED", "object": object(source)}),
            9 => source.value(),
            _ => json!({"type": source.pick(&["ADDED", "MODIFIED"]), "object": object(source)}),
        };
        lines.extend_from_slice(event.to_string().as_bytes());
        lines.extend_from_slice(source.pick(&[&b"\n"[..], b"\n", b"\n", b"\r\n", b"\n\n", b"", b"\xc3\n"]));
    }
    lines
}

fn version(source: &mut Source<'_>) -> String {
    source.pick(&["1", "2", "5", "9", "12", "18446744073709551615", "0", "", "x", "007"]).to_owned()
}

fn object(source: &mut Source<'_>) -> Value {
    let mut object = Value::Object(source.fields());
    let mut metadata = if source.flag() { source.fields() } else { Map::new() };
    if source.below(16) < 15 {
        for field in ["generation", "ownerReferences", "uid", "namespace"] {
            metadata.remove(field);
        }
        metadata.insert("name".to_owned(), source.pick(&["a", "b", "c"]).into());
        metadata.insert("uid".to_owned(), source.pick(&["u1", "u2", PARENT_UID]).into());
        metadata.insert("resourceVersion".to_owned(), version(source).into());
        if source.flag() {
            metadata.insert("namespace".to_owned(), "n".into());
        }
        if source.flag() {
            let owner = json!({"uid": source.text(), "controller": source.flag()});
            metadata.insert("ownerReferences".to_owned(), json!([owner]));
        }
        if source.flag() {
            metadata.insert("labels".to_owned(), json!({source.name(): source.text()}));
        }
    }
    object["metadata"] = Value::Object(metadata);
    object
}

const PARENT_UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
