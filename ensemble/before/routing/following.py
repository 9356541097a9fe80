"""Keeping a desk up to date: with the artifact on disk, and with what is told of answers.

A router in service is a function of its artifact and of all feedback after it, in order; so a restart, another copy, or
a new artifact comes to the same. Knows nothing of where feedback is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ensemble.before.routing.desk import Desk, Loaded
from ensemble.before.routing.feedback import Pull
from ensemble.errors import EnsembleError

log = logging.getLogger(__name__)

EVERY = 0.5
"""Seconds between two looks at the artifact and at the feedback."""
_BLOCK = 256
"""Pieces of feedback whose questions are embedded together."""


class Follower:
    """Of one desk."""

    def __init__(self, desk: Desk, pull: Pull | None, *, every: float = EVERY) -> None:
        """
        Args:
            pull: asks for feedback; ``None``: none is kept.
            every: seconds between two looks.
        """
        self._desk, self._source, self._pull, self._every = desk, desk.source, pull, every
        self._through = desk.loaded.since
        # Whatever was put there since the router was read has another digest.
        self._seen: object = None

    async def run(self) -> None:
        """Look again and again, for ever; what goes wrong is logged and tried again."""
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.look()
                await self.follow()
            except EnsembleError as error:
                log.warning("the router of %s could not be brought up to date: %s", self._desk.name, error.message)
                self._desk.count("route_follow_failures")
            except Exception:
                log.exception("the router of %s could not be brought up to date", self._desk.name)
                self._desk.count("route_follow_failures")

    async def follow(self) -> None:
        """Have the router in service learn what has been told since the last time."""
        async with aclosing(self._taught(self._desk.loaded, self._through)) as taught:
            async for through in taught:
                self._through = through

    async def look(self) -> None:
        """Put a new artifact in the place of the old one; one that is broken or does not fit is told, and the old one
        stays in service."""
        if self._source is None:
            return
        seen = await asyncio.to_thread(self._source.signature)
        if seen is None or seen == self._seen:
            return
        try:
            loaded = await asyncio.to_thread(self._source.load)
        except EnsembleError as error:
            self._seen = seen
            log.warning("the new router of %s is not taken into service: %s", self._desk.name, error.message)
            self._desk.count("route_artifacts", outcome="refused")
            return
        if loaded.digest != self._desk.loaded.digest:
            learned = [loaded.since, *[through async for through in self._taught(loaded, loaded.since)]]
            self._desk.loaded, self._through = loaded, learned[-1]
            self._desk.count("route_artifacts", outcome="taken")
        self._seen = seen

    async def _taught(self, loaded: Loaded, after: int) -> AsyncGenerator[int, None]:
        """Numbers up to which a router has learned all feedback, while it does: nothing is learned twice where the
        next piece cannot be had."""
        if self._pull is None:
            return
        while True:
            page = await self._pull(after)
            for start in range(0, len(page.rows), _BLOCK):
                block = page.rows[start : start + _BLOCK]
                await self._desk.learn(loaded, block)
                yield block[-1].sequence
            if page.through < after:
                told = "the feedback of %s ends at %d, not at %d: it was begun anew and is followed from there"
                log.warning(told, self._desk.name, page.through, after)
            after = page.through
            yield after
            if page.complete:
                return
