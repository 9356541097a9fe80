"""``ensemble evaluate --routers``: routers fitted to one part of an outcome table and compared on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble.errors import BadRequest
from ensemble.outcomes.splits import Split
from ensemble.outcomes.table import Outcomes, read
from jobs.evaluation.options import names_of
from jobs.evaluation.routers import divisions, figures, results
from jobs.evaluation.routers.comparison import Comparison, Told, compared, routers
from jobs.evaluation.routers.figures import Row

USES = frozenset({"routers", "outcomes", "ood_by", "encoder", "members", "output", "split", "seed"})
"""Options of the command that say something of routers; others are refused."""

Compared = list[tuple[Comparison, Sequence[Row]]]


def run(given: Mapping[str, Any], told: Told) -> Compared:
    """Fit, compare and write; what can be refused is refused before anything is fitted.

    Args:
        given: the command's options; ``split`` is ``None`` where it was not given.

    Raises:
        BadRequest: the table, a name or an option cannot be used.
    """
    names = names_of(given["routers"])
    entrants = routers(() if names == ("all",) else names)
    outcomes = read(given["outcomes"], responses=False)
    if members := names_of(given["members"]):
        outcomes = outcomes.among(members)
    seed, share = given["seed"], given["split"]
    if share is not None and not 0 < share < 1:
        raise BadRequest(f"--split is the share that is fitted to, above 0 and below 1; got {share:g}", param="split")
    table = divisions.encoded(outcomes, outcomes.dense(), given["encoder"])
    found: Compared = []
    facts: dict[str, object] = {"outcomes": given["outcomes"], "encoder": table.encoder, "seed": seed}
    for title, split in _parts(outcomes, share, given["ood_by"], seed).items():
        divided = divisions.divided(table, split, seed)
        facts |= {f"{title}, {name}": words for name, words in divisions.sizes(divided).items()}
        comparison = compared(title, divided, entrants, told)
        found.append((comparison, figures.rows(comparison, seed)))
    results.write(found, Path(given["output"]), facts)
    return found


def _parts(outcomes: Outcomes, share: float | None, ood_by: str | None, seed: int) -> dict[str, list[Split]]:
    """What is compared, by its title."""
    parts = {"In distribution": [divisions.by_split(outcomes, share, seed)]}
    if ood_by is not None:
        parts["Tasks that were not fitted to"] = divisions.by_tasks(outcomes, seed)
    return parts
