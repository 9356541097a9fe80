"""GraphRouter: states of members follow their outcomes."""

from __future__ import annotations

import numpy as np

from ensemble.before.graphrouter import GraphRouter, GraphrouterFit
from ensemble.before.heads.graph import Graph
from ensemble.before.heads.head import Outcome
from tests.ensemble.before.toys import table

QUICK = GraphrouterFit(size=8, epochs=25, rate=0.02, batch=128, noise=0.02)


def test_every_observed_cell_is_an_edge() -> None:
    training = table(120, holes=0.3)
    head = GraphRouter.fit(training, QUICK).head
    assert isinstance(head, Graph)
    np.testing.assert_allclose(head.sums[:, 2, -1], training.table.observed.sum(axis=0))
    np.testing.assert_allclose(head.sums[:, 0, -1], np.nansum(training.table.quality, axis=0))


def test_a_member_that_changes_is_found_out() -> None:
    training = table(240)
    router = GraphRouter.fit(training, QUICK)
    task = np.arange(240) % 3
    before = router.predict(training.x).quality
    for i in np.flatnonzero(task == 0):
        for _ in range(3):
            router.learn(Outcome(x=training.x[i], member=0, quality=0.0))
    after = router.predict(training.x).quality
    assert before[task == 0, 0].mean() > 0.6 and after[task == 0, 0].mean() < 0.4
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
