"""What is to be run, and who runs it: each key once in the queue, never twice at a time, again later when it failed.

Never knows what a run does.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import random
from collections.abc import Awaitable, Callable

from .errors import Behind, Failure, Unreachable
from .naming import Key
from .right import Lost

# Runs at a time.
WORKERS = 10
# After the first failure in a row, doubling up to the last one, each +-20 %.
FIRST_DELAY_S = 0.2
LAST_DELAY_S = 30.0
# How long a run that was cancelled may still take.
CANCELLED_S = 2.0

log = logging.getLogger(__name__)


def delay(failures: int, chance: float) -> float:
    """Seconds after so many failures in a row, for a chance between 0 and 1."""
    return min(FIRST_DELAY_S * 2.0 ** min(failures - 1, 20), LAST_DELAY_S) * (0.8 + 0.4 * chance)


class Work:
    """Belongs to one event loop. At most one entry per key: it is as long as there are objects."""

    def __init__(self, run: Callable[[Key], Awaitable[None]], workers: int = WORKERS) -> None:
        if workers < 1:
            raise ValueError(f"workers: {workers}; at least 1")
        self._run, self._workers = run, workers
        self._ready: collections.deque[Key] = collections.deque()
        self._queued: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._later: dict[Key, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"worker {n}") for n in range(self._workers)]

    def add(self, key: Key) -> None:
        later = self._later.pop(key, None)
        if later is not None:
            later.cancel()
        if self._stopped or key in self._queued:
            return
        if key in self._running:
            self._again.add(key)
            return
        self._queued.add(key)
        self._ready.append(key)
        self._wake.set()

    async def stop(self, bound: float) -> bool:
        """Begins nothing more. Whether all that ran has ended: within `bound` seconds, or once it was cancelled."""
        self._stopped = True
        self._wake.set()
        for later in self._later.values():
            later.cancel()
        self._later.clear()
        running = set(self._tasks)
        if running:
            _, running = await asyncio.wait(running, timeout=bound)
        for task in running:
            task.cancel()
        if running:
            _, running = await asyncio.wait(running, timeout=CANCELLED_S)
        return not running

    async def _work(self) -> None:
        while True:
            while not self._ready and not self._stopped:
                self._wake.clear()
                await self._wake.wait()
            if self._stopped:
                return
            key = self._ready.popleft()
            self._queued.discard(key)
            self._running.add(key)
            try:
                await self._run(key)
            except asyncio.CancelledError as error:
                # Something that the run waited for was cancelled, not this.
                if self._stopped or asyncio.current_task().cancelling():
                    raise
                self._failed(key, error)
            except Exception as error:
                self._failed(key, error)
            else:
                self._failures.pop(key, None)
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _failed(self, key: Key, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = delay(failures, random.random())
        trace = None if isinstance(error, (Behind, Failure, Unreachable, Lost)) else error
        log.warning("%s/%s: %s; again in %.1f s", *key, error, seconds, exc_info=trace)
        if not self._stopped and key not in self._again:
            self._later[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)
