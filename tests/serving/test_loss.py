"""A replica that dies under its requests: each of them ends with a typed error, soon, and the service recovers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import serve

from deployments.member import RemoteMember
from ensemble.errors import MemberLost
from ensemble.member import Distribution, Session
from ensemble.request import Request
from tests.faults.faults import slay
from tests.serving.conftest import body, wait_for

if TYPE_CHECKING:
    from tests.conftest import Service
    from tests.serving.conftest import Door

SOON = 8.0
"""Seconds within which a request on a lost replica ends: well before there is another one to ask."""
RESTART = 60.0
"""Seconds that Serve may take to notice and to load the model again on a busy machine."""
QUESTION = Request.of("1+1=")

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


async def test_with_another_replica_nobody_has_to_know(door: Door, service: Service) -> None:
    assert wait_for(lambda: running("model-mixed") == 2, RESTART)
    before = door.text("mixed", "1+1=")
    member = await RemoteMember.connect("mixed", serve.get_deployment_handle("model-mixed", "service"))
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(await member.start(QUESTION)) for _ in range(12)]
        kill("model-mixed")
        for _ in range(12):
            async with asyncio.timeout(SOON), await member.start(QUESTION) as session:
                assert len((await session.next()).ids) > 0
            assert door.text("mixed", "1+1=") == before
        ends = await asyncio.gather(*(session.next() for session in sessions), return_exceptions=True)
    assert {type(end) for end in ends} == {MemberLost, Distribution}


async def test_a_session_is_opened_again_at_another_replica(service: Service) -> None:
    assert wait_for(lambda: running("model-mixed") == 2, RESTART)
    member = await RemoteMember.connect("mixed", serve.get_deployment_handle("model-mixed", "service"))
    async with await member.start(QUESTION) as one:
        # This process has to hear of the replica that runs.
        for _ in range(int(10 * RESTART)):
            if await elsewhere(member, one):
                break
            await asyncio.sleep(0.1)
        assert all([await elsewhere(member, one) for _ in range(5)])


async def elsewhere(member: RemoteMember, one: Session) -> bool:
    """Whether a session that is opened again is at another replica; there it answers like the first."""
    async with await member.restart(QUESTION, one) as other:
        assert np.array_equal((await other.next()).ids, (await one.next()).ids)
        return bool(other.address != one.address)  # type: ignore[attr-defined]


async def test_a_session_is_opened_again_at_the_same_replica_if_that_is_the_only_one(service: Service) -> None:
    member = await RemoteMember.connect("adder", serve.get_deployment_handle("model-adder", "service"))
    async with await member.start(QUESTION) as one, await member.restart(QUESTION, one) as other:
        assert np.array_equal((await other.next()).ids, (await one.next()).ids)


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
    """One of the deployment's replicas, without warning."""
    replica, *_ = [
        actor for actor in ray.util.list_named_actors(all_namespaces=True) if f"#{deployment}#" in actor["name"]
    ]
    actor = ray.get_actor(replica["name"], namespace=replica["namespace"])
    # Ray's own kill is on its way for a moment, in which the replica still takes sessions.
    slay(ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=SOON))


def running(deployment: str) -> int:
    """Replicas of the deployment that take requests, and no others that come or go."""
    states = serve.status().applications["service"].deployments[deployment].replica_states
    return states.get("RUNNING", 0) if len(states) == 1 else 0
