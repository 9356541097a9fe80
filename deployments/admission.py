"""Admission: how many requests one driver co-decodes at once.

A session that is being decoded holds a place at its member, and a request holds one at every member. Were each place
waited for by itself, two requests could hold what the other needs. So a request waits once, for all of its places
together, first come first served, before it opens anything. What other drivers of the same members do is not seen from
here: the members' engines take places back from idle sessions, so that all drivers together may slow down but not lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def reserve(places: int) -> int:
    """Of a member's places those that co-decoding leaves to plain requests: an eighth, at least one if there are more.

    >>> [reserve(places) for places in (1, 2, 16, 64)]
    [0, 1, 2, 8]
    """
    return min(max(1, places // 8), places - 1)


class Admission:
    """Places of one driver.

    >>> async def main() -> int:
    ...     admission = Admission(places=2)
    ...     async with admission.held(1), admission.held(1):
    ...         return admission.free
    >>> asyncio.run(main())
    0
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self.free = places
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that wait for places."""
        return len(self._waiting)

    @asynccontextmanager
    async def held(self, places: int) -> AsyncIterator[None]:
        """Wait for places and hold them.

        Args:
            places: choices that the request decodes at once; more than there are count as all.
        """
        places = min(places, self._places)
        await self._taken(places)
        try:
            yield
        finally:
            self._returned(places)

    async def _taken(self, places: int) -> None:
        if not self._waiting and places <= self.free:
            self.free -= places
            return
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

    def _returned(self, places: int) -> None:
        self.free += places
        while self._waiting and self._waiting[0][0] <= self.free:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self.free -= wanted
                turn.set_result(None)
