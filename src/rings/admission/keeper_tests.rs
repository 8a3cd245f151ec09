use parking_lot::Mutex;
use ringmaster_core::key::Resource;
use serde_json::json;

use super::super::certificate::{RENEWED_AFTER, SETTLED, VALIDITY};
use super::*;

const START: Duration = Duration::from_secs(1_800_000_000);

/// A Secret in memory, which several members share.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Option<Value>>>);

impl Memory {
    fn put(&self, body: &[u8], replaces: bool) -> Result<Object, ringmaster_cluster::Error> {
        let mut kept = self.0.lock();
        let mut body: Value = serde_json::from_slice(body).unwrap();
        let version = kept.as_ref().map(|kept| kept["metadata"]["resourceVersion"].clone());
        if replaces && version.as_ref() != Some(&body["metadata"]["resourceVersion"]) {
            return Err(status("Conflict"));
        }
        if !replaces && version.is_some() {
            return Err(status("AlreadyExists"));
        }
        let last: u64 = version.and_then(|version| version.as_str()?.parse().ok()).unwrap_or(6);
        body["metadata"]["uid"] = json!("u1");
        body["metadata"]["resourceVersion"] = json!((last + 1).to_string());
        let object = Object::of(&body, &resource()).unwrap();
        *kept = Some(body);
        Ok(object)
    }
}

fn resource() -> Resource {
    secret::resource()
}

fn status(reason: &str) -> ringmaster_cluster::Error {
    ringmaster_cluster::Error::Status {
        call: "PUT /secret".to_owned(),
        code: 409,
        reason: reason.to_owned(),
        message: String::new(),
        retry_after: None,
        object: true,
    }
}

impl Store for Memory {
    fn namespace(&self) -> &str {
        "system"
    }

    async fn read(&self) -> Result<Option<Object>, ringmaster_cluster::Error> {
        Ok(self.0.lock().as_ref().map(|secret| Object::of(secret, &resource()).unwrap()))
    }

    async fn create(&self, body: Vec<u8>) -> Result<Object, ringmaster_cluster::Error> {
        self.put(&body, false)
    }

    async fn replace(&self, body: Vec<u8>) -> Result<Object, ringmaster_cluster::Error> {
        self.put(&body, true)
    }
}

fn member(memory: &Memory) -> Keeper<Memory> {
    Keeper::new(memory.clone(), vec!["ringmaster.system.svc".to_owned()], Arc::default())
}

fn at(since: Duration) -> Moment {
    Moment { wall: START + since, boot: since }
}

/// Rings' configurations, as the leader applied them.
fn applied(keeper: &Keeper<Memory>) -> Vec<Value> {
    use base64::Engine as _;
    let bundle = base64::engine::general_purpose::STANDARD.encode(keeper.bundle().unwrap());
    vec![json!({"webhooks": [{"clientConfig": {"caBundle": bundle}}]})]
}

fn current(keeper: &Keeper<Memory>) -> certificate::Pair {
    keeper.known.as_ref().unwrap().current.clone()
}

#[tokio::test]
async fn whoever_is_first_makes_it_and_the_others_show_the_same() {
    let memory = Memory::default();
    let (mut one, mut two) = (member(&memory), member(&memory));
    assert!(!one.shown.is_ready() && one.bundle().is_none());
    let round = one.round(at(Duration::ZERO), None).await.unwrap();
    assert_eq!(round, Round { has_changed: true, again: SOON });
    assert!(one.shown.is_ready());
    assert!(two.round(at(Duration::ZERO), Some(&[])).await.unwrap().has_changed);
    assert_eq!(current(&one), current(&two));
    let still = one.round(at(LOOK_INTERVAL), None).await.unwrap();
    assert_eq!(still, Round { has_changed: false, again: LOOK_INTERVAL });
}

#[tokio::test]
async fn a_rotation_goes_through_every_step_and_members_follow() {
    let memory = Memory::default();
    let (mut leader, mut other) = (member(&memory), member(&memory));
    leader.round(at(Duration::ZERO), Some(&[])).await.unwrap();
    other.round(at(Duration::ZERO), None).await.unwrap();
    let (first, old) = (current(&leader), applied(&leader));

    let due = RENEWED_AFTER;
    assert!(!other.round(at(due), None).await.unwrap().has_changed, "it doesn't lead");
    assert!(leader.round(at(due), Some(&old)).await.unwrap().has_changed);
    assert_eq!(current(&leader), first, "announced");
    let new = applied(&leader);

    // As long as one doesn't carry it, the time doesn't begin; it begins anew when one was put back.
    let both = [old.clone(), new.clone()].concat();
    for (since, configurations, is_over) in [
        (1, &both, false),
        (100, &new, false),
        (130, &old, false),
        (140, &new, false),
        (190, &new, false),
        (200, &new, true),
    ] {
        assert_eq!(current(&leader), first, "{since}");
        let round = leader.round(at(due + Duration::from_secs(since)), Some(configurations)).await.unwrap();
        assert_eq!(round, Round { has_changed: is_over, again: SOON }, "{since}");
    }
    assert_eq!(SETTLED, Duration::from_secs(60));
    let second = current(&leader);
    assert_ne!(second, first);
    assert!(other.round(at(due + Duration::from_secs(201)), None).await.unwrap().has_changed);
    assert_eq!(current(&other), second);
    assert!(trusts(&applied(&other)[0], &first.authority), "who shows it still is trusted");

    assert!(leader.round(at(VALIDITY), Some(&new)).await.unwrap().has_changed);
    assert_eq!(leader.bundle().unwrap(), second.authority);
}

#[tokio::test]
async fn a_deleted_secret_is_put_back_as_it_was() {
    let memory = Memory::default();
    let mut one = member(&memory);
    one.round(at(Duration::ZERO), None).await.unwrap();
    let first = current(&one);
    *memory.0.lock() = None;
    assert!(!one.round(at(SOON), None).await.unwrap().has_changed);
    assert_eq!(current(&one), first);
    assert!(memory.0.lock().is_some());
    *memory.0.lock() = None;
    assert!(one.round(at(VALIDITY), None).await.unwrap().has_changed, "that one has ended");
}

#[tokio::test]
async fn a_damaged_secret_is_mended_by_the_leader_and_a_strangers_is_left_alone() {
    let memory = Memory::default();
    let (mut leader, mut other) = (member(&memory), member(&memory));
    leader.round(at(Duration::ZERO), Some(&[])).await.unwrap();
    memory.0.lock().as_mut().unwrap()["data"]["tls.key"] = json!("");
    assert!(matches!(other.round(at(SOON), None).await, Err(Error::Secret(secret::Error::Broken { .. }))));
    let first = current(&leader);
    assert!(!leader.round(at(SOON), Some(&[])).await.unwrap().has_changed, "it knows what was kept");
    assert_eq!(current(&leader), first);
    assert!(other.round(at(SOON), None).await.unwrap().has_changed);
    assert_eq!(current(&leader), current(&other));

    memory.0.lock().as_mut().unwrap()["data"] = json!({"tls.crt": "", "tls.key": ""});
    let before = memory.0.lock().clone();
    let error = leader.round(at(SOON), Some(&[])).await.unwrap_err().to_string();
    assert!(error.contains("delete it"), "{error}");
    assert_eq!(*memory.0.lock(), before);
    assert!(leader.shown.is_ready(), "shown on");
}
