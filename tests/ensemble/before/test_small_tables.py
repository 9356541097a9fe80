"""Tables of next to nothing: a router is made of them, or they are refused; never an error of another kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.before.fitting.training import Training
from ensemble.before.heads.head import Outcome
from ensemble.before.routing.method import Routing
from ensemble.errors import BadRequest
from ensemble.method import methods
from tests.ensemble.before.toys import table

# Fits by descent share one solver, which has tests of its own.
ROUTERS = {
    name: found
    for name, found in methods().items()
    if issubclass(found, Routing) and found.fitted and "epochs" not in found.Fit.model_fields
}
ASKED = np.stack([np.zeros(8), np.eye(8)[7], -np.eye(8)[0]]).astype(np.float32)
"""A text of which nothing is known, one like no other, and the opposite of one."""


def alike(training: Training, quality: float) -> Training:
    """Every member equally good, and for nothing."""
    same = np.full_like(training.table.quality, quality)
    nothing = {"cost": np.zeros_like(training.table.cost), "prices": np.zeros((len(training.table.members), 2))}
    return replace(training, table=replace(training.table, quality=same, **nothing))


TABLES = {
    "one query": table(1, members=2),
    "two queries": table(2, members=2),
    "four queries": table(4, members=2),
    "all wrong": alike(table(12, members=2), 0.0),
    "all right": alike(table(12, members=2), 1.0),
    "one member": table(12, members=1),
    "no text known": replace(table(12, members=2), x=np.zeros((12, 8), np.float32)),
}


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_a_table_is_fitted_to_or_refused(name: str) -> None:
    method = ROUTERS[name]
    for told, training in TABLES.items():
        try:
            router = method.fit(training, method.Fit())
        except BadRequest:
            continue
        before = router.predict(ASKED, np.ones(3))
        assert before.unusable is None, told
        router.doubtful(ASKED)
        choice = method.policy.choose(before, np.ones(before.quality.shape, bool), np.random.default_rng(0))
        assert ((choice.chosen >= 0) & (choice.chosen < len(router.members))).all(), told
        for x, quality in zip(ASKED, (0.0, 1.0, 0.5), strict=True):
            router.learn(Outcome(x=x, member=len(router.members) - 1, quality=quality, propensity=1e-9))
        assert router.predict(ASKED, np.ones(3)).unusable is None, told
