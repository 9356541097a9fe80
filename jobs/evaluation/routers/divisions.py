"""Parts of an outcome table that are fitted to and tested on: one division, or a few where tasks are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ensemble.before.fitting.training import Training
from ensemble.errors import BadRequest
from ensemble.outcomes import splits
from ensemble.outcomes.dense import Bools, Dense, Floats, Ints
from ensemble.outcomes.splits import Split
from ensemble.outcomes.table import Outcomes

FOLDS = 5
"""Groups of tasks that are left out of the fit in turn."""


class Division(NamedTuple):
    """Queries to fit to, and others to test on."""

    fit: Training
    test: Training
    """Complete: every member has an outcome for every query."""


class Encoded(NamedTuple):
    """A table with its view and, where they came with it, embeddings of all its queries."""

    outcomes: Outcomes
    view: Dense
    encoder: str
    """``features`` or ``tfidf``; the latter is fitted to each part that is fitted to."""


def encoded(outcomes: Outcomes, view: Dense, encoder: str | None) -> Encoded:
    """
    Args:
        encoder: ``None``: the embeddings that came with the table where there are some, else TF-IDF.

    Raises:
        BadRequest: there are none, or no texts to make some of.
    """
    encoder = encoder or ("tfidf" if view.features is None else "features")
    if encoder == "features" and view.features is None:
        raise BadRequest("the table came with no embeddings of its queries; allowed: tfidf", param="encoder")
    if encoder == "tfidf" and not all(view.texts):
        raise BadRequest("the table has queries without a text; allowed: features", param="encoder")
    return Encoded(outcomes, view, encoder)


def by_split(outcomes: Outcomes, share: float | None, seed: int) -> Split:
    """The table's own parts where it has some and no share is given, else drawn ones.

    Args:
        share: of the queries that are fitted to.
    """
    found = set(outcomes.column("split"))
    if share is None and {"train", "test"} <= found:
        return splits.by_column(outcomes, ("train",), ("test",))
    return splits.random(outcomes, 1 - (0.7 if share is None else share), seed)


def by_tasks(outcomes: Outcomes, seed: int) -> list[Split]:
    """Every task is tested on once, by routers that were not fitted to it.

    Raises:
        BadRequest: there are fewer than two tasks.
    """
    tasks = sorted(set(outcomes.column("task")) - {""})
    if len(tasks) < 2:
        raise BadRequest(f"leaving tasks out needs two of them; the table has {len(tasks)}", param="ood_by")
    order = np.random.default_rng(seed).permutation(len(tasks))
    groups = [[tasks[i] for i in order[k::FOLDS]] for k in range(min(FOLDS, len(tasks)))]
    return [splits.by_task(outcomes, group) for group in groups]


def divided(table: Encoded, found: Sequence[Split], seed: int) -> list[Division]:
    """The divisions of splits; queries that lack an outcome of some member are fitted to, but not tested on.

    Raises:
        BadRequest: nothing is left to test on, or a member has no outcome to be fitted to.
    """
    complete = table.view.complete
    return [_division(table, split, complete, seed) for split in found]


def _division(table: Encoded, split: Split, complete: Bools, seed: int) -> Division:
    test = split.test[complete[split.test]]
    if not len(test):
        rule = "no query that is tested on has an outcome of every member; name fewer with --members"
        raise BadRequest(rule, param="members")
    seen = np.asarray(table.view.observed[split.fit].any(axis=0))
    if silent := [name for name, known in zip(table.view.members, seen, strict=True) if not known]:
        rule = f"no query that is fitted to has an outcome with a quality of {', '.join(silent)}"
        raise BadRequest(f"{rule}; name fewer with --members", param="members")
    embed = _embedding(table, split.fit)
    return Division(*(Training(table=table.view.rows(rows), x=embed[rows], seed=seed) for rows in (split.fit, test)))


def _embedding(table: Encoded, fit: Ints) -> Floats:
    """[n, d] of all queries, from nothing but the part that is fitted to."""
    if table.encoder == "features":
        features = table.view.features
        assert features is not None
        return features.astype(np.float32)
    from ensemble.before.encoders.tfidf import Tfidf

    texts = [text or "" for text in table.view.texts]
    return Tfidf.fit([texts[row] for row in fit]).embed(texts)


def sizes(divisions: Sequence[Division]) -> Mapping[str, str]:
    """What a report says of them."""
    return dict(_sizes(divisions))


def _sizes(divisions: Sequence[Division]) -> Iterator[tuple[str, str]]:
    tested = sum(len(division.test.table) for division in divisions)
    if len(divisions) == 1:
        yield "queries", f"{len(divisions[0].fit.table)} fitted to, {tested} others tested on"
        return
    least = min(len(division.fit.table) for division in divisions)
    yield (
        "queries",
        f"{tested} tested on in {len(divisions)} groups of tasks, at least {least} of other tasks fitted to",
    )
