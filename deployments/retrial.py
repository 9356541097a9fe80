"""Whether to ask again, when a replica could not do what it was asked and nothing of that has been told to anybody.

Knows errors and time; who is asked, and how, is its user's business.
"""

from __future__ import annotations

import asyncio
import math

from deployments.opening import LONGEST_PAUSE, VERSIONS
from ensemble.errors import MemberLost, OtherVersion

LOSSES = 3
"""Replicas that may be lost, one after the other, before an answer that is begun again and again is given up."""
UPDATE = 20.0
"""Seconds for which a request looks for a driver whose members are all of the version it was made with. While a new
configuration is rolled out, drivers are replaced some seconds after their members."""


class Retrial:
    """Whether, and when, something of which nothing has been told is tried again."""

    def __init__(self, member: str, again: bool, seconds: float | None = None) -> None:
        """
        Args:
            again: for a request that comes from outside, not from an ensemble.
            seconds: that it may take in all; ``None``: as long as it takes.
        """
        self._member, self._again = member, again
        self._clock = asyncio.get_running_loop().time
        self._end = self._clock() + (math.inf if seconds is None else seconds)
        self._losses = self._refusals = 0

    async def after(self, error: MemberLost | OtherVersion) -> None:
        """Return when it may be tried again.

        Raises:
            EnsembleError: as given, if that is no use.
        """
        if not self._may(error):
            raise error
        failures = self._losses + self._refusals
        await asyncio.sleep(min(0.005 * 2 ** min(failures, 8), LONGEST_PAUSE * (4 if self._again else 1)))

    def _may(self, error: MemberLost | OtherVersion) -> bool:
        if isinstance(error, OtherVersion):
            if not self._refusals:
                self._end = min(self._end, self._clock() + UPDATE)
            self._refusals += 1
            if self._again:
                return self._clock() < self._end
            # What the members of an ensemble say among themselves is settled by whoever asked the ensemble.
            return error.member == self._member and self._refusals < VERSIONS
        self._losses += 1
        # A driver that lives has said by its policy what becomes of a request whose member is lost.
        return self._again and error.member == self._member and self._losses <= LOSSES
