//! Events as objects of `events.k8s.io/v1`: a new one is created, one that is equal to a recent one counts that up.
//!
//! Never judges how many there may be: that is done before. Never repeats a call that failed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event as EventObject, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource};
use serde_json::json;

use crate::events::{Event, Subject, cut};
use crate::{Client, Error};

/// Event objects that may be counted up.
const MAX_REMEMBERED: usize = 2048;
/// One that comes again after a longer pause is an object of its own, as it is for client-go.
const COUNTED_FOR: Duration = Duration::from_secs(6 * 60);
/// Longest name of an object, in bytes.
const MAX_NAME_BYTES: usize = 253;
/// Who reports.
const REPORTER: &str = "ringmaster";
/// Where events about cluster-scoped objects are.
const CLUSTER_NAMESPACE: &str = "default";

/// Posts events; one at a time.
pub(crate) struct Recorder {
    client: Client,
    resource: Resource,
    hasher: RandomState,
    known: HashMap<u64, Known>,
}

/// An event object that was posted.
struct Known {
    name: String,
    count: i32,
    /// When it was posted or counted up last, since any fixed start.
    at: Duration,
}

impl Recorder {
    pub(crate) fn new(client: Client) -> Self {
        let resource = Resource {
            api_version: ApiVersion::new("events.k8s.io/v1"),
            plural: "events".into(),
            kind: "Event".into(),
            namespaced: true,
            status: false,
        };
        Self { client, resource, hasher: RandomState::new(), known: HashMap::new() }
    }

    /// Posts an event. `now` is the time since any fixed start. Says whether recent ones had to be forgotten for it: they
    /// are objects of their own when they come again.
    ///
    /// # Errors
    /// If the API server doesn't take it.
    pub(crate) async fn post(&mut self, event: Event, now: Duration) -> Result<bool, Error> {
        let key = self.hasher.hash_one((&event.subject.uid, event.level, &event.reason, &event.note));
        #[expect(clippy::disallowed_methods, reason = "what an event says of its time is for people")]
        let time = Timestamp::now();
        let recent = self.known.get_mut(&key).filter(|known| now.saturating_sub(known.at) < COUNTED_FOR);
        if let Some(known) = recent {
            let series = EventSeries { count: known.count.saturating_add(1), last_observed_time: MicroTime(time) };
            let (count, patch) = (series.count, json!({ "series": series }).to_string().into_bytes());
            let posted = ObjectKey::new(home(&event.subject), &known.name);
            match self.client.merge_patch(&self.resource, &posted, patch).await {
                Ok(_) => {
                    (known.count, known.at) = (count, now);
                    return Ok(false);
                }
                // Somebody deleted it.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let (name, home) = (name(&event.subject.name, time), home(&event.subject).to_owned());
        let body = json!(object(event, name.clone(), time)).to_string().into_bytes();
        self.client.create(&self.resource, &home, body).await?;
        let forgotten = self.make_room(now);
        self.known.insert(key, Known { name, count: 1, at: now });
        Ok(forgotten)
    }

    /// Forgets what isn't counted up any more, or everything if that isn't enough; says whether it was everything.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.known.len() < MAX_REMEMBERED {
            return false;
        }
        self.known.retain(|_, known| now.saturating_sub(known.at) < COUNTED_FOR);
        if self.known.len() < MAX_REMEMBERED {
            return false;
        }
        self.known.clear();
        true
    }
}

/// The name of an event about an object of this name: a DNS subdomain, like it.
fn name(about: &str, time: Timestamp) -> String {
    let suffix = format!(".{:x}", time.as_nanosecond());
    let start = cut(about, MAX_NAME_BYTES - suffix.len()).trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{start}{suffix}")
}

/// Where events about it are.
fn home(subject: &Subject) -> &str {
    if subject.namespace.is_empty() { CLUSTER_NAMESPACE } else { &subject.namespace }
}

fn object(event: Event, name: String, time: Timestamp) -> EventObject {
    let namespace = home(&event.subject).to_owned();
    let Event { subject, level, reason, note } = event;
    let Subject { api_version, kind, namespace: about_namespace, name: about, uid } = subject;
    EventObject {
        // The API wants one; what was done is the reason's to say.
        action: Some(reason.clone()),
        event_time: Some(MicroTime(time)),
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        note: Some(note),
        reason: Some(reason),
        regarding: Some(ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind),
            namespace: Some(about_namespace).filter(|namespace| !namespace.is_empty()),
            name: Some(about),
            uid: Some(uid),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(REPORTER.to_owned()),
        type_: Some(if level.warns() { "Warning" } else { "Normal" }.to_owned()),
        ..EventObject::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Method;

    use super::*;
    use crate::Meter;

    struct Deaf;

    impl Meter for Deaf {
        fn api_call(&self, _: &Method, _: Option<u16>, _: Option<Duration>) {}
        fn limit_hit(&self, _: &'static str) {}
    }

    #[test]
    fn a_name_fits_and_ends_in_a_time() {
        let time = Timestamp::from_nanosecond(0x18_7af4_1c2d_93f1_23ab).unwrap_or_default();
        let suffix = format!(".{:x}", time.as_nanosecond());
        assert_eq!(name("a.b", time), format!("a.b{suffix}"));
        let long = name(&"a".repeat(253), time);
        assert!(long.len() == MAX_NAME_BYTES && long.ends_with(&suffix), "{long}");
        // Cut behind a dot or a dash, it still is one.
        let cut = MAX_NAME_BYTES - suffix.len();
        let odd = format!("{}-.{}", "a".repeat(cut - 2), "b".repeat(20));
        assert_eq!(name(&odd, time), format!("{}{suffix}", "a".repeat(cut - 2)));
    }

    #[test]
    fn memory_is_bounded() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap_or_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let _entered = runtime.as_ref().ok().map(tokio::runtime::Runtime::enter);
        let Ok(client) = kube::Client::try_from(config) else { panic!("no client") };
        let mut recorder = Recorder::new(Client::new(client, Arc::new(Deaf)));
        let fill = |recorder: &mut Recorder, range: std::ops::Range<usize>, now| {
            let mut forgotten = 0;
            for key in range {
                forgotten += usize::from(recorder.make_room(now));
                recorder.known.insert(key as u64, Known { name: String::new(), count: 1, at: now });
            }
            (forgotten, recorder.known.len())
        };
        assert_eq!(fill(&mut recorder, 0..MAX_REMEMBERED, Duration::ZERO), (0, MAX_REMEMBERED));
        assert_eq!(fill(&mut recorder, 5000..5001, COUNTED_FOR), (0, 1), "old ones go first");
        let (forgotten, left) = fill(&mut recorder, 6000..6000 + 2 * MAX_REMEMBERED, COUNTED_FOR);
        assert!(forgotten == 2 && left <= MAX_REMEMBERED, "{forgotten} {left}");
    }
}
