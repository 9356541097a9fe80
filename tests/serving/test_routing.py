"""Routers behind the API: who answers, what feedback changes, artifacts that are replaced, a service that is killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.embedder import loaded
from deployments.engines.settings import EncoderSettings
from deployments.engines.sources import ZooSource
from deployments.journal import records
from ensemble.before.knn_router import KnnRouter
from ensemble.before.routing.router import Router
from tests.serving.routers import SMALL, Routed, configuration, fitted, kept, serving, trace, training, within

SUM, WORD = "47+38=", "capital of Spain="


def always(member: str) -> Router:
    """A router for which one member is always the best."""
    router = fitted(KnnRouter, k=1)
    router.head.quality[:] = [float(name == member) for name in router.members]  # type: ignore[attr-defined]
    return router


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("routers")


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, Any]:
    knn = fitted(KnnRouter, k=3, pseudo=0.0)
    source = {"zoo": "mixed"}
    encoder = loaded(EncoderSettings(name="mini", source=ZooSource(**source)))
    table, _ = training(encoder.embed(training()[0].table.texts))  # type: ignore[arg-type]
    kept(folder / "encoded", KnnRouter, KnnRouter.fit(table, KnnRouter.Fit(k=1)), encoder.identity)
    kept(folder / "knn", KnnRouter, knn)
    kept(folder / "swapped", KnnRouter, always("adder"))
    table, own = training(members=("routed", "words"))
    outer = KnnRouter.fit(table, KnnRouter.Fit(k=3))
    outer.encoder = own
    kept(folder / "outer", KnnRouter, outer)
    ensembles: dict[str, Any] = {
        "routed": {"method": "knn_router", "options": {"path": "knn"}, "replicas": 2},
        "shadow": {"method": "knn_router", "options": {"path": "knn", "shadow": True, "fallback": "words"}},
        "encoded": {"method": "knn_router", "options": {"path": "encoded"}},
        "swapped": {"method": "knn_router", "options": {"path": "swapped"}},
        "outer": {"method": "knn_router", "options": {"path": "outer"}, "members": ["routed", "words"]},
        "pair": {"method": "gac"},
    }
    encoders = {"mini": {"source": source, "resources": SMALL}}
    return configuration(ensembles, encoders=encoders, feedback={"path": "said.jsonl", "resources": SMALL})


@pytest.fixture(scope="module")
def service(folder: Path, settings: dict[str, Any]) -> Iterator[Routed]:
    with serving(folder / "service.yaml", settings) as running:
        yield running


@pytest.mark.parametrize("model", ["routed", "encoded"])
def test_who_knows_the_answer_gives_it(service: Routed, model: str) -> None:
    for question, member, text in ((SUM, "adder", "85"), (WORD, "words", "Madrid")):
        reply = service.ask(model, question)
        told = trace(reply)
        assert (told["chosen"], told["answers"], told["why"]) == (member, [member], "policy")
        assert reply["choices"][0]["message"]["content"].strip() == text
        assert reply["ensemble"]["credits"][0][0]["members"] == {member: 1.0}


def test_a_member_may_be_an_ensemble(service: Routed) -> None:
    reply = service.ask("outer", "55+26=")
    assert trace(reply)["answers"] == ["routed"]
    assert reply["ensemble"]["credits"][0][0]["members"] == {"adder": 1.0}


def test_a_shadow_only_tells(service: Routed) -> None:
    told = trace(service.ask("shadow", SUM))
    assert (told["chosen"], told["answers"], told["why"]) == ("adder", ["words"], "shadow")
    assert service.metric('ensemble_route_shadow_total{model="shadow",agrees="no"}') == 1


def test_metrics_count_choices(service: Routed) -> None:
    sample = 'ensemble_routed_total{model="encoded",member="words"'
    before = service.metric(sample)
    service.ask("encoded", WORD)
    assert service.metric(sample) == before + 1


def test_the_listing_tells_what_a_request_may_bring(service: Routed) -> None:
    listed = service.http.get("/v1/models/routed").json()
    assert listed["method"] == "knn_router" and {"policy", "fallback"} <= set(listed["options"])
    assert not {"path", "shadow"} & set(listed["options"])


def test_feedback_changes_who_answers_at_every_replica(service: Routed, folder: Path) -> None:
    question = "31+63="
    reply = service.ask("routed", question)
    assert trace(reply)["answers"] == ["adder"]
    said = service.say(model="routed", id=reply["id"], quality=0.0)
    assert said.status_code == 200, said.text
    first = said.json()["sequence"]
    for number in range(1, 4):
        one = service.say(model="routed", question=question, member="words", quality=1.0)
        assert one.json() == {"object": "feedback", "sequence": first + number, "duplicate": False}
    assert within(20, lambda: all(service.routed("routed", question) == "words" for _ in range(6)))
    assert service.routed("routed", "12+13=") == "adder"

    again = service.say(model="routed", id=reply["id"], quality=0.0)
    assert again.json() == {"object": "feedback", "sequence": first, "duplicate": True}
    other = service.say(model="routed", id=reply["id"], quality=1.0)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "feedback_conflict")

    kept_rows = [record for record in records(folder / "said.jsonl") if record["kind"] == "outcome"]
    row = next(record for record in kept_rows if record["sequence"] == first)
    assert (row["question"], row["member"], row["quality"], row["propensity"]) == (question, "adder", 0.0, 1.0)
    assert row["input_tokens"] > 0 and row["output_tokens"] > 0 and row["latency"] > 0


def test_feedback_names_any_choice_of_several_prompts(service: Routed, folder: Path) -> None:
    asked = {"model": "routed", "prompt": [SUM, WORD], "max_tokens": 8, "n": 2}
    reply = service.http.post("/v1/completions", json=asked).json()
    for index in (1, 2):
        said = service.say(model="routed", id=reply["id"], choice=index, quality=1.0)
        assert said.status_code == 200, said.text
    *_, first, second = records(folder / "said.jsonl")
    assert [(row["question"], row["member"]) for row in (first, second)] == [(SUM, "adder"), (WORD, "words")]


REFUSED: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "an answer": ({"model": "routed", "id": "chatcmpl-nothing", "quality": 1.0}, 404, "answer_not_found", "id"),
    "a model": ({"model": "nobody", "id": "x", "quality": 1.0}, 404, "model_not_found", "model"),
    "no router": ({"model": "pair", "id": "x", "quality": 1.0}, 400, "bad_request", "model"),
    "no ensemble": ({"model": "adder", "id": "x", "quality": 1.0}, 400, "bad_request", "model"),
    "a member": ({"model": "routed", "question": "q", "member": "z", "quality": 1.0}, 400, "bad_request", "member"),
    "a winner": ({"model": "routed", "question": "q", "winner": "z", "loser": "adder"}, 400, "bad_request", "winner"),
    "a quality": ({"model": "routed", "id": "x", "quality": 1.5}, 400, "bad_request", "quality"),
    "an option": ({"model": "routed", "id": "x", "quality": 1.0, "mood": "good"}, 400, "unknown_option", "mood"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_feedback_that_does_not_fit_is_refused(service: Routed, name: str) -> None:
    feedback, status, code, param = REFUSED[name]
    reply = service.say(**feedback)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (status, code, param), error


def test_a_new_artifact_is_taken_into_service_under_load(service: Routed, folder: Path) -> None:
    failures: list[str] = []
    answers: list[tuple[str, str]] = []
    stop = threading.Event()

    def asks() -> None:
        with httpx.Client(base_url=service.url, timeout=60) as http:
            while not stop.is_set():
                asked = {"model": "swapped", "messages": [{"role": "user", "content": SUM}], "trace": True}
                reply = http.post("/v1/chat/completions", json={**asked, "max_tokens": 4})
                if reply.status_code != 200:
                    failures.append(reply.text)
                else:
                    told = trace(reply.json())
                    answers.append((told["artifact"], told["answers"][0]))

    threads = [threading.Thread(target=asks) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for member in ("words", "adder", "words"):
            kept(folder / "swapped", KnnRouter, always(member))
            assert within(20, lambda member=member: answers and answers[-1][1] == member), failures
        taken = 'ensemble_route_artifacts_total{model="swapped",outcome="refused"}'
        (folder / "swapped" / "manifest.json").write_text("{")
        assert within(20, lambda: service.metric(taken) == 1)
        mark = len(answers)
        assert within(20, lambda: len(answers) > mark + 5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    # Each answer is wholly of one artifact.
    assert len(set(answers)) == len({artifact for artifact, _ in answers}) == 2
    assert {member for _, member in answers[mark:]} == {"words"}


@pytest.mark.slow
def test_a_service_that_is_killed_loses_no_feedback(folder: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    ensembles = {"routed": {**settings["ensembles"]["routed"], "options": {"path": str(folder / "knn")}, "replicas": 1}}
    small = configuration(ensembles, feedback={"path": "said.jsonl", "resources": SMALL})
    with serving(tmp_path / "service.yaml", small) as service:
        reply = service.ask("routed", SUM)
        for number in range(1, 5):
            said = service.say(model="routed", question=SUM, member="words", quality=1.0, key=f"k{number}")
            assert said.json()["sequence"] == number
        assert service.say(model="routed", question=SUM, member="adder", quality=0.0).json()["sequence"] == 5
        service.kill()
    with (tmp_path / "said.jsonl").open("a") as journal:
        journal.write('{"kind": "outcome", "ensemble": "rou')
    with serving(tmp_path / "service.yaml", small) as service:
        # What was learned before is there from the first request on.
        assert service.routed("routed", SUM) == "words"
        again = service.say(model="routed", question=SUM, member="words", quality=1.0, key="k4").json()
        assert again == {"object": "feedback", "sequence": 4, "duplicate": True}
        by_id = service.say(model="routed", id=reply["id"], quality=1.0)
        assert by_id.json()["sequence"] == 6
