"""A process's right to work: until when it may begin a run, or send a write.

Never renews anything and never ends the process: the keeper does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def now() -> float:
    """Seconds on a clock that goes on while the process is stopped and the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lost(Exception):
    """This shard's right to work has ended. Its objects are, or will soon be, somebody else's."""


class Right:
    """Any thread may ask. Once it has ended it stays so."""

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self.clock = clock
        self._until: float | None = None
        self._ended = False
        self._lock = threading.Lock()

    def extend(self, until: float) -> None:
        """Until that second of the clock, unless it has ended or run out before."""
        with self._lock:
            if self._until is not None and self.clock() >= self._until:
                self._ended = True
            self._until = until

    def end(self) -> None:
        """At once, and for ever."""
        with self._lock:
            self._ended = True

    def left(self) -> float:
        """Seconds; 0 without the right."""
        with self._lock:
            if self._ended or self._until is None:
                return 0.0
            left = self._until - self.clock()
            if left <= 0:
                self._ended = True
            return max(left, 0.0)

    def check(self) -> float:
        """The seconds that are left, or `Lost`."""
        left = self.left()
        if left <= 0:
            raise Lost("the Lease was not renewed in time, or is somebody else's")
        return left
