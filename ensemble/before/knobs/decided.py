"""What the choices of a policy give on a table."""

from __future__ import annotations

import numpy as np

from ensemble.before.policies.policy import Policy, Prediction
from ensemble.outcomes.dense import Bools, Dense, Floats
from ensemble.outcomes.references import Taken


def decided(
    name: str, policy: Policy, prediction: Prediction, table: Dense, doubtful: Bools | None = None, seed: int = 0
) -> Taken:
    """Quality and cost of each query; NaN where the chosen member has no outcome.

    Where several members answer the chosen one stands for what they say together, and all are paid.

    Args:
        prediction: for the table's queries and members.
        doubtful: [n], queries that go to who is best overall whatever is predicted; omitted: none.
        seed: of policies that draw.
    """
    allowed = np.ones(prediction.quality.shape, bool)
    if doubtful is not None:
        best = np.arange(prediction.quality.shape[1]) == prediction.best
        allowed = ~doubtful[:, None] | best
    found = policy.choose(prediction, allowed, np.random.default_rng(seed))
    rows = np.arange(len(table))
    cost = table.cost[rows, found.chosen]
    if found.weights is not None:
        cost = np.where(found.weights > 0, table.cost, 0.0).sum(axis=1)
    return Taken(name=name, quality=table.quality[rows, found.chosen], cost=cost, chosen=found.chosen)


def tokens(table: Dense) -> Floats:
    """[n], tokens of each prompt, the mean over members; where none is known, a quarter of the text's characters."""
    seen = ~np.isnan(table.input_tokens)
    estimated = np.array([len(text or "") / 4 for text in table.texts])
    counted = np.nan_to_num(table.input_tokens).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    return np.asarray(np.where(seen.any(axis=1), counted, estimated))
