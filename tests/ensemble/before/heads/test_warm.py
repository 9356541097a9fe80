"""Warm: a query is read as a mixture of itself and the most similar ones of the past."""

from __future__ import annotations

import numpy as np

from ensemble.before.heads.head import Outcome
from ensemble.before.heads.warm import Warm
from tests.ensemble.before.heads.test_abilities import latent

STORE = np.eye(4)
X = np.array([[0.8, 0.6, 0.0, 0.0]])


def test_what_is_read() -> None:
    warm = Warm(latent(), STORE, 0.25, 2)
    np.testing.assert_allclose(warm.warmed(X), [[0.25 * 0.8 + 0.375, 0.25 * 0.6 + 0.375, 0, 0]])
    np.testing.assert_allclose(warm.scores(X), latent().scores(warm.warmed(X)))


def test_all_of_itself_is_the_query() -> None:
    assert np.array_equal(Warm(latent(), STORE, 1.0, 2).scores(X), latent().scores(X))


def test_many_queries_are_read_as_one_by_one() -> None:
    many = np.random.default_rng(0).standard_normal((2050, 4))
    warm = Warm(latent(), STORE, 0.5, 1)
    alone = np.concatenate([warm.scores(row[None]) for row in many[[0, 1023, 1024, 2049]]])
    np.testing.assert_allclose(warm.scores(many)[[0, 1023, 1024, 2049]], alone)
    assert warm.scores(many[:0]).shape == (0, 3)


def test_it_learns_at_the_place_where_it_reads() -> None:
    warm, plain = Warm(latent(), STORE, 0.5, 1), latent()
    plain.learn(Outcome(x=warm.warmed(X)[0], member=0, quality=1.0))
    warm.learn(Outcome(x=X[0], member=0, quality=1.0))
    assert np.array_equal(warm.head.vectors, plain.vectors)
    wide = warm.widen(X, np.ones(1))
    np.testing.assert_allclose(wide.scores(X), plain.widen(warm.warmed(X), np.ones(1)).scores(warm.warmed(X)))
    assert wide.spread(X).shape == (1, 4)
