# Tests of the Counter webhook: every fixture pair, the cache beside a twin without one, and the server on loopback.
# Never needs a cluster. UPDATE_FIXTURES=1 rewrites the replies in fixtures/ instead of comparing.
import collections
import contextlib
import copy
import http.client
import io
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
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


def counter(uid, generation=1, text="a b a", **spec):
    """A request for a new Counter."""
    request = fixture("new")
    request["parent"]["metadata"].update(name=f"name-{uid}", uid=uid, generation=generation)
    request["parent"]["spec"] = {"text": text, **spec}
    return request


def counts_of(number):
    return hook.Counts(number, number, 1, ())


class Fixtures(unittest.TestCase):
    def test_replies_are_golden(self):
        requests = sorted(FIXTURES.glob("*.request.json"))
        self.assertGreaterEqual(len(requests), 8)
        cache = hook.Cache(100)
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
                for _ in range(2):
                    self.assertEqual(hook.sync(request, 7, cache), reply)


class Sync(unittest.TestCase):
    def test_ready_once_its_config_map_is_there(self):
        phases = {"new": "Pending", "another-child": "Pending", "observed": "Ready", "changed": "Ready"}
        for name, phase in phases.items():
            self.assertEqual(hook.sync(fixture(name))["status"]["phase"], phase, name)
        request = fixture("new")
        for children in (None, {}, {"ConfigMap.v1": None}):
            request["children"] = children
            self.assertEqual(hook.sync(request)["status"]["phase"], "Pending")

    def test_an_observed_counter_wants_what_it_has(self):
        request = fixture("observed")
        (observed,) = request["children"]["ConfigMap.v1"].values()
        self.assertEqual(hook.sync(request)["children"][0]["data"], observed["data"])

    def test_the_config_map_says_what_the_status_says(self):
        for path in FIXTURES.glob("*.request.json"):
            reply = hook.sync(json.loads(path.read_text()))
            status, data = reply["status"], reply["children"][0]["data"]
            top = [line.rsplit(" ", 1) for line in data["top"].splitlines()]
            self.assertEqual([{"word": word, "count": int(number)} for word, number in top], status["top"])
            for field in ("words", "distinct", "lines"):
                self.assertEqual(data[field], str(status[field]))

    def test_top_is_five_unless_said(self):
        text = " ".join(f"w{number:02} " * (number + 1) for number in range(60))
        for top, length in ((None, 5), (1, 1), (50, 50)):
            found = hook.sync(counter("a", text=text, top=top))["status"]["top"]
            self.assertEqual(found, [{"word": f"w{59 - n}", "count": 60 - n} for n in range(length)])

    def test_a_child_of_any_text_fits(self):
        # 256 KiB for annotations, of which the record of what was applied is one.
        words = [chr(0x1F300 + number) * (hook.MAX_TEXT // 51) for number in range(50)]
        for text in (" ".join(words), "\x01" * hook.MAX_TEXT, "\u0390" * hook.MAX_TEXT):
            child = hook.sync(counter("a", text=text[: hook.MAX_TEXT], top=50))["children"][0]
            self.assertLess(len(json.dumps(child)), 128 * 1024)

    def test_bad_requests_name_the_field(self):
        whole = fixture("new")["parent"]
        meta, spec = whole["metadata"], whole["spec"]
        for request, field in (
            ({}, "parent"),
            ({"parent": []}, "parent"),
            ({"parent": {**whole, "metadata": None}}, "parent.metadata"),
            ({"parent": {**whole, "spec": 1}}, "parent.spec"),
            ({"parent": {**whole, "metadata": {**meta, "name": ""}}}, "parent.metadata.name"),
            ({"parent": {**whole, "metadata": {**meta, "namespace": None}}}, "parent.metadata.namespace"),
            ({"parent": {**whole, "metadata": {**meta, "uid": 1}}}, "parent.metadata.uid"),
            ({"parent": {**whole, "metadata": {**meta, "generation": "1"}}}, "parent.metadata.generation"),
            ({"parent": {**whole, "metadata": {**meta, "generation": True}}}, "parent.metadata.generation"),
            ({"parent": {**whole, "spec": {}}}, "parent.spec.text"),
            ({"parent": {**whole, "spec": {"text": "a" * (hook.MAX_TEXT + 1)}}}, "parent.spec.text"),
            ({"parent": {**whole, "spec": {**spec, "top": 0}}}, "parent.spec.top"),
            ({"parent": {**whole, "spec": {**spec, "top": 51}}}, "parent.spec.top"),
            ({"parent": {**whole, "spec": {**spec, "top": 1.5}}}, "parent.spec.top"),
        ):
            with self.subTest(field), self.assertRaises(hook.BadRequest) as caught:
                hook.sync(request)
            self.assertEqual(str(caught.exception).split(":")[0], field)

    def test_epochs(self):
        for header, epoch in ((None, 0), ("0", 0), ("007", 7), ("18446744073709551615", 2**64 - 1)):
            self.assertEqual(hook.epoch_of(header), epoch)
        for header in ("", "-1", "+1", "1.0", "1_0", "x", "\u0661", "18446744073709551616", "1" * 10_000):
            with self.subTest(header[:30]), self.assertRaises(hook.BadRequest) as caught:
                hook.epoch_of(header)
            self.assertEqual(str(caught.exception).split(":")[0], "Ringmaster-Epoch")

    def test_the_manifests_have_the_same_limits(self):
        crds = (HERE / "manifests" / "crds.yaml").read_text()
        for limit in (
            f"maxLength: {hook.MAX_TEXT}\n", f"maximum: {hook.MAX_TOP}\n", f"default: {hook.DEFAULT_TOP}\n",
            f"maxItems: {hook.MAX_TOP}\n", f"maxLength: {hook.MAX_SHOWN + 1}\n",
        ):
            self.assertIn(limit, crds)


class Cache(unittest.TestCase):
    def setUp(self):
        self.countings = 0

    def counting(self):
        self.countings += 1
        return counts_of(self.countings)

    def call(self, cache, uid, generation=1, epoch=1):
        """Whether the call counted."""
        before = self.countings
        counts = cache.counts(uid, generation, epoch, self.counting)
        if self.countings > before:
            self.assertEqual(counts, counts_of(self.countings))
        return self.countings > before

    def test_only_equal_uid_generation_and_epoch_hit(self):
        cache = hook.Cache(10)
        self.assertEqual(cache.stats()["hitRate"], None)
        self.assertEqual(cache.stats()["recentHitRate"], None)
        calls = (
            ("a", 1, 1, True), ("a", 1, 1, False), ("b", 1, 1, True), ("a", 1, 1, False),
            ("a", 2, 1, True), ("a", 2, 1, False),  # changed
            ("a", 2, 3, True), ("a", 2, 3, False),  # another owner
            ("b", 1, 1, False),
        )
        for uid, generation, epoch, counted in calls:
            self.assertEqual(self.call(cache, uid, generation, epoch), counted, (uid, generation, epoch))
        rate = 5 / 9
        self.assertEqual(
            cache.stats(),
            {"hits": 5, "misses": 4, "stale": 0, "objects": 2, "hitRate": rate, "recentHitRate": rate},
        )

    def test_a_lower_epoch_neither_reads_nor_changes(self):
        cache = hook.Cache(2)
        self.call(cache, "a", 3, 5)
        self.call(cache, "b")
        before = cache.stats()
        for generation in (2, 3, 4):
            self.assertTrue(self.call(cache, "a", generation, 4))
        self.assertTrue(self.call(cache, "a", 3, 0))
        self.assertEqual(cache.stats(), {**before, "stale": 4})
        # It isn't a use either: a is still what goes first.
        self.call(cache, "c")
        self.assertFalse(self.call(cache, "b"))
        self.assertTrue(self.call(cache, "a", 3, 5))

    def test_what_a_lower_epoch_met_is_still_there(self):
        cache = hook.Cache(2)
        self.call(cache, "a", 3, 5)
        self.call(cache, "a", 3, 4)
        self.assertFalse(self.call(cache, "a", 3, 5))

    def test_a_slow_call_of_a_lower_epoch_undoes_nothing(self):
        cache = hook.Cache(10)

        def slow():
            # Meanwhile another member has become the owner, and its call has ended.
            self.assertTrue(self.call(cache, "a", 1, 2))
            return counts_of(1000)

        self.assertEqual(cache.counts("a", 1, 1, slow), counts_of(1000))
        self.assertEqual(cache.counts("a", 1, 2, self.fail), counts_of(1))

    def test_a_higher_epoch_counts_from_its_start(self):
        cache = hook.Cache(10)

        def slow():
            self.assertTrue(self.call(cache, "a", 1, 1))
            self.assertEqual(cache.stats()["stale"], 1)
            return counts_of(1000)

        cache.counts("a", 1, 2, slow)
        self.assertEqual(cache.counts("a", 1, 2, self.fail), counts_of(1000))

    def test_a_slow_call_of_an_evicted_object_brings_it_not_back(self):
        cache = hook.Cache(1)

        def slow():
            self.call(cache, "b")
            return counts_of(1000)

        cache.counts("a", 1, 1, slow)
        self.assertEqual(cache.stats()["objects"], 1)
        self.assertFalse(self.call(cache, "b"))

    def test_a_failed_counting_leaves_nothing(self):
        cache = hook.Cache(10)
        with self.assertRaises(ZeroDivisionError):
            cache.counts("a", 1, 1, lambda: 1 // 0)
        self.assertTrue(self.call(cache, "a"))
        self.assertFalse(self.call(cache, "a"))

    def test_least_recently_used_goes_first(self):
        cache = hook.Cache(3)
        for uid in "abcad":  # b goes
            self.call(cache, uid)
        for uid in "cad":
            self.assertFalse(self.call(cache, uid), uid)
        self.assertTrue(self.call(cache, "b"))
        for number in range(100):
            self.call(cache, f"more-{number}")
            self.assertEqual(cache.stats()["objects"], 3)
        self.assertEqual(list(cache.entries), ["more-97", "more-98", "more-99"])

    def test_without_objects_nothing_is_kept(self):
        cache = hook.Cache(0)
        self.assertTrue(all(self.call(cache, "a") for _ in range(3)))
        nothing = {"hits": 0, "misses": 0, "stale": 0, "objects": 0, "hitRate": None, "recentHitRate": None}
        self.assertEqual(cache.stats(), nothing)

    def test_the_recent_rate_forgets(self):
        cache = hook.Cache(2000)
        for number in range(500):
            self.call(cache, f"uid-{number}")
        self.assertEqual(cache.stats()["recentHitRate"], 0)
        for number in range(1000):
            self.assertEqual(cache.stats()["recentHitRate"], number / min(500 + number, 1000))
            self.call(cache, "uid-1")
        stats = cache.stats()
        self.assertEqual((stats["recentHitRate"], stats["hitRate"]), (1, 1000 / 1500))


class Twin(unittest.TestCase):
    """The same calls, with and without a cache: every answer must be the same."""

    @staticmethod
    def text(uid, generation, epoch):
        # Another text for each epoch, too, which no API server would show for one generation: so that an answer from
        # another epoch's entry is a wrong one.
        words = random.Random(f"{uid}/{generation}/{epoch}")
        return " ".join(words.choices("abcdefgh", k=words.randrange(30)))

    def test_replies_are_those_of_the_stateless_twin(self):
        seen = collections.Counter()
        for seed in range(20):
            with self.subTest(seed):
                chance = random.Random(seed)
                limit = chance.choice((1, 5, 12, 100))
                cache, twin = hook.Cache(limit), hook.Cache(0)
                now = {f"uid-{number}": (1, 10) for number in range(12)}
                past = {uid: [state] for uid, state in now.items()}
                for _ in range(400):
                    uid = chance.choice(sorted(now))
                    generation, epoch = now[uid]
                    what = chance.random()
                    if what < 0.1:
                        generation += 1
                    elif what < 0.2:
                        epoch += chance.randrange(1, 5)
                    elif what < 0.3:
                        generation, epoch = chance.choice(past[uid])  # a late call, of whoever had the object
                    if what < 0.2:
                        now[uid] = (generation, epoch)
                        past[uid].append(now[uid])
                    request = counter(uid, generation, self.text(uid, generation, epoch), top=3)
                    self.assertEqual(hook.sync(request, epoch, cache), hook.sync(request, epoch, twin))
                    self.assertLessEqual(len(cache.entries), limit)
                seen.update({field: cache.stats()[field] for field in ("hits", "misses", "stale")})
                self.assertEqual(twin.stats()["hits"], 0)
        self.assertGreater(min(seen.values()), 100, seen)

    def test_concurrent_callers_get_the_twins_replies(self):
        cache = hook.Cache(8)
        wrong, calls = [], 300
        start = threading.Barrier(6)

        def caller(seed):
            chance = random.Random(seed)
            start.wait(WAIT_SECONDS)
            for _ in range(calls):
                uid, generation, epoch = f"uid-{chance.randrange(12)}", chance.randrange(2), 1 + chance.randrange(2)
                request = counter(uid, generation, self.text(uid, generation, epoch))
                if hook.sync(request, epoch, cache) != hook.sync(request, epoch):
                    wrong.append((uid, generation, epoch))

        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)  # threads change places as often as can be
        threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stats = cache.stats()
        self.assertEqual(wrong, [])
        self.assertEqual(stats["hits"] + stats["misses"] + stats["stale"], 6 * calls)
        self.assertGreater(min(stats["hits"], stats["misses"], stats["stale"]), 0, stats)
        self.assertEqual(stats["objects"], 8)

    def test_no_lock_is_held_while_counting(self):
        cache = hook.Cache(10)
        together = threading.Barrier(4)
        failed = []

        def caller(uid):
            def counting():
                together.wait(WAIT_SECONDS)  # passes only if all four count at the same time
                return counts_of(1)

            try:
                cache.counts(uid, 1, 1, counting)
            except threading.BrokenBarrierError:
                failed.append(uid)

        threads = [threading.Thread(target=caller, args=(uid,)) for uid in "aabc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])
        self.assertEqual((cache.stats()["misses"], cache.stats()["objects"]), (4, 3))


class OverASocket(unittest.TestCase):
    def setUp(self):
        self.server = hook.Server(("127.0.0.1", 0), hook.Cache(100))
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

    def stats(self):
        status, text = self.call("GET", "/stats")
        self.assertEqual(status, 200)
        return json.loads(text)

    def test_a_second_call_on_the_connection_is_a_hit(self):
        body = json.dumps(fixture("new"))
        self.client.connect()
        connection = self.client.sock
        replies = [self.call("POST", "/sync", body, {"Ringmaster-Epoch": "3"}) for _ in range(2)]
        self.assertEqual(replies, [(200, json.dumps(hook.sync(fixture("new")), separators=(",", ":")))] * 2)
        rates = {"hitRate": 0.5, "recentHitRate": 0.5}
        self.assertEqual(self.stats(), {"hits": 1, "misses": 1, "stale": 0, "objects": 1, **rates})
        # Without the header the epoch is 0: lower.
        self.assertEqual(self.call("POST", "/sync", body), replies[0])
        self.assertEqual(self.call("POST", "/sync", body, {"Ringmaster-Epoch": "2"}), replies[0])
        self.assertEqual(self.stats(), {"hits": 1, "misses": 1, "stale": 2, "objects": 1, **rates})
        self.assertIs(self.client.sock, connection, "the connection was opened anew")

    def test_nothing_waits_for_more_bytes(self):
        accepted = []
        setup = hook.Handler.setup

        def seen(handler):
            setup(handler)
            accepted.append(handler.connection)

        with mock.patch.object(hook.Handler, "setup", seen):
            self.call("GET", "/healthz")
        self.assertTrue(accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_metrics(self):
        body = json.dumps(fixture("new"))
        for epoch in ("2", "2", "2", "1"):
            self.call("POST", "/sync", body, {"Ringmaster-Epoch": epoch})
        status, text = self.call("GET", "/metrics")
        lines = text.splitlines()
        self.assertEqual((status, text[-1]), (200, "\n"))
        self.assertEqual([line for line in lines if not line.startswith("#")], [
            "counter_cache_hits_total 2", "counter_cache_misses_total 1",
            "counter_cache_objects 1", "counter_calls_stale_total 1",
        ])
        types = [line.split()[2:] for line in lines if line.startswith("# TYPE ")]
        self.assertEqual([kind for _, kind in types], ["counter", "counter", "gauge", "counter"])

    def test_head_answers_on_any_path_without_a_body(self):
        self.client.connect()
        connection = self.client.sock
        for path in ("/", "/sync", "/healthz", "/nothing"):
            self.assertEqual(self.call("HEAD", path), (200, ""))
        self.assertIs(self.client.sock, connection)
        # To the byte: http.client drops a body that should not be there.
        connection.sendall(b"HEAD /sync HTTP/1.1\r\nHost: hook\r\nConnection: close\r\n\r\n")
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
        self.assertEqual((reply[:15], reply.partition(b"\r\n\r\n")[2]), (b"HTTP/1.1 200 OK", b""))

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
        status, reply = self.call("POST", "/sync", json.dumps(fixture("new")), {"Ringmaster-Epoch": "x"})
        self.assertEqual((status, reply.split(":")[0]), (400, "Ringmaster-Epoch"))
        self.assertEqual(self.call("GET", "/nothing")[0], 404)
        self.assertEqual(self.call("POST", "/nothing", b"{}")[0], 404)
        self.assertEqual(self.call("GET", "/sync")[0], 405)
        self.assertIs(self.client.sock, connection)
        self.assertEqual(self.stats()["objects"], 0)

    def test_an_unreadable_length_is_refused(self):
        for length in (None, "x", "-1", "9" * 5000):
            self.client.close()
            self.client.putrequest("POST", "/sync")
            if length is not None:
                self.client.putheader("Content-Length", length)
            self.client.endheaders()
            self.assertEqual(self.client.getresponse().status, 411)

    def test_oversized_body_is_refused_before_it_is_read(self):
        with mock.patch.object(hook, "MAX_BODY_BYTES", 1000):
            status, reply = self.call("POST", "/sync", b" " * 1001)
            self.assertEqual((status, reply), (413, "body: 1001 bytes is more than the limit of 1000\n"))
            self.client.close()
            self.assertEqual(self.call("POST", "/sync", b" " * 1000)[0], 400)

    def test_a_fault_in_the_hook_is_500(self):
        broken = mock.Mock(side_effect=RuntimeError("secret"))
        with mock.patch.object(hook, "count", broken), contextlib.redirect_stderr(io.StringIO()) as log:
            status, reply = self.call("POST", "/sync", json.dumps(fixture("new")))
        self.assertEqual((status, "secret" in reply, "secret" in log.getvalue()), (500, False, True))

    def test_connections_are_bounded(self):
        self.server.connections = threading.BoundedSemaphore(1)
        self.assertEqual(self.call("GET", "/healthz")[0], 200)
        second = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=WAIT_SECONDS)
        with contextlib.closing(second):
            second.request("GET", "/healthz")
            self.assertEqual(second.getresponse().status, 503)


class Process(unittest.TestCase):
    # Says on stderr when it counts, and counts only once it is told to on stdin.
    SLOW = (
        "import sys, hook\n"
        "count = hook.count\n"
        "def slow(text, top):\n"
        "    print('counting', file=sys.stderr, flush=True)\n"
        "    sys.stdin.readline()\n"
        "    return count(text, top)\n"
        "hook.count = slow\n"
        "hook.DRAIN_SECONDS = float(sys.argv.pop(1))\n"
        "sys.exit(hook.main())\n"
    )

    def start(self, *flags, command=(str(HERE / "hook.py"),)):
        process = subprocess.Popen(
            [sys.executable, "-B", *command, "--listen", "127.0.0.1:0", *flags],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE,
        )
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        line = process.stderr.readline()
        self.assertTrue(line.startswith("listening on 127.0.0.1:"), line)
        return process, int(line.rsplit(":", 1)[1])

    def client(self, port):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS)
        self.addCleanup(client.close)
        return client

    def sync(self, client):
        client.request("POST", "/sync", json.dumps(fixture("new")), {"Ringmaster-Epoch": "1"})
        return json.loads(client.getresponse().read())

    def wait_until_it_refuses(self, port):
        with self.assertRaises(OSError):
            for _ in range(WAIT_SECONDS * 20):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                time.sleep(0.05)

    def test_signals_end_it_with_success(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                process, port = self.start()
                client = self.client(port)  # stays open: an idle connection doesn't hold it up
                replies = [self.sync(client) for _ in range(3)]
                self.assertEqual(replies, [hook.sync(fixture("new"))] * 3)
                process.send_signal(number)
                self.assertEqual(process.wait(WAIT_SECONDS), 0)
                self.assertEqual(process.stderr.read(), "stopped: 2 hits, 1 misses\n")

    def test_a_running_call_ends_before_the_process(self):
        process, port = self.start(command=("-c", self.SLOW, str(WAIT_SECONDS)))
        client = self.client(port)
        client.request("POST", "/sync", json.dumps(fixture("new")))
        self.assertEqual(process.stderr.readline(), "counting\n")
        process.send_signal(signal.SIGTERM)
        self.wait_until_it_refuses(port)
        self.assertIsNone(process.poll())
        process.stdin.write("\n")
        process.stdin.flush()
        reply = client.getresponse()
        self.assertEqual((reply.status, reply.getheader("Connection")), (200, "close"))
        self.assertEqual(json.loads(reply.read()), hook.sync(fixture("new")))
        self.assertEqual(process.wait(WAIT_SECONDS), 0)
        self.assertEqual(process.stderr.read(), "stopped: 0 hits, 1 misses\n")

    def test_a_call_without_an_end_holds_it_up_for_a_while_only(self):
        process, port = self.start(command=("-c", self.SLOW, "0.2"))
        client = self.client(port)
        client.request("POST", "/sync", json.dumps(fixture("new")))
        self.assertEqual(process.stderr.readline(), "counting\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(WAIT_SECONDS), 0)

    def test_the_delay_is_for_countings_only(self):
        process, port = self.start("--delay-ms", "300")
        client = self.client(port)
        began = time.monotonic()
        self.sync(client)
        counted = time.monotonic() - began
        with mock.patch.object(time, "sleep") as sleep:
            cache = hook.Cache(10)
            for _ in range(3):
                hook.sync(fixture("new"), 1, cache, 0.3)
        self.assertGreaterEqual(counted, 0.3)
        sleep.assert_called_once_with(0.3)

    def test_without_a_cache_it_counts_each_time(self):
        process, port = self.start("--cache-objects", "0", "--verbose")
        client = self.client(port)
        replies = [self.sync(client) for _ in range(2)]
        self.assertEqual(replies, [hook.sync(fixture("new"))] * 2)
        self.assertIn('"POST /sync HTTP/1.1" 200', process.stderr.readline())
        client.request("GET", "/stats")
        self.assertEqual(json.loads(client.getresponse().read())["objects"], 0)

    def test_bad_flags_are_named(self):
        for flag, value, text in (
            ("--listen", "8080", "for example 127.0.0.1:8080"),
            ("--listen", "127.0.0.1:70000", "for example 127.0.0.1:8080"),
            ("--cache-objects", "-1", "not a number from 0"),
            ("--cache-objects", "many", "not a number from 0"),
            ("--delay-ms", "60001", "not a number from 0 to 60000"),
        ):
            run = subprocess.run(
                [sys.executable, "-B", str(HERE / "hook.py"), f"{flag}={value}"],
                capture_output=True, text=True, timeout=WAIT_SECONDS,
            )
            self.assertEqual(run.returncode, 2)
            self.assertIn(flag, run.stderr.splitlines()[-1])
            self.assertIn(text, run.stderr)


if __name__ == "__main__":
    unittest.main()
