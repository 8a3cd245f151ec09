# The Website webhook: says which children a Website wants and what its status is.
# Never talks to the Kubernetes API, keeps no state between calls, needs nothing but the standard library (Python 3.9+).
"""`sync` is a pure function from a hook request (protocol v2) to its reply; the rest is a thin HTTP server."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import html
import http.server
import json
import os
import re
import signal
import socket
import socketserver
import sys
import threading
import traceback

# === the example: Website -> ConfigMap, Service, Deployment ===

# The themes that ship with the hook: used while neither --themes nor related Theme objects in a request say others.
THEMES = {
    "dark": {"color": "#1e1e2e", "fontFamily": "Inter, sans-serif"},
    "light": {"color": "#fafafa", "fontFamily": "Georgia, serif"},
    "solarized": {"color": "#fdf6e3", "fontFamily": "Menlo, monospace"},
}
THEME_KIND = "Theme.example.ringmaster.dev/v1"
# The kinds of a Website's children, as keys of `children` in a request.
CHILD_KINDS = ("ConfigMap.v1", "Service.v1", "Deployment.apps/v1")
# A Website that has this label, whatever its value, gets a Deployment of no replicas.
SKIP_WORKLOAD = "skip-workload"
# Listens on 8080 and runs as any user.
IMAGE = "nginxinc/nginx-unprivileged:1.27-alpine"
PORT = 8080
# Where the last desired form of a child is recorded, by the API group of the controller.
LAST_APPLIED = (
    "ringmaster.dev/last-applied-configuration",
    "metacontroller.k8s.io/last-applied-configuration",
)
# What the API server writes into metadata: not ours to say.
SERVER_METADATA = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "managedFields", "selfLink", "ownerReferences", "finalizers",
)
# Themes come from people: nothing that could end the style element or the rule may pass.
UNSAFE_CSS = re.compile(r"[^\w#%(),.' -]")


class BadRequest(Exception):
    """The request isn't a hook request. The text names the field and the fix."""


def sync(request: dict, shipped: dict = THEMES) -> dict:
    """The desired children and the status of one Website. Pure: the same request and themes give the same reply.

    Raises BadRequest where the request has no usable parent.
    """
    parent = mapping(request, "parent", "")
    metadata = mapping(parent, "metadata", "parent.")
    spec = mapping(parent, "spec", "parent.")
    for field in ("name", "namespace"):
        if not isinstance(metadata.get(field), str) or not metadata[field]:
            raise BadRequest(f"parent.metadata.{field}: must be a non-empty string; send a namespaced Website")
    observed = observed_children(request)

    themes = known_themes(request, shipped)
    name = spec.get("theme")
    theme = themes.get(name) if isinstance(name, str) else None
    if theme is None:
        known = ", ".join(sorted(themes)) or "none"
        message = f"spec.theme: unknown theme {json.dumps(name)}; known themes: {known}"
        # A typo must not take a site down: every child stays exactly as it was last applied.
        return reply("Error", message, observed, [last_applied(child) for child in observed.values()])

    wanted = 0 if SKIP_WORKLOAD in (metadata.get("labels") or {}) else 1
    page = config_map(metadata, spec.get("title") or metadata["name"], theme)
    children = [page, service(metadata), deployment(metadata, wanted, page["data"])]

    missing = [kind.split(".")[0] for kind in CHILD_KINDS if kind not in observed]
    available = available_replicas(observed)
    if missing:
        return reply("Pending", f"waiting for {', '.join(missing)}", observed, children)
    if available < wanted:
        return reply("Pending", f"{available} of {wanted} replicas available", observed, children)
    return reply("Ready", f"serving with theme {name}", observed, children)


def reply(phase: str, message: str, observed: dict, children: list) -> dict:
    """A hook reply; `status.replicas` counts available replicas."""
    status = {"phase": phase, "message": message, "replicas": available_replicas(observed)}
    return {"status": status, "children": children}


def mapping(outer: dict, field: str, path: str) -> dict:
    """`outer[field]`, which must be an object."""
    value = outer.get(field)
    if not isinstance(value, dict):
        raise BadRequest(f"{path}{field}: must be an object; send a hook request of protocol v2")
    return value


def known_themes(request: dict, shipped: dict) -> dict:
    """Themes by name: the related Theme objects where the request brings them, else `shipped`."""
    related = (request.get("related") or {}).get(THEME_KIND)
    if related is None:
        return shipped
    return {name: theme.get("spec") or {} for name, theme in related.items()}


def observed_children(request: dict) -> dict:
    """The Website's observed children by kind: all three have its name and namespace."""
    metadata = request["parent"]["metadata"]
    key = f"{metadata['namespace']}/{metadata['name']}"
    children = request.get("children") or {}
    found = ((kind, (children.get(kind) or {}).get(key)) for kind in CHILD_KINDS)
    return {kind: child for kind, child in found if child}


def available_replicas(observed: dict) -> int:
    status = observed.get("Deployment.apps/v1", {}).get("status") or {}
    return status.get("availableReplicas") or 0


def last_applied(observed: dict) -> dict:
    """What was last desired of an observed child: desiring it again changes nothing.

    A child without that record (adopted, or applied server-side) is restated as observed, without the fields that
    the API server writes.
    """
    annotations = observed["metadata"].get("annotations") or {}
    for key in LAST_APPLIED:
        with contextlib.suppress(ValueError):
            recorded = json.loads(annotations.get(key, ""))
            if isinstance(recorded, dict):
                return recorded
    kept = {field: value for field, value in observed.items() if field != "status"}
    kept["metadata"] = {field: value for field, value in observed["metadata"].items() if field not in SERVER_METADATA}
    return kept


