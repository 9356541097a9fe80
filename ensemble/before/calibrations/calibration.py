"""The contract of calibrations: from a head's scores to expected quality."""

from __future__ import annotations

from abc import abstractmethod

from ensemble.before.routing.parts import NeedsFit, Part
from ensemble.outcomes.dense import Floats


class Calibration(Part):
    """Of all members of one router."""

    @abstractmethod
    def applied(self, scores: Floats) -> Floats:
        """[n, M] expected quality in [0, 1] of [n, M] scores; order within a column is kept."""

    def widen(self) -> Calibration:
        """The same with one more member, last, of whom nothing is known yet.

        Raises:
            NeedsFit: this kind takes nobody without a fit.
        """
        raise NeedsFit(f"calibrations of kind {self.kind} take no member without a fit")
