"""Which members to keep: a small pool in which every query finds somebody who answers it well.

Knows nothing of routers: it is given qualities, observed or predicted.
"""

from __future__ import annotations

import numpy as np

from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Floats


def coverage(quality: Floats, members: tuple[int, ...]) -> float:
    """Mean over the queries of the best quality in the pool; a query that none of it was asked counts 0.

    Args:
        quality: [n, M], at least 0, NaN where not observed.
        members: positions.
    """
    if not members or not len(quality):
        return 0.0
    return float(np.nan_to_num(quality)[:, list(members)].max(axis=1).mean())


def select_pool(
    quality: Floats, k: int | None = None, cost: Floats | None = None, budget: float | None = None
) -> tuple[int, ...]:
    """The members that cover most, picked one by one (Routoo, arXiv 2401.13979); equal ones: the first.

    Coverage is monotone and submodular, so the pool reaches 1 - 1/e of what the best one of k does. Under a budget the
    next pick is the one that gains most for its cost, and no pick that goes beyond the budget is made. Picks that gain
    nothing are not made.

    Args:
        quality: [n, M], at least 0, NaN where not observed. Predicted ones, or those of queries that a router was not
            fitted to: a pool of true outcomes is chosen by luck where queries are few.
        k: members at most.
        cost: [M], more than 0, what having a member costs; in any unit.
        budget: sum of the costs at most.

    Returns:
        Positions in the order of the picks; the best single member first, where no budget forbids it.

    Raises:
        BadRequest: neither k nor a budget is given, a budget comes without costs, or either leaves nobody.
    """
    members = quality.shape[1]
    cost = _checked(members, k, cost, budget)
    known, reached = np.nan_to_num(quality), np.zeros(len(quality))
    chosen: list[int] = []
    left = np.inf if budget is None else budget
    while len(chosen) < (members if k is None else k):
        able = [m for m in range(members) if m not in chosen and cost[m] <= left]
        gains = [float((np.maximum(known[:, m], reached) - reached).mean()) for m in able]
        worth = [gain / cost[m] for gain, m in zip(gains, able, strict=True)]
        if not able or (chosen and max(gains) <= 0):
            break
        pick = able[int(np.argmax(worth))]
        chosen.append(pick)
        reached, left = np.maximum(reached, known[:, pick]), left - cost[pick]
    return tuple(chosen)


def _checked(members: int, k: int | None, cost: Floats | None, budget: float | None) -> Floats:
    """[M], the costs; all 1 where a budget does not count them."""
    if k is None and budget is None:
        raise BadRequest("a pool needs a limit: k, members at most, or a budget", param="k")
    if k is not None and k < 1:
        raise BadRequest(f"a pool of {k} members answers nothing; allowed: 1 or more", param="k")
    if budget is None:
        return np.ones(members)
    if cost is None or not (np.asarray(cost) > 0).all():
        raise BadRequest("a budget needs a cost above 0 for each member", param="cost")
    if np.min(cost) > budget:
        raise BadRequest(
            f"no member costs as little as {budget:g}; the cheapest costs {np.min(cost):g}", param="budget"
        )
    return np.asarray(cost, float)
