"""What operators ask: alive, ready, how busy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from ensemble.testing import ScriptedMember

MEMBERS = {name: ScriptedMember.answering(name, ["x"]) for name in ("a", 'odd "name"\\')}
ODD = 'odd "name"\\'


@pytest.mark.parametrize(
    ("reported", "status", "told"),
    [
        ({"a": "ready", ODD: "ready"}, 200, {"a": "ready", ODD: "ready"}),
        ({"a": "ready", ODD: "loading weights"}, 503, {"a": "ready", ODD: "loading weights"}),
        ({"a": "ready"}, 503, {"a": "ready", ODD: "unknown"}),
        ({}, 503, {"a": "unknown", ODD: "unknown"}),
    ],
)
def test_readiness_follows_the_models(
    serve: Any, reported: Mapping[str, str], status: int, told: Mapping[str, str]
) -> None:
    async def ready() -> Mapping[str, str]:
        return reported

    with serve(MEMBERS, ready=ready) as gateway:
        reply = httpx.get(f"{gateway.url}/ready")
        assert httpx.get(f"{gateway.url}/health").json() == {"status": "ok"}
    assert reply.status_code == status
    assert reply.json() == {"ready": status == 200, "models": told}


def test_without_a_question_to_ask_all_are_ready(serve: Any) -> None:
    with serve(MEMBERS) as gateway:
        assert httpx.get(f"{gateway.url}/ready").json() == {"ready": True, "models": dict.fromkeys(MEMBERS, "ready")}
        assert httpx.get(f"{gateway.url}/metrics").text == ""


def test_metrics_are_what_prometheus_reads(serve: Any) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    async def stats() -> Mapping[str, Mapping[str, float]]:
        return {"a": {"ensemble_open_sessions": 0, "ensemble_tokens_total": 12.5}, ODD: {"ensemble_open_sessions": 2}}

    with serve(MEMBERS, stats=stats) as gateway:
        reply = httpx.get(f"{gateway.url}/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'ensemble_open_sessions{model="a"} 0' in reply.text.splitlines()
    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    assert families["ensemble_open_sessions"].type == "gauge" and families["ensemble_tokens"].type == "counter"
    samples = [(s.labels["model"], s.value) for family in families.values() for s in family.samples]
    assert samples == [("a", 0), (ODD, 2), ("a", 12.5)]


def test_a_failing_question_is_an_error_without_its_reasons(serve: Any) -> None:
    async def stats() -> Mapping[str, Mapping[str, float]]:
        raise RuntimeError("secret of the house")

    with serve(MEMBERS, stats=stats) as gateway:
        reply = httpx.get(f"{gateway.url}/metrics")
    assert reply.status_code == 500 and reply.json()["error"]["code"] == "internal_error"
    assert "secret" not in reply.text
