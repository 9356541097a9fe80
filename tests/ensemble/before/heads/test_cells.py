"""Cells: who is found, what becomes of them as the store grows and shrinks, and stores that are hard to part."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ensemble.before.heads.cells import Cells
from ensemble.before.heads.nearest import nearest
from ensemble.outcomes.dense import Floats, Ints


def rows(n: int, seed: int = 0, size: int = 16, spread: float = 0.4) -> Floats:
    """[n, d], unit rows of 12 topics."""
    random = np.random.default_rng(seed)
    topics = np.random.default_rng(99).standard_normal((12, size))
    x = topics[random.integers(0, 12, n)] + spread * random.standard_normal((n, size))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def recall(cells: Cells, x: Floats, store: Floats, k: int, least: int) -> float:
    found, _ = cells.nearest(x, store, k, least)
    exact, _ = nearest(x, store, k)
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def listed(cells: Cells) -> Ints:
    """All rows that are in a list, in order."""
    return np.sort(np.concatenate([cells.places(cell) for cell in range(len(cells.centres) + 1)]))


@pytest.mark.parametrize("build", [Cells.built, Cells.halved])
@pytest.mark.parametrize("queries", [1, 4, 5, 300])
def test_a_tenth_of_the_rows_holds_nearly_all_neighbours(build: Callable[[Floats], Cells], queries: int) -> None:
    store, x = rows(12_000), rows(queries, seed=1)
    cells = build(store)
    assert np.bincount(cells.of).max() <= 512
    assert recall(cells, x, store, 8, 1200) > 0.9
    places, similarity = cells.nearest(x, store, 8, 1200)
    assert similarity == pytest.approx(np.einsum("nd,nkd->nk", x, store[places]), abs=1e-5)
    assert all(len(set(row)) == 8 for row in places.tolist())


@pytest.mark.parametrize("queries", [2, 40])
def test_compared_with_all_it_is_exact(queries: int) -> None:
    store, x = rows(3000), rows(queries, seed=1)
    cells = Cells.built(store)
    assert recall(cells, x, store, 50, 3000) == 1
    assert cells.nearest(x, store, 4000, 4000)[0].shape == (queries, 3000)
    assert cells.nearest(x[:0], store, 5, 100)[0].shape == (0, 5)


def test_few_queries_and_many_find_the_same() -> None:
    store, x = rows(6000), rows(40, seed=1)
    cells = Cells.built(store)
    together = np.sort(cells.nearest(x, store, 20, 500)[0], axis=1)
    apart = [np.sort(cells.nearest(row[None], store, 20, 500)[0][0]) for row in x]
    assert np.array_equal(together, apart)


def test_equal_rows_give_equal_cells() -> None:
    store = rows(5000)
    one, other = Cells.built(store), Cells.built(store)
    assert np.array_equal(one.of, other.of) and np.array_equal(one.centres, other.centres)


@pytest.mark.parametrize("build", [Cells.built, Cells.halved])
def test_rows_that_are_all_equal(build: Callable[[Floats], Cells]) -> None:
    store = np.tile(rows(1), (3000, 1))
    cells = build(store)
    assert np.bincount(cells.of).max() <= 512
    places, similarity = cells.nearest(store[:9], store, 64, 256)
    assert similarity == pytest.approx(1, abs=1e-5) and all(len(set(row)) == 64 for row in places.tolist())


@pytest.mark.parametrize("build", [Cells.built, Cells.halved])
def test_one_crowd_does_not_hide_the_others(build: Callable[[Floats], Cells]) -> None:
    # All but a hundred rows lie within a hundredth of one another.
    crowd, others = rows(1) + 0.002 * rows(9000, seed=2, spread=9.0), rows(100, seed=3)
    store = np.concatenate([crowd / np.linalg.norm(crowd, axis=1, keepdims=True), others]).astype(np.float32)
    cells = build(store)
    assert recall(cells, others, store, 1, 2048) == 1
    assert recall(cells, store[:50], store, 1, 2048) > 0.9


def test_zeros_are_rows_like_others() -> None:
    store = rows(2000)
    store[::3] = 0
    cells = Cells.built(store)
    assert np.array_equal(listed(cells), np.arange(2000))
    assert recall(cells, store[1:30:3], store, 1, 1000) > 0.95


def test_rows_that_come_are_found_at_once_and_cells_stay_small() -> None:
    store = rows(3000)
    cells, room = Cells.built(store[:1000]), len(Cells.built(store[:1000]).centres)
    for count in range(1001, 3001):
        cells.append(store[:count])
        if count % 97 == 0:
            assert cells.nearest(store[count - 1 : count], store[:count], 1, 256)[0][0, 0] == count - 1
    assert np.array_equal(listed(cells), np.arange(3000))
    assert np.bincount(cells.of[: cells.count]).max() <= 512 and len(cells.centres) > room
    assert recall(cells, rows(50, seed=1), store, 8, 600) > 0.9


def test_the_oldest_go() -> None:
    store = rows(3000)
    cells = Cells.built(store[:1000])
    for first, count in enumerate(range(1001, 3001), 1):
        cells.append(store[first - 1 : count])
        cells.drop()
        if count % 97 == 0:
            kept, x = store[first:count], rows(20, seed=count)
            assert np.array_equal(listed(cells), np.arange(1000))
            assert recall(cells, x, kept, 8, 1000) == 1
            assert recall(cells, x[:2], kept, 8, 300) > 0.5
    assert cells.count == 1000 and len(cells.of) < 8000


def test_where_all_have_gone_elsewhere_no_empty_cell_is_left() -> None:
    store = np.concatenate([rows(1000), -rows(1000, seed=5)])
    cells = Cells.built(store[:1000])
    for first in range(1000):
        cells.append(store[first : 1001 + first])
        cells.drop()
    assert (np.bincount(cells.of[: cells.count], minlength=len(cells.centres)) > 0).all()
    assert recall(cells, -rows(30, seed=6), store[1000:], 8, 500) > 0.9


def test_an_extension_leaves_the_first_as_it_was() -> None:
    store = rows(2500)
    cells = Cells.built(store[:2000])
    before = (cells.of.copy(), cells.centres.copy())
    wider = cells.extended(store)
    assert np.array_equal(listed(wider), np.arange(2500)) and cells.count == 2000
    wider.append(np.concatenate([store, store[:1]]))
    assert np.array_equal(cells.of, before[0]) and np.array_equal(cells.centres, before[1])
    assert np.array_equal(listed(cells), np.arange(2000))


def test_they_are_kept_with_what_has_come() -> None:
    store, x = rows(2600), rows(30, seed=1)
    cells = Cells.built(store[:2000])
    for count in range(2001, 2601):
        cells.append(store[:count])
    values, tensors = cells.packed()
    read = Cells.unpacked(values, tensors)
    found = [np.sort(one.nearest(x, store, 8, 2600)[0], axis=1) for one in (cells, read)]
    assert np.array_equal(*found)
