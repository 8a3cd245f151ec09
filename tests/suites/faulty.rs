//! A webhook that obeys its parents, but for calls that get a fault: then it does one of the things webhooks do when
//! they fail, byte by byte.
//!
//! Never judges: trials do, from its record of calls.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::hook::{RawHook, read_request};
use crate::server::lock;

/// A faulty answer that never ends by itself ends here: more than anybody should have read.
const ENDLESS_BYTES: u64 = 1 << 30;
/// How long a trickling answer waits between two bytes.
const DRIP: Duration = Duration::from_millis(50);
/// What the body of a good gzip encoding would grow to.
const BOMB_BYTES: u64 = 64 << 20;
/// What stands in answers and must not be repeated in events or conditions.
pub(crate) const SECRET: &str = "s3cret-of-the-hook";

/// How far an answer got: `Err` once the caller has gone.
type Written = std::io::Result<()>;

/// One way to answer badly.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// For people.
    pub(crate) name: &'static str,
    /// What an event or condition about it says.
    pub(crate) words: &'static [&'static str],
    /// It shows by a timeout, so trials make that short.
    pub(crate) is_slow: bool,
    answer: fn(&mut Answer<'_>) -> Written,
}

/// The caller, to whom bytes go.
pub(crate) struct Answer<'a> {
    stream: &'a mut TcpStream,
    most_sent: &'a AtomicU64,
    sent: u64,
}

impl Answer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Written {
        self.stream.write_all(bytes)?;
        self.sent += bytes.len() as u64;
        self.most_sent.fetch_max(self.sent, Ordering::SeqCst);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Written {
        self.write(text.as_bytes())
    }

    /// A whole answer.
    fn whole(&mut self, status: &str, headers: &str, body: &[u8]) -> Written {
        self.text(&format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        ))?;
        self.write(body)
    }

    fn good_head(&mut self, rest: &str) -> Written {
        self.text(&format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{rest}"))
    }

    /// The same again and again, up to [`ENDLESS_BYTES`].
    fn endless(&mut self, part: &[u8]) -> Written {
        let many = part.repeat((64 << 10) / part.len().max(1) + 1);
        while self.sent < ENDLESS_BYTES {
            self.write(&many)?;
        }
        Ok(())
    }

    /// The same again and again, slowly, until the caller goes.
    fn trickle(&mut self, part: &[u8]) -> Written {
        loop {
            self.write(part)?;
            std::thread::sleep(DRIP);
        }
    }

    /// Nothing more, until the caller goes.
    fn silence(&mut self) -> Written {
        while self.stream.read(&mut [0; 1024])? > 0 {}
        Ok(())
    }
}

static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = std::io::copy(&mut std::io::repeat(b' ').take(BOMB_BYTES), &mut encoder);
    zeros.and_then(|_| encoder.finish()).unwrap_or_default()
});

const fn fault(name: &'static str, words: &'static [&'static str], answer: fn(&mut Answer<'_>) -> Written) -> Fault {
    Fault { name, words, is_slow: false, answer }
}

const fn slow(name: &'static str, answer: fn(&mut Answer<'_>) -> Written) -> Fault {
    Fault { name, words: &["no whole reply within 1s"], is_slow: true, answer }
}

