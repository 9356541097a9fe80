"""Response: more of an ability never hurts, whatever the query."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.heads.response import Response
from ensemble.before.solvers.descent import Descent
from tests.ensemble.before.heads.test_abilities import response
from tests.ensemble.before.toys import table


@given(st.integers(0, 500), st.integers(0, 2), st.floats(0, 4))
def test_more_of_one_ability_never_hurts(seed: int, ability: int, more: float) -> None:
    head = response(seed)
    x = np.random.default_rng(seed).standard_normal((5, 4))
    vector = head.vectors[0].copy()
    before, _ = head.linearised(x, vector)
    vector[ability] += more
    assert (head.linearised(x, vector)[0] >= before - 1e-12).all()


def test_what_is_fitted_keeps_to_it() -> None:
    training = table(90)
    head = Response.fit(training.x, training.table.quality, 3, 5, Descent(epochs=10, rate=0.05))
    assert (head.hidden >= 0).all() and (head.out >= 0).all()


def test_difficulty_takes_from_all_members() -> None:
    head = response()
    x = np.ones((1, 4))
    harder = Response(
        head.vectors,
        head.covariances,
        head.relevance,
        head.difficulty + 1,
        head.hidden,
        head.shift,
        head.out,
        head.base,
    )
    assert (harder.logits(x) < head.logits(x)).all()
