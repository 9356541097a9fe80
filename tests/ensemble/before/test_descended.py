"""What holds for every router that is fitted by gradient descent or by matching labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.before.best_route import BestRoute, BestRouteFit
from ensemble.before.embedllm import Embedllm, EmbedllmFit
from ensemble.before.fitting.training import FitOptions
from ensemble.before.graphrouter import GraphRouter, GraphrouterFit
from ensemble.before.heads.head import Outcome
from ensemble.before.hybrid_llm import HybridFit, HybridLlm
from ensemble.before.irt_router import IrtFit, IrtRouter
from ensemble.before.llm_bandit import LlmBandit, LlmBanditFit
from ensemble.before.routerdc import RouterDc, RouterdcFit
from ensemble.before.routing.method import Routing
from ensemble.before.routoo import Routoo, RoutooFit
from ensemble.before.rtr import Rtr, RtrFit
from tests.ensemble.before.toys import permuted, reached, round_trip, table

QUICK = {"epochs": 25, "rate": 0.02, "batch": 64, "noise": 0.02}
ROUTERS: dict[str, tuple[type[Routing], FitOptions]] = {
    "embedllm": (Embedllm, EmbedllmFit(size=6, **QUICK)),
    "mirt": (IrtRouter, IrtFit(size=6, **QUICK)),
    "nirt": (IrtRouter, IrtFit(form="nirt", size=4, width=6, **QUICK)),
    "warm": (IrtRouter, IrtFit(size=6, warm=0.5, **QUICK)),
    "graphrouter": (GraphRouter, GraphrouterFit(size=8, **QUICK)),
    "routerdc": (RouterDc, RouterdcFit(size=8, **QUICK)),
    "bandit": (LlmBandit, LlmBanditFit(size=6, width=8, **QUICK)),
    "ppo": (LlmBandit, LlmBanditFit(size=6, width=8, objective="ppo", **QUICK)),
    "variational": (LlmBandit, LlmBanditFit(size=6, objective="none", **QUICK)),
    "rtr": (Rtr, RtrFit(width=16, **QUICK)),
    "routoo": (Routoo, RoutooFit(width=16, **QUICK)),
    "hybrid_llm": (HybridLlm, HybridFit(large="m0")),
    "best_route": (BestRoute, BestRouteFit(reference="m0")),
}
LEARNING = ("embedllm", "mirt", "nirt", "warm", "graphrouter", "bandit", "variational", "rtr", "routoo")
DRAWN = ("graphrouter", "bandit", "ppo", "variational")
"""Draw by cell or by member while they are fitted, so that another order has other draws."""
every = pytest.mark.parametrize("name", ROUTERS)


def members(name: str) -> int:
    return 2 if name == "hybrid_llm" else 3


@pytest.mark.parametrize("name", [name for name in ROUTERS if name != "best_route"])
def test_it_finds_who_is_good_at_what(name: str) -> None:
    cls, options = ROUTERS[name]
    fresh = table(members=members(name), tasks=members(name), seed=5)
    router = cls.fit(table(members=members(name), tasks=members(name)), options)
    chosen = cls.policy.choose(
        router.predict(fresh.x), np.ones(fresh.table.quality.shape, bool), np.random.default_rng(0)
    ).chosen
    quality = fresh.table.quality[np.arange(len(chosen)), chosen].mean()
    assert quality > fresh.table.means.max() + 0.15


@every
def test_it_comes_back_whole(name: str, tmp_path: Path) -> None:
    cls, options = ROUTERS[name]
    training = table(60, members=members(name), tasks=members(name))
    router, back = round_trip(tmp_path, cls, options, training)
    one, other = router.predict(training.x, np.ones(60)), back.predict(training.x, np.ones(60))
    assert np.array_equal(one.quality, other.quality) and np.array_equal(one.cost, other.cost)
    assert (one.std is None) == (other.std is None) and (one.std is None or np.array_equal(one.std, other.std))
    assert (back.members, back.best) == (router.members, router.best)


@every
def test_equal_seeds_give_equal_routers(name: str) -> None:
    cls, options = ROUTERS[name]
    training = table(60, members=members(name), tasks=members(name), seed=3)
    one, other = cls.fit(training, options), cls.fit(training, options)
    assert np.array_equal(one.predict(training.x).quality, other.predict(training.x).quality)


@every
def test_the_order_of_members_does_not_matter(name: str) -> None:
    cls, options = ROUTERS[name]
    training = table(120, members=members(name), tasks=members(name))
    order = [2, 0, 1][-members(name) :] if members(name) == 3 else [1, 0]
    one, other = cls.fit(training, options), cls.fit(permuted(training, order), options)
    assert other.members == tuple(training.table.members[i] for i in order)
    expected, found = one.predict(training.x).quality[:, order], other.predict(training.x).quality
    if name in DRAWN:
        assert (expected.argmax(axis=1) == found.argmax(axis=1)).mean() > 0.95
    else:
        np.testing.assert_allclose(found, expected, atol=2e-3)


@every
def test_holes_are_skipped(name: str) -> None:
    cls, options = ROUTERS[name]
    training = table(members=members(name), tasks=members(name), holes=0.3)
    router, fresh = cls.fit(training, options), table(members=members(name), tasks=members(name), seed=5)
    assert np.isfinite(router.predict(fresh.x).quality).all()
    if name not in ("best_route",):
        assert reached(router, fresh) > fresh.table.means.max() + 0.1


@pytest.mark.parametrize("name", LEARNING)
def test_an_outcome_changes_who_gave_it_alone(name: str) -> None:
    cls, options = ROUTERS[name]
    training = table(60)
    router = cls.fit(training, options)
    x = training.x[0]
    before = router.predict(x[None]).quality[0]
    for _ in range(8):
        router.learn(Outcome(x=x, member=1, quality=1.0, cost=0.002))
    after = router.predict(x[None]).quality[0]
    assert after[1] > before[1] + (0 if name == "bandit" else 1e-4)
    if name == "bandit":
        # Probabilities of one set: what one gains the others lose.
        assert after[[0, 2]].sum() < before[[0, 2]].sum()
    else:
        assert np.array_equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("name", [*LEARNING, "routerdc"])
def test_a_new_member_needs_few_outcomes(name: str) -> None:
    cls, options = ROUTERS[name]
    whole = table(members=4, tasks=3)
    training = type(whole)(table=whole.table.among(whole.table.members[:3]), x=whole.x, seed=whole.seed)
    router = cls.fit(training, options)
    # The fourth member is as good on the first task as the first one is, and bad at the others.
    few = slice(0, 45)
    quality = (np.arange(45) % 3 == 0).astype(float)
    wide = router.widened("new", whole.x[few], quality, 0.004)
    prediction, task = wide.predict(whole.x), np.arange(len(whole.x)) % 3
    scores = prediction.quality
    assert scores.shape[1] == 4
    np.testing.assert_allclose(prediction.cost[:, 3], 0.004)
    np.testing.assert_array_equal(prediction.cost[:, :3], router.predict(whole.x).cost)
    assert scores[task == 0, 3].mean() > scores[task == 1, 3].mean() + 0.05
    if name != "bandit":
        np.testing.assert_allclose(scores[:, :3], router.head.scores(whole.x), rtol=1e-9)
