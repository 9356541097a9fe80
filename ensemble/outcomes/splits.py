"""Which queries are fitted to and which are tested on, as positions; a text that is tested on is never fitted to.

Positions are those of the table's queries, so that they fit each of its views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Bools, Ints
from ensemble.outcomes.table import Outcomes


class Split(NamedTuple):
    """Positions of queries, in the table's order; queries in neither part are left out."""

    fit: Ints
    test: Ints


def random(outcomes: Outcomes, share: float = 0.3, seed: int = 0) -> Split:
    """A part of the queries, drawn by the seed.

    Args:
        share: of the queries that are tested on.

    Raises:
        BadRequest: a part would be empty.
    """
    if not 0 < share < 1:
        raise BadRequest(f"the share that is tested on must be above 0 and below 1; got {share:g}", param="share")
    order = np.random.default_rng(seed).permutation(len(outcomes))
    tested = np.zeros(len(outcomes), bool)
    tested[order[: round(len(order) * share)]] = True
    return _apart(outcomes, ~tested, tested)


def by_column(outcomes: Outcomes, fit: Sequence[str], test: Sequence[str]) -> Split:
    """The table's own parts, as its column ``split`` names them.

    Raises:
        BadRequest: there is no such part, or one is in both.
    """
    found = np.array(outcomes.column("split"))
    if both := sorted(set(fit) & set(test)):
        raise BadRequest(f"{', '.join(both)}: either fitted to or tested on", param="split")
    return _apart(outcomes, _among(found, fit, "part"), _among(found, test, "part"))


def by_task(outcomes: Outcomes, held_out: Sequence[str]) -> Split:
    """Tasks that are tested on and left out of the fit.

    Raises:
        BadRequest: there is no such task, or no other.
    """
    tested = _among(np.array(outcomes.column("task")), held_out, "task")
    return _apart(outcomes, ~tested, tested)


def _among(found: np.ndarray, names: Sequence[str], what: str) -> Bools:
    known = sorted(set(found.tolist()) - {""})
    if strange := [name for name in names if name not in known]:
        has = ", ".join(known) or "none"
        raise BadRequest(f"the table has no {what} {', '.join(strange)}; it has: {has}", param=what)
    among: Bools = np.isin(found, list(names))
    return among


def _apart(outcomes: Outcomes, fit: Bools, test: Bools) -> Split:
    texts = outcomes.column("text")
    tested = {" ".join(texts[row].split()) for row in np.flatnonzero(test)} - {""}
    again = np.array([" ".join(text.split()) in tested for text in texts], bool)
    split = Split(np.flatnonzero(fit & ~again), np.flatnonzero(test))
    for name, rows in zip(("fit to", "test on"), split, strict=True):
        if not len(rows):
            raise BadRequest(f"the split leaves nothing to {name}; give more queries or other parts", param="split")
    return split
