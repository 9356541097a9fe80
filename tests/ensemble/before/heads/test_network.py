"""Network: members are made of parts that they share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ensemble.before.heads.network import Layers, Network, parts_of, regression, values
from ensemble.before.solvers.descent import Descent
from tests.ensemble.before.toys import table

NAMES = ("a|short", "b|short", "a|long", "b|long")


def test_names_say_the_parts() -> None:
    made, parts = parts_of(NAMES)
    assert parts == ["0|a", "0|b", "1|long", "1|short"]
    assert made.tolist() == [[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 1, 0]]
    assert parts_of(("x", "x|x"))[1] == ["0|x", "1|x"]


def test_the_layers() -> None:
    layers = Layers(np.array([[0.5, -3.0, 0.25]]), np.eye(2), np.array([2.0, 1.0]))
    assert values(np.array([[1.0, 2.0]]), layers).tolist() == [[1.5 * 2 + 0.25]]


def test_equal_parts_have_equal_scores() -> None:
    training = table(120, members=4)
    named = replace(training.table, members=NAMES)
    head = Network.fit(training.x, named.quality, ("a|s", "b|s", "a|s", "b|t"), 8, Descent(epochs=8, rate=0.02))
    scores = head.scores(training.x)
    assert np.array_equal(scores[:, 0], scores[:, 2])
    assert not np.allclose(scores[:, 1], scores[:, 3])


def test_a_pair_that_was_never_seen_is_known_by_its_parts() -> None:
    # b is as good as a is bad and the strategy does not matter; b|long was asked nothing.
    training = table(240, members=4, tasks=1)
    random = np.random.default_rng(0)
    right = np.array([0.1, 0.9, 0.1, np.nan])
    quality = np.where(np.isnan(right), np.nan, random.random((240, 4)) < right)
    head = Network.fit(training.x, quality, NAMES, 8, Descent(epochs=40, rate=0.02))
    scores = head.scores(training.x).mean(axis=0)
    assert scores[3] > scores[2] + 0.3


def test_numbers_are_regressed() -> None:
    training = table(240)
    target = 2 + training.x[:, :3] * np.array([3.0, -2.0, 0.0])
    target[::3, 1] = np.nan
    layers = regression(training.x, target, ("a", "b", "c"), 16, Descent(epochs=60, rate=0.02, noise=0, batch=32))
    found = values(training.x, layers)
    assert np.nanmean(np.abs(found - target)) < 0.25
