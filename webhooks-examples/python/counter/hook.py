# The Counter webhook: counts the words of a text, and remembers the counts per object in its memory.
# Never relies on that memory: a restart, another replica or a lost entry costs a counting, and no answer differs by it.
# Never talks to the Kubernetes API, needs nothing but the standard library (Python 3.9+).
"""`sync` turns a hook request (protocol v2) into its reply, `Cache` spares countings; the rest is a thin server."""

from __future__ import annotations

import argparse
import collections
import contextlib
import heapq
import http.server
import json
import signal
import socket
import socketserver
import sys
import threading
import time
import traceback
from typing import Callable, NamedTuple

# === the example: Counter -> ConfigMap ===

# The key of the ConfigMaps in `children` of a request.
CHILD_KIND = "ConfigMap.v1"
# As in manifests/crds.yaml. Characters, not bytes.
MAX_TEXT = 65536
MAX_TOP = 50
DEFAULT_TOP = 5
# A longer word is counted whole, and shown by so many characters and an ellipsis: a child must fit into 256 KiB.
MAX_SHOWN = 100
# Dropped from both ends of a word; the escapes are dashes, the ellipsis, quotation marks and Spanish marks.
PUNCTUATION = ".,;:!?\"'()[]{}*_-\u2013\u2014\u2026\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u00a1\u00bf"


class BadRequest(Exception):
    """The request isn't a hook request. The text names the field and the fix."""


class Counts(NamedTuple):
    """What is counted of one text. Nothing in it can be changed, so threads may share it."""

    words: int
    distinct: int
    lines: int
    top: tuple  # of (word, count), the most frequent first, equal ones by the alphabet


def count(text: str, top: int) -> Counts:
    """Words stand between white space; punctuation at their ends and case don't count. Pure, and the costly part."""
    words = collections.Counter(word for word in (part.strip(PUNCTUATION) for part in text.casefold().split()) if word)
    lines = text.count("\n") + (not text.endswith("\n") if text else 0)
    first = heapq.nsmallest(top, words.items(), key=lambda item: (-item[1], item[0]))
    return Counts(sum(words.values()), len(words), lines, tuple((shown(word), number) for word, number in first))


def shown(word: str) -> str:
    return word if len(word) <= MAX_SHOWN else word[:MAX_SHOWN] + "\u2026"


# === the cache ===

# The lookups that `recentHitRate` is about.
RECENT_LOOKUPS = 1000


class Entry:
    """What is known of one object: `counts` is None while they are being counted."""

    __slots__ = ("generation", "epoch", "counts")

    def __init__(self, generation: int, epoch: int) -> None:
        self.generation = generation
        self.epoch = epoch
        self.counts: Counts | None = None


