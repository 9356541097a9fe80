"""What fitting in embedding space needs of a model: its vocabulary and two matrices. Knows no file and no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensemble.errors import ConfigurationError
from ensemble.member import Floats
from ensemble.vocabulary import NO_CLASS, STOP, Ids, Vocabulary, union_of

_NOTHING = 1e-6
"""A row that is shorter than this part of the usual length has never been trained."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelArrays:
    """One model. V ids, width d."""

    name: str
    vocabulary: Vocabulary
    input_embeddings: Floats
    """Shape [at least V, d], a row for each id; rows beyond V are of no token."""
    output_embeddings: Floats
    """Shape [V, d]: the rows of the language-modelling head; the same as above where a model ties them."""

    def __post_init__(self) -> None:
        size = self.vocabulary.size
        for name, rows in (("input", self.input_embeddings), ("output", self.output_embeddings)):
            if rows.ndim != 2 or len(rows) < size:
                rule = f"{name} embeddings have shape {rows.shape}; the vocabulary needs [{size} or more, width]"
                raise ConfigurationError(f"the {rule}", param=self.name)


def shared_ids(models: Sequence[ModelArrays]) -> list[Ids]:
    """Ids of the texts that every vocabulary has as a token, per model, each shape [n], in the order of their bytes.

    Of several ids for the same bytes the last: SentencePiece vocabularies list single bytes, which are used for
    characters that have no piece alone, before pieces.
    """
    union = union_of([model.vocabulary for model in models])
    table = np.full((len(models), union.size), NO_CLASS, np.int32)
    for row, classes in zip(table, union.classes, strict=True):
        written = np.flatnonzero(classes != NO_CLASS)
        # Of several values for one place numpy keeps the last.
        row[classes[written]] = written
    shared = np.flatnonzero((table != NO_CLASS).all(axis=0))
    return list(table[:, shared[shared != STOP]])


def trained(rows: Floats) -> npt.NDArray[np.bool_]:
    """Shape [n]: which rows have a direction at all."""
    lengths = np.linalg.norm(rows.astype(np.float32), axis=1)
    return np.asarray(lengths > _NOTHING * np.median(lengths))
