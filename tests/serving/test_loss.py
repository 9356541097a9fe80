"""A replica that dies under its requests: each of them ends with a typed error, soon, and the service recovers."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ray

from tests.serving.conftest import body, wait_for

if TYPE_CHECKING:
    from tests.serving.conftest import Door

SOON = 8.0
"""Seconds within which a request on a lost replica ends: well before there is another one to ask."""
RESTART = 60.0
"""Seconds that Serve may take to notice and to load the model again on a busy machine."""

LOST = {
    "a model's stream": {"model": "frail", "stream": True},
    "a lockstep's stream": {"model": "ramble", "stream": True},
    "a lockstep's whole answer": {"model": "ramble"},
    "samples": {"model": "crowd"},
}


def test_every_request_ends_typed_and_later_ones_are_answered(door: Door) -> None:
    with ThreadPoolExecutor(len(LOST)) as pool:
        asked = {name: pool.submit(ending, door, fields) for name, fields in LOST.items()}
        assert wait_for(lambda: door.metrics()["ensemble_running", "ramble"] >= 3, 10)
        time.sleep(0.3)  # so that the streams are under way
        kill("model-frail")
        end = time.monotonic() + SOON
        ends = {name: asked[name].result(end - time.monotonic()) for name in LOST}
    assert {name: error["code"] for name, error in ends.items()} == dict.fromkeys(LOST, "member_lost")
    assert {name: error["member"] for name, error in ends.items()} == dict.fromkeys(LOST, "frail")
    assert wait_for(lambda: answered(door), RESTART)
    assert door.is_free(), door.held()


def ending(door: Door, fields: dict[str, Any]) -> Any:
    """The error that ends a long answer."""
    request = body(fields["model"], "go", max_tokens=1900, stream=fields.get("stream", False))
    with door.http.stream("POST", "/v1/chat/completions", json=request) as reply:
        text = reply.read().decode()
    assert reply.status_code == (200 if fields.get("stream") else 503), text
    if fields.get("stream"):
        assert text.count("data: ") > 3
        text = text.strip().rsplit("data: ", 1)[-1]
    return json.loads(text)["error"]


def answered(door: Door) -> bool:
    reply = door.http.post("/v1/chat/completions", json=body("ramble", "go", max_tokens=4))
    return reply.status_code == 200


def kill(deployment: str) -> None:
    """The deployment's only replica, without warning."""
    (replica,) = [
        actor for actor in ray.util.list_named_actors(all_namespaces=True) if f"#{deployment}#" in actor["name"]
    ]
    ray.kill(ray.get_actor(replica["name"], namespace=replica["namespace"]), no_restart=True)
