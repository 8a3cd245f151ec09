"""What a shard does with one object: nothing if it isn't its own, let go of it if it is to be drained, otherwise the
user's function; and the client by which that function writes.

Never watches and never renews. Nothing begins, and nothing is sent, without the right to work.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from .cache import Cache
from .errors import Behind, Failure, Unreachable
from .naming import Identity, Key, Kind, Object, controller_of, key_of, labels_of
from .right import Right
from .work import WORKERS, Work

# Of one request, and of the server's work on it. Shorter where less is left of the right to work.
REQUEST_S = 10.0
# For the answer to a write that the server gave up at its own timeout.
ANSWER_S = 2.0
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}

# What is told of a shard's doings: an event's name, and its fields. It must not block, and may be called by any thread.
Listener = Callable[[str, Mapping[str, Any]], None]


class Client(Protocol):
    """What a shard needs of `api.Api`."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        params: dict[str, str] | None = None,
        body: Object | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any: ...


class Run:
    """One run of the user's function: what it may read, and how it writes.

    Writes raise `Lost` without the right to work, `Failure` when they are refused, `Unreachable` when nobody knows. To
    let all of them through is right: the object is run again later."""

    def __init__(self, shard: Shard, main: Object) -> None:
        self._shard = shard
        self.main = main
        """The object, a copy."""

    @property
    def labels(self) -> dict[str, str]:
        """What `create` gives every child."""
        return self._shard.identity.labels

    def check(self) -> float:
        """For a write by any other way, just before it: the seconds that are left of the right to work, or `Lost`."""
        return self._shard.right.check()

    def child(self, kind: Kind, name: str) -> Object | None:
        """A copy of what the cache has of it, in the namespace of the main object."""
        obj = self._shard.caches[kind].get((self.main["metadata"].get("namespace", ""), name))
        return copy.deepcopy(obj)

    async def create(self, kind: Kind, obj: Object) -> Object:
        """With this shard's label. Returns what the server made of it. `Behind` if the object is new to this shard and
        the child is there, though the cache lacks it yet."""
        obj = copy.deepcopy(obj)
        obj["metadata"]["labels"] = {**labels_of(obj), **self.labels}
        await self._shard.confirm_absent(self.main, kind, key_of(obj))
        return await self._shard.write(self.main, "create", kind, obj)

    async def update(self, kind: Kind, obj: Object) -> Object:
        """As it was read, with its resourceVersion: if it has changed since, it is refused with 409. ValueError without
        a resourceVersion."""
        if not obj["metadata"].get("resourceVersion"):
            raise ValueError(f"{kind.kind} {key_of(obj)}: no metadata.resourceVersion; change what `child` returns")
        return await self._shard.write(self.main, "update", kind, copy.deepcopy(obj))


Reconcile = Callable[[Run], Awaitable[None]]


