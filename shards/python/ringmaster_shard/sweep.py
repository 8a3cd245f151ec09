"""Finds what the watches didn't tell: kopf gives no event for an object that went away while its watch was down for so
long that it had to list anew. A list of metadata alone finds those, and they are dropped and their main objects run.

Never adds anything to a cache, and never drops what has changed since the list began.
"""

from __future__ import annotations

import asyncio
import logging

from .errors import Failure, Unreachable
from .naming import Key, Kind, key_of, version_of
from .shard import Client, Shard

# Between two sweeps when nothing asks for one, and after one that failed.
EVERY_S = 300.0
RETRY_S = 5.0
# Of one page.
PAGE = 500
REQUEST_S = 30.0
METADATA = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"}

log = logging.getLogger(__name__)


class Sweeper:
    """`run` it as a task of the shard's loop; cancelling ends it."""

    def __init__(self, shard: Shard, client: Client, namespaces: tuple[str, ...] = ()) -> None:
        self._shard, self._client, self._namespaces = shard, client, namespaces
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """For one soon: a watch has listed anew."""
        self._asked.set()

    async def run(self) -> None:
        pause = EVERY_S
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            pause = EVERY_S
            try:
                for kind in self._shard.caches:
                    await self.sweep(kind)
            except (Failure, Unreachable) as error:
                log.warning("not swept: %s", error)
                pause = RETRY_S

    async def sweep(self, kind: Kind) -> int:
        """How many objects it dropped."""
        cache = self._shard.caches[kind]
        before = [obj for obj in map(cache.get, cache.keys()) if obj is not None]
        there: set[Key] = set()
        for namespace in self._namespaces or (None,):
            there |= await self._list(kind, namespace)
        gone = [obj for obj in before if key_of(obj) not in there and cache.forget(key_of(obj), version_of(obj))]
        for obj in gone:
            self._shard.enqueue(kind, obj)
        return len(gone)

    async def _list(self, kind: Kind, namespace: str | None) -> set[Key]:
        there: set[Key] = set()
        params = {"labelSelector": self._shard.identity.selector, "limit": str(PAGE)}
        while True:
            path = kind.path(namespace)
            page = await self._client.call("GET", path, timeout=REQUEST_S, params=params, headers=METADATA)
            there.update(key_of(item) for item in page.get("items") or [])
            rest = (page.get("metadata") or {}).get("continue")
            if not rest:
                return there
            params["continue"] = rest
