"""Who may use the engine's places, so that a session that is thinking never blocks one that could work.

vLLM computes at most ``max_num_seqs`` requests at once, and a session's open request holds its place between two
messages. Places are therefore lent: whoever has been idle longest gives up its place when somebody waits, and comes
back over the prefix cache. Knows no engine: a place is taken away by calling what its holder gave.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deployments import admission

GRACE = 0.02
"""Seconds of idleness that nobody is put out before: a session in lockstep asks again after one round trip and one
merge, some milliseconds, and reopening costs a step."""


@dataclass(slots=True, eq=False)
class Seat:
    """A place held by a session's open request."""

    leave: Callable[[], None]
    """Called when the place is taken away; must end the open request."""
    idle_since: float | None = None
    """When its session was last answered; ``None`` while the engine works for it."""

    def work(self) -> None:
        """The engine works for it again: until it rests it cannot be taken away."""
        self.idle_since = None


@dataclass(slots=True, eq=False)
class _Waiting:
    holds: bool
    granted: asyncio.Future[None]


class Seats:
    """The places of one engine.

    First come, first served; only when sessions hold all that sessions may hold do plain requests pass those waiting.
    """

    def __init__(self, capacity: int, reserve: int | None = None, grace: float = GRACE) -> None:
        """
        Args:
            capacity: places, at least 1.
            reserve: places that sessions never hold, so that plain requests always get on. Omitted: an eighth, at
                least one unless there is only one.
            grace: seconds of idleness that are left to every holder.
        """
        self.capacity = capacity
        self.reserve = admission.reserve(capacity) if reserve is None else reserve
        self.held = 0
        """Places that sessions hold."""
        self.plain_held = 0
        """Places of plain requests."""
        self.evicted = 0
        """Places taken away so far."""
        self._grace = grace
        self._seats: set[Seat] = set()
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    async def hold(self, leave: Callable[[], None]) -> Seat:
        """A place for a session's open request, which counts as working until it rests."""
        await self._turn(holds=True)
        seat = Seat(leave)
        self._seats.add(seat)
        return seat

    @asynccontextmanager
    async def plain(self) -> AsyncIterator[None]:
        """A place for one request that ends by itself."""
        await self._turn(holds=False)
        try:
            yield
        finally:
            self._count(False, -1)

    def rest(self, seat: Seat) -> None:
        """The engine has answered the holder; from now on its place may be taken away."""
        if seat in self._seats:
            seat.idle_since = time.monotonic()
            self._settle()

    def free(self, seat: Seat) -> None:
        """Give a place back; harmless if it was taken away."""
        if seat in self._seats:
            self._seats.remove(seat)
            self._count(True, -1)

    async def _turn(self, *, holds: bool) -> None:
        waiting = _Waiting(holds, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._settle()
        try:
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self._count(holds, -1)
            raise

    def _count(self, holds: bool, change: int) -> None:
        if holds:
            self.held += change
        else:
            self.plain_held += change
        if change < 0:
            self._settle()

    def _settle(self) -> None:
        """Give out what is free, and take from the idle what is waited for."""
        while (waiting := self._next()) is not None:
            self._waiting.remove(waiting)
            self._count(waiting.holds, 1)
            waiting.granted.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._make_room()

    def _next(self) -> _Waiting | None:
        """The first of those waiting that there is a place for."""
        if self.held + self.plain_held >= self.capacity:
            return None
        full = self.held >= self.capacity - self.reserve
        return next((waiting for waiting in self._waiting if not (waiting.holds and full)), None)

    def _make_room(self) -> None:
        """Put out whoever has been idle longest, now or as soon as its grace is over."""
        idle = [(seat.idle_since, seat) for seat in self._seats if seat.idle_since is not None]
        if not idle:
            return
        since, seat = min(idle, key=lambda item: item[0])
        left = since + self._grace - time.monotonic()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._settle)
            return
        self.evicted += 1
        self._seats.remove(seat)
        seat.leave()
        self._count(True, -1)
