"""Runs a shard: the Lease's keeper in a thread, kopf and its watches in another, the runs in the caller's.

kopf only watches here. It lists and watches with this shard's label as the selector, so the API server sends nothing
else; it posts no events, knows no peers, and writes no annotation and no finalizer, since no handler asks for any.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import kopf

from .api import Api, Login, login
from .keeper import Keeper
from .lease import Times
from .naming import Identity, Kind, Object
from .right import Right
from .shard import Listener, Reconcile, Shard
from .sweep import Sweeper
from .work import WORKERS

# How long runs may go on after the process was told to stop, before they are cancelled.
STOP_S = 10.0
# For kopf's own end, after the Lease was given back.
KOPF_STOP_S = 3.0
# Between kopf's tries of one request; then it gives up, and so does the shard.
BACKOFFS_S = (0.1, 0.2, 0.5) + (1.0,) * 60
# For a listener that blocks, before a process without the right to work ends.
LAST_WORD_S = 1.0
LOST = 1
FAILED = 2

log = logging.getLogger(__name__)


def quiet(event: str, fields: Mapping[str, Any]) -> None:
    """The listener that tells nobody."""


@dataclass(frozen=True)
class Operator:
    """A shard's process, from its Lease to its end. `run` it once."""

    identity: Identity
    main: Kind
    controlled: Sequence[Kind]
    """The kinds of `main`'s children, which the ring lists too."""
    reconcile: Reconcile
    """Called for an object of `main` that is this shard's, when it or a child of it changes: one run per object at a
    time. One that raises is called again, later and later. All share one event loop, so it must not block."""
    times: Times = field(default_factory=Times)
    namespaces: tuple[str, ...] = ()
    """Where it works; everywhere, if there is none."""
    listener: Listener = quiet
    workers: int = WORKERS
    """Runs at a time, of all objects."""
    stop_s: float = STOP_S
    """How long runs may go on after the process was told to stop, before they are cancelled."""
    login: Login = login

    def run(self) -> int:
        """Until SIGTERM or SIGINT; to be called from the main thread. Returns what the process should exit with: 0 when
        it was told to stop, `FAILED` when kopf ended by itself. Where the right to work is lost it doesn't return: the
        process ends at once, with `LOST`; with `FAILED` if what runs can't be ended."""
        return asyncio.run(self._serve())

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        right = Right()
        keeper = Keeper(lambda: Api(self.login), self.identity, self.times, right, lambda why: die(why, self.listener))
        keeper.start()
        held: asyncio.Future[Any] = asyncio.wrap_future(keeper.held)
        stopped: asyncio.Future[Any] = asyncio.create_task(stopping.wait(), name="stop")
        await asyncio.wait([held, stopped], return_when=asyncio.FIRST_COMPLETED)
        watches = None
        if held.done():
            self.listener("started", {})
            watches = await self._work(right, stopping)
        stopped.cancel()
        await asyncio.to_thread(keeper.release)
        self.listener("stopped", {})
        if watches is None:
            return 0
        await asyncio.to_thread(watches.join)
        return FAILED if watches.failed else 0

    async def _work(self, right: Right, stopping: asyncio.Event) -> Watches:
        """Until it is told to stop, and nothing runs any more."""
        client = Api(self.login)
        shard = Shard(
            self.identity, self.main, self.controlled, self.reconcile, client, right, self.listener, self.workers
        )
        sweeper = Sweeper(shard, client, self.namespaces)
        sweeping = asyncio.create_task(sweeper.run(), name="sweep")
        watches = Watches(shard, sweeper, stopping, self.namespaces, self.login)
        shard.start()
        watches.start()
        await stopping.wait()
        watches.tell()
        ended = await shard.stop(self.stop_s)
        sweeping.cancel()
        await asyncio.wait([sweeping])
        if not ended:
            log.error("what runs can't be ended: the Lease is kept, so that nobody takes over before it has expired")
            os._exit(FAILED)
        await client.close()
        return watches


def die(why: str, listener: Listener) -> None:
    """Ends the process from whatever thread, running nothing more."""
    deadline = threading.Timer(LAST_WORD_S, os._exit, (LOST,))
    deadline.daemon = True
    deadline.start()
    log.error("the right to work is lost: %s", why)
    listener("lost", {})
    os._exit(LOST)


class Watches:
    """kopf, in a thread of its own: what it sees is handed to the shard's loop in the order in which it came."""

    def __init__(
        self,
        shard: Shard,
        sweeper: Sweeper,
        ended: asyncio.Event,
        namespaces: tuple[str, ...],
        login: Login,
    ) -> None:
        self.failed = False
        """Whether kopf ended though nobody told it to."""
        self._outer = asyncio.get_running_loop()
        self._shard, self._sweeper, self._ended = shard, sweeper, ended
        self._namespaces, self._login = namespaces, login
        self._known: set[str] = set()
        self._inner: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def tell(self) -> None:
        """To end."""
        assert self._inner is not None and self._stop is not None, "start first"
        try:
            self._inner.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            pass  # its loop is closed: it has ended

    def join(self) -> None:
        """Blocks for at most `KOPF_STOP_S`: it only reads, so the process may end before it."""
        self._thread.join(KOPF_STOP_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._operate())
        except Exception:
            log.exception("kopf ended")
        if self._stop is None or not self._stop.is_set():
            self.failed = True
            self._call(self._ended.set)

    async def _operate(self) -> None:
        self._inner, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await kopf.operator(
            registry=self._registry(),
            settings=settings(self._shard),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, id="login")(lambda **_: self._login())
        for kind in self._shard.caches:
            names = (kind.group, kind.version, kind.plural)
            # kopf calls what indexes for every object of its first lists before any other handler: so all caches are
            # filled before the first run.
            kopf.index(*names, registry=registry, id=f"remember-{kind.plural}")(self._remember(kind))
            kopf.on.event(*names, registry=registry, id=f"observe-{kind.plural}")(self._observe(kind))
        return registry

    def _remember(self, kind: Kind) -> Callable[..., Any]:
        async def remember(body: kopf.Body, **_: Any) -> None:
            self._call(self._shard.remember, kind, dict(body))

        return remember

    def _observe(self, kind: Kind) -> Callable[..., Any]:
        async def observe(event: kopf.RawEvent, **_: Any) -> None:
            obj: Object = dict(event["object"])
            self._note(event["type"], obj)
            self._call(self._shard.observe, kind, obj, event["type"] == "DELETED")

        return observe

    def _note(self, change: str | None, obj: Object) -> None:
        """An object that comes in a list a second time tells that a watch had to list anew."""
        uid = obj["metadata"]["uid"]
        if change == "DELETED":
            self._known.discard(uid)
        elif change is None and uid in self._known:
            self._call(self._sweeper.ask)
        else:
            self._known.add(uid)

    def _call(self, what: Callable[..., object], *arguments: Any) -> None:
        """In the shard's loop, in order."""
        try:
            self._outer.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            pass  # its loop is closed: the process ends


def settings(shard: Shard) -> kopf.OperatorSettings:
    """kopf's, for watches that the API server filters by this shard's label, and nothing else."""
    made = kopf.OperatorSettings()
    for kind in shard.caches:
        made.watching.label_selectors[kind.group, kind.version, kind.plural] = shard.identity.selector
    made.scanning.disabled = True
    made.peering.standalone = True
    made.posting.enabled = False
    made.process.ultimate_exiting_timeout = None
    made.networking.connect_timeout = 5.0
    made.networking.request_timeout = 30.0
    made.networking.error_backoffs = BACKOFFS_S
    return made
