"""What all routers have in common that learn from battles, rewards and preferences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.before.blending import Blending, BlendingFit
from ensemble.before.eagle import Eagle, EagleFit
from ensemble.before.fitting.training import FitOptions
from ensemble.before.heads.head import Outcome, Preference
from ensemble.before.metallm import MetaLlm, MetaLlmFit
from ensemble.before.multi_factor import MultiFactor, MultiFactorFit
from ensemble.before.pickllm import PickLlm, PickLlmFit
from ensemble.before.relm import Relm, RelmFit
from ensemble.before.routellm import RouteLlm, RouteLlmFit
from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import keep, kept
from tests.ensemble.before.toys import permuted, reached, round_trip, table

Case = tuple[type[Routing], FitOptions]
LOCAL: dict[str, Case] = {
    "gap": (RouteLlm, RouteLlmFit()),
    "mf": (RouteLlm, RouteLlmFit(scorer="mf", size=16, epochs=60, noise=0.02)),
    "sw_ranking": (RouteLlm, RouteLlmFit(scorer="sw_ranking")),
    "classifier": (RouteLlm, RouteLlmFit(scorer="classifier")),
    "eagle": (Eagle, EagleFit()),
    "metallm": (MetaLlm, MetaLlmFit()),
    "relm": (Relm, RelmFit()),
    "multi_factor": (MultiFactor, MultiFactorFit(cost_weight=0, latency_weight=0, load_weight=0)),
}
BLIND: dict[str, Case] = {
    "factors": (MultiFactor, MultiFactorFit(quality="mean")),
    "causal": (RouteLlm, RouteLlmFit(scorer="causal")),
    "automaton": (PickLlm, PickLlmFit(algorithm="automaton")),
    "q": (PickLlm, PickLlmFit(algorithm="q")),
    "ucb1": (PickLlm, PickLlmFit()),
    "thompson": (PickLlm, PickLlmFit(algorithm="thompson", cost_weight=0.1)),
    "blending": (Blending, BlendingFit(weights={"m0": 3.0})),
}
ALL = {**LOCAL, **BLIND}
# Replays and descents depend on the order in which they meet members.
ORDERED = {"mf"}
TRAINING = table(n=150, holes=0.2)
HELD = table(n=60, seed=5)


@pytest.fixture(params=ALL)
def case(request: pytest.FixtureRequest) -> Case:
    return ALL[request.param]


def test_a_kept_router_says_the_same(case: Case, tmp_path: Path) -> None:
    fitted, back = round_trip(tmp_path, *case, TRAINING)
    assert np.array_equal(fitted.predict(HELD.x).quality, back.predict(HELD.x).quality)
    first, second = fitted.head.spread(HELD.x), back.head.spread(HELD.x)
    assert (first is None and second is None) or np.array_equal(first, second)
    assert (back.members, back.best) == (fitted.members, fitted.best)


def test_a_kept_router_goes_on_learning_as_before(case: Case, tmp_path: Path) -> None:
    fitted, back = round_trip(tmp_path, *case, TRAINING)
    for router in (fitted, back):
        for place in range(3):
            router.learn(Outcome(x=HELD.x[place], member=place, quality=0.7, cost=0.002, latency=0.1))
            router.prefer(Preference(x=HELD.x[place], winner=place, loser=(place + 1) % 3))
    assert np.array_equal(fitted.predict(HELD.x).quality, back.predict(HELD.x).quality)
    keep(tmp_path / "later", "any", back)
    assert np.array_equal(kept(tmp_path / "later").predict(HELD.x).quality, back.predict(HELD.x).quality)


def test_equal_seeds_give_equal_routers(case: Case) -> None:
    cls, options = case
    first, second = (cls.fit(TRAINING, options).predict(HELD.x).quality for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("name", sorted(set(ALL) - ORDERED))
def test_permuted_members_have_permuted_scores(name: str) -> None:
    cls, options = ALL[name]
    order = [2, 0, 1]
    # Complete, so that which battles there are and their order do not depend on the members' order.
    complete = table(n=90, graded=True)
    straight = cls.fit(complete, options).predict(HELD.x)
    turned = cls.fit(permuted(complete, order), options).predict(HELD.x)
    if name in ("eagle", "automaton"):
        assert (straight.quality[:, order].argmax(axis=1) == turned.quality.argmax(axis=1)).mean() > 0.9
        return
    assert np.allclose(straight.quality[:, order], turned.quality, atol=1e-6)
    assert order[turned.best] == straight.best


@pytest.mark.parametrize("name", LOCAL)
def test_each_query_goes_to_who_is_good_at_it(name: str) -> None:
    cls, options = LOCAL[name]
    router = cls.fit(TRAINING, options)
    assert reached(router, HELD) > HELD.table.means[TRAINING.table.best] + 0.15


@pytest.mark.parametrize("name", sorted(set(BLIND) - {"blending", "causal", "automaton"}))
def test_without_a_query_the_best_one_is_first(name: str) -> None:
    cls, options = BLIND[name]
    uneven = table(n=150, tasks=2, members=3)
    assert cls.fit(uneven, options).predict(HELD.x).quality.argmax(axis=1).max() < 2


def test_holes_are_not_zeros(case: Case) -> None:
    cls, options = case
    filled = replace(TRAINING, table=replace(TRAINING.table, quality=np.nan_to_num(TRAINING.table.quality)))
    if options in (BLIND["blending"][1], BLIND["causal"][1], BLIND["automaton"][1]):
        # A draw and a model that is asked do not look at quality; to the automaton a 0 says nothing.
        return
    first, second = cls.fit(TRAINING, options), cls.fit(filled, options)
    assert np.isfinite(first.predict(HELD.x).quality).all()
    assert not np.allclose(first.predict(HELD.x).quality, second.predict(HELD.x).quality)


ONE = {"gap", "metallm", "relm", "q", "ucb1", "thompson", "multi_factor"}
"""An outcome moves its member alone."""
NONE = {"classifier", "causal", "blending", "factors"}
PREFERRING = {"mf", "sw_ranking", "eagle"}


@pytest.mark.parametrize("name", ALL)
def test_one_outcome_changes_what_it_should(name: str) -> None:
    cls, options = ALL[name]
    router = cls.fit(TRAINING, options)
    before = router.predict(HELD.x).quality
    router.learn(Outcome(x=HELD.x[0], member=1, quality=0.0 if name != "automaton" else 1.0))
    changed = ~np.isclose(router.predict(HELD.x).quality, before, rtol=0, atol=1e-12)
    if name in NONE:
        assert not changed.any()
    elif name in ONE:
        assert changed[0].tolist() == [False, True, False] and not changed[:, [0, 2]].any()
    else:
        assert changed[0, 1]


@pytest.mark.parametrize("name", ALL)
def test_one_preference_changes_rankings_alone(name: str) -> None:
    cls, options = ALL[name]
    router = cls.fit(TRAINING, options)
    before = router.predict(HELD.x[:1]).quality[0]
    router.prefer(Preference(x=HELD.x[0], winner=2, loser=0))
    after = router.predict(HELD.x[:1]).quality[0]
    if name in PREFERRING:
        assert after[2] - after[0] > before[2] - before[0]
    else:
        assert np.array_equal(after, before)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"classifier", "causal", "sw_ranking", "eagle"}))
def test_a_member_can_be_added(name: str) -> None:
    cls, options = ALL[name]
    router = cls.fit(table(n=150, costs=False), PickLlmFit(algorithm="thompson") if name == "thompson" else options)
    wide = router.widened("new", HELD.x[:6], np.ones(6), 0.001)
    assert wide.members == (*router.members, "new") and wide.predict(HELD.x).quality.shape == (60, 4)
    # Nobody's place among the others changes.
    first, second = router.predict(HELD.x).quality, wide.predict(HELD.x).quality[:, :3]
    assert (np.argsort(first, axis=1) == np.argsort(second, axis=1)).all()
