"""Small outcome tables whose best member is known in each part of the embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensemble.before.fitting.training import FitOptions, Training
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import Router, keep, kept
from ensemble.outcomes.dense import Dense, Floats

GOOD, POOR = 0.9, 0.2
"""How often a member is right on a task that is its own, and on another one."""


def table(
    n: int = 240,
    members: int = 3,
    seed: int = 0,
    tasks: int = 3,
    costs: bool = True,
    holes: float = 0.0,
    size: int = 8,
    graded: bool = False,
) -> Training:
    """Queries of some tasks, each a cluster of unit vectors; on task t member t mod M is ``GOOD``, the others ``POOR``.

    Args:
        members: M, named ``m0``, ``m1`` …; an answer of mi costs 2^i ÷ 1000 and has 10 · 2^i tokens.
        costs: whether the table holds costs, tokens and prices.
        holes: share of the cells that are not observed; every query keeps one.
        size: d, at least ``tasks``.
        graded: qualities between 0 and 1 in place of right and wrong.
    """
    random = np.random.default_rng(seed)
    task = np.arange(n) % tasks
    x = np.eye(size)[task] + 0.15 * random.standard_normal((n, size))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    right = np.where(np.arange(members) == (task % members)[:, None], GOOD, POOR)
    noise = random.random((n, members))
    quality = np.clip(right + 0.2 * (noise - 0.5), 0, 1) if graded else (noise < right).astype(float)
    gone = random.random((n, members)) < holes
    gone[np.arange(n), random.integers(0, members, n)] = False
    quality[gone] = np.nan
    found = Dense(
        queries=tuple(f"q{i}" for i in range(n)),
        texts=tuple(f"task {t} question {i}" for i, t in enumerate(task)),
        members=tuple(f"m{i}" for i in range(members)),
        quality=quality,
        tasks=tuple(f"t{t}" for t in task),
    )
    return Training(table=_priced(found) if costs else found, x=x, seed=seed)


def _priced(table: Dense) -> Dense:
    scale = 2.0 ** np.arange(len(table.members))
    seen = np.where(table.observed, 1.0, np.nan)
    return replace(
        table,
        cost=seen * scale / 1000,
        input_tokens=seen * 5,
        output_tokens=seen * 10 * scale,
        latency=seen * scale / 10,
        prices=np.stack([np.zeros_like(scale), np.full_like(scale, 1e-4)], axis=1),
    )


def plain(x: Floats, quality: Floats, cost: Floats | None = None, tasks: Sequence[str] = (), seed: int = 0) -> Training:
    """A table of these very rows: [n, d] as they are, [n, M], members ``A``, ``B`` …"""
    quality = np.asarray(quality, float)
    rows, columns = quality.shape
    found = Dense(
        queries=tuple(f"q{i}" for i in range(rows)),
        texts=tuple(f"text {i}" for i in range(rows)),
        members=tuple("ABCDEFGHIJ"[:columns]),
        quality=quality,
        cost=np.full((rows, columns), np.nan) if cost is None else np.broadcast_to(cost, (rows, columns)).astype(float),
        tasks=tuple(tasks),
    )
    return Training(table=found, x=np.asarray(x, np.float32), seed=seed)


def permuted(training: Training, order: Sequence[int]) -> Training:
    """The same outcomes with the members in another order."""
    return replace(training, table=training.table.among([training.table.members[i] for i in order]))


def round_trip(folder: Path, cls: type[Routing], options: FitOptions, training: Training) -> tuple[Router, Router]:
    """A fitted router, and the same kept and read again."""
    router = cls.fit(training, options)
    keep(folder / cls.name, cls.name, router)
    return router, kept(folder / cls.name, cls.name)


def reached(router: Router, training: Training) -> float:
    """Mean quality of the choice by predicted quality alone; a hole counts 0."""
    chosen = router.predict(training.x).quality.argmax(axis=1)
    return float(np.nan_to_num(training.table.quality)[np.arange(len(chosen)), chosen].mean())


def lawful(
    folder: Path, cls: type[Routing], options: FitOptions, *, tolerance: float = 1e-9, ordered: bool = False
) -> Router:
    """A router fitted to a table with holes, of which what holds for all routers has been asserted.

    It is kept and read again whole; equal seeds give equal routers; it knows who is good at what, however the members
    are ordered.

    Args:
        tolerance: of scores after the members were put in another order.
        ordered: whether the order of the members counts, by design.
    """
    training, fresh = table(holes=0.3), table(seed=1)
    router, read = round_trip(folder, cls, options, training)
    told = router.predict(fresh.x, np.full(len(fresh.x), 5.0))
    again = read.predict(fresh.x, np.full(len(fresh.x), 5.0))
    assert np.array_equal(told.quality, again.quality)
    assert np.array_equal(told.cost, again.cost)
    assert np.array_equal(told.quality, cls.fit(training, options).predict(fresh.x).quality)
    assert not np.isnan(told.quality).any()
    best = fresh.table.means.max()
    assert ordered or reached(router, fresh) > best + 0.3
    if not ordered:
        order = [2, 0, 1]
        turned = cls.fit(permuted(training, order), options).predict(fresh.x)
        assert np.allclose(turned.quality, told.quality[:, order], atol=tolerance)
    return router
