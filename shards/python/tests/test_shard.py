"""The wrapper, the children's client, the queue and the sweep, with an API server in memory. Without kopf."""

from __future__ import annotations

import asyncio
import copy
import unittest
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ringmaster_shard import Identity, Kind, Lost, Right, Run, Shard, work
from ringmaster_shard.errors import Failure, Unreachable
from ringmaster_shard.naming import Object, key_of
from ringmaster_shard.sweep import Sweeper

from .store import Store

ME = Identity("r", "a", "ns")
SECRETS = Kind("", "v1", "secrets", "Secret")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
MINE = {"ring.ringmaster.dev/r": "a"}
DRAIN = {"drain.ring.ringmaster.dev/r": ""}
PATIENCE_S = 10


class ShardTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.now = 0.0
        self.store = Store()
        self.right = Right(lambda: self.now)
        self.right.extend(1000)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.reconcile: Callable[[Run], Awaitable[None]] = self.nothing
        self.shard = Shard(ME, SECRETS, [CONFIG_MAPS], lambda run: self.reconcile(run), self.store, self.right, self.on)
        self.shard.start()
        self.addAsyncCleanup(self.shard.stop, 0)

    async def nothing(self, run: Run) -> None:
        pass

    def on(self, event: str, fields: Mapping[str, Any]) -> None:
        self.events.append((event, dict(fields)))

    def told(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]

    def secret(self, labels: dict[str, str], name: str = "x") -> Object:
        metadata = {"namespace": "ns", "name": name, "labels": labels}
        return copy.deepcopy(self.store.set(SECRETS.path("ns", name), {"metadata": metadata}))

    def child(self, owner: Object) -> Object:
        name = owner["metadata"]["name"]
        reference = {"apiVersion": "v1", "kind": "Secret", "name": name, "uid": "u", "controller": True}
        return {"metadata": {"namespace": "ns", "name": f"c-{name}", "ownerReferences": [reference]}}

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    await asyncio.sleep(0.002)
        except TimeoutError:
            self.fail(f"not within {PATIENCE_S} s: {what}: {self.events}")

    async def settle(self) -> None:
        """Once another object that was queued later has been run."""
        marker = self.secret(MINE, f"marker-{len(self.events)}")
        name = f"ns/{marker['metadata']['name']}"
        self.shard.observe(SECRETS, marker, False)
        await self.until(lambda: {"object": name} in self.told("end"), name)

    def begun(self) -> list[str]:
        return [fields["object"] for fields in self.told("begin") if "marker" not in fields["object"]]

    async def test_only_what_is_mine_is_run(self) -> None:
        self.shard.observe(SECRETS, self.secret({"ring.ringmaster.dev/r": "b"}, "other"), False)
        self.shard.observe(SECRETS, self.secret({}, "none"), False)
        self.shard.observe(SECRETS, self.secret(MINE, "gone"), True)
        self.shard.observe(SECRETS, self.secret(MINE), False)
        await self.settle()
        self.assertEqual(self.begun(), ["ns/x"])

    async def test_what_left_and_has_a_delayed_run_is_not_run(self) -> None:
        async def fail(run: Run) -> None:
            raise RuntimeError("no")

        self.reconcile = fail
        secret = self.secret(MINE)
        self.shard.observe(SECRETS, secret, False)
        await self.until(lambda: len(self.begun()) >= 2, "run again")
        self.reconcile = self.nothing
        self.shard.observe(SECRETS, self.secret({"ring.ringmaster.dev/r": "b"}), False)
        runs = len(self.begun())
        await self.settle()
        self.assertEqual(len(self.begun()), runs)

    async def test_a_drain_is_acknowledged_whatever_its_value(self) -> None:
        self.shard.observe(SECRETS, self.secret({**MINE, **DRAIN, "keep": "me"}), False)
        await self.until(lambda: bool(self.told("acknowledged")), "acknowledged")
        there = self.store.objects[SECRETS.path("ns", "x")]
        self.assertEqual(there["metadata"]["labels"], {"keep": "me"})
        self.assertEqual(self.told("acknowledged"), [{"object": "ns/x", "rv": there["metadata"]["resourceVersion"]}])
        self.shard.enqueue(SECRETS, there)
        await self.settle()
        self.assertEqual(self.begun(), [])

    async def test_a_drain_of_what_is_not_mine_is_not_acknowledged(self) -> None:
        self.shard.observe(SECRETS, self.secret({"ring.ringmaster.dev/r": "b", **DRAIN}), False)
        await self.settle()
        self.assertEqual(self.told("acknowledged"), [])

    async def test_an_acknowledgement_that_comes_late_is_forgotten(self) -> None:
        stale = self.secret({**MINE, **DRAIN})
        self.secret({**MINE, **DRAIN, "new": ""})
        self.shard.observe(SECRETS, stale, False)
        gone = self.secret({**MINE, **DRAIN}, "gone")
        self.store.remove(SECRETS.path("ns", "gone"))
        self.shard.observe(SECRETS, gone, False)
        await self.settle()
        self.assertEqual(self.told("acknowledged"), [])
        self.assertEqual(sum(request[0] == "PATCH" for request in self.store.requests), 2)

    async def test_an_acknowledgement_that_fails_otherwise_is_sent_again(self) -> None:
        tries = []

        def refuse(method: str, path: str) -> None:
            tries.append(method)
            if len(tries) == 1:
                raise Failure(503, "ServiceUnavailable", "down")

        self.store.before = refuse
        self.shard.observe(SECRETS, self.secret({**MINE, **DRAIN}), False)
        await self.until(lambda: bool(self.told("acknowledged")), "acknowledged")
        self.assertEqual(tries, ["PATCH", "PATCH"])

    async def test_a_child_gets_the_label_and_is_cached_at_once(self) -> None:
        seen = []

        async def make(run: Run) -> None:
            there = run.child(CONFIG_MAPS, "c-x")
            seen.append(there)
            if there is None:
                await run.create(CONFIG_MAPS, self.child(run.main))

        self.reconcile = make
        secret = self.secret(MINE)
        self.shard.observe(SECRETS, secret, False)
        await self.until(lambda: len(self.told("end")) == 1, "run")
        made = self.store.objects[CONFIG_MAPS.path("ns", "c-x")]
        self.assertEqual(made["metadata"]["labels"], MINE)
        self.shard.enqueue(CONFIG_MAPS, made)
        await self.until(lambda: len(self.told("end")) == 2, "run by its child")
        self.assertEqual(seen[1], made)
        wrote = {"object": "ns/x", "verb": "create", "name": "c-x", "rv": made["metadata"]["resourceVersion"]}
        self.assertEqual(self.told("wrote"), [wrote])
        self.assertEqual([request[0] for request in self.store.requests], ["GET", "POST"])
        method, path, params = self.store.requests[1]
        self.assertEqual((method, path), ("POST", CONFIG_MAPS.path("ns")))
        self.assertEqual(params["timeout"], "10000ms")

    async def test_a_child_that_comes_after_its_gained_owner_is_not_made_again(self) -> None:
        async def make(run: Run) -> None:
            if run.child(CONFIG_MAPS, "c-x") is None:
                await run.create(CONFIG_MAPS, self.child(run.main))

        self.reconcile = make
        secret = self.secret(MINE)
        child = self.child(secret)
        child["metadata"]["labels"] = {"ring.ringmaster.dev/r": "b"}
        self.store.set(CONFIG_MAPS.path("ns", "c-x"), child)
        self.shard.observe(SECRETS, secret, False)
        await self.until(lambda: len(self.told("end")) == 1, "run")
        self.assertEqual(len(self.shard.caches[CONFIG_MAPS]), 0)
        self.store.patch(CONFIG_MAPS.path("ns", "c-x"), {"metadata": {"labels": MINE}})
        await self.until(lambda: len(self.shard.caches[CONFIG_MAPS]) == 1, "read again")
        await self.until(lambda: len(self.begun()) == len(self.told("end")) >= 3, "run with it")
        self.assertEqual((self.told("failed"), self.told("wrote")), ([], []))
        self.assertEqual({request[0] for request in self.store.requests}, {"GET"})

    async def test_an_update_carries_the_cached_version(self) -> None:
        child = self.store.set(CONFIG_MAPS.path("ns", "c-x"), self.child(self.secret(MINE)))
        self.shard.remember(CONFIG_MAPS, copy.deepcopy(child))
        self.store.patch(CONFIG_MAPS.path("ns", "c-x"), {"data": {"by": "another"}})

        async def change(run: Run) -> None:
            there = run.child(CONFIG_MAPS, "c-x")
            assert there is not None
            await run.update(CONFIG_MAPS, {**there, "data": {"by": "me"}})

        self.reconcile = change
        self.shard.observe(SECRETS, self.secret(MINE), False)
        await self.until(lambda: bool(self.told("end")), "run")
        failed = {"object": "ns/x", "verb": "update", "code": 409, "reason": "Conflict"}
        self.assertEqual(self.told("failed")[0], failed)
        self.shard.observe(CONFIG_MAPS, self.store.objects[CONFIG_MAPS.path("ns", "c-x")], False)
        await self.until(lambda: bool(self.told("wrote")), "run again")
        self.assertEqual(self.store.objects[CONFIG_MAPS.path("ns", "c-x")]["data"], {"by": "me"})

    async def test_an_update_without_a_version_is_refused_here(self) -> None:
        errors = []

        async def blind(run: Run) -> None:
            try:
                await run.update(CONFIG_MAPS, self.child(run.main))
            except ValueError as error:
                errors.append(str(error))

        self.reconcile = blind
        self.shard.observe(SECRETS, self.secret(MINE), False)
        await self.until(lambda: bool(errors), "refused")
        self.assertIn("metadata.resourceVersion", errors[0])

    async def test_a_write_whose_answer_is_lost_is_read_before_the_next_run(self) -> None:
        async def make(run: Run) -> None:
            if run.child(CONFIG_MAPS, "c-x") is None:
                await run.create(CONFIG_MAPS, self.child(run.main))

        self.reconcile = make
        self.store.lose = {"POST"}
        self.shard.observe(SECRETS, self.secret(MINE), False)
        await self.until(lambda: len(self.told("end")) == 2, "run again")
        self.assertEqual([request[0] for request in self.store.requests], ["GET", "POST", "GET"])
        self.assertEqual([failed["code"] for failed in self.told("failed")], [0])

    async def test_without_the_right_nothing_begins_and_nothing_is_sent(self) -> None:
        errors = []
        entered, go = asyncio.Event(), asyncio.Event()

        async def slow(run: Run) -> None:
            entered.set()
            await go.wait()
            try:
                await run.create(CONFIG_MAPS, self.child(run.main))
            except Lost as lost:
                errors.append(lost)
                raise

        self.reconcile = slow
        self.shard.observe(SECRETS, self.secret(MINE), False)
        await entered.wait()
        self.now = 1000
        go.set()
        await self.until(lambda: bool(errors), "refused")
        self.shard.observe(SECRETS, self.secret(MINE, "y"), False)
        self.shard.observe(SECRETS, self.secret({**MINE, **DRAIN}, "z"), False)
        await self.shard.stop(PATIENCE_S)
        self.assertEqual((self.begun(), self.store.requests), (["ns/x"], []))

    async def test_one_run_per_object_and_none_is_missed(self) -> None:
        running: set[tuple[str, str]] = set()
        entered, go = asyncio.Event(), asyncio.Event()

        async def slow(run: Run) -> None:
            self.assertNotIn(key_of(run.main), running)
            running.add(key_of(run.main))
            entered.set()
            await go.wait()
            running.discard(key_of(run.main))

        self.reconcile = slow
        secret = self.secret(MINE)
        self.shard.observe(SECRETS, secret, False)
        await entered.wait()
        for _ in range(5):
            self.shard.observe(SECRETS, secret, False)
        self.assertEqual(self.begun(), ["ns/x"])
        go.set()
        await self.until(lambda: len(self.told("end")) == 2, "run again")
        await self.settle()
        self.assertEqual(self.begun(), ["ns/x", "ns/x"])

    async def test_stop_waits_for_what_runs_and_begins_nothing_more(self) -> None:
        entered, go = asyncio.Event(), asyncio.Event()

        async def slow(run: Run) -> None:
            entered.set()
            await go.wait()
            await run.create(CONFIG_MAPS, self.child(run.main))

        self.reconcile = slow
        self.shard.observe(SECRETS, self.secret(MINE), False)
        await entered.wait()
        stop = asyncio.create_task(self.shard.stop(PATIENCE_S))
        await asyncio.sleep(0)
        self.shard.observe(SECRETS, self.secret(MINE, "y"), False)
        self.assertFalse(stop.done())
        go.set()
        self.assertTrue(await stop)
        self.assertEqual((self.begun(), len(self.told("wrote"))), (["ns/x"], 1))

    async def test_stop_cancels_what_runs_on_but_not_what_was_sent(self) -> None:
        sent, go = asyncio.Event(), asyncio.Event()
        call = self.store.call

        async def slow(*arguments: Any, **named: Any) -> Any:
            if arguments[0] == "POST":
                sent.set()
                await go.wait()
            return await call(*arguments, **named)

        async def make(run: Run) -> None:
            await run.create(CONFIG_MAPS, self.child(run.main))

        self.store.call = slow  # type: ignore[method-assign]
        self.reconcile = make
        self.shard.observe(SECRETS, self.secret(MINE), False)
        await sent.wait()
        stop = asyncio.create_task(self.shard.stop(0))
        await self.until(lambda: bool(self.told("end")), "cancelled")
        self.assertFalse(stop.done())
        go.set()
        self.assertTrue(await stop)
        self.assertEqual(len(self.told("wrote")), 1)

    async def test_older_events_change_nothing(self) -> None:
        cache = self.shard.caches[SECRETS]
        old, new = self.secret({}), self.secret(MINE)
        self.assertTrue(cache.put(new))
        self.assertFalse(cache.put(old))
        self.assertFalse(cache.drop(old))
        self.assertEqual(cache.get(("ns", "x")), new)
        self.assertTrue(cache.drop(new))
        self.assertEqual(len(cache), 0)

    async def test_a_sweep_drops_what_went_away_untold(self) -> None:
        secret = self.secret(MINE)
        child = self.store.set(CONFIG_MAPS.path("ns", "c-x"), {**self.child(secret)})
        stays = self.store.patch(CONFIG_MAPS.path("ns", "c-x"), {"metadata": {"name": "stays", "labels": MINE}})
        self.store.set(CONFIG_MAPS.path("ns", "stays"), stays)
        for kind, obj in ((SECRETS, secret), (CONFIG_MAPS, child), (CONFIG_MAPS, stays)):
            self.shard.remember(kind, obj)
        self.store.objects.pop(CONFIG_MAPS.path("ns", "c-x"))
        sweeper = Sweeper(self.shard, self.store)
        self.assertEqual(await sweeper.sweep(CONFIG_MAPS), 1)
        self.assertEqual(self.shard.caches[CONFIG_MAPS].keys(), [("ns", "stays")])
        await self.until(lambda: self.begun() == ["ns/x"], "its owner is run")
        self.assertEqual(await sweeper.sweep(SECRETS), 0)

    async def test_a_sweep_leaves_what_changed_meanwhile(self) -> None:
        secret = self.secret(MINE)
        self.shard.remember(SECRETS, secret)
        self.store.objects.clear()

        def changed(method: str, path: str) -> None:
            self.shard.remember(SECRETS, self.secret(MINE))
            self.store.objects.clear()

        self.store.before = changed
        self.assertEqual(await Sweeper(self.shard, self.store).sweep(SECRETS), 0)
        self.assertEqual(len(self.shard.caches[SECRETS]), 1)

    async def test_a_sweep_that_fails_is_tried_again(self) -> None:
        def refuse(method: str, path: str) -> None:
            raise Unreachable("down")

        self.store.before = refuse
        sweeper = Sweeper(self.shard, self.store)
        task = asyncio.create_task(sweeper.run())
        sweeper.ask()
        await self.until(lambda: len(self.store.requests) == 1, "asked")
        self.store.before = lambda method, path: None
        sweeper.ask()
        await self.until(lambda: len(self.store.requests) == 3, "both kinds")
        task.cancel()


class DelayTest(unittest.TestCase):
    def test_it_doubles_up_to_the_last(self) -> None:
        self.assertEqual([work.delay(n, 0.5) for n in (1, 2, 3)], [0.2, 0.4, 0.8])
        self.assertAlmostEqual(work.delay(1000, 1), 1.2 * work.LAST_DELAY_S)