class Shard:
    """Belongs to one event loop. Begins with `start`; told by `observe` what the watches bring."""

    def __init__(
        self,
        identity: Identity,
        main: Kind,
        controlled: Sequence[Kind],
        reconcile: Reconcile,
        client: Client,
        right: Right,
        listener: Listener,
        workers: int = WORKERS,
    ) -> None:
        self.identity, self.main, self.controlled = identity, main, tuple(controlled)
        self.caches = {kind: Cache() for kind in (main, *controlled)}
        self.right = right
        self._reconcile, self._client, self._listener = reconcile, client, listener
        self._work = Work(self._run, workers)
        self._writes: set[asyncio.Task[Object]] = set()
        # Of main objects: children whose last write had no answer.
        self._unknown: dict[Key, set[tuple[Kind, Key]]] = {}
        # Main objects that weren't run to the end yet. Kinds have watches of their own, so that one which another shard
        # had may come before its children do.
        self._gained: set[Key] = set()

    def start(self) -> None:
        self._work.start()

    async def stop(self, bound: float) -> bool:
        """Begins nothing more. Whether nothing runs any more, and every write has its outcome: within `bound` seconds,
        or soon after what ran was cancelled."""
        ended = await self._work.stop(bound)
        if self._writes:
            await asyncio.wait(self._writes, timeout=REQUEST_S + ANSWER_S)
        return ended and not self._writes

    def remember(self, kind: Kind, obj: Object) -> None:
        """Of a list or an event: only the cache is to know it yet."""
        if kind == self.main and self.caches[kind].get(key_of(obj)) is None:
            self._gained.add(key_of(obj))
        self.caches[kind].put(obj)

    def observe(self, kind: Kind, obj: Object, deleted: bool) -> None:
        """An event. Deleted is also what lost this shard's label."""
        if deleted:
            self.caches[kind].drop(obj)
        else:
            self.remember(kind, obj)
        self.enqueue(kind, obj)

    def enqueue(self, kind: Kind, obj: Object) -> None:
        """The object, or the one that controls it. A drain comes as any other change: nothing filters it out."""
        key = key_of(obj) if kind == self.main else controller_of(obj, self.main)
        if key is not None:
            self._work.add(key)

    async def _run(self, key: Key) -> None:
        await self._settle(key)
        main = self.caches[self.main].get(key)
        if main is None or not self._is_mine(main):
            self._gained.discard(key)
            return
        self.right.check()
        if self.identity.drain_label in labels_of(main):
            await self._acknowledge(key, main)
            return
        name = shown(key)
        self._listener("begin", {"object": name})
        try:
            await self._reconcile(Run(self, copy.deepcopy(main)))
        finally:
            self._listener("end", {"object": name})
        self._gained.discard(key)

    def _is_mine(self, obj: Object) -> bool:
        return labels_of(obj).get(self.identity.shard_label) == self.identity.name

    async def _acknowledge(self, key: Key, main: Object) -> None:
        labels = {self.identity.shard_label: None, self.identity.drain_label: None}
        body = {"metadata": {"resourceVersion": main["metadata"]["resourceVersion"], "labels": labels}}
        try:
            patched = await self._send("PATCH", self.main.path(*key), body, MERGE_PATCH)
        except Failure as failure:
            if failure.code in (404, 409):
                return  # it has changed since: an event follows
            raise
        self.caches[self.main].put(patched)
        self._listener("acknowledged", {"object": shown(key), "rv": patched["metadata"]["resourceVersion"]})

    async def confirm_absent(self, main: Object, kind: Kind, child: Key) -> None:
        """Before the create of a child: `Behind` if the object is new to this shard and the child is there."""
        if key_of(main) in self._gained and await self._read(kind, child):
            raise Behind(f"{kind.kind} {shown(child)} is there, though the cache lacks it yet")

    async def write(self, main: Object, verb: str, kind: Kind, obj: Object) -> Object:
        """A child of `main`. A run that is cancelled doesn't take back what was sent: `stop` waits for its outcome."""
        task = asyncio.create_task(self._write(key_of(main), verb, kind, obj), name=f"{verb} {kind.plural}")
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    async def _write(self, main: Key, verb: str, kind: Kind, obj: Object) -> Object:
        namespace, name = key_of(obj)
        path, method = (kind.path(namespace), "POST") if verb == "create" else (kind.path(namespace, name), "PUT")
        told = {"object": shown(main), "verb": verb}
        try:
            written = await self._send(method, path, obj)
        except Failure as failure:
            self._listener("failed", {**told, "code": failure.code, "reason": failure.reason})
            raise
        except Unreachable:
            self._unknown.setdefault(main, set()).add((kind, key_of(obj)))
            self._listener("failed", {**told, "code": 0, "reason": "Unreachable"})
            raise
        self.caches[kind].put(written)
        self._listener("wrote", {**told, "name": name, "rv": written["metadata"]["resourceVersion"]})
        return written

    async def _send(self, method: str, path: str, body: Object, headers: dict[str, str] | None = None) -> Object:
        limit = min(self.right.check(), REQUEST_S)
        params = {"timeout": f"{max(int(limit * 1000), 1)}ms"}
        answer: Object = await self._client.call(
            method, path, timeout=limit + ANSWER_S, params=params, body=body, headers=headers
        )
        return answer

    async def _settle(self, key: Key) -> None:
        """Reads again the children of an object whose last write had no answer."""
        unknown = self._unknown.get(key)
        while unknown:
            kind, child = next(iter(unknown))
            await self._read(kind, child)
            unknown.discard((kind, child))
        self._unknown.pop(key, None)

    async def _read(self, kind: Kind, child: Key) -> bool:
        """Whether it is there, now. What isn't this shard's isn't cached: its events don't come."""
        limit = min(self.right.check(), REQUEST_S)
        try:
            there = await self._client.call("GET", kind.path(*child), timeout=limit)
        except Failure as failure:
            if failure.code != 404:
                raise
            return False
        if self._is_mine(there):
            self.caches[kind].put(there)
        return True


def shown(key: Key) -> str:
    namespace, name = key
    return f"{namespace}/{name}" if namespace else name
