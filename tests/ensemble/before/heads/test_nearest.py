"""Heads that seek in cells: compared with all rows they say what exact search says, whatever came, went or is missing;
compared with some, nearly so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ensemble.before.guards.rightness import Trust
from ensemble.before.heads import nearest
from ensemble.before.heads.elo import Elo
from ensemble.before.heads.head import Outcome, Preference
from ensemble.before.heads.neighbours import Neighbours
from ensemble.before.heads.similarity import SimilarityRanking
from ensemble.before.heads.trusted import Trusted
from ensemble.before.targets.battles import battles
from ensemble.outcomes.dense import Dense, Floats
from tests.ensemble.before.heads.test_cells import rows

N, M = 1500, 3
X, ASKED = rows(N), rows(60, seed=1)
RIGHT = (np.random.default_rng(0).random((N, M)) < 0.2 + 0.6 * (X[:, :M] > 0)).astype(float)
HOLES = np.where(np.random.default_rng(3).random((N, M)) < 0.4, np.nan, RIGHT)


def both(quality: Floats, k: int = 9, **options: Any) -> tuple[Neighbours, Neighbours]:
    """The head that compares all rows, and the one that does so cell by cell."""
    exact = replace(Neighbours.fit(X, quality, k, pseudo=1.0, search="exact"), **options)
    found = replace(Neighbours.fit(X, quality, k, pseudo=1.0, search="cells", compared=10 * N), **options)
    assert exact.cells is None and found.cells is not None
    return exact, found


def agree(exact: Any, found: Any) -> None:
    for x in (ASKED, ASKED[:1]):
        assert np.allclose(exact.scores(x), found.scores(x), atol=1e-6)


@pytest.mark.parametrize("quality", [RIGHT, HOLES], ids=["whole", "holes"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.1}, {"similar": True}], ids=str)
def test_neighbours(quality: Floats, options: dict[str, Any]) -> None:
    exact, found = both(quality, **options)
    agree(exact, found)
    assert np.allclose(exact.scores_at(ASKED, (1, 5, 40)), found.scores_at(ASKED, (1, 5, 40)), atol=1e-6)
    own = np.arange(60)
    assert np.allclose(exact.scores_at(X[:60], (1, 5), own), found.scores_at(X[:60], (1, 5), own), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"cap": N + 300}, {"half_life": 50.0}], ids=str)
def test_neighbours_that_learn_and_forget(options: dict[str, Any]) -> None:
    exact, found = both(RIGHT, **options)
    for place, x in enumerate(rows(900, seed=4)):
        for head in (exact, found):
            head.learn(Outcome(x=x, member=place % M, quality=place % 2))
        if place % 150 == 0:
            agree(exact, found)
    agree(exact, found)
    agree(exact.widen(ASKED[:5], np.ones(5)), found.widen(ASKED[:5], np.ones(5)))
    assert len(found.x) == (options.get("cap") or N + 900)


def test_a_cap_holds_after_a_member_came_with_rows_of_its_own() -> None:
    wider = replace(Neighbours.fit(X, RIGHT, 3, search="cells"), cap=N).widen(ASKED, np.ones(60))
    wider.learn(Outcome(x=X[0], member=0, quality=1.0))
    assert len(wider.x) == N and np.isfinite(wider.scores(ASKED)).all()


def test_a_member_seen_elsewhere_alone_has_all_its_rows_compared() -> None:
    quality = RIGHT.copy()
    far = (X @ ASKED[0]) > 0
    quality[far, 2] = np.nan
    quality[:-4, 1] = np.nan
    exact = Neighbours.fit(X, quality, 20, pseudo=1.0, search="exact")
    found = Neighbours.fit(X, quality, 20, pseudo=1.0, search="cells", compared=200)
    assert np.allclose(exact.scores(ASKED[:1])[:, 1:], found.scores(ASKED[:1])[:, 1:], atol=1e-6)
    assert not np.allclose(found.scores(ASKED[:1])[:, 2], found.prior[2], atol=1e-3)


def test_a_fraction_of_the_rows_says_nearly_the_same() -> None:
    x, quality = rows(9000), np.random.default_rng(1).random((9000, M))
    found = Neighbours.fit(x, quality, 32, compared=512)
    assert found.cells is not None
    gap = np.abs(found.scores(ASKED) - replace(found, search="exact").scores(ASKED))
    assert gap.mean() < 0.01 and gap.max() > 0


def test_many_rows_are_sought_in_cells_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "EXACT", 100)
    head = Neighbours.fit(X[:99], RIGHT[:99], 5)
    assert head.cells is None and Neighbours.fit(X[:101], RIGHT[:101], 5).cells is not None
    for x in X[99:102]:
        head.learn(Outcome(x=x, member=0, quality=1.0))
    assert head.cells is not None and head.cells.count == 102
    assert Neighbours.fit(X, RIGHT, 5, search="exact").cells is None


def test_what_was_kept_before_there_were_cells_can_be_read() -> None:
    values, tensors = Neighbours.fit(X, RIGHT, 5).packed()
    old = {name: value for name, value in values.items() if name not in ("search", "compared", "cells")}
    assert np.array_equal(Neighbours.unpacked(old, tensors).scores(ASKED), Neighbours.fit(X, RIGHT, 5).scores(ASKED))


@pytest.mark.parametrize("search", ["exact", "cells"])
def test_cells_are_kept(search: Any) -> None:
    head = Neighbours.fit(X, RIGHT, 5, search=search, compared=200)
    for x in rows(300, seed=8):
        head.learn(Outcome(x=x, member=1, quality=0.5))
    values, tensors = head.packed()
    read = Neighbours.unpacked(values, tensors)
    assert (read.cells is None) == (search == "exact")
    if head.cells and read.cells:
        assert np.array_equal(head.cells.of[: head.cells.count], read.cells.of[: read.cells.count])


def table() -> Dense:
    names = tuple(str(i) for i in range(N))
    return Dense(queries=names, texts=names, members=("a", "b", "c"), quality=RIGHT)


def test_elo() -> None:
    fitted = battles(table())
    exact = Elo.fit(X, fitted, RIGHT.mean(axis=0), search="exact")
    found = Elo.fit(X, fitted, RIGHT.mean(axis=0), search="cells", compared=10 * N)
    agree(exact, found)
    for place, x in enumerate(rows(600, seed=4)):
        for head in (exact, found):
            head.prefer(Preference(x=x, winner=place % 3, loser=(place + 1) % 3))
    agree(exact, found)
    few = replace(found, compared=200)
    assert np.abs(few.scores(ASKED) - exact.scores(ASKED)).mean() < 0.01


def test_similarity_ranking() -> None:
    fitted = battles(table())
    exact = SimilarityRanking.fit(X, fitted, RIGHT.mean(axis=0), sharpness=4.0, search="exact")
    found = SimilarityRanking.fit(X, fitted, RIGHT.mean(axis=0), sharpness=4.0, search="cells", compared=10 * N)
    agree(exact, found)
    few = SimilarityRanking.fit(X, fitted, RIGHT.mean(axis=0), sharpness=4.0, search="cells", compared=200)
    for place, x in enumerate(rows(600, seed=4)):
        for head in (exact, found, few):
            head.prefer(Preference(x=x, winner=place % 3, loser=(place + 1) % 3))
    agree(exact, found)
    told = exact.strengths(ASKED)
    # Seven eighths of the battles are weighed by their cells: what queries differ by is twenty times the error.
    assert np.abs(few.strengths(ASKED) - told).mean() < told.std(axis=0).mean() / 20


def test_distances_of_trusted() -> None:
    exact, found = both(RIGHT)
    trust = Trust(np.array([0.1, 0.6]), np.array([[0.9] * M, [0.5] * M]), 0.1)
    agree(*(Trusted(base, trust, 19, 0, 0.0) for base in (exact, found)))
