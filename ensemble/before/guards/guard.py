"""The contract of guards."""

from __future__ import annotations

from abc import abstractmethod

from ensemble.before.routing.parts import Part
from ensemble.outcomes.dense import Bools, Floats


class Guard(Part):
    """Tells queries that are unlike what the router was fitted to."""

    @abstractmethod
    def doubtful(self, x: Floats) -> Bools:
        """[n] of embeddings [n, d]."""
