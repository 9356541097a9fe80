"""Options of routers that keep the queries they were fitted to: where the nearest ones are sought."""

from __future__ import annotations

from pydantic import Field, model_validator

from ensemble.before.fitting.training import FitOptions
from ensemble.before.heads.nearest import Search


class SearchOptions(FitOptions):
    """Options of the fit of every router that compares a query with stored ones."""

    search: Search = "auto"
    """exact: a query is compared with all stored ones; cells: with those in the nearest cells of a k-means, which finds
    most of the nearest at a tenth of the time; auto: exact up to 8,192 stored queries, cells beyond. Omitted: auto."""
    compared: int | None = Field(default=None, ge=1)
    """Of cells: stored queries that one is compared with at least. Omitted: four for each that is sought, and 3,072 at
    least; sw_ranking of routellm, which weighs all others by cells, 4,096."""

    @model_validator(mode="after")
    def _in_cells(self) -> SearchOptions:
        if self.compared is not None and self.search == "exact":
            raise ValueError("search exact compares with all stored queries; compared goes with cells and auto")
        return self
