"""Each router that is registered, fitted and behind the API: the chosen one answers, and those that learn do so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ensemble.before.routing.method import Routing
from ensemble.before.routing.router import Router
from ensemble.method import Stage, methods
from tests.serving.routers import MEMBERS, SMALL, Routed, configuration, fitted, kept, serving, trace, within

pytestmark = pytest.mark.slow
ROUTERS = [name for name, cls in methods().items() if cls.stage is Stage.BEFORE]
COLD: dict[str, dict[str, Any]] = {
    "blending": {},
    "pickllm": {},
    "llm_router": {"asked": "mixed", "descriptions": {"adder": "adds numbers", "words": "knows words"}},
}
"""Options of those that are served without an artifact."""
INDIRECT = {"zooter", "shnitzer_benchmark_routing"}
"""What one outcome does is not to be seen in so few: a step towards the means of its tag; one of 64 neighbours."""
QUESTIONS = ("47+38=", "capital of Spain=")


@dataclass
class Running:
    service: Routed
    routers: dict[str, Router]
    """Those that were fitted."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("every")
    ensembles: dict[str, Any] = {name: {"method": name, "options": options} for name, options in COLD.items()}
    ensembles["llm_router"]["members"] = [*MEMBERS, "mixed"]
    routers = {}
    for name in sorted(set(ROUTERS) - set(COLD)):
        cls = methods()[name]
        assert issubclass(cls, Routing)
        routers[name] = fitted(cls)
        kept(folder / name, cls, routers[name])
        ensembles[name] = {"method": name, "options": {"path": name}}
    settings = configuration(ensembles, feedback={"path": "said.jsonl", "resources": SMALL})
    settings["models"]["mixed"] = {"source": {"zoo": "mixed"}, "resources": SMALL}
    with serving(folder / "service.yaml", settings) as service:
        yield Running(service, routers)


@pytest.mark.parametrize("name", ROUTERS)
def test_the_chosen_one_answers(running: Running, name: str) -> None:
    for question in QUESTIONS:
        reply = running.service.ask(name, question)
        told = trace(reply)
        credited = {member for span in reply["ensemble"]["credits"][0] for member in span["members"]}
        assert credited and credited <= set(told["answers"]) <= set(MEMBERS)
        said = {running.service.text(member, question) for member in credited}
        assert reply["choices"][0]["message"]["content"] in said


@pytest.mark.parametrize("name", sorted(set(ROUTERS) - {"llm_router", "blending"}))
def test_feedback_changes_those_that_learn(running: Running, name: str) -> None:
    question = "47+38="
    router = running.routers.get(name)
    learns = router is None or router.head.learns
    prefers = router is not None and router.head.prefers
    before = scores(running.service, name, question)
    for _ in range(4):
        for member in MEMBERS:
            outcome = {"question": question, "member": member, "quality": float(member == "words")}
            assert running.service.say(model=name, **outcome).status_code == 200
        assert running.service.say(model=name, question=question, winner="words", loser="adder").status_code == 200
    learned = f'ensemble_feedback_learned_total{{model="{name}"}}'
    assert within(20, lambda: running.service.metric(learned) == 12)
    after = scores(running.service, name, question)
    if learns or prefers:
        assert after != before
        assert name in INDIRECT or after["words"] - after["adder"] > before["words"] - before["adder"]
    else:
        assert after == before


def scores(service: Routed, name: str, question: str) -> dict[str, float]:
    found: dict[str, float] = trace(service.ask(name, question))["scores"]
    return found
