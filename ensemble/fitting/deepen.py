"""Fitting DeePEn (arXiv 2404.12715): every member's tokens as seen from the tokens that all members share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import inf

import numpy as np
import torch

from ensemble.artifacts import Artifact, Manifest
from ensemble.errors import ConfigurationError
from ensemble.fitting.alignment import unit
from ensemble.fitting.models import ModelArrays, shared_ids, trained
from ensemble.fitting.options import require
from ensemble.member import Floats
from ensemble.vocabulary import Ids

_LARGE = 2**26
"""Numbers in a matrix that is stored in half precision."""
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepenFit:
    """How relative representations are fitted."""

    temperature: float = 100.0
    """The paper's τ: similarities are multiplied by it before the softmax."""
    anchors: int | None = None
    """How many shared tokens are anchors, taken evenly from all in the order of their bytes; a matrix has a column for
    each. ``None``: all, as published."""
    half: bool | None = None
    """Whether matrices are stored in half precision. ``None``: those of more than 64 million numbers are."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < inf, "temperature", "must be above 0")
        require(self.anchors is None or self.anchors >= 1, "anchors", "must be at least 1")


def fit_deepen(
    members: Sequence[ModelArrays], options: DeepenFit | None = None, *, device: str = "cpu"
) -> dict[str, Artifact]:
    """The head of each member, by name; all of one space.

    Departures: tokens are shared where their bytes are equal, not their spellings; a token that some member has never
    trained (an input embedding of length 0) is no anchor, and its own row is uniform.

    Raises:
        ConfigurationError: the members share no token.
    """
    options = options or DeepenFit()
    own = _anchors(members, options.anchors)
    if not own[0].size:
        names = ", ".join(model.name for model in members)
        raise ConfigurationError(f"{names} have no trained token in common: there is no anchor")
    tokens = members[0].vocabulary.tokens
    space = fingerprint([tokens[i] for i in own[0]])
    return {
        model.name: _artifact(members, model, relative(_inputs(model), ids, options, device), space, options)
        for model, ids in zip(members, own, strict=True)
    }


def fingerprint(anchors: Sequence[bytes]) -> str:
    """Of the anchors in their order."""
    digest = hashlib.sha256()
    for anchor in anchors:
        digest.update(len(anchor).to_bytes(4, "big") + anchor)
    return digest.hexdigest()[:16]


def relative(embeddings: Floats, anchors: Ids, options: DeepenFit, device: str = "cpu") -> Floats:
    """R: softmax(τ · cosines with the anchors), each row of cosines brought to length 1 before.

    Args:
        embeddings: shape [V, d]; anchors: shape [A], ids.

    Returns:
        Shape [V, A], float32; rows sum to 1.
    """
    rows = unit(torch.from_numpy(np.asarray(embeddings, np.float32)).to(device))
    rows[torch.from_numpy(~trained(embeddings)).to(device)] = 0.0
    columns = rows[torch.from_numpy(anchors).long().to(device)].T
    found = np.empty((len(rows), columns.shape[1]), np.float32)
    for first in range(0, len(rows), _BLOCK):
        cosines = unit(rows[first : first + _BLOCK] @ columns)
        found[first : first + _BLOCK] = (options.temperature * cosines).softmax(dim=1).cpu().numpy()
    return found


def _inputs(model: ModelArrays) -> Floats:
    return np.asarray(model.input_embeddings[: model.vocabulary.size], np.float32)


def _anchors(members: Sequence[ModelArrays], count: int | None) -> list[Ids]:
    """Ids of the anchors, per member, in one order."""
    own = shared_ids(members)
    usable = np.all([trained(_inputs(model))[ids] for model, ids in zip(members, own, strict=True)], axis=0)
    places = np.flatnonzero(usable)
    if count is not None and count < len(places):
        places = places[np.linspace(0, len(places) - 1, count).round().astype(int)]
    return [ids[places] for ids in own]


def _artifact(
    members: Sequence[ModelArrays], model: ModelArrays, rows: Floats, space: str, options: DeepenFit
) -> Artifact:
    half = rows.size > _LARGE if options.half is None else options.half
    manifest = Manifest(
        method="deepen",
        kind="relative",
        member=model.name,
        vocabulary=model.vocabulary.fingerprint,
        space=space,
        others={other.name: other.vocabulary.fingerprint for other in members if other is not model},
        settings={**asdict(options), "half": half},
        metrics={"anchors": float(rows.shape[1])},
        version=version("ray-ensemble"),
    )
    stops = np.array(sorted(model.vocabulary.stop_ids), np.int32)
    return Artifact(manifest, {"rows": rows.astype(np.float16 if half else np.float32), "stops": stops})