class Cache:
    """Counts of up to `limit` objects by uid; what wasn't used for longest goes first. With 0 it keeps nothing.

    Nobody tells the hook that an object was deleted, so the limit alone bounds the memory. Threads may share a Cache;
    its lock isn't held while somebody counts.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lock = threading.Lock()
        self.entries: collections.OrderedDict[str, Entry] = collections.OrderedDict()
        self.recent: collections.deque[bool] = collections.deque(maxlen=RECENT_LOOKUPS)
        self.hits = self.misses = self.stale = 0

    def counts(self, uid: str, generation: int, epoch: int, counting: Callable[[], Counts]) -> Counts:
        """The counts kept for exactly this uid, generation and epoch, else what `counting` returns."""
        entry, counts = self.look_up(uid, generation, epoch)
        if counts is None:
            counts = counting()
            if entry is not None:
                # Into this very entry: if another call took its place meanwhile, it is out of the cache, and a slow
                # call can't undo what a later one knows.
                with self.lock:
                    entry.counts = counts
        return counts

    def look_up(self, uid: str, generation: int, epoch: int) -> tuple[Entry | None, Counts | None]:
        """The entry that this call may fill, if any, and the counts in it, if they are there."""
        if self.limit == 0:
            return None, None
        with self.lock:
            entry = self.entries.get(uid)
            if entry is not None and epoch < entry.epoch:
                # The caller was paused or cut off, and has lost the object: it neither reads nor changes the cache.
                self.stale += 1
                return None, None
            if entry is None or (entry.generation, entry.epoch) != (generation, epoch):
                # In its place before it is filled, so that a lower epoch is recognised from now on.
                entry = self.entries[uid] = Entry(generation, epoch)
            self.entries.move_to_end(uid)
            if len(self.entries) > self.limit:
                self.entries.popitem(last=False)
            hit = entry.counts is not None
            self.hits += hit
            self.misses += not hit
            self.recent.append(hit)
            return entry, entry.counts

    def stats(self) -> dict:
        """What GET /stats tells. Rates are null before the first lookup; a call of a lower epoch is no lookup."""
        with self.lock:
            looked_up = self.hits + self.misses
            return {
                "hits": self.hits,
                "misses": self.misses,
                "stale": self.stale,
                "objects": len(self.entries),
                "hitRate": self.hits / looked_up if looked_up else None,
                "recentHitRate": sum(self.recent) / len(self.recent) if self.recent else None,
            }


def metrics(stats: dict) -> str:
    """`stats` in Prometheus' text format."""
    rows = (
        ("counter_cache_hits_total", "counter", "hits", "Lookups that spared a counting."),
        ("counter_cache_misses_total", "counter", "misses", "Lookups after which was counted."),
        ("counter_cache_objects", "gauge", "objects", "Objects in the cache."),
        ("counter_calls_stale_total", "counter", "stale", "Calls with a lower epoch than one seen for the object."),
    )
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {stats[key]}\n" for name, kind, key, text in rows
    )


# === the hook ===

STATELESS = Cache(0)


def sync(request: dict, epoch: int = 0, cache: Cache = STATELESS, delay_seconds: float = 0) -> dict:
    """The desired ConfigMap and the status of one Counter. The reply depends on the request only, never on the cache.

    `epoch` is the call's Ringmaster-Epoch; `delay_seconds` makes each counting cost more. Raises BadRequest where the
    request has no usable parent.
    """
    parent = mapping(request, "parent", "")
    metadata = mapping(parent, "metadata", "parent.")
    spec = mapping(parent, "spec", "parent.")
    for field in ("name", "namespace", "uid"):
        if not isinstance(metadata.get(field), str) or not metadata[field]:
            raise BadRequest(f"parent.metadata.{field}: must be a non-empty string; send a namespaced Counter")
    generation = metadata.get("generation")
    if type(generation) is not int:
        raise BadRequest("parent.metadata.generation: must be an integer; send the Counter as the API server shows it")
    text = spec.get("text")
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise BadRequest(f"parent.spec.text: must be a string of at most {MAX_TEXT} characters")
    top = DEFAULT_TOP if spec.get("top") is None else spec["top"]
    if type(top) is not int or not 1 <= top <= MAX_TOP:
        raise BadRequest(f"parent.spec.top: must be an integer from 1 to {MAX_TOP}")

    def counting() -> Counts:
        if delay_seconds:
            time.sleep(delay_seconds)
        return count(text, top)

    counts = cache.counts(metadata["uid"], generation, epoch, counting)
    child = config_map(metadata, counts)
    observed = (request.get("children") or {}).get(CHILD_KIND) or {}
    there = f"{metadata['namespace']}/{child['metadata']['name']}" in observed
    return {"status": status("Ready" if there else "Pending", counts), "children": [child]}


def mapping(outer: dict, field: str, path: str) -> dict:
    """`outer[field]`, which must be an object."""
    value = outer.get(field)
    if not isinstance(value, dict):
        raise BadRequest(f"{path}{field}: must be an object; send a hook request of protocol v2")
    return value


def status(phase: str, counts: Counts) -> dict:
    top = [{"word": word, "count": number} for word, number in counts.top]
    return {"phase": phase, "words": counts.words, "distinct": counts.distinct, "lines": counts.lines, "top": top}


