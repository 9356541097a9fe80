"""Two members: the strong one where it is expected to do enough better than the weak one."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ensemble.before.policies.policy import Choice, Policy, Prediction, barred
from ensemble.outcomes.dense import Bools, Floats, Ints


class Threshold(Policy):
    """The strong member where its score exceeds the weak one's by the margin at least (RouteLLM, arXiv 2406.18665).

    A threshold t on the probability p that the strong one wins is a margin of 2t - 1 where scores are p and 1 - p.
    Members that are neither answer only where both are out of service: then the highest score does.
    """

    kind: Literal["threshold"] = "threshold"
    margin: float = Field(default=0.0, allow_inf_nan=False)
    """In units of the scores. Higher: less goes to the strong member. Omitted: 0."""
    strong: str | None = None
    """Name of a member. Omitted: who is best overall, or, where ``weak`` is that one, the best scored of the others."""
    weak: str | None = None
    """Name of a member. Omitted: the other of two; of more, the one that costs least on the query."""
    naming: ClassVar[tuple[str, ...]] = ("strong", "weak")

    @model_validator(mode="after")
    def _two(self) -> Threshold:
        if self.strong is not None and self.strong == self.weak:
            raise ValueError(f"strong and weak are both {self.strong!r}; allowed: two members")
        return self

    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        strong, weak = self.pair(prediction, allowed)
        rows = np.arange(len(allowed))
        scores = barred(prediction.quality, allowed)
        # A place of -1 is nobody: out of service, or not there.
        has_strong = (strong >= 0) & allowed[rows, strong]
        has_weak = (weak >= 0) & allowed[rows, weak]
        chosen = np.where(has_strong & (~has_weak | (self.gaps(prediction, strong, weak) >= self.margin)), strong, weak)
        chosen = np.where(has_strong | has_weak, chosen, scores.argmax(axis=1))
        return Choice(scores, chosen, np.ones(len(scores)))

    def pair(self, prediction: Prediction, allowed: Bools) -> tuple[Ints, Ints]:
        """[n] each, positions of the strong and the weak member for each query; -1: there is none."""
        count = len(prediction.quality)
        named = {name: place for place, name in enumerate(prediction.members)}
        everyone = np.arange(prediction.quality.shape[1])
        weak = np.full(count, -1 if self.weak is None else named.get(self.weak, -1))
        if self.strong is not None:
            strong = np.full(count, named.get(self.strong, -1))
        elif self.weak is not None and named.get(self.weak) == prediction.best:
            strong = _first(-prediction.quality, allowed & (everyone != weak[:, None]))
        else:
            strong = np.full(count, prediction.best)
        if self.weak is None:
            weak = _first(prediction.cost, allowed & (everyone != strong[:, None]))
        return strong, weak

    @staticmethod
    def gaps(prediction: Prediction, strong: Ints, weak: Ints) -> Floats:
        """[n], by how much the strong member's score exceeds the weak one's."""
        rows = np.arange(len(prediction.quality))
        gaps: Floats = prediction.quality[rows, strong] - prediction.quality[rows, weak]
        return gaps


def _first(values: Floats, allowed: Bools) -> Ints:
    """[n], where the least value stands among the allowed; -1 where nobody is."""
    return np.where(allowed.any(axis=1), np.where(allowed, values, np.inf).argmin(axis=1), -1)
