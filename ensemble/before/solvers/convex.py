"""Fits of linear heads: weights of [x, 1] by least squares or by the cross entropy of soft labels.

Holes are left out of every sum. The constant is never penalised. Rows are read in blocks: beside the data, memory is
a few matrices [d, d] or [d, M], however many rows there are. Knows nothing of heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ensemble.outcomes.dense import Bools, Floats

_BLOCK = 8192
"""Rows held in double precision at once."""
_STEPS = 300
"""Of L-BFGS at most."""

Loss = Callable[[Floats, slice], tuple[float, Floats]]
"""Of logits [b, M] of some rows: the loss and its derivative [b, M]."""


def ridge(x: Floats, target: Floats, penalties: Sequence[float]) -> list[Floats]:
    """Weights [d + 1, M] for each penalty: least Σ (target − [x, 1]·w)² + penalty · |w|², member by member.

    Args:
        x: [n, d].
        target: [n, M], NaN where a cell does not count; a member without any gets zeros.
        penalties: each above 0.
    """
    found = [np.zeros((x.shape[1] + 1, target.shape[1])) for _ in penalties]
    for columns in _alike(~np.isnan(target)):
        gram, moment = _moments(x, target[:, columns])
        total = gram[-1, -1]
        if total == 0:
            continue
        middle, mean = gram[-1, :-1] / total, moment[-1] / total
        values, vectors = np.linalg.eigh(gram[:-1, :-1] - total * np.outer(middle, middle))
        turned = vectors.T @ (moment[:-1] - total * np.outer(middle, mean))
        for weights, penalty in zip(found, penalties, strict=True):
            slope = vectors @ (turned / (np.maximum(values, 0) + penalty)[:, None])
            weights[:, columns] = np.vstack([slope, mean - middle @ slope])
    return found


def cover(x: Floats, penalty: float) -> Floats:
    """[d + 1, d + 1], inverse of [x, 1]ᵀ[x, 1] + penalty · I."""
    gram, _ = _moments(x, np.zeros((len(x), 1)))
    inverse: Floats = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    return inverse


def logistic(x: Floats, target: Floats, penalty: float, weight: Floats, start: Floats) -> Floats:
    """Weights [d + 1, M] of least cross entropy + penalty ÷ 2 · |w − start|², member by member.

    Args:
        target: [n, M] in [0, 1], NaN where a cell does not count.
        weight: [n, M], what each cell counts.
        start: [d + 1, M], where the search begins and the penalty draws to.
    """

    def loss(logits: Floats, rows: slice) -> tuple[float, Floats]:
        counts = np.where(np.isnan(target[rows]), 0.0, weight[rows])
        wanted = np.nan_to_num(target[rows])
        entropy = counts * (np.logaddexp(0, logits) - wanted * logits)
        return float(entropy.sum()), counts * (sigmoid(logits) - wanted)

    return descend(loss, x, penalty, start, start)


def softmax(x: Floats, label: Floats, penalty: float, start: Floats) -> Floats:
    """Weights [d + 1, M] of least cross entropy between labels and softmax + penalty ÷ 2 · |w − start|².

    Args:
        label: [n, M], rows sum to 1 over what is not NaN: a query's softmax is taken over those members alone, so that
            a hole says nothing of who was not asked.
    """

    def loss(logits: Floats, rows: slice) -> tuple[float, Floats]:
        seen = ~np.isnan(label[rows])
        wanted = np.nan_to_num(label[rows])
        shares = shared(np.where(seen, logits, -np.inf))
        entropy = -(wanted * np.log(np.maximum(shares, 1e-300))).sum()
        return float(entropy), np.where(seen, shares * wanted.sum(axis=1, keepdims=True) - wanted, 0.0)

    return descend(loss, x, penalty, start, start)


def sigmoid(logits: Floats) -> Floats:
    """1 ÷ (1 + e^−logit), without overflow."""
    positive: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return positive


def shared(logits: Floats) -> Floats:
    """Softmax of each row; minus infinity gets none, and a row of nothing else nothing."""
    top = logits.max(axis=1, keepdims=True, initial=-np.inf)
    raised = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = raised.sum(axis=1, keepdims=True)
    return np.asarray(raised / np.where(total > 0, total, 1.0))


def descend(loss: Loss, x: Floats, penalty: float, start: Floats, centre: Floats) -> Floats:
    """Weights [d + 1, M] of least loss + penalty ÷ 2 · |w − centre|², sought from a start by L-BFGS."""
    from scipy.optimize import minimize

    # A sum over many rows would leave the first step of the search far out; the mean has the same least point.
    scale = 1.0 / max(len(x), 1)

    def objective(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(start.shape)
        away = weights - centre
        away[-1] = 0.0
        total, slope = 0.5 * penalty * float((away**2).sum()), penalty * away
        for rows in _blocks(len(x)):
            part = x[rows].astype(np.float64)
            value, change = loss(part @ weights[:-1] + weights[-1], rows)
            total += value
            slope[:-1] += part.T @ change
            slope[-1] += change.sum(axis=0)
        return total * scale, (slope * scale).ravel()

    options = {"maxiter": _STEPS, "maxcor": 20, "ftol": 1e-9, "gtol": 1e-6}
    result = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(result.x).reshape(start.shape)


def _moments(x: Floats, target: Floats) -> tuple[Floats, Floats]:
    """[x, 1]ᵀ[x, 1] and [x, 1]ᵀ target over the rows that count; all columns have the same holes."""
    gram = np.zeros((x.shape[1] + 1, x.shape[1] + 1))
    moment = np.zeros((x.shape[1] + 1, target.shape[1]))
    for rows in _blocks(len(x)):
        seen = ~np.isnan(target[rows, 0])
        part = np.pad(x[rows][seen].astype(np.float64), ((0, 0), (0, 1)), constant_values=1.0)
        gram += part.T @ part
        moment += part.T @ target[rows][seen]
    return gram, moment


def _alike(seen: Bools) -> list[list[int]]:
    """Columns grouped by where their holes are: a group shares one matrix."""
    groups: dict[bytes, list[int]] = {}
    for column in range(seen.shape[1]):
        groups.setdefault(np.packbits(seen[:, column]).tobytes(), []).append(column)
    return list(groups.values())


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, rows, _BLOCK))