def labels(metadata: dict) -> dict:
    """On every child and pod. Ringmaster adds controller-uid itself (generateSelector)."""
    return {"app.kubernetes.io/name": "website", "app.kubernetes.io/instance": metadata["name"]}


def child(metadata: dict, api_version: str, kind: str, **content: object) -> dict:
    """A child with its Website's name and namespace."""
    meta = {"name": metadata["name"], "namespace": metadata["namespace"], "labels": labels(metadata)}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **content}


def config_map(metadata: dict, title: str, theme: dict) -> dict:
    color, font = (UNSAFE_CSS.sub("", str(theme.get(field) or "")) for field in ("color", "fontFamily"))
    heading = html.escape(str(title))
    page = (
        "<!doctype html>\n"
        f'<html><head><meta charset="utf-8"><title>{heading}</title>\n'
        f"<style>body {{ background: {color}; font-family: {font}; }}</style></head>\n"
        f"<body><h1>{heading}</h1></body></html>\n"
    )
    return child(metadata, "v1", "ConfigMap", data={"index.html": page})


def service(metadata: dict) -> dict:
    ports = [{"name": "http", "port": 80, "targetPort": PORT, "protocol": "TCP"}]
    return child(metadata, "v1", "Service", spec={"clusterIP": "None", "selector": labels(metadata), "ports": ports})


def deployment(metadata: dict, replicas: int, data: dict) -> dict:
    # The checksum makes a new page a new pod template: pods roll when the page changes.
    checksum = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    container = {
        "name": "nginx",
        "image": IMAGE,
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "page", "mountPath": "/usr/share/nginx/html", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "page", "configMap": {"name": metadata["name"]}}, {"name": "tmp", "emptyDir": {}}],
    }
    template = {
        "metadata": {"labels": labels(metadata), "annotations": {"example.ringmaster.dev/page-checksum": checksum}},
        "spec": pod,
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels(metadata)}, "template": template}
    return child(metadata, "apps/v1", "Deployment", spec=spec)


class ThemeFile:
    """Themes from a JSON file (name -> {"color", "fontFamily"}), read again when it changes; without a file, THEMES."""

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.seen = None
        self.told = None
        self.themes = THEMES

    def now(self) -> dict:
        """The themes of this moment. A file that can't be read or parsed leaves them as they were."""
        if self.path is None:
            return self.themes
        with self.lock:
            try:
                stat = os.stat(self.path)
                seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if seen != self.seen:
                    with open(self.path, encoding="utf-8") as file:
                        themes = json.load(file)
                    if not isinstance(themes, dict):
                        raise ValueError("must be an object of themes by name")
                    self.seen, self.themes, self.told = seen, themes, None
            except (OSError, ValueError, RecursionError) as error:
                if str(error) != self.told:
                    print(f"--themes {self.path}: {error}", file=sys.stderr, flush=True)
                self.told = str(error)
            return self.themes


# === the server ===

# A request carries the controller, the Website and its three children: kilobytes. Larger bodies are refused (413).
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
DRAIN_SECONDS = 10


class Handler(http.server.BaseHTTPRequestHandler):
    """POST /sync and GET /healthz. Connections stay open (HTTP/1.1) and a reply is one write."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the body stays unread, so what follows it can't be found
        if self.path == "/healthz":
            return self.answer(200, b"ok\n")
        if self.path == "/sync":
            return self.answer(405, b"/sync: use POST\n", {"Allow": "POST"})
        return self.answer(404, b"no such path; there are POST /sync and GET /healthz\n")

    def do_POST(self) -> None:
        with self.server.running():
            body = self.body()
            if body is not None:
                self.call(body)
            # Inside `running`: a reply counts as given once it is sent.
            self.wfile.flush()

    def call(self, body: bytes) -> None:
        if self.path != "/sync":
            return self.answer(404, b"no such path; there are POST /sync and GET /healthz\n")
        try:
            request = json.loads(body)
        except (ValueError, RecursionError) as error:
            return self.answer(400, f"body: not valid JSON: {error}\n".encode())
        if not isinstance(request, dict):
            return self.answer(400, b"body: must be a JSON object; send a hook request of protocol v2\n")
        try:
            reply = sync(request, self.server.themes.now())
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
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            self.answer(411, b"Content-Length: must be set; chunked bodies are not read\n")
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
        return "website-hook"

    def log_message(self, format: str, *args: object) -> None:
        if self.server.verbose:
            print(f"{self.client_address[0]} {format % args}", file=sys.stderr, flush=True)


class Server(http.server.ThreadingHTTPServer):
    """A thread per connection, up to MAX_CONNECTIONS; `stop` lets running calls end."""

    request_queue_size = BACKLOG
    daemon_threads = True  # an idle connection must not hold up the exit; running calls are counted instead

    def __init__(self, address: tuple, verbose: bool = False, themes: ThemeFile | None = None) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.verbose = verbose
        self.themes = themes or ThemeFile(None)
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


def main() -> int:
    parser = argparse.ArgumentParser(description="The Website webhook of the Ringmaster example.")
    parser.add_argument(
        "--listen", type=listen_address, default="127.0.0.1:8080", metavar="HOST:PORT",
        help="where to listen; port 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--themes", metavar="FILE",
        help="take the themes from this JSON file, name to {color, fontFamily}, and follow its changes",
    )
    parser.add_argument("--verbose", action="store_true", help="log a line per request")
    options = parser.parse_args()

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        server = Server(options.listen, options.verbose, ThemeFile(options.themes))
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