/// Every fault of an answer that is retried by backoff.
pub(crate) const FAULTS: &[Fault] = &[
    slow("never_answers", |to| {
        to.text("")?;
        to.silence()
    }),
    slow("trickles_its_head", |to| {
        to.good_head("X-Slow: ")?;
        to.trickle(b"x")
    }),
    slow("trickles_its_body", |to| {
        to.good_head("Content-Length: 100000\r\n\r\n{\"status\":{\"a\":\"")?;
        to.trickle(b"x")
    }),
    slow("stops_in_its_body", |to| {
        to.good_head("Content-Length: 100000\r\n\r\n{\"status\":{\"a\":\"")?;
        to.silence()
    }),
    slow("says_continue_forever", |to| {
        loop {
            to.text("HTTP/1.1 100 Continue\r\n\r\n")?;
            std::thread::sleep(DRIP / 10);
        }
    }),
    fault("answers_500", &["answered 500"], |to| to.whole("500 Oh", "", SECRET.as_bytes())),
    fault("answers_500_and_trickles", &["answered 500"], |to| {
        to.text("HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n")?;
        to.trickle(b"x")
    }),
    fault("answers_500_without_end", &["answered 500"], |to| {
        to.text("HTTP/1.1 500 Oh\r\n\r\n")?;
        to.endless(SECRET.as_bytes())
    }),
    fault("answers_503", &["answered 503"], |to| to.whole("503 Oh", "Retry-After: 3600\r\n", b"")),
    fault("answers_404", &["answered 404", "webhook.url"], |to| to.whole("404 Oh", "", SECRET.as_bytes())),
    fault("answers_401", &["answered 401"], |to| to.whole("401 Oh", "", b"")),
    fault("answers_204", &["answered 204", "200"], |to| to.text("HTTP/1.1 204 Fine\r\nConnection: close\r\n\r\n")),
    fault("answers_201", &["answered 201", "200"], |to| to.whole("201 Made", "", b"{}")),
    fault("answers_101", &["answered 101", "200"], |to| {
        to.text("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")?;
        to.silence()
    }),
    fault("redirects", &["redirect", "302"], |to| to.whole("302 There", "Location: http://127.0.0.1:1/\r\n", b"")),
    fault("body_without_end", &["larger than 8388608 bytes"], |to| {
        to.good_head("Transfer-Encoding: chunked\r\n\r\n")?;
        let mut chunk = b"10000\r\n".to_vec();
        chunk.resize(chunk.len() + 0x10000, b' ');
        chunk.extend_from_slice(b"\r\n");
        to.endless(&chunk)
    }),
    fault("body_of_a_gigabyte_announced", &["larger than 8388608 bytes"], |to| {
        to.good_head("Content-Length: 1073741824\r\n\r\n")?;
        to.endless(b" ")
    }),
    fault("body_of_a_gigabyte_unannounced", &["larger than 8388608 bytes"], |to| {
        to.good_head("Connection: close\r\n\r\n")?;
        to.endless(b" ")
    }),
    fault("compressed_bomb", &["Content-Encoding gzip"], |to| {
        let bomb = &*BOMB;
        to.whole("200 OK", "Content-Encoding: gzip\r\n", bomb)
    }),
    fault("compressed_without_a_word", &["UTF-8", "compressed"], |to| {
        let bomb = &*BOMB;
        to.whole("200 OK", "", bomb)
    }),
    fault("deep_json", &["nested deeper than 64"], |to| to.whole("200 OK", "", "[".repeat(1 << 20).as_bytes())),
    fault("not_json", &["not JSON"], |to| to.whole("200 OK", "", format!("<html>{SECRET}").as_bytes())),
    fault("cut_json", &["not JSON"], |to| to.whole("200 OK", "", format!(r#"{{"status":{{"a":"{SECRET}""#).as_bytes())),
    fault("two_documents", &["not JSON"], |to| to.whole("200 OK", "", b"{}{}")),
    fault("empty_body", &["empty"], |to| to.whole("200 OK", "", b"")),
    fault("null_for_a_reply", &["JSON object"], |to| to.whole("200 OK", "", b"null")),
    fault("closes_without_an_answer", &["connection broke"], |_| Ok(())),
    fault("closes_in_its_head", &["connection broke"], |to| to.good_head("X-Cut: ")),
    fault("closes_in_its_body", &["connection broke"], |to| to.good_head("Content-Length: 100\r\n\r\n{\"status\":")),
    fault("closes_in_a_chunk", &["connection broke"], |to| {
        to.good_head("Transfer-Encoding: chunked\r\n\r\nff\r\n{\"status\":")
    }),
    fault("bad_chunk", &["not HTTP:"], |to| to.good_head("Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")),
    fault("bad_length", &["not HTTP:"], |to| to.good_head("Content-Length: lots\r\n\r\n{}")),
    fault("two_lengths", &["not HTTP:"], |to| to.good_head("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ")),
    fault("speaks_ssh", &["not HTTP:"], |to| to.text("SSH-2.0-OpenSSH_9.9\r\n")),
    fault("speaks_http2", &["not HTTP:"], |to| to.write(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0")),
    fault("head_too_large", &["head", "65536 bytes"], |to| {
        to.good_head("X-Large: ")?;
        to.endless(b"x")
    }),
    fault("too_many_headers", &["head", "100"], |to| {
        to.good_head(&"X-Many: 1\r\n".repeat(1000))?;
        to.text("Content-Length: 2\r\n\r\n{}")
    }),
];

/// Answers that can be read, and that no hook should give: for trials that only want to see the end of it all.
pub(crate) const WHIMS: &[Fault] = &[
    fault("answers_422", &[], |to| to.whole("422 Never", "", b"")),
    fault("answers_429", &[], |to| to.whole("429 Later", "", b"")),
    fault("answers_429_at_once", &[], |to| to.whole("429 Later", "Retry-After: 0\r\n", b"")),
    fault("answers_429_in_a_second", &[], |to| to.whole("429 Later", "Retry-After: 1\r\n", b"")),
    fault("answers_429_in_an_hour", &[], |to| to.whole("429 Later", "Retry-After: 3600\r\n", b"")),
    fault("wants_nothing", &[], |to| to.whole("200 OK", "", b"{}")),
    fault("wants_a_bad_child", &[], |to| to.whole("200 OK", "", br#"{"children":[{"kind":"ConfigMap"}]}"#)),
    fault("wants_a_refused_child", &[], |to| {
        let child = br#"{"children":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"No Name"}}]}"#;
        to.whole("200 OK", "", child)
    }),
    fault("comes_back_at_once", &[], |to| to.whole("200 OK", "", br#"{"resyncAfterSeconds":1e-9}"#)),
];

/// What a call of a parent (`namespace/name`) gets; `None` is what the parent asks for.
type Choice = dyn Fn(&str) -> Option<Fault> + Send + Sync;

struct State {
    choice: Mutex<Arc<Choice>>,
    calls: Mutex<HashMap<String, Vec<Instant>>>,
    most_sent: AtomicU64,
}

/// The webhook. Dropping it closes its port; answers that run end with their callers.
pub(crate) struct Faulty {
    raw: RawHook,
    state: Arc<State>,
}

impl Faulty {
    /// Listens on a free loopback port; `choice` says which calls get which fault.
    ///
    /// # Errors
    /// No port can be had.
    pub(crate) fn start(choice: impl Fn(&str) -> Option<Fault> + Send + Sync + 'static) -> anyhow::Result<Self> {
        let state = Arc::new(State {
            choice: Mutex::new(Arc::new(choice)),
            calls: Mutex::default(),
            most_sent: AtomicU64::new(0),
        });
        let raw = RawHook::start({
            let state = Arc::clone(&state);
            // The caller goes in the midst of most faults.
            move |mut stream, _| drop(serve(&state, &mut stream))
        })?;
        Ok(Self { raw, state })
    }

    /// Chooses otherwise from the next call on.
    pub(crate) fn set(&self, choice: impl Fn(&str) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.state.choice) = Arc::new(choice);
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        self.raw.url("/sync")
    }

    /// When each call of a parent (`namespace/name`) began.
    pub(crate) fn calls(&self, key: &str) -> Vec<Instant> {
        lock(&self.state.calls).get(key).cloned().unwrap_or_default()
    }

    /// How many calls there were in all.
    pub(crate) fn count(&self) -> usize {
        lock(&self.state.calls).values().map(Vec::len).sum()
    }

    /// The most bytes of one answer that the system took, what lies in its buffers included.
    pub(crate) fn most_sent(&self) -> u64 {
        self.state.most_sent.load(Ordering::SeqCst)
    }
}

fn serve(state: &State, stream: &mut TcpStream) -> anyhow::Result<()> {
    let (_, body) = read_request(stream)?;
    let request: Value = serde_json::from_slice(&body)?;
    // A decorator's is its object.
    let parent = if request["object"].is_object() { &request["object"] } else { &request["parent"] };
    let metadata = &parent["metadata"];
    let text = |field: &str| metadata[field].as_str().context("no parent");
    let key = format!("{}/{}", text("namespace")?, text("name")?);
    lock(&state.calls).entry(key.clone()).or_default().push(Instant::now());
    let choice = Arc::clone(&lock(&state.choice));
    let mut answer = Answer { stream, most_sent: &state.most_sent, sent: 0 };
    match choice(&key) {
        Some(fault) => (fault.answer)(&mut answer)?,
        None => {
            let reply = match &parent["spec"]["reply"] {
                Value::Null => &json!({}),
                reply => reply,
            };
            answer.whole("200 OK", "Content-Type: application/json\r\n", reply.to_string().as_bytes())?;
        }
    }
    Ok(())
}
