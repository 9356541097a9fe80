"""A gateway that is taken down takes no new requests and ends those that it has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from deployments.api.door import Door
from ensemble.testing import ScriptedMember, TinyMember

Wait = Callable[[float, Callable[[], bool]], float]
USER = [{"role": "user", "content": "?"}]
BODY = {"model": "slow", "messages": USER, "max_tokens": 40}


@pytest.mark.parametrize("stream", [False, True])
def test_who_is_inside_is_answered_and_nobody_comes_in(serve: Any, wait: Wait, stream: bool) -> None:
    door, replies = Door(), list[Any]()
    slow = TinyMember("slow", seed=2, delay=0.02)
    with serve({"slow": slow, "other": ScriptedMember.answering("other", ["x"])}, door=door) as gateway:
        whole = gateway.post(BODY | {"seed": 1}).json()["choices"][0]["message"]["content"]
        asking = threading.Thread(target=lambda: replies.append(gateway.post(BODY | {"seed": 1, "stream": stream})))
        asking.start()
        wait(5, lambda: slow.open_sessions > 0 or door.inside > 0)
        door.open = False
        refused = gateway.post({"model": "other", "messages": USER})
        assert door.inside == 1
        ready = gateway.http.get(f"{gateway.url}/ready")
        alive = gateway.http.get(f"{gateway.url}/health")
        asking.join(20)
        wait(1, lambda: door.inside == 0)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert refused.headers["connection"] == "close" and int(refused.headers["retry-after"]) >= 1
    assert (ready.status_code, ready.json()) == (503, {"ready": False, "draining": True})
    assert alive.status_code == 200
    (reply,) = replies
    assert reply.status_code == 200
    if stream:
        assert reply.text.endswith("data: [DONE]\n\n")
    else:
        assert reply.json()["choices"][0]["message"]["content"] == whole
        assert reply.headers["connection"] == "close", "the connection would be used for a server that is gone"


def test_an_open_door_is_noticed_by_nobody(serve: Any) -> None:
    door = Door()
    with serve({"a": ScriptedMember.answering("a", ["x"])}, door=door) as gateway:
        reply = gateway.post({"model": "a", "messages": USER})
        assert gateway.post({"model": "a"}).status_code == 400
    assert reply.status_code == 200 and reply.headers.get("connection") != "close"
    assert door.inside == 0
