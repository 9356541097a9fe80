"""Two embedding spaces made one with the help of pairs of rows that mean the same: VecMap's supervised recipe.

Normalise, whiten, rotate by the SVD of the pairs' correlation, weigh directions by it, colour again (Artetxe et al.,
AAAI 2018). Closed form; knows no tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ensemble.vocabulary import Ids

_WEIGHT = 0.5
"""Power of the singular values that directions are weighed by, on both sides."""
_RANK = 1e-8
"""Eigenvalues of the seeds below this part of the largest count as none."""
_PAIRS = 2**25
"""Rows that are compared with all others at once, times those others."""
_SPARE = 8
"""Candidates for each neighbour that is wanted, as it is not known until the end how similar they are."""

Told = Callable[[int, int], None]
"""Told (rows done, of how many)."""


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows of length 1; a row of zeros stays one."""
    lengths: torch.Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp_min(1e-12)


def aligned(left: torch.Tensor, right: torch.Tensor, seeds: tuple[Ids, Ids]) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Both spaces as one. d: the smaller width; the wider space is first brought to it by its principal directions.

    Args:
        left, right: shape [n, width], [m, width].
        seeds: shape [s] each, rows that mean the same.

    Returns:
        Shape [n, d] and [m, d], and whether whitening took part: it takes seeds of full rank on both sides, that is
        more than d of them at least. Without it directions are not weighed either; a rotation is left.
    """
    width = min(left.shape[1], right.shape[1])
    left, right = (_narrowed(_centred(rows), width) for rows in (left, right))
    chosen = [torch.from_numpy(ids).long().to(left.device) for ids in seeds]
    whitenings = [_whitening(rows[ids]) for rows, ids in zip((left, right), chosen, strict=True)]
    if any(matrix is None for matrix in whitenings):
        turns, _ = _turns(left[chosen[0]], right[chosen[1]])
        return left @ turns[0], right @ turns[1], False
    white = [rows @ matrix for rows, matrix in zip((left, right), whitenings, strict=True) if matrix is not None]
    turns, strengths = _turns(white[0][chosen[0]], white[1][chosen[1]])
    weigh = strengths**_WEIGHT
    found = [
        ((rows @ turn) * weigh) @ turn.T @ torch.linalg.inv(matrix.double()).to(rows.dtype) @ turn
        for rows, turn, matrix in zip(white, turns, whitenings, strict=True)
        if matrix is not None
    ]
    return found[0], found[1], True


def nearest(
    left: torch.Tensor, right: torch.Tensor, count: int, told: Told | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows on the right that are most similar to each on the left, by CSLS with neighbourhood 1: twice the cosine
    less the largest cosine that the row on the right has with any on the left.

    Args:
        left, right: shape [n, d], [m, d]; of any length.
        told: how many rows on the left are done, and n.

    Returns:
        Shape [n, count'], int64, best first, and [n, count'], their similarities; count' is at most m.
    """
    left, right = unit(left), unit(right)
    count = min(count, len(right))
    found, crowded = _candidates(left, right, min(_SPARE * count, len(right)), told or _nobody)
    scores = (2 * found.cosines - crowded[found.ids]).topk(count, dim=1)
    ids, best = found.ids.gather(1, scores.indices), scores.values
    # What was left out has lost since, as the kept ones have; these rows' neighbours may have lost more.
    unsure = torch.nonzero(best[:, -1] < found.left_out).flatten()
    for rows in torch.split(unsure, _rows(right)):
        again = (2 * (left[rows] @ right.T) - crowded).topk(count, dim=1)
        ids[rows], best[rows] = again.indices, again.values
    return ids, best


class _Candidates(NamedTuple):
    ids: torch.Tensor
    """Shape [n, kept]: rows on the right."""
    cosines: torch.Tensor
    """The same shape."""
    left_out: torch.Tensor
    """Shape [n]: no similarity of another row on the right exceeds this."""


def _candidates(left: torch.Tensor, right: torch.Tensor, kept: int, told: Told) -> tuple[_Candidates, torch.Tensor]:
    """Which rows on the right may be most similar, and the largest cosine that each has, shape [m].

    One look at every pair is half of the work that the definition takes. Until the end, the largest cosine so far
    stands for the largest, so that similarities are never taken for smaller than they are.
    """
    crowded = right.new_full((len(right),), -torch.inf)
    buffers = left.new_empty(2, min(_rows(right), len(left)), len(right))
    parts = []
    for first in range(0, len(left), _rows(right)):
        block = left[first : first + _rows(right)]
        # New memory for each block would cost as much time as half of the product.
        cosines, scores = buffers[:, : len(block)]
        torch.mm(block, right.T, out=cosines)
        torch.maximum(crowded, cosines.amax(dim=0), out=crowded)
        torch.mul(cosines, 2, out=scores).sub_(crowded)
        bounds, ids = scores.topk(kept, dim=1)
        limit = bounds[:, -1] if kept < len(right) else torch.full_like(bounds[:, -1], -torch.inf)
        parts.append(_Candidates(ids, cosines.gather(1, ids), limit))
        told(first + len(block), len(left))
    return _Candidates(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))), crowded


def _rows(right: torch.Tensor) -> int:
    return max(1, _PAIRS // len(right))


def _nobody(done: int, of: int) -> None:
    return None


def _centred(rows: torch.Tensor) -> torch.Tensor:
    rows = unit(rows)
    return unit(rows - rows.mean(dim=0))


def _narrowed(rows: torch.Tensor, width: int) -> torch.Tensor:
    if rows.shape[1] == width:
        return rows
    shifted = rows.double() - rows.double().mean(dim=0)
    _, directions = torch.linalg.eigh(shifted.T @ shifted)
    return unit((rows.double() @ directions[:, -width:]).to(rows.dtype))


def _whitening(seeds: torch.Tensor) -> torch.Tensor | None:
    """Shape [d, d]: makes the seeds' directions uncorrelated; ``None`` where there are too few for that."""
    values, vectors = torch.linalg.eigh(seeds.double().T @ seeds.double())
    if len(seeds) <= seeds.shape[1] or values[0] <= _RANK * values[-1]:
        return None
    whitening: torch.Tensor = (vectors / values.sqrt()) @ vectors.T
    return whitening.to(seeds.dtype)


def _turns(left: torch.Tensor, right: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Rotations of both sides under which their pairs agree best, and how strongly in each direction."""
    one, strengths, other = torch.linalg.svd(left.double().T @ right.double())
    return (one.to(left.dtype), other.T.to(left.dtype)), strengths.to(left.dtype)
