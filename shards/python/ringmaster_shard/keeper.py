"""Keeps a shard's Lease: takes it, renews it, gives it back. Has a thread, an event loop and connections of its own, so
that nothing that a shard does can keep it from renewing.

Never decides what the right to work is for, and never gives a Lease back by itself: `release` is called once nothing
runs any more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from . import lease as leases
from .errors import Failure, Unreachable
from .lease import Seen, Times
from .naming import LEASES, Identity, Object
from .right import Right

# Of one request. Shorter than the renew deadline's default, so that a lost answer leaves time for another try.
REQUEST_S = 5.0
# How often a Lease is written anew at once because others wrote their labels meanwhile.
MAX_CONFLICTS = 3
# For giving the Lease back: beyond it others take it after its duration.
RELEASE_S = 5.0

log = logging.getLogger(__name__)


class Client(Protocol):
    """What the keeper needs of `api.Api`. It is made, used and closed in the keeper's loop."""

    async def call(self, method: str, path: str, *, timeout: float, body: Object | None = None) -> Any: ...

    async def close(self) -> None: ...


class _Gone(Exception):
    """The Lease is somebody else's, or isn't there."""


class Keeper:
    """Start it once. `held` is done when the Lease is; `lost` is called from its thread, once, when the right to work
    ends without `release`, and should end the process."""

    def __init__(
        self,
        connect: Callable[[], Client],
        identity: Identity,
        times: Times,
        right: Right,
        lost: Callable[[str], None],
    ) -> None:
        self.held: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._connect, self._identity, self._times, self._right, self._lost = connect, identity, times, right, lost
        self._path = LEASES.path(identity.namespace, identity.name)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def release(self) -> None:
        """Gives the Lease back, if it is held, and ends the thread. Blocks for at most twice `RELEASE_S`."""
        assert self._loop is not None and self._stop is not None, "start first"
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            pass  # its loop is closed: the right was lost
        self._thread.join(2 * RELEASE_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except Exception as error:  # whatever it is, nobody renews any more
            log.exception("the keeper of the Lease ended")
            self._end(f"the keeper of the Lease ended: {error!r}")

    def _end(self, why: str) -> None:
        self._right.end()
        if not self.held.done():
            self.held.set_exception(RuntimeError(why))
        self._lost(why)

    async def _keep(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        client = self._connect()
        try:
            mine = await self._acquire(client)
            if mine is None:
                return
            self.held.set_result(None)
            mine = await self._renew(client, mine)
            await self._release(client, mine)
        except _Gone as gone:
            self._end(str(gone))
        finally:
            await client.close()

    async def _pause(self, seconds: float) -> bool:
        """Whether it goes on after it."""
        assert self._stop is not None
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass
        return not self._stop.is_set()

    async def _acquire(self, client: Client) -> Object | None:
        """None when it is told to stop before."""
        before: Seen | None = None
        while True:
            pause = self._times.retry_period
            try:
                lease = await self._get(client)
                now = self._right.clock()
                before = None if lease is None else leases.seen(lease, before, now)
                left = 0.0 if before is None else leases.wait(self._identity, self._times, before, now)
                if left <= 0:
                    return await self._take(client, lease)
                assert before is not None
                log.info("%r has our Lease, waiting %.1f s", before.spec.get("holderIdentity"), left)
                pause = min(pause, left)
            except (Failure, Unreachable) as error:
                log.warning("can't have the Lease yet: %s", error)
            if not await self._pause(pause):
                return None

    async def _take(self, client: Client, lease: Object | None) -> Object:
        sent, wall = self._right.clock(), datetime.datetime.now(datetime.UTC)
        if lease is None:
            body = leases.created(self._identity, self._times, wall)
            path, method = LEASES.path(self._identity.namespace), "POST"
        else:
            body = leases.taken(lease, self._identity, self._times, wall)
            path, method = self._path, "PUT"
        mine: Object = await client.call(method, path, body=body, timeout=REQUEST_S)
        self._right.extend(sent + self._times.renew_deadline)
        return mine

    async def _renew(self, client: Client, mine: Object) -> Object:
        """Until it is told to stop. `_Gone` when the right to work has ended."""
        while await self._pause(min(self._times.retry_period, self._right.left())):
            left = self._right.left()
            if left <= 0:
                raise _Gone(f"not renewed within {self._times.renew_deadline} s")
            try:
                mine = await self._renew_once(client, mine, min(left, REQUEST_S))
            except (Failure, Unreachable) as error:
                log.warning("the Lease is not renewed, %.1f s are left: %s", self._right.left(), error)
        return mine

    async def _renew_once(self, client: Client, mine: Object, timeout: float) -> Object:
        for _ in range(MAX_CONFLICTS):
            sent, wall = self._right.clock(), datetime.datetime.now(datetime.UTC)
            body = leases.renewed(mine, self._identity, wall)
            try:
                lease: Object = await client.call("PUT", self._path, body=body, timeout=timeout)
            except Failure as failure:
                if failure.code not in (404, 409):
                    raise
                mine = await self._confirm(client, mine, timeout)
                continue
            self._right.extend(sent + self._times.renew_deadline)
            return lease
        log.warning("the Lease is not renewed: others wrote it %d times meanwhile", MAX_CONFLICTS)
        return mine

    async def _confirm(self, client: Client, mine: Object, timeout: float) -> Object:
        """The Lease as it is now, if it is still ours; `_Gone` otherwise."""
        lease = await self._get(client, timeout)
        if lease is None:
            raise _Gone("somebody deleted the Lease")
        if not leases.same_holding(lease, mine):
            raise _Gone(f"the Lease was taken: its holder is {(lease.get('spec') or {}).get('holderIdentity')!r}")
        return lease

    async def _get(self, client: Client, timeout: float = REQUEST_S) -> Object | None:
        try:
            lease: Object = await client.call("GET", self._path, timeout=timeout)
        except Failure as failure:
            if failure.code == 404:
                return None
            raise
        return lease

    async def _release(self, client: Client, mine: Object) -> None:
        self._right.end()
        try:
            async with asyncio.timeout(RELEASE_S):
                for _ in range(MAX_CONFLICTS):
                    try:
                        await client.call("PUT", self._path, body=leases.released(mine), timeout=RELEASE_S)
                        return
                    except Failure as failure:
                        if failure.code not in (404, 409):
                            raise
                    mine = await self._confirm(client, mine, RELEASE_S)
        except (Failure, Unreachable, TimeoutError, _Gone) as error:
            log.warning("the Lease is not given back: %s", error)
