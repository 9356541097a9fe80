"""Setting a knob."""

from __future__ import annotations

import numpy as np

from ensemble.before.knobs.decided import decided
from ensemble.before.knobs.ladder import ladder, threshold_gaps
from ensemble.before.policies.assign import Assign
from ensemble.before.policies.policy import Policy, Prediction
from ensemble.before.policies.threshold import Threshold
from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Dense, mean_observed
from ensemble.outcomes.references import Taken

_STEPS = 4096
"""Of a ladder that a budget is looked for on."""


def for_share(policy: Policy, prediction: Prediction, share: float) -> Threshold:
    """The margin at which the strong member answers this share of the queries (RouteLLM, arXiv 2406.18665).

    Equal gaps of score go together, so that it may be more.

    Args:
        share: above 0 and below 1.

    Raises:
        BadRequest: the policy is no threshold, or the share no share.
    """
    if not isinstance(policy, Threshold):
        rule = "a share is how much of the traffic the strong one of two members answers"
        raise BadRequest(f"{rule}; allowed: a policy of kind threshold", param="share")
    if not 0 < share < 1:
        raise BadRequest(f"a share of {share:g} needs no router; allowed: above 0 and below 1", param="share")
    gaps = np.sort(threshold_gaps(policy, prediction))[::-1]
    count = min(max(round(share * len(gaps)), 1), len(gaps) - 1) if len(gaps) > 1 else 1
    margin = gaps[count - 1] if count == len(gaps) else (gaps[count - 1] + gaps[count]) / 2
    return policy.model_copy(update={"margin": float(margin)})


def for_budget(policy: Policy, prediction: Prediction, table: Dense, budget: float) -> Policy:
    """The dearest value of the knob at which the choices cost no more than the budget, on average.

    Found by bisection over the values at which choices change. What a choice cost is the table's; the prediction's
    where the table does not say. A policy that has a budget itself is given it.

    Args:
        prediction: for the table's queries and members.
        budget: money for a query.

    Raises:
        BadRequest: the policy has no knob, costs are not known, or the cheapest choices cost more.
    """
    if not budget > 0:
        raise BadRequest(f"a budget of {budget:g} buys nothing; allowed: above 0", param="budget")
    if isinstance(policy, Assign):
        return policy.model_copy(update={"budget": budget})
    if not np.nan_to_num(prediction.cost).any():
        raise BadRequest("the table does not tell what answers cost; a budget needs that", param="budget")
    steps = ladder(policy, prediction, _STEPS)

    def costs(step: int) -> float:
        return _cost(steps[step], prediction, table)

    low, high = -1, len(steps) - 1
    if (least := costs(high)) > budget:
        rule = f"the cheapest choices of this policy cost {least:.4g} for a query"
        raise BadRequest(f"{rule}; allowed: a budget from there on", param="budget")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if costs(middle) <= budget else (middle, high)
    return steps[high]


def for_drop(policy: Policy, prediction: Prediction, table: Dense, drop: float) -> Policy:
    """The cheapest value of the knob that loses no more quality than this (Hybrid LLM, arXiv 2404.14618).

    Args:
        prediction: for the table's queries and members.
        drop: part of the quality of the member that is best overall, 0 to 1.

    Raises:
        BadRequest: the policy has no knob, or loses more at each value; the message says how much.
    """
    if not 0 <= drop < 1:
        raise BadRequest(f"a drop of {drop:g} is no part of the quality; allowed: 0 to 1", param="drop")
    whole = float(mean_observed(table.quality)[prediction.best])
    steps = ladder(policy, prediction)
    lost = np.array([1 - float(np.nanmean(decided("", s, prediction, table).quality)) / whole for s in steps])
    enough = np.flatnonzero(lost <= drop + 1e-12)
    if not len(enough):
        rule = f"this policy loses {lost.min():.2%} of the best member's quality at least"
        raise BadRequest(f"{rule}; allowed: a drop from there on", param="drop")
    return steps[int(enough[-1])]


def _cost(policy: Policy, prediction: Prediction, table: Dense) -> float:
    found = decided("", policy, prediction, table)
    return float(np.where(np.isnan(found.cost), _predicted(found, prediction), found.cost).mean())


def _predicted(found: Taken, prediction: Prediction) -> np.ndarray:
    assert found.chosen is not None
    return np.asarray(prediction.cost[np.arange(len(found.chosen)), found.chosen])
