"""Rewards: the published forms, to the last digit that is published."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.before.routing.parts import Part
from ensemble.before.targets.rewards import CheapnessShare, CostWhenRight, Printed, RewardOptions, Weighted
from ensemble.errors import BadRequest
from ensemble.outcomes.dense import Dense
from tests.ensemble.before.toys import table

UNIT = st.floats(0, 1)


def test_the_sum_of_pickllm() -> None:
    assert Weighted(1, 0.5, 0.3).of(0.8, 0.2, 0.25) == pytest.approx(0.625, abs=5e-7)


def test_the_product_of_pickllm_as_printed() -> None:
    assert Printed(1, 0.5, 0.3).of(0.8, 0.2, 2.5) == pytest.approx(0.698062, abs=5e-7)


def test_xrouter() -> None:
    reward = CostWhenRight()
    assert reward.of(1, 0.1) == pytest.approx(0.7, abs=5e-7)
    assert reward.of(1, 0.5) == pytest.approx(0.2, abs=5e-7)


def test_router_r1() -> None:
    assert CheapnessShare(0.6).of(1, 0.25) == pytest.approx(0.85, abs=5e-7)
    assert CheapnessShare(0.0).of(0.7, 0.9) == CheapnessShare(0.0).of(0.7, 0.1) == 0.7


@given(UNIT, st.floats(0, 100))
def test_xrouter_pays_nothing_for_a_wrong_answer_and_never_less(quality: float, cost: float) -> None:
    assert CostWhenRight().of(0, cost) == 0
    assert CostWhenRight().of(quality, cost) >= 0


@given(UNIT, st.floats(0, 2), UNIT)
def test_router_r1_pays_nothing_for_a_wrong_answer_and_is_a_share(quality: float, cost: float, weight: float) -> None:
    reward = CheapnessShare(weight)
    assert reward.of(0, cost) == 0
    assert 0 <= reward.of(quality, cost) <= 1


@pytest.mark.parametrize("reward", [Weighted(1, 0.5, 0.3), Printed(1, 0.5, 0.3), CostWhenRight()])
def test_what_is_not_known_counts_nothing(reward: Weighted | Printed | CostWhenRight) -> None:
    assert reward.of(0.5, math.nan, math.nan) == 0.5


def test_rewards_are_parts() -> None:
    values, tensors = CheapnessShare(0.5, 0.1, 0.9).packed()
    assert not tensors and Part.unpacked(values, {}) == CheapnessShare(0.5, 0.1, 0.9)


def test_scales_are_of_the_dearest_and_the_slowest_member() -> None:
    costly = table(members=3).table
    reward = RewardOptions(cost_weight=0.5, latency_weight=0.25).made(costly)
    assert isinstance(reward, Weighted)
    assert reward.of(1, 0.004, 0.4) == pytest.approx(1 - 0.5 - 0.25, rel=1e-6)
    share = RewardOptions(reward="router_r1", cost_weight=0.5).made(costly)
    assert isinstance(share, CheapnessShare)
    assert (share.lowest, share.highest) == pytest.approx((0.001, 0.004))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"reward": "xrouter", "latency_weight": 0.1},
            "does not apply to the reward xrouter; it does to: sum, printed",
        ),
        ({"reward": "router_r1", "cost_weight": 1.5}, "allowed: 0 to 1"),
    ],
)
def test_weights_that_do_not_apply_are_refused(options: dict[str, object], told: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=told):
        RewardOptions.model_validate(options).made(table().table)


def test_a_weight_of_what_is_not_in_the_table_is_refused() -> None:
    bare = Dense(queries=("q",), texts=("t",), members=("a",), quality=np.ones((1, 1)))
    with pytest.raises(BadRequest, match=r"cost_weight is 0.5, but the table has no cost"):
        RewardOptions(cost_weight=0.5).made(bare)
    assert RewardOptions().made(bare).of(1.0) == 1.0
