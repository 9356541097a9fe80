"""PickLLM: a start from nothing, or from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.before.encoders.served import Encoders
from ensemble.before.heads.arms import Automaton, Values
from ensemble.before.heads.head import Outcome
from ensemble.before.pickllm import PickLlm, PickLlmFit, PickLlmOptions
from ensemble.before.routing.desk import Desk
from ensemble.before.routing.router import keep
from ensemble.ensemble import Ensemble
from ensemble.errors import ConfigurationError
from ensemble.request import Request
from tests.ensemble.before.routing.desks import Says, trace
from tests.ensemble.before.toys import table


def served(**options: Any) -> Ensemble:
    return Ensemble("picked", "pickllm", [Says(name) for name in "abc"], options=options, encoders=Encoders())


def desk(ensemble: Ensemble) -> Desk:
    assert isinstance(ensemble.prepared, Desk)
    return ensemble.prepared


async def settle(ensemble: Ensemble, rounds: int = 150) -> str:
    """Who is answered by most in the last rounds, when only ``b`` is right."""
    answers = []
    for seed in range(rounds):
        answer = await ensemble.answer(Request.of("?", seed=seed))
        answers.append(answer.text)
        router = desk(ensemble).loaded.router
        place = router.place(answer.text)
        router.learn(Outcome(x=np.zeros(1, np.float32), member=place, quality=float(answer.text == "b")))
    last = answers[-30:]
    return max(set(last), key=last.count)


@pytest.mark.parametrize("algorithm", ["automaton", "q", "ucb1", "thompson"])
async def test_it_starts_from_nothing_and_settles_on_the_best(algorithm: str) -> None:
    assert await settle(served(algorithm=algorithm)) == "b"


async def test_the_automaton_draws_by_its_probabilities() -> None:
    ensemble = served(algorithm="automaton")
    head = desk(ensemble).loaded.router.head
    assert isinstance(head, Automaton)
    head.p = np.array([0.7, 0.3, 0.0])
    answers = [await ensemble.answer(Request.of("?", seed=seed)) for seed in range(300)]
    texts = [answer.text for answer in answers]
    assert texts.count("a") / 300 == pytest.approx(0.7, abs=0.07) and "c" not in texts
    assert {round(trace(answer)["propensity"], 6) for answer in answers} == {0.7, 0.3}


def test_a_warm_start_replays_the_table_once() -> None:
    training = table(n=100, holes=0.3)
    router = PickLlm.fit(training, PickLlmFit())
    assert isinstance(router.head, Values)
    assert (
        np.allclose(router.head.q, training.table.means) and router.head.counts.sum() == training.table.observed.sum()
    )
    weighted = PickLlm.fit(training, PickLlmFit(cost_weight=0.5)).head
    assert isinstance(weighted, Values)
    assert weighted.q == pytest.approx(training.table.means - 0.5 * np.array([0.25, 0.5, 1.0]))


def test_printed_and_summed_rewards_differ() -> None:
    training = table(n=60)
    options = {"cost_weight": 0.5, "latency_weight": 0.3}
    summed, printed = (
        PickLlm.fit(training, PickLlmFit.model_validate({**options, "reward": r})).head for r in ("sum", "printed")
    )
    assert isinstance(summed, Values) and isinstance(printed, Values)
    waited = np.log10([100, 200, 400])
    assert printed.q == pytest.approx(training.table.means - 0.5 * np.array([0.25, 0.5, 1]) * 0.3 * waited)
    assert summed.q == pytest.approx(training.table.means - (0.5 + 0.3) * np.array([0.25, 0.5, 1]))


async def test_a_warm_start_is_served_without_an_encoder(tmp_path: Path) -> None:
    training = table(n=60, members=3)
    keep(tmp_path / "warm", "pickllm", PickLlm.fit(training, PickLlmFit(algorithm="q")))
    members = [Says(f"m{i}") for i in range(3)]
    options = {"path": str(tmp_path / "warm"), "algorithm": "q"}
    answer = await Ensemble("picked", "pickllm", members, options=options).answer(Request.of("?", seed=1))
    assert answer.text in {"m0", "m1", "m2"} and len(trace(answer)["artifact"]) == 16


def test_an_artifact_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    keep(tmp_path / "warm", "pickllm", PickLlm.fit(table(n=30), PickLlmFit(algorithm="automaton")))
    members = [Says(f"m{i}") for i in range(3)]
    with pytest.raises(ConfigurationError, match="fitted with the algorithm automaton; set algorithm: automaton"):
        Ensemble("picked", "pickllm", members, options={"path": str(tmp_path / "warm")})


def test_the_algorithm_names_the_default_policy_alone() -> None:
    policies = {a: PickLlm(PickLlmOptions(algorithm=a)).options.policy for a in ("automaton", "q", "ucb1", "thompson")}
    assert {a: getattr(p, "by", None) for a, p in policies.items()} == {
        "automaton": "softmax",
        "q": "epsilon",
        "ucb1": "ucb",
        "thompson": "thompson",
    }
    own = PickLlmOptions.model_validate({"algorithm": "q", "policy": {"kind": "utility"}})
    assert PickLlm(own).options.policy == own.policy
