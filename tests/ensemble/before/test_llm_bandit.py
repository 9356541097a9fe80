"""LLM Bandit: one fit for all preferences, in service too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.before.heads.latent import Latent
from ensemble.before.heads.set_policy import SetPolicy
from ensemble.before.llm_bandit import LlmBandit, LlmBanditFit
from ensemble.before.routing.router import keep
from ensemble.ensemble import Ensemble
from ensemble.errors import ConfigurationError
from ensemble.request import Request
from tests.ensemble.before.routing.desks import FirstWord, Says, trace
from tests.ensemble.before.toys import table

WORDS = ("w0", "w1", "w2", "u3", "u4", "u5", "u6", "u7")
QUICK = {"size": 5, "width": 8, "epochs": 25, "rate": 0.02, "batch": 64, "noise": 0.02}


@pytest.fixture(scope="module")
def head() -> SetPolicy:
    found = LlmBandit.fit(table(240), LlmBanditFit.model_validate(QUICK)).head
    assert isinstance(found, SetPolicy)
    return found


def test_one_fit_has_all_preferences(head: SetPolicy) -> None:
    training = table(240, seed=5)
    costs = np.array([0.25, 0.5, 1.0])
    taken = [head.chances(training.x, w).argmax(axis=1) for w in (0.0, 0.4, 0.9)]
    quality = [training.table.quality[np.arange(240), t].mean() for t in taken]
    cost = [costs[t].mean() for t in taken]
    assert quality[0] > training.table.means.max() + 0.2
    assert cost[0] >= cost[1] > cost[2] == 0.25 and quality[0] > quality[2]
    np.testing.assert_allclose(head.costs, costs, rtol=1e-6)


@pytest.mark.parametrize("objective", ["exact", "ppo"])
def test_more_reward_is_expected_than_of_any_member_alone(objective: str) -> None:
    fit = LlmBanditFit.model_validate({**QUICK, "objective": objective})
    found, training = LlmBandit.fit(table(240), fit).head, table(240, seed=6)
    assert isinstance(found, SetPolicy)
    for w in (0.0, 0.3, 0.7):
        reward = (1 - w) * training.table.quality - w * found.costs
        assert (found.chances(training.x, w) * reward).sum(axis=1).mean() > reward.mean(axis=0).max()


def test_without_a_policy_scores_are_quality() -> None:
    training = table(120)
    router = LlmBandit.fit(training, LlmBanditFit.model_validate({**QUICK, "objective": "none"}))
    assert isinstance(router.head, Latent) and router.head.probabilities
    np.testing.assert_allclose(router.predict(training.x).quality.mean(axis=0), training.table.means, atol=0.1)


def served(tmp_path: Path, head: Any, members: Sequence[str] = ("m0", "m1", "m2"), **options: Any) -> Ensemble:
    router = LlmBandit.fit(table(60), LlmBanditFit.model_validate({**QUICK, "objective": "none", "epochs": 2}))
    keep(tmp_path / "router", "llm_bandit", replace(router, head=head, encoder=FirstWord(WORDS)))
    given = {"path": str(tmp_path / "router"), "fallback": "m0", **options}
    return Ensemble("routed", "llm_bandit", [Says(name) for name in members], options=given)


async def test_the_preference_is_asked_for_in_service(tmp_path: Path, head: SetPolicy) -> None:
    question = Request.of("w2 or not")
    assert (await served(tmp_path, head).answer(question)).text == "m2"
    assert (await served(tmp_path, head, preference=0.95).answer(question)).text == "m0"


async def test_scores_are_of_the_members_that_are_there(tmp_path: Path, head: SetPolicy) -> None:
    answer = await served(tmp_path, head, ("m0", "m1"), preference=0.0).answer(Request.of("w1 or not"))
    scores = trace(answer)["scores"]
    assert answer.text == "m1" and set(scores) == {"m0", "m1"}
    assert sum(scores.values()) == pytest.approx(1)


async def test_a_preference_without_a_policy_is_refused(tmp_path: Path, head: SetPolicy) -> None:
    with pytest.raises(ConfigurationError, match="objective none"):
        await served(tmp_path, head.abilities, preference=0.5).answer(Request.of("w1"))
