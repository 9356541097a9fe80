"""Fitting EVA (arXiv 2404.09492): from a helper's vocabulary to the pivot's, through their output embeddings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np
import torch

from ensemble.artifacts import Artifact, Manifest
from ensemble.errors import ConfigurationError
from ensemble.fitting.alignment import Told, aligned, nearest
from ensemble.fitting.models import ModelArrays, shared_ids, trained
from ensemble.fitting.options import require
from ensemble.heads.projection import LISTED
from ensemble.member import Floats
from ensemble.vocabulary import Ids, Vocabulary

_MANY = 5
"""Rows with more entries than this are looked at for being meaningless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaFit:
    """How a projection is fitted."""

    topk: int = LISTED
    """Likeliest tokens of the helper that are projected; 320 at most."""
    neighbours: int = 10
    """Tokens of the pivot that one of the helper may stand for."""
    threshold: float = 0.1
    """Least similarity of those."""
    deviation: float = 0.01
    """A token with more than five neighbours whose similarities vary no more than this means nothing: its row is
    empty."""
    shared: Literal["similar", "same"] = "similar"
    """``same``: a token that both vocabularies have stands for itself alone. ``similar``, as published: for all that
    are similar to it."""
    fidelity: Literal["fixed", "reference"] = "fixed"
    """``reference``: rows hold similarities as they are, so that a helper's projected mass can exceed 1; else they sum
    to 1."""

    def __post_init__(self) -> None:
        require(1 <= self.topk <= LISTED, "topk", f"must be between 1 and {LISTED}")
        require(self.neighbours >= 1, "neighbours", "must be at least 1")
        # Entries are masses: none of them can be negative.
        require(self.threshold >= 0, "threshold", "must be at least 0")
        require(self.deviation >= 0, "deviation", "must be at least 0")


def fit_eva(
    helper: ModelArrays,
    pivot: ModelArrays,
    options: EvaFit | None = None,
    *,
    device: str = "cpu",
    told: Told | None = None,
) -> Artifact:
    """The projection that is resident at ``helper``.

    Text tokens are aligned by ``ensemble.fitting.alignment`` with all tokens of equal bytes as seeds, and rows of
    similarities filtered as published. Departures: bytes are compared, not spellings; every stop id of the helper
    stands for the pivot's stop ids, in equal parts; control ids, on either side, for nothing; rows are normalised
    (``EvaFit.fidelity``).

    Args:
        told: how many of the helper's tokens have been compared with the pivot's, and of how many.

    Raises:
        ConfigurationError: the vocabularies share no token.
    """
    options = options or EvaFit()
    texts = [_texts(model) for model in (helper, pivot)]
    seeds = _seeds([helper, pivot], texts)
    rows = [
        torch.from_numpy(np.asarray(model.output_embeddings[ids], np.float32)).to(device)
        for model, ids in zip((helper, pivot), texts, strict=True)
    ]
    left, right, whitened = aligned(rows[0], rows[1], seeds)
    places, scores = (found.cpu().numpy() for found in nearest(left, right, options.neighbours, told))
    ids, weights = texts[1][places], kept(scores, options)
    own = np.column_stack(seeds)
    metrics = _metrics(places, weights, own)
    if options.shared == "same":
        ids[own[:, 0], 0] = texts[1][own[:, 1]]
        weights[own[:, 0]] = np.eye(1, weights.shape[1])
    tensors = _table(helper.vocabulary, pivot.vocabulary, texts[0], ids, weights)
    settings = {**asdict(options), "size": pivot.vocabulary.size, "whitened": whitened}
    return Artifact(_manifest(helper, pivot, settings, metrics), tensors)


def kept(scores: Floats, options: EvaFit) -> Floats:
    """Weights of neighbours, from their similarities.

    Args:
        scores: shape [n, w].

    Returns:
        The same shape: 0 for what is not similar enough, and for all of a row that means nothing.
    """
    keep = scores >= options.threshold
    count = keep.sum(axis=1)
    mean = (scores * keep).sum(axis=1) / np.maximum(count, 1)
    spread = np.sqrt((((scores - mean[:, None]) * keep) ** 2).sum(axis=1) / np.maximum(count, 1))
    keep &= ~((count > _MANY) & (spread <= options.deviation))[:, None]
    weights = np.where(keep, scores, 0.0).astype(np.float32)
    if options.fidelity == "reference":
        return weights
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12))


def _texts(model: ModelArrays) -> Ids:
    """Ids that stand for text and have a direction."""
    text = np.array([bool(token) for token in model.vocabulary.tokens])
    text[list(model.vocabulary.stop_ids)] = False
    return np.flatnonzero(text & trained(model.output_embeddings[: model.vocabulary.size])).astype(np.int32)


def _seeds(models: list[ModelArrays], texts: list[Ids]) -> tuple[Ids, Ids]:
    """Places among ``texts`` of the tokens that both have."""
    own = shared_ids(models)
    both = np.isin(own[0], texts[0]) & np.isin(own[1], texts[1])
    if not both.any():
        names = f"{models[0].name} and {models[1].name}"
        raise ConfigurationError(f"{names} have no token in common: nothing to align their vocabularies with")
    left, right = (np.searchsorted(ids, mine[both]).astype(np.int32) for ids, mine in zip(texts, own, strict=True))
    return left, right


def _table(helper: Vocabulary, pivot: Vocabulary, texts: Ids, ids: Ids, weights: Floats) -> dict[str, Floats | Ids]:
    """Tensors of a head of kind ``projection``."""
    stops = sorted(pivot.stop_ids)
    width = max(ids.shape[1], len(stops))
    table = np.zeros((helper.size, width), np.int32)
    parts = np.zeros((helper.size, width), np.float32)
    table[texts, : ids.shape[1]], parts[texts, : ids.shape[1]] = ids, weights
    for stop in helper.stop_ids if stops else ():
        table[stop, : len(stops)], parts[stop, : len(stops)] = stops, 1 / len(stops)
    table[parts == 0] = 0
    return {"ids": table, "weights": parts}


def _metrics(places: Ids, weights: Floats, own: Ids) -> dict[str, float]:
    has = weights.sum(axis=1) > 0
    # Columns are ordered by similarity.
    twins = (places[own[:, 0], 0] == own[:, 1]) & has[own[:, 0]]
    return {"seeds": float(len(own)), "twins_first": float(twins.mean()), "covered": float(has.mean())}


def _manifest(
    helper: ModelArrays, pivot: ModelArrays, settings: dict[str, object], metrics: dict[str, float]
) -> Manifest:
    return Manifest(
        method="eva",
        kind="projection",
        member=helper.name,
        vocabulary=helper.vocabulary.fingerprint,
        space=pivot.vocabulary.fingerprint,
        others={pivot.name: pivot.vocabulary.fingerprint},
        settings=settings,
        metrics=metrics,
        version=version("ray-ensemble"),
    )
