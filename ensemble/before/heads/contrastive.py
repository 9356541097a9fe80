"""Contrastive: queries and members in one space, where a query lies near the members that answer it well (RouterDC,
arXiv 2409.19886)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ensemble.before.heads.head import Head
from ensemble.before.routing.parts import NeedsFit
from ensemble.before.solvers import convex
from ensemble.before.solvers.descent import Descent, settle
from ensemble.outcomes.dense import Floats

if TYPE_CHECKING:
    import torch

    from ensemble.before.solvers.descent import Tensors

_LINKED = 1e-3
"""Penalty of the regression of qualities on cosines."""
_LEAST = 0.25
"""Least sum of the variances of a place, whose length is 1: members that lie together tell little of one more."""
_WRONG = 0.5
"""A member above this is never pushed away from a query."""


@dataclass
class Contrastive(Head, kind="contrastive"):
    """Scores are cosines of the query's place, which is linear in its embedding, and the members' places."""

    project: Floats
    """[d, r]."""
    places: Floats
    """[M, r], of any length above 0."""
    link: Floats | None = None
    """[2], slope and constant of the log-odds of being right by a cosine less the members' mean cosine, of all members
    of the fit together: what a newcomer is placed by."""

    probabilities: ClassVar[bool] = False

    def scores(self, x: Floats) -> Floats:
        return np.asarray(unit(x @ self.project) @ unit(self.places).T)

    def widen(self, x: Floats, quality: Floats) -> Contrastive:
        """The new place is the likeliest one, where places are drawn around the members' mean as theirs are spread.

        The mean of the queries that it answers well would be nearer to most queries than any other member's place.
        """
        if self.link is None:
            raise NeedsFit("the head does not know what its cosines say of qualities")
        known, queries = unit(self.places), unit(x @ self.project)
        place = _placed(known, queries, quality, self.link)
        return replace(self, places=np.concatenate([self.places, place[None]]))

    def linked(self, x: Floats, quality: Floats) -> Contrastive:
        """The same head, which knows what its cosines say of qualities [n, M], NaN where not observed."""
        seen, cosines = ~np.isnan(quality), self.scores(x)
        apart = (cosines - cosines.mean(axis=1, keepdims=True))[seen][:, None]
        right = np.clip(quality[seen], 0, 1)[:, None]
        weights = convex.logistic(apart, right, _LINKED, np.ones(right.shape), np.zeros((2, 1)))
        return replace(self, link=weights[:, 0])


def _placed(known: Floats, queries: Floats, quality: Floats, link: Floats) -> Floats:
    """[r].

    Args:
        known: [M, r], members' places, unit rows.
        queries: [k, r], unit rows.
        quality: [k].
        link: of the head.
    """
    from scipy.optimize import minimize

    mean = known.mean(axis=0)
    variance = max(float(((known - mean) ** 2).mean()), _LEAST / known.shape[1])
    usual = (queries @ known.T).mean(axis=1)

    def unlikely(place: Floats) -> tuple[float, Floats]:
        length = max(float(np.linalg.norm(place)), 1e-9)
        way, away = place / length, place - mean
        sums = link[0] * (queries @ way - usual) + link[1]
        lost = (np.logaddexp(0, sums) - quality * sums).sum() + away @ away / (2 * variance)
        slope = queries.T @ (link[0] * (convex.sigmoid(sums) - quality))
        return float(lost), (slope - (slope @ way) * way) / length + away / variance

    # Members that lie opposite each other have a mean of no direction.
    start = mean if np.linalg.norm(mean) > _LEAST / 10 else known[0]
    return np.asarray(minimize(unlikely, start, jac=True, method="L-BFGS-B").x)


def unit(rows: Floats) -> Floats:
    """Of length 1; rows of zeros stay."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """What is drawn together and pushed apart."""

    size: int
    """r."""
    positives: int
    """Best members of a query that it is drawn to."""
    negatives: int
    """Worst members of a query that it is pushed away from."""
    temperature: float
    """Cosines are divided by it."""
    weight: float
    """Of the loss between queries; 0: none."""
    others: int
    """Queries of other clusters for each query."""
    ties: bool
    """Whether members that are level with the last positive or negative count too; else the first of them do."""


def fit(x: Floats, quality: Floats, clusters: Floats, contrast: Contrast, options: Descent, seed: int) -> Contrastive:
    """
    Args:
        x: [n, d], unit rows.
        quality: [n, M], NaN where not observed; may be below 0, when costs were taken off.
        clusters: [n], queries with equal numbers are alike.
    """
    import torch

    draws = torch.Generator().manual_seed(seed)

    def loss(parameters: Tensors, rows: Tensors) -> torch.Tensor:
        queries = torch.nn.functional.normalize(rows["x"] @ parameters["project"], dim=1)
        members = torch.nn.functional.normalize(parameters["places"], dim=1)
        total = members_loss(queries @ members.T / contrast.temperature, rows["quality"], contrast)
        if contrast.weight:
            total = total + contrast.weight * queries_loss(queries, rows["clusters"], contrast.others, draws)
        return total

    rows = {"x": x, "quality": quality, "clusters": clusters}
    found = settle(_start(x, quality, contrast.size, seed), loss, rows, options, seed)
    return Contrastive(found["project"], found["places"]).linked(x, quality)


def _start(x: Floats, quality: Floats, size: int, seed: int) -> Mapping[str, Floats]:
    """A random map, and each member at the mean of the queries that it answers better than members do on average."""
    random = np.random.default_rng([seed, 19])
    project = random.standard_normal((x.shape[1], size)) / np.sqrt(size)
    seen = ~np.isnan(quality)
    middle = np.where(seen, quality, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    better = np.where(seen, quality - middle[:, None], 0)
    places = unit(better.T @ (x @ project)) + unit(x.mean(axis=0) @ project)
    return {"project": project, "places": places}


def members_loss(logits: torch.Tensor, quality: torch.Tensor, contrast: Contrast) -> torch.Tensor:
    """Sample-LLM loss: for each positive p, -log e^p ÷ (e^p + Σ over negatives e^n), summed; mean over the queries.

    Args:
        logits: [n, M].
        quality: [n, M], NaN where not observed. Positives at 0 or below, and negatives above one half, do not count.
    """
    import torch

    seen = ~torch.isnan(quality)
    best = _extremes(torch.where(seen, quality, -torch.inf), contrast.positives, contrast.ties)
    worst = _extremes(torch.where(seen, -quality, -torch.inf), contrast.negatives, contrast.ties)
    positive = best & seen & (torch.nan_to_num(quality) > 0)
    negative = worst & seen & (torch.nan_to_num(quality) <= _WRONG) & ~positive
    # A finite floor in place of minus infinity: the gradient of a row without negatives would not be a number.
    pushed = torch.where(negative, logits, -1e4).logsumexp(dim=1, keepdim=True)
    each = torch.nn.functional.softplus(pushed - logits)
    return (each * positive).sum() / len(quality)


def _extremes(scores: torch.Tensor, count: int, ties: bool) -> torch.Tensor:
    """[n, M], whether a score is one of the highest of its row."""
    import torch

    count = min(count, scores.shape[1])
    if ties:
        return scores >= scores.topk(count, dim=1).values[:, -1:]
    order = torch.argsort(scores, dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, True)


def queries_loss(queries: torch.Tensor, clusters: torch.Tensor, others: int, draws: torch.Generator) -> torch.Tensor:
    """Sample-sample loss: a query is drawn to one of its cluster, and pushed away from some of other clusters.

    Args:
        queries: [n, r], unit rows.
        clusters: [n].
        others: queries of other clusters for each query.
    """
    import torch

    same = clusters[:, None] == clusters[None, :]
    alike = same & ~torch.eye(len(queries), dtype=torch.bool)
    others = min(others, len(queries))
    lots = torch.rand(same.shape, generator=draws)
    friend = torch.where(alike, lots, -1.0).argmax(dim=1)
    far = torch.where(same, -1.0, lots).topk(others, dim=1).indices
    cosines = queries @ queries.T
    near, away = cosines.gather(1, friend[:, None]), cosines.gather(1, far)
    counts = alike.any(dim=1) & ~same.gather(1, far).any(dim=1)
    each = drawn_apart(torch.cat([near, away], dim=1))
    return (each * counts).sum() / counts.sum().clamp(min=1)


def drawn_apart(cosines: torch.Tensor) -> torch.Tensor:
    """[n], -log of the softmax of the first of [n, 1 + H]."""
    return -cosines.log_softmax(dim=1)[:, 0]
