"""Names, times, what is written to a Lease, and the right to work. Pure."""

from __future__ import annotations

import datetime
import unittest

from ringmaster_shard import CONTROLLER_SHARDING, RINGMASTER, Identity, Kind, Lost, Right, Times
from ringmaster_shard import lease as leases
from ringmaster_shard.naming import controller_of

ME = Identity("r", "a", "ns")
WALL = datetime.datetime(2026, 1, 2, 3, 4, 5, 678, datetime.UTC)


class NamingTest(unittest.TestCase):
    def test_the_labels_of_both_dialects(self) -> None:
        self.assertEqual(ME.shard_label, "ring.ringmaster.dev/r")
        self.assertEqual(ME.drain_label, "drain.ring.ringmaster.dev/r")
        other = Identity("r", "a", "ns", CONTROLLER_SHARDING)
        self.assertEqual(other.selector, "shard.alpha.sharding.timebertt.dev/r=a")
        self.assertEqual(other.drain_label, "drain.alpha.sharding.timebertt.dev/r")
        self.assertEqual(RINGMASTER.lease_ring, "ringmaster.dev/ring")

    def test_a_wrong_name_is_told_with_its_field(self) -> None:
        for ring, name, field in (("", "a", "ring"), ("r", "a" * 64, "name"), ("r", "-a", "name"), ("r", "A", "name")):
            with self.subTest(ring=ring, name=name), self.assertRaisesRegex(ValueError, f"^{field}: "):
                Identity(ring, name, "ns")
        with self.assertRaisesRegex(ValueError, "^namespace: "):
            Identity("r", "a", "")

    def test_paths(self) -> None:
        self.assertEqual(Kind("", "v1", "secrets", "Secret").path("ns", "x"), "/api/v1/namespaces/ns/secrets/x")
        self.assertEqual(Kind("apps", "v1", "deployments", "Deployment").path(), "/apis/apps/v1/deployments")
        self.assertEqual(Kind("g", "v1", "things", "Thing", namespaced=False).path("", "x"), "/apis/g/v1/things/x")

    def test_only_the_controlling_owner_of_the_kind_counts(self) -> None:
        kind = Kind("apps", "v1", "deployments", "Deployment")
        owners = [
            {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"},
            {"apiVersion": "v1", "kind": "Deployment", "name": "stranger", "controller": True},
            {"apiVersion": "apps/v1beta1", "kind": "Deployment", "name": "mine", "controller": True},
        ]
        child = {"metadata": {"namespace": "ns", "name": "c", "ownerReferences": owners}}
        self.assertEqual(controller_of(child, kind), ("ns", "mine"))
        self.assertIsNone(controller_of({"metadata": {"name": "c"}}, kind))


class LeaseTest(unittest.TestCase):
    def test_wrong_times_are_told_with_their_field(self) -> None:
        for times, field in (((10, 10, 2), "lease duration"), ((15, 2, 2), "renew deadline"), ((15, 10, 0), "retry")):
            with self.subTest(times=times), self.assertRaisesRegex(ValueError, f"^{field}"):
                Times(*times)

    def test_a_new_lease_and_a_taken_one(self) -> None:
        made = leases.created(ME, Times(14.5), WALL)
        self.assertEqual(made["metadata"]["labels"], {"ringmaster.dev/ring": "r"})
        self.assertEqual(
            made["spec"],
            {
                "holderIdentity": "a",
                "leaseDurationSeconds": 15,
                "acquireTime": "2026-01-02T03:04:05.000678Z",
                "renewTime": "2026-01-02T03:04:05.000678Z",
                "leaseTransitions": 0,
            },
        )
        foreign = {
            "metadata": {"name": "a", "resourceVersion": "7", "labels": {"ringmaster.dev/ring-state": "dead"}},
            "spec": {"holderIdentity": "ringmaster-sharder", "leaseDurationSeconds": 30, "leaseTransitions": 4},
        }
        took = leases.taken(foreign, ME, Times(), WALL)
        self.assertEqual(took["metadata"]["labels"], {"ringmaster.dev/ring-state": "dead", "ringmaster.dev/ring": "r"})
        self.assertEqual(took["metadata"]["resourceVersion"], "7")
        self.assertEqual((took["spec"]["holderIdentity"], took["spec"]["leaseTransitions"]), ("a", 5))
        self.assertEqual(took["spec"]["leaseDurationSeconds"], 15)
        again = leases.taken(took, ME, Times(), WALL)
        self.assertEqual(again["spec"]["leaseTransitions"], 5)
        free = leases.released(took)
        self.assertEqual(free["spec"], {**took["spec"], "holderIdentity": ""})

    def test_a_foreign_lease_is_waited_for_by_our_own_clock(self) -> None:
        lease = {
            "metadata": {"uid": "u"},
            "spec": {"holderIdentity": "x", "leaseDurationSeconds": 30, "renewTime": "1999-01-01T00:00:00.000000Z"},
        }
        first = leases.seen(lease, None, 100)
        self.assertEqual(leases.wait(ME, Times(), first, 100), 30)
        lease["metadata"]["labels"] = {"ringmaster.dev/ring-state": "dead"}
        second = leases.seen(lease, first, 120)
        self.assertEqual(leases.wait(ME, Times(), second, 120), 10)
        self.assertEqual(leases.wait(ME, Times(), second, 131), 0)
        lease["spec"]["renewTime"] = "1999-01-01T00:00:01.000000Z"
        third = leases.seen(lease, second, 131)
        self.assertEqual(leases.wait(ME, Times(), third, 131), 30)
        del lease["spec"]["leaseDurationSeconds"]
        self.assertEqual(leases.wait(ME, Times(), leases.seen(lease, third, 200), 200), 15)

    def test_an_empty_holder_and_our_own_are_not_waited_for(self) -> None:
        for holder in ("", None, "a"):
            seen = leases.seen({"metadata": {}, "spec": {"holderIdentity": holder}}, None, 0)
            self.assertEqual(leases.wait(ME, Times(), seen, 0), 0)

    def test_another_process_of_our_name_is_another_holder(self) -> None:
        mine = leases.created(ME, Times(), WALL)
        labelled = {**mine, "metadata": {**mine["metadata"], "labels": {"x": "y"}}}
        self.assertTrue(leases.same_holding(labelled, mine))
        later = leases.taken(mine, ME, Times(), WALL + datetime.timedelta(seconds=1))
        self.assertFalse(leases.same_holding(later, mine))


class RightTest(unittest.TestCase):
    def test_it_ends_by_the_clock_and_stays_ended(self) -> None:
        now = [0.0]
        right = Right(lambda: now[0])
        self.assertRaises(Lost, right.check)
        right.extend(10)
        self.assertEqual(right.check(), 10)
        now[0] = 8
        right.extend(18)
        self.assertEqual(right.left(), 10)
        now[0] = 18
        self.assertRaises(Lost, right.check)
        right.extend(28)
        self.assertRaises(Lost, right.check)

    def test_a_renewal_that_comes_too_late_is_none(self) -> None:
        now = [0.0]
        right = Right(lambda: now[0])
        right.extend(10)
        now[0] = 11
        right.extend(20)
        self.assertRaises(Lost, right.check)

    def test_it_can_be_ended(self) -> None:
        right = Right(lambda: 0.0)
        right.extend(10)
        right.end()
        self.assertRaises(Lost, right.check)
