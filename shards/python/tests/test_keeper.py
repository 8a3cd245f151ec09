"""The keeper with an API server in memory. Without kopf."""

from __future__ import annotations

import copy
import threading
import time
import unittest
from collections.abc import Callable

from ringmaster_shard import Identity, Right, Times
from ringmaster_shard.errors import Failure, Unreachable
from ringmaster_shard.keeper import Keeper

from .store import Store

ME = Identity("r", "a", "ns")
PATH = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/a"
# The keeper's pauses are real, so short; a clock of the test's own counts for the right to work.
TIMES = Times(15, 10, 0.01)
PATIENCE_S = 10


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.002)


class KeeperTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.store = Store()
        self.right = Right(lambda: self.now)
        self.lost: list[str] = []
        self.ended = threading.Event()
        self.keeper = Keeper(lambda: self.store, ME, TIMES, self.right, self.on_lost)
        self.addCleanup(self.keeper.release)

    def on_lost(self, why: str) -> None:
        self.lost.append(why)
        self.ended.set()

    def lease(self) -> dict:
        return copy.deepcopy(self.store.objects[PATH])

    def start(self) -> None:
        self.keeper.start()
        self.keeper.held.result(PATIENCE_S)

    def renewals(self) -> int:
        return sum(request[0] == "PUT" for request in self.store.requests)

    def foreign(self, holder: str) -> None:
        labels = {"ringmaster.dev/ring-state": "dead"}
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 30, "leaseTransitions": 3}
        self.store.set(PATH, {"metadata": {"name": "a", "namespace": "ns", "labels": labels}, "spec": spec})

    def test_it_makes_renews_and_releases(self) -> None:
        self.start()
        first = self.lease()
        self.assertEqual(first["metadata"]["labels"], {"ringmaster.dev/ring": "r"})
        self.assertEqual(self.right.left(), 10)
        self.now += 5
        until(lambda: self.right.left() == 10, "renewed")
        self.keeper.release()
        self.assertEqual(self.lease()["spec"]["holderIdentity"], "")
        self.assertEqual(self.lease()["spec"]["acquireTime"], first["spec"]["acquireTime"])
        self.assertEqual((self.right.left(), self.lost, self.store.closed), (0, [], True))

    def test_it_takes_a_released_one_and_keeps_its_labels(self) -> None:
        self.foreign("")
        self.start()
        labels = {"ringmaster.dev/ring": "r", "ringmaster.dev/ring-state": "dead"}
        self.assertEqual(self.lease()["metadata"]["labels"], labels)
        self.assertEqual(self.lease()["spec"]["leaseTransitions"], 4)

    def test_it_waits_for_the_sharder_as_long_as_its_lease_says(self) -> None:
        self.foreign("shardlease-controller")
        self.keeper.start()
        until(lambda: len(self.store.requests) > 3, "looked at")
        self.now += 29
        seen = len(self.store.requests)
        until(lambda: len(self.store.requests) > seen + 3, "looked at again")
        self.assertFalse(self.keeper.held.done())
        self.assertEqual(self.renewals(), 0)
        self.now += 1
        self.keeper.held.result(PATIENCE_S)
        self.assertEqual(self.lease()["spec"]["holderIdentity"], "a")

    def test_it_makes_it_anew_when_the_sharders_is_gone(self) -> None:
        self.foreign("ringmaster-sharder-x")
        self.keeper.start()
        until(lambda: len(self.store.requests) > 2, "looked at")
        self.store.remove(PATH)
        self.keeper.held.result(PATIENCE_S)

    def test_told_to_stop_while_it_waits_it_takes_nothing(self) -> None:
        self.foreign("ringmaster-sharder")
        self.keeper.start()
        until(lambda: len(self.store.requests) > 2, "looked at")
        self.keeper.release()
        self.assertEqual((self.renewals(), self.lost, self.keeper.held.done()), (0, [], False))

    def test_another_holder_ends_the_right_at_once(self) -> None:
        self.start()
        self.foreign("ringmaster-sharder")
        self.assertTrue(self.ended.wait(PATIENCE_S))
        self.assertEqual(self.right.left(), 0)
        self.assertIn("ringmaster-sharder", self.lost[0])
        self.assertEqual(self.lease()["spec"]["holderIdentity"], "ringmaster-sharder")

    def test_a_deleted_lease_ends_the_right_at_once(self) -> None:
        self.start()
        self.store.remove(PATH)
        self.assertTrue(self.ended.wait(PATIENCE_S))
        self.assertEqual((self.right.left(), self.store.objects), (0, {}))

    def test_the_sharders_state_label_is_no_other_holder(self) -> None:
        self.start()
        self.store.patch(PATH, {"metadata": {"labels": {"ringmaster.dev/ring-state": "ready"}}})
        self.now += 5
        until(lambda: self.right.left() == 10, "renewed")
        self.assertEqual(self.lease()["metadata"]["labels"]["ringmaster.dev/ring-state"], "ready")
        self.assertEqual(self.lost, [])

    def test_what_is_not_renewed_runs_out(self) -> None:
        self.start()

        def refuse(method: str, path: str) -> None:
            raise Failure(503, "ServiceUnavailable", "down")

        self.store.before = refuse
        seen = len(self.store.requests)
        until(lambda: len(self.store.requests) > seen + 3, "tried")
        self.assertEqual(self.lost, [])
        self.now += 10
        self.assertTrue(self.ended.wait(PATIENCE_S))
        self.assertEqual(self.right.left(), 0)

    def test_a_renewal_counts_from_when_it_was_sent(self) -> None:
        self.start()

        def slow(method: str, path: str) -> None:
            if method == "PUT":
                self.now += 4

        self.store.before = slow
        seen = self.renewals()
        until(lambda: self.renewals() > seen + 1, "renewed")
        self.assertLessEqual(self.right.left(), 6)

    def test_a_lost_answer_is_read_back_before_the_next_renewal(self) -> None:
        self.start()
        self.store.lose = {"PUT"}
        seen = self.renewals()
        until(lambda: self.renewals() > seen + 2, "tried")
        self.store.lose = set()
        self.now += 5
        until(lambda: self.right.left() == 10, "renewed")
        self.assertEqual(self.lost, [])

    def test_an_api_server_that_is_down_at_the_start_is_waited_for(self) -> None:
        def refuse(method: str, path: str) -> None:
            raise Unreachable("down")

        self.store.before = refuse
        self.keeper.start()
        until(lambda: len(self.store.requests) > 3, "tried")
        self.store.before = lambda method, path: None
        self.keeper.held.result(PATIENCE_S)
