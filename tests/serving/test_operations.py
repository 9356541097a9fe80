"""What an operator asks the service: is it there, is it ready, what is it doing, what does it serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Service
    from tests.serving.conftest import Door


def test_health(door: Door) -> None:
    reply = door.http.get("/health")
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


def test_ready_names_every_model_and_ensemble(door: Door, service: Service) -> None:
    reply = door.http.get("/ready")
    names = [*service.configuration.models, *service.configuration.ensembles]
    assert (reply.status_code, reply.json()) == (200, {"ready": True, "models": dict.fromkeys(names, "ready")})


def test_models_and_ensembles_are_listed_alike(door: Door, service: Service) -> None:
    listed = {model.id: model for model in door.openai.models.list()}
    assert list(listed) == [*service.configuration.models, *service.configuration.ensembles]
    gac = listed["gac"].to_dict()
    assert (gac["kind"], gac["method"], gac["members"]) == ("ensemble", "gac", ["adder", "words"])
    contexts = {name: model.to_dict()["context_length"] for name, model in listed.items()}
    assert contexts["gac"] == min(contexts["adder"], contexts["words"])


def test_metrics_count_what_is_written(door: Door) -> None:
    before = door.metrics()
    reply = door.ask("ramble", "go", max_tokens=10)
    after = door.metrics()
    for member in ("rambler", "frail"):
        kinds = ("ensemble_steps_total", "ensemble_steps_ahead_total")
        steps = sum(after[kind, member] - before[kind, member] for kind in kinds)
        assert steps >= 10 == reply["usage"]["members"][member]["completion_tokens"]
    assert after["ensemble_tokens_total", "adder"] == before["ensemble_tokens_total", "adder"]


def test_metrics_have_types(door: Door) -> None:
    lines = door.http.get("/metrics").text.splitlines()
    assert "# TYPE ensemble_open_sessions gauge" in lines and "# TYPE ensemble_tokens_total counter" in lines
    assert 'ensemble_running{model="nested"} 0' in lines


def test_a_request_has_the_clients_id(door: Door) -> None:
    assert door.http.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
