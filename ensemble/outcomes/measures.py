"""Figures of choices and of predictions on a table. Functions over arrays; knows nothing of routers."""

from __future__ import annotations

import numpy as np

from ensemble.outcomes.dense import Floats, Ints

BINS = 10
"""Of the expected calibration error, equally wide."""


def shares(chosen: Ints, members: int) -> Floats:
    """[M], part of the traffic that each member gets.

    Args:
        chosen: [n], positions.
    """
    return np.bincount(chosen, minlength=members) / max(len(chosen), 1)


def entropy(probabilities: Floats) -> float:
    """E_p of RouterEval (arXiv 2503.10657): mean entropy of the distributions over members, bits; 0: always one member.

    Args:
        probabilities: [n, M], rows add up to 1.
    """
    logs = np.log2(np.where(probabilities > 0, probabilities, 1))
    return abs(float((probabilities * logs).sum(axis=1).mean()))


def reached(quality: Floats, chosen: Ints) -> float:
    """μ_o: mean quality of the choices.

    Args:
        quality: [n, M].
        chosen: [n], positions.
    """
    return float(quality[np.arange(len(chosen)), chosen].mean())


def against_best(quality: Floats, chosen: Ints) -> float:
    """V_B: quality of the choices over that of the best single member *on the same queries*, as RouterEval has it.

    That member is known in hindsight only, so this is stricter than a comparison with one that was picked on other
    queries. V_R, against a fixed reference, is the ratio of ``reached`` and the reference's quality.
    """
    best = float(quality.mean(axis=0).max())
    return reached(quality, chosen) / best if best > 0 else float("nan")


def brier(predicted: Floats, quality: Floats) -> float:
    """Mean squared difference of predicted and observed quality, both [n, M], over observed cells."""
    seen = ~np.isnan(quality)
    return float(((predicted - quality)[seen] ** 2).mean()) if seen.any() else float("nan")


def calibration_error(predicted: Floats, quality: Floats, bins: int = BINS) -> float:
    """ECE: over equally wide bins of predictions in [0, 1], the mean distance of mean prediction and mean outcome,
    weighted by how many cells a bin holds; both [n, M], over observed cells."""
    seen = ~np.isnan(quality)
    said, was = predicted[seen].astype(float), quality[seen].astype(float)
    if not len(said):
        return float("nan")
    bin_ = np.clip((said * bins).astype(int), 0, bins - 1)
    sums = np.bincount(bin_, weights=said - was, minlength=bins)
    return float(np.abs(sums).sum() / len(said))
