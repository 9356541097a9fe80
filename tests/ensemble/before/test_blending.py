"""Blending: draws that are even, repeatable, and known."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.before.blending import Blending, BlendingFit, BlendingOptions
from ensemble.before.routing.router import keep
from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.request import Message, Request
from tests.ensemble.before.routing.desks import Says, trace
from tests.ensemble.before.toys import table


def served(members: str = "abc", **options: Any) -> Ensemble:
    return Ensemble("blend", "blending", [Says(name) for name in members], options=options)


def draws(count: int, **options: Any) -> Counter[int]:
    method = Blending(BlendingOptions.model_validate(options))
    router = method.cold(["a", "b", "c"])
    prediction, allowed = router.predict(np.zeros((1, 1), np.float32)), np.ones((1, 3), bool)
    requests = (Request.of("same words", seed=seed) for seed in range(count))
    return Counter(int(method.policy.choose(prediction, allowed, method.random(r)).chosen[0]) for r in requests)


def test_ten_thousand_draws_are_even() -> None:
    counts = draws(10_000)
    chi = sum((counts[m] - 10_000 / 3) ** 2 / (10_000 / 3) for m in range(3))
    # 99.9 % of the chi-square distribution with two degrees of freedom.
    assert chi < 13.8


def test_weights_are_shares() -> None:
    counts = draws(4000, weights=(0.2, 0.3, 0.5))
    assert [counts[m] / 4000 for m in range(3)] == pytest.approx([0.2, 0.3, 0.5], abs=0.025)
    assert set(draws(500, weights=(1, 0, 0))) == {0}


async def test_the_propensity_is_told_and_equal_seeds_repeat() -> None:
    ensemble = served()
    first = [(await ensemble.answer(Request.of("hi", seed=seed))) for seed in range(20)]
    again = [(await ensemble.answer(Request.of("hi", seed=seed))).text for seed in range(20)]
    assert [answer.text for answer in first] == again and len(set(again)) == 3
    assert {round(trace(answer)["propensity"], 9) for answer in first} == {round(1 / 3, 9)}


async def test_a_draw_may_hold_for_a_conversation() -> None:
    turns = [Message("user", "hello"), Message("assistant", "hi"), Message("user", "more"), Message("user", "and more")]

    async def spoken(ensemble: Ensemble, begun: str) -> set[str]:
        opening = Message("user", f"hello {begun}")
        talks = [(opening, *turns[1:n]) for n in (1, 3, 4)]
        return {(await ensemble.answer(Request(messages=talk))).text for talk in talks}

    held = [await spoken(served(sticky="conversation"), str(i)) for i in range(30)]
    assert all(len(texts) == 1 for texts in held) and set.union(*held) == {"a", "b", "c"}
    loose = [await spoken(served(), str(i)) for i in range(30)]
    assert max(len(texts) for texts in loose) > 1


def test_the_expected_quality_is_the_mean_of_the_columns() -> None:
    means = np.array([0.6, 0.5, 0.7])
    even, weighted = (
        np.exp(Blending.fit(table(), BlendingFit(weights=w)).head.scores(np.zeros((1, 8)))[0])
        for w in ({}, {"m0": 0.2, "m1": 0.3, "m2": 0.5})
    )
    assert means @ even == pytest.approx(0.60, abs=5e-7) and means @ weighted == pytest.approx(0.62, abs=5e-7)


async def test_an_artifact_holds_weights(tmp_path: Path) -> None:
    training = table(members=3)
    keep(tmp_path / "b", "blending", Blending.fit(training, BlendingFit(weights={"m0": 0, "m2": 0})))
    ensemble = Ensemble("blend", "blending", [Says(f"m{i}") for i in range(3)], options={"path": str(tmp_path / "b")})
    assert {(await ensemble.answer(Request.of("hi", seed=seed))).text for seed in range(10)} == {"m1"}
    with pytest.raises(ConfigurationError, match="weights are the artifact's"):
        Ensemble(
            "blend",
            "blending",
            [Says(f"m{i}") for i in range(3)],
            options={"path": str(tmp_path / "b"), "weights": (1, 1, 1)},
        )


@pytest.mark.parametrize(
    ("weights", "told"),
    [((1, 1), "2 numbers for 3 members"), ((0, 0, 0), "above 0"), ((-1, 1, 1), "at least 0")],
)
def test_weights_that_cannot_be_drawn_by_are_refused(weights: tuple[float, ...], told: str) -> None:
    with pytest.raises((BadRequest, ConfigurationError), match=told):
        served(weights=weights)


def test_weights_of_strangers_are_refused() -> None:
    with pytest.raises(BadRequest, match="weights name x, no members of the table; allowed: m0, m1, m2"):
        Blending.fit(table(), BlendingFit(weights={"x": 1.0}))
