"""From predictions to who answers: what may be chosen, what the policy makes of it, and who answers in its place.

Pure functions of values; nobody is asked and nothing is embedded here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ensemble.before.policies import Policy, Prediction
from ensemble.before.routing.arms import Arm
from ensemble.member import Card
from ensemble.outcomes.dense import Bools, Floats
from ensemble.request import Request

Why = Literal["policy", "doubt", "shadow", "filtered", "unread"]
"""Whose choice it is who answers: the policy's; or the fallback's, as the router is in doubt, as it only looks on, as
nobody may be chosen, or as the question could not be read."""

_BYTES_A_TOKEN = 4.0
"""Of English text; for costs."""
_MOST_BYTES_A_TOKEN = 6.0
"""So that no member is left out that could have read the prompt; who cannot read it after all is passed over."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a router makes of one question."""

    prediction: Prediction
    """[1, M], of all columns of the router."""
    doubt: bool = False
    """The prediction is not to be trusted."""
    unread: bool = False
    """There is none: what was to read the question has failed."""

    @classmethod
    def none(cls, members: tuple[str, ...], best: int) -> Reading:
        """Of a question that could not be read."""
        nothing = np.zeros((1, len(members)))
        return cls(Prediction(nothing, nothing, nothing, members, best), unread=True)


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers one question, and why. Positions are of ``arms``."""

    arms: tuple[Arm, ...]
    scores: Floats
    """[A], what the policy decided by; minus infinity where an arm may not be chosen."""
    cost: Floats
    """[A], money, predicted."""
    chosen: int
    """By the policy; of whoever was in its way, see ``why``."""
    propensity: float
    """Probability with which the policy chose that one."""
    weights: Floats | None
    """[A], votes of those that all answer; ``None``: one alone does."""
    policy: str
    fallback: int
    why: Why

    @property
    def first(self) -> int:
        """Who is asked first."""
        return self.chosen if self.why == "policy" else self.fallback

    @property
    def voters(self) -> list[int]:
        """Who is asked, where several are."""
        if self.weights is None or self.why != "policy":
            return []
        return [int(place) for place in np.flatnonzero(self.weights > 0)]

    @property
    def order(self) -> list[int]:
        """Who is asked one after the other while nobody can answer: the first, the next by score, the fallback, all
        others by score."""
        by_score = [int(place) for place in np.argsort(-self.scores, kind="stable") if self.scores[place] > -math.inf]
        following = [place for place in by_score if place not in (self.first, self.fallback)]
        return list(dict.fromkeys([self.first, *following[:1], self.fallback, *following]))

    def propensity_of(self, place: int) -> float:
        """Probability with which this one was to answer; NaN where it came to it by the failure of another."""
        if place != self.first:
            return math.nan
        return self.propensity if self.why == "policy" else 1.0

    def told(self) -> dict[str, Any]:
        """As JSON values."""
        names = [arm.name for arm in self.arms]
        told = {
            "chosen": names[self.chosen],
            "answers": [names[place] for place in self.voters] or [names[self.first]],
            "why": self.why,
            "scores": {name: _finite(score) for name, score in zip(names, self.scores, strict=True)},
            "cost": {name: _finite(cost) for name, cost in zip(names, self.cost, strict=True)},
            "propensity": self.propensity,
            "policy": self.policy,
            "doubt": self.why == "doubt",
        }
        if self.weights is not None:
            told["weights"] = {name: float(weight) for name, weight in zip(names, self.weights, strict=True) if weight}
        return told


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def route(
    reading: Reading,
    arms: Sequence[Arm],
    allowed: Bools,
    policy: Policy,
    random: np.random.Generator,
    fallback: int,
    *,
    shadow: bool = False,
) -> Route:
    """Who answers.

    Args:
        allowed: [A], who may be chosen. Where that is nobody, the fallback answers.
        fallback: a position in ``arms``.
        shadow: the fallback answers, whatever the policy chooses.

    Raises:
        ConfigurationError: the policy needs what the router does not know.
    """
    prediction = reading.prediction
    columns = [arm.column for arm in arms]
    best = columns.index(prediction.best) if prediction.best in columns else fallback
    among = prediction.among(columns, best)
    open_to = allowed if allowed.any() else np.ones(len(arms), bool)
    choice = policy.choose(among, open_to[None], random)
    whys: list[tuple[bool, Why]] = [
        (reading.unread, "unread"),
        (not allowed.any(), "filtered"),
        (reading.doubt, "doubt"),
        (shadow, "shadow"),
    ]
    return Route(
        arms=tuple(arms),
        scores=choice.scores[0],
        cost=among.cost[0],
        chosen=int(choice.chosen[0]),
        propensity=float(choice.propensity[0]),
        weights=None if choice.weights is None else choice.weights[0],
        policy=getattr(policy, "kind", type(policy).__name__.lower()),
        fallback=fallback,
        why=next((why for holds, why in whys if holds), "policy"),
    )


def roomy(arms: Sequence[Arm], cards: Sequence[Card], request: Request) -> Bools:
    """[A], whose context may hold the prompt, by the bytes that a token has at most."""
    size = length(request)
    return np.array(
        [(size + len(arm.before.encode())) / _MOST_BYTES_A_TOKEN < cards[arm.seat].context_length for arm in arms]
    )


def tokens(request: Request) -> float:
    """Estimate of the tokens that the prompt has."""
    return math.ceil(length(request) / _BYTES_A_TOKEN)


def length(request: Request) -> int:
    """Bytes of all that is to be read."""
    texts = [request.prompt or "", request.partial, *(message.content for message in request.messages)]
    return sum(len(text.encode()) for text in texts)
