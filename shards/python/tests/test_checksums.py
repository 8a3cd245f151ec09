"""The example: its logic, and its process with kopf against an API server on loopback."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import AsyncIterator, Callable
from typing import Any

from ringmaster_shard.errors import Failure
from ringmaster_shard.naming import version_of

from .store import Store, of_kind, since
from .store import event as event_of

FOLDER = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = FOLDER / "checksums" / "checksums.py"
SECRET = {
    "metadata": {"namespace": "ns", "name": "x", "uid": "u1", "labels": {"ring.ringmaster.dev/r": "a"}},
    "data": {"password": "c2VjcmV0", "empty": ""},
}
DATA = {
    "password": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
    "empty": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
}
SECRET_PATH = "/api/v1/namespaces/ns/secrets/x"
CHILD_PATH = "/api/v1/namespaces/ns/configmaps/checksums-x"
LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/a"
PATIENCE_S = 30

spec = importlib.util.spec_from_file_location("checksums", PROGRAM)
assert spec is not None and spec.loader is not None
checksums = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checksums)

HAS_KOPF = importlib.util.find_spec("kopf") is not None
NO_KOPF = "kopf is not installed: run the tests with the Python that tests/components/python prints"


class LogicTest(unittest.TestCase):
    def test_a_secrets_config_map(self) -> None:
        made = checksums.checksums(SECRET)
        self.assertEqual(made["data"], DATA)
        self.assertEqual((made["metadata"]["name"], made["metadata"]["namespace"]), ("checksums-x", "ns"))
        owner = {"apiVersion": "v1", "kind": "Secret", "name": "x", "uid": "u1"}
        owner |= {"controller": True, "blockOwnerDeletion": False}
        self.assertEqual(made["metadata"]["ownerReferences"], [owner])
        self.assertEqual(checksums.checksums({"metadata": SECRET["metadata"]})["data"], {})

    def test_durations(self) -> None:
        self.assertEqual([checksums.duration(text) for text in ("15s", "500ms", "1.5s")], [15, 0.5, 1.5])
        for text in ("15", "1m", "s", "-1s"):
            self.assertRaises(argparse.ArgumentTypeError, checksums.duration, text)

    def test_flags(self) -> None:
        chosen = checksums.flags(["--ring", "r"])
        self.assertEqual((chosen.lease_duration, chosen.renew_deadline, chosen.retry_period), (15, 10, 2))
        self.assertEqual(chosen.dialect, "ringmaster")


class KopfTest(unittest.TestCase):
    def test_kopf_is_there_in_ci(self) -> None:
        self.assertTrue(HAS_KOPF or os.environ.get("CI") != "true", NO_KOPF)


class Server:
    """A `Store` behind HTTP, with what kopf asks before it watches. Its loop has a thread of its own."""

    def __init__(self) -> None:
        self.store = Store()
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.stop = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.serve(),))
        self.thread.start()
        assert self.ready.wait(PATIENCE_S)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(PATIENCE_S)
        self.loop.close()

    def do(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """In its loop."""

        async def call() -> Any:
            return what(*arguments)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE_S)

    async def serve(self) -> None:
        from aiohttp import web

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self.ready.set()
        await self.stop.wait()
        for watcher in self.store.watchers:
            watcher.put_nowait(None)
        await runner.cleanup()

    async def answer(self, request: Any) -> Any:
        from aiohttp import web

        params = dict(request.query)
        discovered = discovery(request.path)
        if discovered is not None:
            return web.json_response(discovered)
        if params.get("watch"):
            return await self.watch(request, params)
        body = await request.json() if request.can_read_body else None
        self.store.requests.append((request.method, request.path, params))
        try:
            return web.json_response(self.store.do(request.method, request.path, params, body))
        except Failure as failure:
            status = {"kind": "Status", "code": failure.code, "reason": failure.reason, "message": str(failure)}
            return web.json_response(status, status=failure.code)

    async def watch(self, request: Any, params: dict[str, str]) -> Any:
        from aiohttp import web

        self.store.requests.append(("WATCH", request.path, params))
        response = web.StreamResponse()
        async with self.changes(int(params.get("resourceVersion") or 0)) as changes:
            await response.prepare(request)
            while (taken := await changes.get()) is not None:
                path, change = taken
                shown = event_of(change, params.get("labelSelector")) if of_kind(path, request.path) else None
                if shown is not None:
                    with contextlib.suppress(ConnectionError):
                        await response.write(json.dumps({"type": shown[0], "object": shown[1]}).encode() + b"\n")
        return response

    @contextlib.asynccontextmanager
    async def changes(self, version: int) -> AsyncIterator[asyncio.Queue[Any]]:
        changes: asyncio.Queue[Any] = asyncio.Queue()
        for change in since(self.store.history, version):
            changes.put_nowait(change)
        self.store.watchers.add(changes)
        try:
            yield changes
        finally:
            self.store.watchers.discard(changes)


def discovery(path: str) -> Any:
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        return {"groups": []}
    if path == "/api/v1":
        # kopf begins nothing before it knows of Namespaces.
        kinds = (("secrets", "Secret"), ("configmaps", "ConfigMap"), ("namespaces", "Namespace"))
        verbs = ["list", "watch", "get", "create", "update", "patch"]
        return {
            "resources": [
                {"name": name, "kind": kind, "singularName": "", "namespaced": name != "namespaces", "verbs": verbs}
                for name, kind in kinds
            ]
        }
    return None


@unittest.skipUnless(HAS_KOPF, NO_KOPF)
class ProcessTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.server = Server()
        self.addCleanup(self.server.end)
        self.kubeconfig = pathlib.Path(folder.name) / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.server.port}"}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                }
            )
        )

    def start(self, *flags: str) -> None:
        command = [sys.executable, str(PROGRAM), "--ring", "r", "--name", "a", "--namespace", "ns", *flags]
        self.process = subprocess.Popen(
            [*command, "--kubeconfig", str(self.kubeconfig)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.errors: list[str] = []
        pipes = [(self.process.stdout, self.lines.put), (self.process.stderr, self.errors.append)]
        for pipe, to in pipes:
            reader = threading.Thread(target=read, args=(pipe, to))
            reader.start()
            self.addCleanup(reader.join)
        self.addCleanup(self.kill)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def expect(self, event: str, /, **fields: Any) -> dict[str, Any]:
        """The next event of that name; those between are passed over."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                line = json.loads(self.lines.get(timeout=max(end - time.monotonic(), 0.01)))
            except queue.Empty:
                break
            if line["event"] == event:
                self.assertEqual(line["shard"], "a")
                self.assertIsInstance(line["ts"], int)
                self.assertEqual({field: line.get(field) for field in fields}, fields)
                return dict(line)
        self.fail(f"no {event!r} within {PATIENCE_S} s; stderr:\n{''.join(self.errors)}")

    def exits_with(self, code: int) -> None:
        self.assertEqual(self.process.wait(PATIENCE_S), code, "".join(self.errors))

    def test_the_life_of_a_shard(self) -> None:
        store, do = self.server.store, self.server.do
        other = {**SECRET["metadata"], "name": "other", "labels": {"ring.ringmaster.dev/r": "b"}}
        do(store.set, "/api/v1/namespaces/ns/secrets/other", {"metadata": other})
        do(store.set, SECRET_PATH, SECRET)
        self.start()
        self.expect("started")
        self.assertEqual(store.objects[LEASE_PATH]["spec"]["holderIdentity"], "a")
        self.expect("begin", object="ns/x")
        wrote = self.expect("wrote", object="ns/x", verb="create", name="checksums-x")
        child = store.objects[CHILD_PATH]
        self.assertEqual((child["data"], wrote["rv"]), (DATA, child["metadata"]["resourceVersion"]))
        self.assertEqual(child["metadata"]["labels"], {"ring.ringmaster.dev/r": "a"})
        self.expect("end", object="ns/x")

        do(store.patch, SECRET_PATH, {"data": {"empty": None}})
        self.expect("wrote", verb="update", name="checksums-x")
        self.assertEqual(store.objects[CHILD_PATH]["data"], {"password": DATA["password"]})
        do(store.remove, CHILD_PATH)
        self.expect("wrote", verb="create", name="checksums-x")

        do(store.patch, SECRET_PATH, {"metadata": {"labels": {"drain.ring.ringmaster.dev/r": "anything"}}})
        acknowledged = self.expect("acknowledged", object="ns/x")
        self.assertEqual(int(acknowledged["rv"]), version_of(store.objects[SECRET_PATH]))
        self.assertEqual(store.objects[SECRET_PATH]["metadata"]["labels"], {})

        self.process.send_signal(signal.SIGTERM)
        self.expect("stopped")
        self.exits_with(0)
        self.assertEqual(store.objects[LEASE_PATH]["spec"]["holderIdentity"], "")
        reads = [params for method, path, params in store.requests if path.startswith("/api/v1/") and method != "POST"]
        selectors = {params["labelSelector"] for params in reads if "watch" in params}
        self.assertEqual(selectors, {"ring.ringmaster.dev/r=a"})
        lists = [(m, p) for m, p, params in store.requests if p in ("/api/v1/secrets", "/api/v1/configmaps")]
        self.assertEqual(len(lists), 4, "one list and one watch of each kind")
        self.assertNotIn("PATCH", [method for method, path, _ in store.requests if path == CHILD_PATH])

    def test_a_lease_that_was_taken_ends_the_process(self) -> None:
        store = self.server.store
        self.start("--retry-period", "50ms")
        self.expect("started")
        spec = {"holderIdentity": "ringmaster-sharder", "leaseDurationSeconds": 30}
        self.server.do(store.set, LEASE_PATH, {"metadata": store.objects[LEASE_PATH]["metadata"], "spec": spec})
        self.expect("lost")
        self.exits_with(1)
        self.assertEqual(store.objects[LEASE_PATH]["spec"], spec)

    def test_a_stopped_process_has_no_right_when_it_goes_on(self) -> None:
        store, do = self.server.store, self.server.do
        flags = ("--lease-duration", "2s", "--renew-deadline", "1s", "--retry-period", "200ms")
        self.start(*flags)
        self.expect("started")
        do(store.set, SECRET_PATH, SECRET)
        self.expect("wrote", verb="create")
        self.process.send_signal(signal.SIGSTOP)
        # It may have sent a renewal: no more comes once it is stopped, and the deadline counts from the last.
        renewed = store.objects[LEASE_PATH]["spec"]["renewTime"]
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            time.sleep(0.05)
            if store.objects[LEASE_PATH]["spec"]["renewTime"] != renewed:
                renewed, end = store.objects[LEASE_PATH]["spec"]["renewTime"], time.monotonic() + 1.5
        do(store.patch, SECRET_PATH, {"data": {"empty": None}})
        self.process.send_signal(signal.SIGCONT)
        self.expect("lost")
        self.exits_with(1)
        self.assertEqual(store.objects[CHILD_PATH]["data"], DATA)

    def test_told_to_stop_before_it_has_its_lease(self) -> None:
        spec = {"holderIdentity": "shardlease-controller", "leaseDurationSeconds": 3600}
        self.server.do(self.server.store.set, LEASE_PATH, {"metadata": {"name": "a", "namespace": "ns"}, "spec": spec})
        self.start()
        end = time.monotonic() + PATIENCE_S
        while not self.server.store.requests and time.monotonic() < end:
            time.sleep(0.01)
        self.process.send_signal(signal.SIGINT)
        self.expect("stopped")
        self.exits_with(0)
        self.assertEqual(self.server.store.objects[LEASE_PATH]["spec"], spec)


def read(pipe: Any, to: Callable[[str], Any]) -> None:
    with pipe:
        for line in pipe:
            to(line)
