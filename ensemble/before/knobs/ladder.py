"""Where a policy's choices change as its knob is turned from the dearest to the cheapest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ensemble.before.policies.enough import Enough
from ensemble.before.policies.mix import Mix
from ensemble.before.policies.policy import Policy, Prediction
from ensemble.before.policies.threshold import Threshold
from ensemble.before.policies.utility import Utility
from ensemble.before.policies.within import Within
from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Floats

KNOBS: Mapping[type[Policy], str] = {
    Utility: "price",
    Mix: "mu",
    Threshold: "margin",
    Within: "delta",
    Enough: "least",
}
"""The option of each policy that trades quality for money."""
_RISING = ("price", "mu", "margin", "delta")
"""Knobs of which a higher value is cheaper."""


def turned(policy: Policy, value: float) -> Policy:
    """The same policy with its knob at a value."""
    return policy.model_copy(update={_knob(policy): float(value)})


def ladder(policy: Policy, prediction: Prediction, steps: int = 256) -> list[Policy]:
    """The policy at the values of its knob between which its choices on these queries change, dearest first.

    Args:
        steps: at most; where choices change more often, evenly many changes lie between two steps.

    Raises:
        BadRequest: the policy has no knob, or costs that it needs are not known.
    """
    name = _knob(policy)
    values = _changes(policy, prediction)
    # Two values are enough for the ends; whatever is dropped lies between two that are kept.
    kept = np.unique(np.linspace(0, len(values) - 1, min(steps, len(values))).round().astype(int))
    rising = values[kept]
    return [turned(policy, value) for value in (rising if name in _RISING else rising[::-1])]


def _knob(policy: Policy) -> str:
    name = KNOBS.get(type(policy))
    if name is None:
        kinds = ", ".join(str(cls.model_fields["kind"].default) for cls in KNOBS)
        rule = f"a policy of kind {policy.model_dump()['kind']} has no knob that trades quality for money"
        raise BadRequest(f"{rule}; allowed: {kinds}", param="policy")
    return name


def _changes(policy: Policy, prediction: Prediction) -> Floats:
    """Values in ascending order, without repetition; the first and the last are the knob's ends."""
    of: Mapping[type[Policy], Callable[[Policy, Prediction], Floats]] = {
        Utility: _prices,
        Mix: _weights,
        Threshold: _margins,
        Within: _distances,
        Enough: _scores,
    }
    return np.unique(of[type(policy)](policy, prediction))


def _beyond(values: Floats) -> float:
    """Beyond the last change, in spite of rounding."""
    return float(values.max() * (1 + 1e-9) + 1e-9)


def _prices(policy: Policy, prediction: Prediction) -> Floats:
    """At which a dearer member stops being worth more than a cheaper one."""
    found = [np.zeros(1)]
    for one in range(prediction.quality.shape[1]):
        gain = prediction.quality - prediction.quality[:, [one]]
        extra = prediction.cost - prediction.cost[:, [one]]
        worth = (gain > 0) & (extra > 0)
        found.append(gain[worth] / extra[worth])
    prices = np.concatenate(found)
    if len(prices) == 1 and not np.ptp(prediction.cost):
        raise BadRequest(
            "costs of the members are not known, or are equal; allowed: a threshold policy", param="policy"
        )
    return np.append(prices, _beyond(prices))


def _weights(policy: Policy, prediction: Prediction) -> Floats:
    assert isinstance(policy, Mix)
    prices = _prices(policy, prediction)
    return np.append(prices / (policy.scale + prices), 1.0)


def _margins(policy: Policy, prediction: Prediction) -> Floats:
    gaps = threshold_gaps(policy, prediction)
    return np.append(gaps, np.nextafter(gaps.max(), np.inf))


def _distances(policy: Policy, prediction: Prediction) -> Floats:
    best = prediction.quality.max(axis=1, keepdims=True)
    distances = (best - prediction.quality).ravel()
    return np.append(distances, [0.0, _beyond(distances)])


def _scores(policy: Policy, prediction: Prediction) -> Floats:
    scores = prediction.quality.ravel()
    return np.append(scores, np.nextafter(scores.max(), np.inf))


def threshold_gaps(policy: Policy, prediction: Prediction) -> Floats:
    """[n], by how much the strong member's score exceeds the weak one's.

    Raises:
        BadRequest: there is no second member, or the policy names somebody else.
    """
    assert isinstance(policy, Threshold)
    strong, weak = policy.pair(prediction, np.ones(prediction.quality.shape, bool))
    if (strong < 0).any() or (weak < 0).any():
        rule = "a threshold is between two members"
        raise BadRequest(f"{rule}; there are: {', '.join(prediction.members) or 'fewer'}", param="policy")
    return policy.gaps(prediction, strong, weak)
