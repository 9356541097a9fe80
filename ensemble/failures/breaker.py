"""A breaker for each member: after several failures in a row the member is left alone for a while, then tried by one.

Shared by all requests of a driver. Whoever asks the member tells how it went; what a client did wrong is not told.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed: everyone may ask. Open: no one may. Half open: one may, and how that goes decides.

    >>> now = [0.0]
    >>> breaker = Breaker(failures=2, seconds=5, clock=lambda: now[0])
    >>> breaker.failed(); breaker.failed(); breaker.admits()
    False
    >>> now[0] = 6.0
    >>> breaker.admits(), breaker.admits()
    (True, False)
    >>> breaker.succeeded(); breaker.admits()
    True
    """

    def __init__(self, *, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            failures: in a row, that open it.
            seconds: that it stays open; and that one who tries the member has to tell how it went.
            clock: seconds.
        """
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._closed_until: float | None = None
        self.troubled = False
        """Whether there was a failure since the last success."""

    @property
    def open(self) -> bool:
        """Whether nobody, or only whoever tries the member, may ask."""
        return self._closed_until is not None

    @property
    def due(self) -> bool:
        """Whether somebody may ask, without being the one."""
        return self._closed_until is None or self._clock() >= self._closed_until

    def admits(self) -> bool:
        """Whether the caller may ask; where the breaker is open and its time is over, the first caller is the one."""
        if not self.due:
            return False
        if self.open:
            self._closed_until = self._clock() + self._seconds
        return True

    def succeeded(self) -> None:
        self._failures, self._closed_until, self.troubled = 0, None, False

    def failed(self) -> None:
        self._failures, self.troubled = self._failures + 1, True
        if self._failures >= self._most or self.open:
            self.trip()

    def trip(self) -> None:
        """Open it at once: the member is known to be lost."""
        self.troubled = True
        self._closed_until = self._clock() + self._seconds
