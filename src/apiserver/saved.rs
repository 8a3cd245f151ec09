//! A server's objects as text, and back: a line that tells what it is, then a line an object, with its plural name.
//!
//! Never keeps history: whoever watched before starts anew, as after a compaction. Not a backup format: it is read by the
//! version that wrote it, and by later ones as long as the first line says so.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use ringmaster_core::key::{ApiVersion, Resource, Version};
use ringmaster_core::object::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::crd::{crds, is_served};
use crate::gc::consequences;
use crate::registry::of_crd;
use crate::server::{ApiServer, Clock};
use crate::store::{KindKey, Limits, MAX_OBJECT_BYTES, kind_key};

/// What [`Head::format`] says.
const FORMAT: &str = "ringmaster-objects/1";
/// Longest line, in bytes: more than an object may have.
const MAX_LINE_BYTES: u64 = 2 * MAX_OBJECT_BYTES as u64;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    revision: u64,
}

/// A line of an object. The plural name tells the kind even where its version isn't served any more.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    plural: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Why objects can't be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text can't be read.
    #[error("line {line}")]
    Read {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: io::Error,
    },
    /// The text isn't what a server wrote.
    #[error("line {line}: {why}")]
    Format {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

impl ApiServer {
    /// Writes all objects.
    ///
    /// # Errors
    /// If the writer fails.
    pub fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        let (revision, objects) = {
            let state = self.state.lock();
            let crds = crds();
            let mut kinds: Vec<KindKey> = state.store.kinds().map(|(kind, _)| kind.clone()).collect();
            // What they define is read after them.
            kinds.sort_by_key(|kind| (*kind != crds, kind.clone()));
            let all = |kind: &KindKey| state.store.list(kind, None, (None, None), None, |_| true);
            let objects: Vec<(Arc<str>, Arc<Object>)> = kinds
                .iter()
                .filter_map(|kind| Some((kind, all(kind).ok()?)))
                .flat_map(|(kind, page)| page.objects.into_iter().map(|object| (Arc::clone(&kind.plural), object)))
                .collect();
            (state.store.revision(), objects)
        };
        serde_json::to_writer(&mut *out, &Head { format: FORMAT.to_owned(), revision })?;
        out.write_all(b"\n")?;
        for (plural, object) in objects {
            let text = std::str::from_utf8(object.json()).map_err(io::Error::other)?;
            let object = serde_json::from_str(text)?;
            serde_json::to_writer(&mut *out, &Line { plural: Cow::Borrowed(&*plural), object })?;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// A server with the objects that [`Self::save`] wrote, under their uids and resource versions; and its work, as
    /// [`Self::new`] gives it.
    ///
    /// # Errors
    /// At the first line that isn't what a server wrote.
    pub fn load(
        saved: &mut dyn BufRead,
        limits: Limits,
        clock: Clock,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), Error> {
        let (server, work) = Self::empty(limits, clock);
        server.restore(saved)?;
        Ok((server, work))
    }

    fn restore(&self, saved: &mut dyn BufRead) -> Result<(), Error> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut text = String::new();
        let mut revision = None;
        // Also those that are served in no version now.
        let mut defined = HashSet::new();
        for line in 1.. {
            text.clear();
            let read = io::Read::take(&mut *saved, MAX_LINE_BYTES).read_line(&mut text);
            if read.map_err(|source| Error::Read { line, source })? == 0 {
                break;
            }
            let bad = |why: String| Error::Format { line, why };
            if !text.ends_with('\n') {
                return Err(bad(format!("it has no end, or is longer than {MAX_LINE_BYTES} bytes")));
            }
            if revision.is_none() {
                let head: Head = serde_json::from_str(&text)
                    .map_err(|_| bad("this is no file of saved objects; give another one, or delete it".to_owned()))?;
                if head.format != FORMAT {
                    return Err(bad(format!("the format is {:?}, this version reads {FORMAT:?}", head.format)));
                }
                revision = Some(head.revision);
                continue;
            }
            let parsed: Line<'_> = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
            let value: Value = serde_json::from_str(parsed.object.get()).map_err(|error| bad(error.to_string()))?;
            let said = |field: &str| value[field].as_str().unwrap_or_default();
            let api_version = ApiVersion::new(said("apiVersion"));
            let key = kind_key(&api_version, &parsed.plural);
            if state.registry.of(&key).is_none() && !defined.contains(&key) {
                return Err(bad(format!("{} in {api_version} is no kind of this server", parsed.plural)));
            }
            let resource = Resource {
                api_version,
                plural: (&*parsed.plural).into(),
                kind: said("kind").into(),
                namespaced: value["metadata"]["namespace"].is_string(),
                status: false,
            };
            let object = Object::of(&value, &resource).map_err(|error| bad(error.to_string()))?;
            if object.version() > Version(revision.unwrap_or_default()) {
                return Err(bad("the object is newer than the file".to_owned()));
            }
            if key == crds() {
                let (group, names) = (value["spec"]["group"].as_str(), &value["spec"]["names"]);
                let plural = names["plural"].as_str().unwrap_or_default();
                defined.insert(KindKey { group: group.unwrap_or_default().into(), plural: plural.into() });
                let kinds = of_crd(&value, revision.unwrap_or_default());
                kinds.into_iter().filter(|_| is_served(&value)).for_each(|kind| state.registry.insert(kind));
            }
            state.store.restore(&key, Arc::new(object));
        }
        let empty = || Error::Format { line: 1, why: "the file is empty".to_owned() };
        let revision = revision.ok_or_else(empty)?;
        state.store.resume(revision);
        // A deletion that was under way goes on.
        let kinds: Vec<KindKey> = state.store.kinds().map(|(kind, _)| kind.clone()).collect();
        for kind in kinds {
            let objects = state.store.list(&kind, None, (None, None), None, |_| true).map(|page| page.objects);
            for object in objects.unwrap_or_default() {
                for work in consequences(&state.store, &state.registry, &kind, None, Some(&object)) {
                    // The task lives as long as the server does.
                    let _ = self.later.send(work);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ::http::Method;
    use serde_json::json;

    use super::*;
    use crate::tests::{THINGS, get, post, send, thing, with_things};

    #[tokio::test]
    async fn objects_come_back_under_their_uids_and_versions() {
        let front = with_things(Limits::default()).await;
        for name in ["a", "b"] {
            assert_eq!(post(&front, THINGS, thing(name, 1)).await.0, 201);
        }
        let (_, before) = get(&front, THINGS).await;
        let mut saved = Vec::new();
        front.server().save(&mut saved).unwrap();

        let clock = Arc::clone(&front.server().clock);
        let (server, work) = ApiServer::load(&mut saved.as_slice(), Limits::default(), clock).unwrap();
        tokio::spawn(work);
        let front = crate::http::Front::new(server, crate::auth::Users::default(), None);
        let (_, after) = get(&front, THINGS).await;
        assert_eq!(before, after);
        assert_eq!(post(&front, THINGS, thing("a", 1)).await.0, 409);
        let (code, third) = post(&front, THINGS, thing("c", 1)).await;
        assert_eq!(code, 201);
        let number = |value: &Value| value["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert_eq!(number(&third), number(&before) + 1);
        // What happened before isn't known any more.
        let (code, gone) = get(&front, &format!("{THINGS}?watch=1&resourceVersion=2&timeoutSeconds=1")).await;
        assert!(code == 410 || gone["object"]["code"] == 410, "{code} {gone}");
        let (_, namespaces) = get(&front, "/api/v1/namespaces").await;
        assert_eq!(namespaces["items"].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn objects_of_versions_that_are_served_no_more_are_kept() {
        let front = with_things(Limits::default()).await;
        assert_eq!(post(&front, THINGS, thing("a", 1)).await.0, 201);
        let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.x.y";
        let (_, mut now) = get(&front, crd).await;
        let mut next = now["spec"]["versions"][0].clone();
        next["name"] = "v2".into();
        now["spec"]["versions"][0]["served"] = false.into();
        now["spec"]["versions"][0]["storage"] = false.into();
        now["spec"]["versions"].as_array_mut().unwrap().push(next);
        assert_eq!(send(&front, Method::PUT, crd, "application/json", now).await.0, 200);
        let shown = THINGS.replace("/v1/", "/v2/");
        let (_, before) = get(&front, &shown).await;
        assert_eq!(before["items"].as_array().unwrap().len(), 1);
        let mut saved = Vec::new();
        front.server().save(&mut saved).unwrap();

        let clock = Arc::clone(&front.server().clock);
        let (server, work) = ApiServer::load(&mut saved.as_slice(), Limits::default(), clock).unwrap();
        tokio::spawn(work);
        let front = crate::http::Front::new(server, crate::auth::Users::default(), None);
        assert_eq!(get(&front, &shown).await.1, before);
    }

    #[tokio::test]
    async fn what_could_not_be_read_back_is_not_taken() {
        let front = with_things(Limits::default()).await;
        let with = |text: &str| {
            let mut thing = thing("a", 1);
            thing["metadata"]["annotations"]["x"] = text.into();
            thing["spec"]["color"] = "y".repeat(1_400_000).into();
            thing
        };
        assert_eq!(post(&front, THINGS, with("")).await.0, 201);
        let patch = json!({ "spec": { "size": 2 }, "metadata": { "annotations": { "x": "z".repeat(200_000) } } });
        let (code, why) =
            send(&front, Method::PATCH, &format!("{THINGS}/a"), "application/merge-patch+json", patch).await;
        assert_eq!((code, &why["message"]), (500, &json!("etcdserver: request is too large")));
    }

    #[tokio::test]
    async fn other_files_are_refused_with_the_line() {
        let front = with_things(Limits::default()).await;
        let mut good = Vec::new();
        front.server().save(&mut good).unwrap();
        let good = String::from_utf8(good).unwrap();
        let later = json!({ "format": "ringmaster-objects/9", "revision": 1 }).to_string() + "\n";
        let cases = [
            (String::new(), "line 1: the file is empty"),
            ("{}\n".to_owned(), "line 1: this is no file of saved objects"),
            (later, "line 1: the format is \"ringmaster-objects/9\""),
            (good.trim_end().to_owned(), "it has no end"),
            (good.replace("\"namespaces\"", "\"nonsenses\""), "nonsenses in v1 is no kind of this server"),
            (good.replacen("\"revision\":", "\"revision\":0,\"was\":", 1), "line 2: the object is newer than the file"),
        ];
        for (text, want) in cases {
            let clock = Arc::clone(&front.server().clock);
            let error = ApiServer::load(&mut text.as_bytes(), Limits::default(), clock).err().unwrap().to_string();
            assert!(error.contains(want), "{want}: {error}");
        }
    }
}
