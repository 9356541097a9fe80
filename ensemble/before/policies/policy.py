"""The contract of policies, and the values between a router and its policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from ensemble.errors import ConfigurationError
from ensemble.outcomes.dense import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a router expects of n queries at M members."""

    quality: Floats
    """[n, M]."""
    cost: Floats
    """[n, M], money; 0 where nothing is known."""
    std: Floats | None = None
    """[n, M], standard deviation of the quality; ``None``: not known."""
    members: tuple[str, ...] = ()
    """Names of the columns, for policies that name a member."""
    best: int = 0
    """The column of who is best overall, as far as was known when the router was fitted."""

    @property
    def unusable(self) -> str | None:
        """What nobody can decide by; ``None`` where all numbers are numbers."""
        known = {"quality": self.quality, "cost": self.cost, "a spread": self.std}
        wrong = [name for name, values in known.items() if values is not None and np.isnan(values).any()]
        return f"{wrong[0]} that is no number" if wrong else None

    def among(self, columns: Sequence[int], best: int = 0) -> Prediction:
        """Of some of the members, in this order.

        Args:
            best: who is best among them, a position in ``columns``.
        """
        places = list(columns)
        std = None if self.std is None else self.std[:, places]
        names = tuple(self.members[place] for place in places) if self.members else ()
        return Prediction(self.quality[:, places], self.cost[:, places], std, names, best)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy decided for n queries."""

    scores: Floats
    """[n, M], what it decided by, higher is better; minus infinity where a member is not allowed."""
    chosen: Ints
    """[n], who answers."""
    propensity: Floats
    """[n], probability with which that one was chosen; 1 where nothing was drawn."""
    weights: Floats | None = None
    """[n, M], votes of the members that all answer, 0 for who is not asked; ``None``: the chosen one alone answers."""


class Policy(BaseModel, ABC):
    """One way to decide. Values; they keep no state."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    naming: ClassVar[tuple[str, ...]] = ()
    """Options that name a member."""

    def check(self, members: Sequence[str]) -> None:
        """Refuse a policy that names somebody else; who is named but out of service is passed over by ``choose``.

        Raises:
            ConfigurationError: naming the option and who is allowed.
        """
        for option in self.naming:
            name = getattr(self, option)
            if name is not None and name not in members:
                rule = f"{option} {name!r} of the policy {type(self).__name__.lower()} is no member"
                raise ConfigurationError(f"{rule}; allowed: {', '.join(members)}", param="policy")

    @abstractmethod
    def choose(self, prediction: Prediction, allowed: Bools, random: np.random.Generator) -> Choice:
        """
        Args:
            allowed: [n, M], who may be chosen; at least one for each query.
            random: of policies that draw.
        """


def barred(scores: Floats, allowed: Bools) -> Floats:
    """The scores with minus infinity where a member is not allowed."""
    return np.where(allowed, scores, -np.inf)


def best_of(scores: Floats, allowed: Bools, cost: Floats | None = None) -> Choice:
    """The highest score among the allowed; equal ones go to the cheaper, then to the first."""
    scores = barred(scores, allowed)
    if cost is None:
        chosen = scores.argmax(axis=1)
    else:
        top = scores == scores.max(axis=1, keepdims=True)
        chosen = np.where(top, cost, np.inf).argmin(axis=1)
    return Choice(scores, chosen, np.ones(len(scores)))


def cheapest_of(prediction: Prediction, able: Bools) -> Ints:
    """[n], the cheapest of the able; equal ones go to the higher quality, then to the first."""
    cost = np.where(able, prediction.cost, np.inf)
    least = able & (cost == cost.min(axis=1, keepdims=True))
    return np.asarray(np.where(least, prediction.quality, -np.inf).argmax(axis=1))
