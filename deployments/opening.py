"""Opening a session at a replica that lives: again, elsewhere, and in good time.

A key decides which replica is asked, so another replica is asked with another key. Knows neither Ray nor sockets: how a
session is opened and closed is told to it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from deployments.calls import new_session
from deployments.wire.connection import GONE
from deployments.wire.line import Line
from deployments.wire.server import Address
from ensemble.errors import EnsembleError, MemberLost, OtherVersion
from ensemble.request import Request

HEDGE = 2.0
"""Seconds without an answer after which a second replica is asked as well. An opening computes nothing."""
ELSEWHERE = 0.25
"""The same where a replica is known that had better not be asked, or where one was lost lately: it may well be the one
that does not answer, as Serve keeps calls to a lost replica until it has noticed."""
LATELY = 30.0
"""Seconds in which Serve notices that a replica is lost, on a busy machine too."""
KEYS = 12
"""Keys that are drawn for another replica than a certain one; one of two has up to three fifths of all keys, so that
the other one is missed twice in a thousand times."""
VERSIONS = 12
"""Replicas of other versions that are asked before there seems to be none of the right one."""
LONGEST_PAUSE = 0.05
"""Seconds between two tries at most; most are for a replica that Serve does not know yet to be lost."""


class Opened(NamedTuple):
    """A session that has just been opened."""

    key: str
    line: Line


class Opener:
    """Opens the sessions of one member."""

    def __init__(
        self,
        member: str,
        attempt: Callable[[str, Request], Awaitable[Line]],
        close: Callable[[str], Awaitable[None]],
    ) -> None:
        """
        Args:
            attempt: opens a session under a key and connects to where it is.
            close: ends one that may have been opened.
        """
        self.member = member
        self._attempt, self._close = attempt, close
        self._closing = set[asyncio.Task[None]]()
        self._lost = -math.inf
        """When a replica was last found to be lost."""

    @property
    def patience(self) -> float:
        """Seconds to wait for a replica before another one is asked as well."""
        return ELSEWHERE if time.monotonic() - self._lost < LATELY else HEDGE

    async def opened(self, request: Request, elsewhere: Address | None = None) -> Opened:
        """A session at whichever replica is first to open it.

        Args:
            elsewhere: of the replica where it should not be, unless there is no other.

        Raises:
            MemberLost: none did in time.
            OtherVersion: those that could be asked run another configuration.
        """
        race = _Race(self, request, elsewhere)
        try:
            return await race.won()
        finally:
            race.end()

    async def attempt(self, request: Request) -> Opened:
        key = new_session(self.member)
        try:
            return Opened(key, await self._attempt(key, request))
        except BaseException as error:
            if isinstance(error, MemberLost) and not isinstance(error, OtherVersion):
                self._lost = time.monotonic()
            # Unless it has refused, the replica may have opened it all the same; nobody else knows its key.
            if not isinstance(error, EnsembleError) or isinstance(error, MemberLost):
                self.let_go(key)
            raise

    def let_go(self, key: str) -> None:
        """Close a session that nobody waits for, in the background: its replica may be the one that does not answer."""
        task = asyncio.create_task(self._closed(key))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _closed(self, key: str) -> None:
        # Serve would keep the call until a lost replica's successor runs.
        with suppress(EnsembleError, TimeoutError):
            async with asyncio.timeout(GONE):
                await self._close(key)


class _Race:
    """The attempts at one session."""

    def __init__(self, opener: Opener, request: Request, elsewhere: Address | None) -> None:
        self._opener, self._request, self._elsewhere = opener, request, elsewhere
        self._end = asyncio.get_running_loop().time() + GONE
        self._attempts = set[asyncio.Task[Opened]]()
        self._lost: MemberLost | OtherVersion | None = None
        self._failures = self._refusals = self._landed = 0
        self._second_best: Opened | None = None

    async def won(self) -> Opened:
        while (left := self._end - asyncio.get_running_loop().time()) > 0:
            self._attempts.add(asyncio.create_task(self._opener.attempt(self._request)))
            patience = self._opener.patience if self._elsewhere is None else ELSEWHERE
            done, _ = await asyncio.wait(self._attempts, timeout=min(left, patience), return_when="FIRST_COMPLETED")
            for attempt in done:
                if (opened := self._outcome(attempt)) is not None:
                    return opened
            if self._landed >= KEYS or self._refusals >= VERSIONS:
                break
            if done and self._failures:
                await asyncio.sleep(min(0.005 * 2 ** min(self._failures, 8), LONGEST_PAUSE))
        return self._what_there_is()

    def _outcome(self, attempt: asyncio.Task[Opened]) -> Opened | None:
        """What an attempt has come to, if that will do."""
        self._attempts.discard(attempt)
        try:
            opened = attempt.result()
        except (MemberLost, OtherVersion) as error:
            self._lost = error
            self._failures += 1
            self._refusals += isinstance(error, OtherVersion)
            return None
        if self._elsewhere is None or opened.line.address != self._elsewhere:
            return opened
        self._landed += 1
        if self._second_best is None:
            self._second_best = opened
        else:
            self._opener.let_go(opened.key)
        return None

    def _what_there_is(self) -> Opened:
        opened, self._second_best = self._second_best, None
        if opened is not None:
            return opened
        member = self._opener.member
        raise self._lost or MemberLost(f"no replica of {member} has answered in {GONE:g} seconds", member=member)

    def end(self) -> None:
        """Give up what has not come first."""
        for attempt in self._attempts:
            if not attempt.done():
                attempt.cancel()
            elif not attempt.cancelled() and attempt.exception() is None:
                self._opener.let_go(attempt.result().key)
        if self._second_best is not None:
            self._opener.let_go(self._second_best.key)
