"""What a router is fitted to: outcomes with an embedding of each query, and values shared by all fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict

from ensemble.outcomes.dense import Bools, Dense, Floats, Ints


class FitOptions(BaseModel):
    """Base of every router's fit options; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Outcomes to learn from, n queries × M members."""

    table: Dense
    x: Floats
    """[n, d] float32, unit rows: an embedding of each query."""
    seed: int = 0
    """Of everything that is drawn: equal seeds give equal routers."""

    def rows(self, rows: Ints | Bools) -> Training:
        """Some of the queries."""
        return replace(self, table=self.table.rows(rows), x=self.x[rows])

    def held_out(self, share: float = 0.2) -> tuple[Training, Training]:
        """A part to fit to and one to choose options on, drawn by the seed; each holds a query at least."""
        order = np.random.default_rng([self.seed, 7]).permutation(len(self.table))
        kept = min(max(1, round(len(order) * share)), len(order) - 1)
        return self.rows(np.sort(order[kept:])), self.rows(np.sort(order[:kept]))