def config_map(metadata: dict, counts: Counts) -> dict:
    """The counts as text. A line of `top` is a word, which has no white space in it, a space and its count."""
    meta = {
        "name": f"{metadata['name']}-counts",
        "namespace": metadata["namespace"],
        # Ringmaster adds controller-uid itself (generateSelector).
        "labels": {"app.kubernetes.io/name": "counter", "app.kubernetes.io/instance": metadata["name"]},
    }
    data = {
        "words": str(counts.words),
        "distinct": str(counts.distinct),
        "lines": str(counts.lines),
        "top": "".join(f"{word} {number}\n" for word, number in counts.top),
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


# The largest Ringmaster-Epoch: a 64-bit number.
MAX_EPOCH = 2**64 - 1


def epoch_of(header: str | None) -> int:
    """The value of Ringmaster-Epoch; 0 without it."""
    if header is None:
        return 0
    # The length first: Python refuses to convert thousands of digits.
    if len(header) > 20 or not (header.isascii() and header.isdigit()) or int(header) > MAX_EPOCH:
        raise BadRequest(f"Ringmaster-Epoch: must be a decimal number up to {MAX_EPOCH}; without one, leave it out")
    return int(header)


# === the server ===

# A request carries the controller, the Counter and its ConfigMap: kilobytes. Larger bodies are refused (413).
MAX_BODY_BYTES = 8 * 1024 * 1024
# What is read and dropped after a refusal, so that the client sees the reply and not a reset connection.
MAX_DROPPED_BYTES = 2 * MAX_BODY_BYTES
DROP_SECONDS = 2
# One thread each; a connection above it gets 503. Ringmaster opens at most one per worker (64 by default) and member.
MAX_CONNECTIONS = 1024
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
BACKLOG = 512
# Longer than a client keeps an idle connection, so that it is the client who closes it.
IDLE_SECONDS = 120
# How long running calls may take once the hook is told to stop.
DRAIN_SECONDS = 5
PATHS = b"no such path; there are POST /sync, GET /healthz, GET /stats and GET /metrics\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """POST /sync, GET of the rest. Connections stay open (HTTP/1.1) and a reply is one write."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        self.leave_body()
        if self.path == "/healthz":
            return self.answer(200, b"ok\n")
        if self.path == "/stats":
            text = json.dumps(self.server.cache.stats()).encode() + b"\n"
            return self.answer(200, text, {"Content-Type": "application/json"})
        if self.path == "/metrics":
            text = metrics(self.server.cache.stats()).encode()
            return self.answer(200, text, {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
        if self.path == "/sync":
            return self.answer(405, b"/sync: use POST\n", {"Allow": "POST"})
        return self.answer(404, PATHS)

    def do_HEAD(self) -> None:
        # Whatever the path: who asks so wants to know whether the process answers.
        self.leave_body()
        self.answer(200, b"")

    def leave_body(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the body stays unread, so what follows it can't be found

    def do_POST(self) -> None:
        with self.server.running():
            body = self.body()
            if body is not None:
                self.call(body)
            # Inside `running`: a reply counts as given once it is sent.
            self.wfile.flush()

    def call(self, body: bytes) -> None:
        if self.path != "/sync":
            return self.answer(404, PATHS)
        try:
            request = json.loads(body)
        except (ValueError, RecursionError) as error:
            return self.answer(400, f"body: not valid JSON: {error}\n".encode())
        if not isinstance(request, dict):
            return self.answer(400, b"body: must be a JSON object; send a hook request of protocol v2\n")
        try:
            epoch = epoch_of(self.headers.get("Ringmaster-Epoch"))
            reply = sync(request, epoch, self.server.cache, self.server.delay_seconds)
        except BadRequest as error:
            return self.answer(400, f"{error}\n".encode())
        except Exception:
            traceback.print_exc()
            return self.answer(500, b"the hook failed; its log says why\n")
        text = json.dumps(reply, separators=(",", ":")).encode()
        return self.answer(200, text, {"Content-Type": "application/json"})

    def body(self) -> bytes | None:
        """The request's body; None where it was refused and answered."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or len(length) > 18 or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self.answer(411, b"Content-Length: must be set to a number; chunked bodies are not read\n")
            return None
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            self.answer(413, f"body: {length} bytes is more than the limit of {MAX_BODY_BYTES}\n".encode())
            self.drop_body(min(int(length), MAX_DROPPED_BYTES))
            return None
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True  # the client left; there is nobody to answer
            return None
        return body

    def drop_body(self, length: int) -> None:
        self.wfile.flush()
        self.connection.settimeout(DROP_SECONDS)
        with contextlib.suppress(OSError):
            while length > 0:
                dropped = self.rfile.read1(min(length, 65536))
                if not dropped:
                    return
                length -= len(dropped)

    def answer(self, code: int, body: bytes, headers: dict | None = None) -> None:
        self.close_connection = self.close_connection or self.server.stopping
        self.send_response(code)
        for name, value in {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "counter-hook"

    def log_message(self, format: str, *args: object) -> None:
        if self.server.verbose:
            print(f"{self.client_address[0]} {format % args}", file=sys.stderr, flush=True)


class Server(http.server.ThreadingHTTPServer):
    """A thread per connection, up to MAX_CONNECTIONS; `stop` lets running calls end."""

    request_queue_size = BACKLOG
    daemon_threads = True  # an idle connection must not hold up the exit; running calls are counted instead

    def __init__(self, address: tuple, cache: Cache, delay_seconds: float = 0, verbose: bool = False) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.verbose = verbose
        self.cache = cache
        self.delay_seconds = delay_seconds
        self.stopping = False
        self.calls = 0
        self.changed = threading.Condition()
        self.connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks DNS for the host's full name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        if not self.connections.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.sendall(FULL)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.connections.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: tuple) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        # A client that went away is no news.
        if self.verbose or not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    @contextlib.contextmanager
    def running(self):
        """Counts a call, so that `stop` can wait for it."""
        with self.changed:
            self.calls += 1
        try:
            yield
        finally:
            with self.changed:
                self.calls -= 1
                self.changed.notify_all()

    def stop(self) -> None:
        """Stops accepting, then waits until no call runs, at most DRAIN_SECONDS. Not for the serving thread itself."""
        self.stopping = True
        self.shutdown()
        self.server_close()
        with self.changed:
            self.changed.wait_for(lambda: self.calls == 0, timeout=DRAIN_SECONDS)


def listen_address(text: str) -> tuple:
    """HOST:PORT, [IPV6]:PORT or :PORT (all interfaces); port 0 takes a free one."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT; for example 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def number_up_to(limit: int) -> Callable[[str], int]:
    """What reads a flag's number from 0 to `limit`."""

    def read(text: str) -> int:
        if len(text) > 20 or not (text.isascii() and text.isdigit()) or int(text) > limit:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {limit}")
        return int(text)

    return read


def main() -> int:
    parser = argparse.ArgumentParser(description="The Counter webhook of the Ringmaster example.")
    parser.add_argument(
        "--listen", type=listen_address, default="127.0.0.1:8080", metavar="HOST:PORT",
        help="where to listen; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--cache-objects", type=number_up_to(10_000_000), default=10_000, metavar="N",
        help="how many objects to remember; 0 remembers none and counts at each call (default: %(default)s)",
    )
    parser.add_argument(
        "--delay-ms", type=number_up_to(60_000), default=0, metavar="MS",
        help="let each counting take so much longer, to see what the cache spares (default: %(default)s)",
    )
    parser.add_argument("--verbose", action="store_true", help="log a line per request")
    options = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = Server(options.listen, Cache(options.cache_objects), options.delay_ms / 1000, options.verbose)
    except OSError as error:
        print(f"--listen {options.listen[0]}:{options.listen[1]}: {error}", file=sys.stderr)
        return 1
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
    host, port = server.server_address[:2]
    print(f"listening on {f'[{host}]' if ':' in host else host}:{port}", file=sys.stderr, flush=True)
    # In steps: Python runs a signal's handler in this thread, but the kernel may wake another one for it.
    while not stop.wait(0.1):
        pass
    server.stop()
    stats = server.cache.stats()
    print(f"stopped: {stats['hits']} hits, {stats['misses']} misses", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
