"""The dense view of an outcome table: a row for each query, a column for each member, NaN where nothing was observed.

What routers are fitted to and compared on. Knows nothing of files or of how a router works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """Outcomes of n queries at M members. Arrays of shape [n, M] hold NaN for what was not observed.

    >>> two = Dense(queries=("q",), texts=("1+1=",), members=("a", "b"), quality=np.array([[1.0, np.nan]]))
    >>> two.observed.tolist(), two.means.tolist()
    ([[True, False]], [1.0, nan])
    """

    queries: tuple[str, ...]
    """Ids of the queries, each once."""
    texts: tuple[str | None, ...]
    """What was asked; ``None`` where the table does not say."""
    members: tuple[str, ...]
    """Names of the columns; a member with a strategy is one of its own."""
    quality: Floats
    """[n, M], 0 (wrong) to 1 (right); the mean over the samples of a cell."""
    cost: Floats = field(default=None)  # type: ignore[arg-type]
    """[n, M], money."""
    input_tokens: Floats = field(default=None)  # type: ignore[arg-type]
    """[n, M]."""
    output_tokens: Floats = field(default=None)  # type: ignore[arg-type]
    """[n, M]."""
    latency: Floats = field(default=None)  # type: ignore[arg-type]
    """[n, M], seconds."""
    propensity: Floats = field(default=None)  # type: ignore[arg-type]
    """[n, M], probability with which the cell was asked for; NaN where nobody drew."""
    tasks: tuple[str, ...] = ()
    """What kind of query each is; empty texts where the table does not say."""
    samples: Floats | None = None
    """[n, M, S], quality of single samples, NaN where there are fewer; ``None``: one for each cell."""
    features: Floats | None = None
    """[n, d], unit rows: embeddings that came with the table."""
    prices: Floats = field(default=None)  # type: ignore[arg-type]
    """[M, 2], money per token read and written; NaN where unknown."""

    def __post_init__(self) -> None:
        shape = self.quality.shape
        if shape != (len(self.queries), len(self.members)) or len(self.texts) != len(self.queries):
            raise ValueError(f"{len(self.queries)} queries × {len(self.members)} members, but quality has {shape}")
        for name in ("cost", "input_tokens", "output_tokens", "latency", "propensity"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(shape, np.nan, np.float32))
        if self.prices is None:
            object.__setattr__(self, "prices", np.full((shape[1], 2), np.nan))
        if not self.tasks:
            object.__setattr__(self, "tasks", ("",) * shape[0])

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def observed(self) -> Bools:
        """[n, M], where there is an outcome."""
        return ~np.isnan(self.quality)

    @property
    def complete(self) -> Bools:
        """[n], queries with an outcome at every member."""
        return np.asarray(self.observed.all(axis=1))

    @property
    def means(self) -> Floats:
        """[M], mean quality over what was observed; NaN where nothing was."""
        return mean_observed(self.quality)

    @property
    def best(self) -> int:
        """The member with the highest mean quality, the first of equals; what every router has to beat."""
        return int(np.argmax(np.nan_to_num(self.means, nan=-np.inf)))

    def rows(self, rows: Ints | Bools | Sequence[int]) -> Dense:
        """Some of the queries, in this order."""
        places = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, int)
        changed: dict[str, object] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in ("members", "prices") or value is None:
                continue
            changed[f.name] = value[places] if isinstance(value, np.ndarray) else tuple(value[i] for i in places)
        return replace(self, **changed)  # type: ignore[arg-type]

    def among(self, members: Sequence[str]) -> Dense:
        """The same queries at some of the members, in this order.

        Raises:
            KeyError: there is no such member.
        """
        places = [self._place(name) for name in members]
        changed: dict[str, object] = {"members": tuple(members), "prices": self.prices[places]}
        for name in ("quality", "cost", "input_tokens", "output_tokens", "latency", "propensity", "samples"):
            value = getattr(self, name)
            changed[name] = None if value is None else value[:, places]
        return replace(self, **changed)  # type: ignore[arg-type]

    def _place(self, name: str) -> int:
        if name not in self.members:
            raise KeyError(name)
        return self.members.index(name)


def mean_observed(values: Floats, weights: Floats | None = None, empty: float = np.nan) -> Floats:
    """Means over the first axis, of what is not NaN.

    Args:
        values: [n, M].
        weights: [n] or [n, M], not negative.
        empty: what stands for a column in which nothing counts.
    """
    seen = ~np.isnan(values)
    weight = seen.astype(float) if weights is None else seen * (weights[:, None] if weights.ndim == 1 else weights)
    total = weight.sum(axis=0)
    sums = (np.nan_to_num(values) * weight).sum(axis=0)
    return np.where(total > 0, sums / np.where(total > 0, total, 1), empty)
