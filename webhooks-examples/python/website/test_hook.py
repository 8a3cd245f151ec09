# Tests of the Website webhook: every fixture pair, what the replies must keep, and the server over a loopback socket.
# Never needs a cluster. UPDATE_FIXTURES=1 rewrites the replies in fixtures/ instead of comparing.
import contextlib
import copy
import http.client
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

import hook

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE / "fixtures"
WAIT_SECONDS = 10


def fixture(name):
    return json.loads((FIXTURES / f"{name}.request.json").read_text())


class Fixtures(unittest.TestCase):
    def test_replies_are_golden(self):
        requests = sorted(FIXTURES.glob("*.request.json"))
        self.assertGreaterEqual(len(requests), 5)
        for path in requests:
            with self.subTest(path.name):
                request = json.loads(path.read_text())
                before = copy.deepcopy(request)
                reply = hook.sync(request)
                self.assertEqual(request, before, "sync changed its request")
                golden = path.with_name(path.name.replace(".request.", ".reply."))
                if os.environ.get("UPDATE_FIXTURES"):
                    golden.write_text(json.dumps(reply, indent=2) + "\n")
                self.assertEqual(reply, json.loads(golden.read_text()))


class ThemeFile(unittest.TestCase):
    def test_follows_the_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "themes.json"
            path.write_text('{"plain": {"color": "white", "fontFamily": "serif"}}')
            themes = hook.ThemeFile(str(path))
            self.assertEqual(list(themes.now()), ["plain"])
            request = fixture("new")
            request["parent"]["spec"]["theme"] = "plain"
            self.assertEqual(hook.sync(request, themes.now())["status"]["phase"], "Pending")
            path.write_text("{}")
            reply = hook.sync(request, themes.now())
            self.assertIn("known themes: none", reply["status"]["message"])

    def test_a_bad_file_leaves_the_themes_as_they_were(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "themes.json"
            themes = hook.ThemeFile(str(path))
            for text in (None, "no json", "[]"):
                if text is not None:
                    path.write_text(text)
                with contextlib.redirect_stderr(io.StringIO()) as said:
                    self.assertEqual(themes.now(), hook.THEMES)
                self.assertIn("--themes", said.getvalue())

    def test_without_a_file_the_shipped_themes_count(self):
        self.assertIs(hook.ThemeFile(None).now(), hook.THEMES)


class Sync(unittest.TestCase):
    def test_new_website_waits_for_its_children(self):
        reply = hook.sync(fixture("new"))
        self.assertEqual(reply["status"]["phase"], "Pending")
        self.assertEqual([c["kind"] for c in reply["children"]], ["ConfigMap", "Service", "Deployment"])
        self.assertEqual({c["metadata"]["name"] for c in reply["children"]}, {"museum"})

    def test_ready_needs_available_replicas(self):
        request = fixture("observed")
        self.assertEqual(hook.sync(request)["status"]["phase"], "Ready")
        request["children"]["Deployment.apps/v1"]["default/museum"]["status"] = {}
        self.assertEqual(hook.sync(request)["status"]["message"], "0 of 1 replicas available")

    def test_ready_needs_every_child(self):
        for kind in hook.CHILD_KINDS:
            request = fixture("observed")
            request["children"][kind] = {}
            status = hook.sync(request)["status"]
            self.assertEqual((status["phase"], status["message"]), ("Pending", f"waiting for {kind.split('.')[0]}"))

    def test_converged_website_wants_what_was_last_applied(self):
        request = fixture("observed")
        for child in hook.sync(request)["children"]:
            self.assertIn(child, [hook.last_applied(c) for c in hook.observed_children(request).values()])

    def test_skip_workload_is_ready_without_replicas(self):
        reply = hook.sync(fixture("skip-workload"))
        self.assertEqual(reply["status"]["phase"], "Ready")
        self.assertEqual(reply["children"][2]["spec"]["replicas"], 0)

    def test_unknown_theme_keeps_children(self):
        request = fixture("unknown-theme")
        reply = hook.sync(request)
        self.assertEqual(reply["status"]["phase"], "Error")
        self.assertIn('"drak"', reply["status"]["message"])
        self.assertIn("dark, light, solarized", reply["status"]["message"])
        kept = [json.loads(c["metadata"]["annotations"][hook.LAST_APPLIED[0]])
                for kind in hook.CHILD_KINDS for c in request["children"][kind].values()]
        self.assertEqual(len(kept), 3)
        self.assertEqual(reply["children"], kept)

    def test_unknown_theme_creates_nothing(self):
        request = fixture("new")
        request["parent"]["spec"]["theme"] = "drak"
        self.assertEqual(hook.sync(request)["children"], [])

    def test_child_without_a_record_is_restated_as_observed(self):
        request = fixture("unknown-theme")
        service = request["children"]["Service.v1"]["default/museum"]
        for broken in (None, "", "{", "[]"):
            service["metadata"]["annotations"] = {} if broken is None else {hook.LAST_APPLIED[0]: broken}
            kept = hook.sync(request)["children"][1]
            self.assertEqual(kept["spec"], service["spec"])
            self.assertNotIn("status", kept)
            self.assertFalse(set(kept["metadata"]) & set(hook.SERVER_METADATA))

    def test_related_themes_win(self):
        request = fixture("related-theme")
        self.assertIn("background: #123456", hook.sync(request)["children"][0]["data"]["index.html"])
        request["related"][hook.THEME_KIND] = {}
        status = hook.sync(request)["status"]
        self.assertEqual((status["phase"], status["message"].split("; ")[1]), ("Error", "known themes: none"))

    def test_page_is_escaped(self):
        request = fixture("related-theme")
        request["parent"]["spec"]["title"] = "<script>"
        theme = next(iter(request["related"][hook.THEME_KIND].values()))
        theme["spec"]["color"] = "red; } </style><script>"
        self.assertNotIn("<script>", hook.sync(request)["children"][0]["data"]["index.html"])

    def test_the_checksum_follows_the_page(self):
        def checksum(request):
            return hook.sync(request)["children"][2]["spec"]["template"]["metadata"]["annotations"]

        request = fixture("new")
        before = checksum(request)
        self.assertEqual(checksum(request), before)
        request["parent"]["spec"]["title"] = "Another"
        self.assertNotEqual(checksum(request), before)

    def test_bad_requests_name_the_field(self):
        whole = fixture("new")["parent"]
        for request, field in (
            ({}, "parent"),
            ({"parent": []}, "parent"),
            ({"parent": {**whole, "metadata": None}}, "parent.metadata"),
            ({"parent": {**whole, "spec": 1}}, "parent.spec"),
            ({"parent": {**whole, "metadata": {"name": "a"}}}, "parent.metadata.namespace"),
        ):
            with self.assertRaises(hook.BadRequest) as caught:
                hook.sync(request)
            self.assertEqual(str(caught.exception).split(":")[0], field)

    def test_samples_have_the_themes_that_ship_with_the_hook(self):
        samples = (HERE / "manifests" / "samples.yaml").read_text()
        for name, theme in hook.THEMES.items():
            text = f'  name: {name}\nspec:\n  color: "{theme["color"]}"\n  fontFamily: {theme["fontFamily"]}\n'
            self.assertIn(text, samples)


class OverASocket(unittest.TestCase):
    def setUp(self):
        self.server = hook.Server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()
        self.client = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=WAIT_SECONDS)

    def tearDown(self):
        self.client.close()
        self.server.stop()
        self.thread.join()

    def call(self, method, path, body=None, headers=None):
        self.client.request(method, path, body, headers or {})
        reply = self.client.getresponse()
        return reply.status, reply.read().decode()

    def test_two_requests_on_one_connection(self):
        body = json.dumps(fixture("new"))
        self.client.connect()
        connection = self.client.sock
        replies = [self.call("POST", "/sync", body) for _ in range(2)]
        self.assertIs(self.client.sock, connection, "the connection was opened anew")
        self.assertEqual(replies, [(200, json.dumps(hook.sync(fixture("new")), separators=(",", ":")))] * 2)
        self.assertEqual(connection.getsockname()[0], "127.0.0.1")

    def test_errors_keep_the_connection_and_name_the_fix(self):
        self.client.connect()
        connection = self.client.sock
        for body, text in (
            (b"{", "body: not valid JSON"),
            (b"\xff", "body: not valid JSON"),
            (b"[" * 100_000, "body: not valid JSON"),
            (b"[]", "body: must be a JSON object"),
            (b"{}", "parent: must be an object"),
        ):
            status, reply = self.call("POST", "/sync", body)
            self.assertEqual((status, reply[: len(text)]), (400, text))
        self.assertEqual(self.call("GET", "/healthz"), (200, "ok\n"))
        self.assertEqual(self.call("GET", "/nothing")[0], 404)
        self.assertEqual(self.call("POST", "/nothing", b"{}")[0], 404)
        self.assertEqual(self.call("GET", "/sync")[0], 405)
        self.assertIs(self.client.sock, connection)

    def test_oversized_body_is_refused_before_it_is_read(self):
        with mock.patch.object(hook, "MAX_BODY_BYTES", 1000):
            status, reply = self.call("POST", "/sync", b" " * 1001)
            self.assertEqual((status, reply), (413, "body: 1001 bytes is more than the limit of 1000\n"))
            self.client.close()
            self.assertEqual(self.call("POST", "/sync", b" " * 1000)[0], 400)
        self.client.close()
        # Only announced, never sent.
        self.client.putrequest("POST", "/sync")
        self.client.putheader("Content-Length", str(hook.MAX_BODY_BYTES + 1))
        self.client.endheaders()
        self.assertEqual(self.client.getresponse().status, 413)

    def test_a_whole_oversized_body_still_gets_its_reply(self):
        self.assertEqual(self.call("POST", "/sync", b" " * (hook.MAX_BODY_BYTES + 1))[0], 413)

    def test_a_body_without_length_is_refused(self):
        # In one write: the server may answer and close before a second one.
        request = b"POST /sync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.server.server_port), timeout=WAIT_SECONDS) as connection:
            connection.sendall(request)
            self.assertEqual(connection.recv(12), b"HTTP/1.1 411")

    def test_a_fault_in_the_hook_is_500(self):
        broken = mock.Mock(side_effect=RuntimeError("secret"))
        with mock.patch.object(hook, "sync", broken), contextlib.redirect_stderr(io.StringIO()) as log:
            status, reply = self.call("POST", "/sync", b"{}")
        self.assertEqual((status, "secret" in reply, "secret" in log.getvalue()), (500, False, True))

    def test_connections_are_bounded(self):
        self.server.connections = threading.BoundedSemaphore(1)
        self.assertEqual(self.call("GET", "/healthz")[0], 200)
        second = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=WAIT_SECONDS)
        with contextlib.closing(second):
            second.request("GET", "/healthz")
            self.assertEqual(second.getresponse().status, 503)


