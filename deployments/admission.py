"""Admission: how many requests one driver works on at once, and how many may wait for their turn.

A request holds a place at every member. Were each place waited for by itself, two requests could hold what the other
needs. So a request waits once, for all of its places together, first come first served, before it opens anything. What
other drivers of the same members do is not seen from here: the members' engines take places back from idle sessions,
so that all drivers together may slow down but not lock.

Nor do ensembles within one another lock. Whoever holds places here waits for places only at ensembles further in; a
configuration has no cycles, and the innermost wait for models alone, which come to their end.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ensemble.errors import QueueFull

_LONGEST = 60
"""Seconds after which the last one is told to come again."""
_RECENT = 0.2
"""Weight of the latest request in the mean time that a place is held."""


def reserve(places: int) -> int:
    """Of a member's places those that co-decoding leaves to plain requests: an eighth, at least one if there are more.

    >>> [reserve(places) for places in (1, 2, 16, 64)]
    [0, 1, 2, 8]
    """
    return min(max(1, places // 8), places - 1)


class Admission:
    """Places of one driver, and the queue before them.

    >>> async def main() -> int:
    ...     admission = Admission(places=2, queue=64)
    ...     async with admission.held(1), admission.held(1):
    ...         return admission.free
    >>> asyncio.run(main())
    0
    """

    def __init__(self, places: int, queue: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            queue: requests that may wait; 0: none, what finds no place is refused.
            clock: seconds.
        """
        self._places, self._queue, self._clock = places, queue, clock
        self.free = places
        self.refused = 0
        """Requests that found the queue full."""
        self._seconds = 0.0
        """Mean time that a place is held, the latest requests counting most; 0 before the first has ended."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._returning: list[float] = []
        """When those will come again that were refused, the next one first."""

    @property
    def waiting(self) -> int:
        """Requests that wait for places."""
        return len(self._waiting)

    @asynccontextmanager
    async def held(self, places: int) -> AsyncIterator[None]:
        """Wait for places and hold them.

        Args:
            places: choices that the request decodes at once; more than there are count as all.

        Raises:
            QueueFull: at once, if as many wait already as may.
        """
        places = min(places, self._places)
        await self._taken(places)
        began = self._clock()
        try:
            yield
        finally:
            self._note(self._clock() - began)
            self._returned(places)

    async def _taken(self, places: int) -> None:
        if not self._waiting and places <= self.free:
            self.free -= places
            return
        if len(self._waiting) >= self._queue:
            raise self._full()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((places, turn))
        try:
            await turn
        except asyncio.CancelledError:
            came = turn.done() and not turn.cancelled()
            if (places, turn) in self._waiting:
                self._waiting.remove((places, turn))
            self._returned(places if came else 0)
            raise

    def _full(self) -> QueueFull:
        self.refused += 1
        error = QueueFull(f"{self.waiting} requests wait for their turn already; more are not taken on")
        now = self._clock()
        while self._returning and self._returning[0] <= now:
            heapq.heappop(self._returning)
        # Behind those that wait come those that were sent away before: told the same time, all would come at once.
        before = sum(places for places, _ in self._waiting) + len(self._returning)
        error.retry_after = min(max(1, math.ceil(before * self._seconds / self._places)), _LONGEST)
        heapq.heappush(self._returning, now + error.retry_after)
        return error

    def _note(self, seconds: float) -> None:
        self._seconds += (seconds - self._seconds) * (_RECENT if self._seconds else 1)

    def _returned(self, places: int) -> None:
        self.free += places
        while self._waiting and self._waiting[0][0] <= self.free:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self.free -= wanted
                turn.set_result(None)