class Process(unittest.TestCase):
    def start(self, *flags):
        process = subprocess.Popen(
            [sys.executable, "-B", str(HERE / "hook.py"), "--listen", "127.0.0.1:0", *flags],
            stderr=subprocess.PIPE, text=True,
        )
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        line = process.stderr.readline()
        self.assertTrue(line.startswith("listening on 127.0.0.1:"), line)
        return process, int(line.rsplit(":", 1)[1])

    def test_signals_end_it_with_success(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                process, port = self.start()
                idle = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
                with contextlib.closing(idle):
                    idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: hook\r\n\r\n")
                    self.assertIn(b"200 OK", idle.recv(1000))
                    process.send_signal(number)
                    # An idle connection doesn't hold it up.
                    self.assertEqual(process.wait(WAIT_SECONDS), 0)
                self.assertEqual(process.stderr.read(), "", "more than one log line without --verbose")

    def test_a_running_call_ends_before_the_process(self):
        process, port = self.start()
        body = json.dumps(fixture("new")).encode()
        running = socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS)
        with contextlib.closing(running):
            head = f"POST /sync HTTP/1.1\r\nHost: hook\r\nContent-Length: {len(body)}\r\n\r\n"
            running.sendall(head.encode() + body[:9])
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            with self.assertRaises(OSError):
                for _ in range(WAIT_SECONDS * 20):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    time.sleep(0.05)
            self.assertIsNone(process.poll())
            running.sendall(body[9:])
            reply = http.client.HTTPResponse(running)
            reply.begin()
            self.assertEqual((reply.status, reply.getheader("Connection")), (200, "close"))
            self.assertEqual(json.loads(reply.read()), hook.sync(fixture("new")))
        self.assertEqual(process.wait(WAIT_SECONDS), 0)

    def test_verbose_logs_requests(self):
        process, port = self.start("--verbose")
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
        with contextlib.closing(client):
            client.request("GET", "/healthz")
            client.getresponse().read()
        self.assertIn('"GET /healthz HTTP/1.1" 200', process.stderr.readline())

    def test_bad_address_names_the_flag(self):
        for address in ("8080", "127.0.0.1:http", "127.0.0.1:70000"):
            run = subprocess.run(
                [sys.executable, "-B", str(HERE / "hook.py"), "--listen", address],
                capture_output=True, text=True, timeout=WAIT_SECONDS,
            )
            self.assertEqual(run.returncode, 2)
            self.assertIn("--listen", run.stderr)
            self.assertIn("for example 127.0.0.1:8080", run.stderr)


if __name__ == "__main__":
    unittest.main()
