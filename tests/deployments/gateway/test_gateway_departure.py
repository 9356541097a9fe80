"""A client that leaves frees every member within a second, wherever its request is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from ensemble.ensemble import Ensemble
from ensemble.member import Capability, Card, Member
from ensemble.request import Delta, Event, Request
from ensemble.testing import ScriptedMember, TinyMember

Wait = Callable[[float, Callable[[], bool]], float]
USER = [{"role": "user", "content": "?"}]


def sent(url: str, path: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which a request has been sent."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)), timeout=5)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_waiting_client_leaves(serve: Any, wait: Wait, path: str, stream: bool) -> None:
    """Before the first text: the member is still thinking."""
    member = ScriptedMember.answering("a", ["x"], delay=60)
    subject = {"messages": USER} if "chat" in path else {"prompt": ["1", "2"]}
    with serve({"a": member}) as gateway:
        connection = sent(gateway.url, path, {"model": "a", "stream": stream, **subject})
        wait(5, lambda: member.calls == len(subject.get("prompt", [1])))
        assert member.cancelled == 0
        connection.close()
        wait(1, lambda: member.cancelled == member.calls)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_leaves_an_ensemble_that_is_writing(relay: str, serve: Any, wait: Wait, stream: bool) -> None:
    quick, slow = TinyMember("quick", seed=1), TinyMember("slow", seed=2, delay=0.05)
    with serve({"e": Ensemble("e", relay, [quick, slow])}) as gateway:
        connection = sent(
            gateway.url,
            "/v1/chat/completions",
            {"model": "e", "messages": USER, "n": 3, "max_tokens": 400, "stream": stream},
        )
        wait(20, lambda: slow.open_sessions == 3)
        connection.close()
        wait(1, lambda: slow.open_sessions == quick.open_sessions == 0)
        exchanges = slow.exchanges
        wait(1, lambda: gateway.post({"model": "e"}).status_code == 400)
        assert slow.exchanges == exchanges, "the members go on for nobody"


class Pausing(Member):
    """Says a word, then nothing for a minute."""

    def __init__(self) -> None:
        self.card = Card("pausing", frozenset({Capability.GENERATE}), 100)
        self.busy = 0

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.busy += 1
        try:
            yield Delta("word", {"pausing": 1.0})
            await asyncio.sleep(60)
        finally:
            self.busy -= 1


def test_a_client_leaves_while_nothing_is_being_sent(serve: Any, wait: Wait) -> None:
    member = Pausing()
    body = {"model": "pausing", "messages": USER, "stream": True}
    with serve({"pausing": member}) as gateway:
        with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()  # kept: an abandoned iterator closes the connection
            assert any("word" in line for line in lines)
            assert member.busy == 1
        wait(1, lambda: not member.busy)


def test_the_clients_own_close(gateway: Any, wait: Wait) -> None:
    slow = gateway.members["slow"]
    stream = gateway.client().chat.completions.create(model="slow", messages=USER, stream=True, max_tokens=500)
    next(stream)
    assert slow.open_sessions == 1
    stream.close()
    wait(1, lambda: slow.open_sessions == 0)


async def test_a_client_that_times_out(gateway: Any, wait: Wait) -> None:
    slow = gateway.members["slow"]
    with contextlib.suppress(httpx.ReadTimeout):
        async with httpx.AsyncClient(timeout=0.3) as client:
            await client.post(
                f"{gateway.url}/v1/chat/completions", json={"model": "slow", "messages": USER, "max_tokens": 500}
            )
        pytest.fail("the answer takes ten seconds")
    wait(1, lambda: slow.open_sessions == 0)


def test_a_client_leaves_in_the_middle_of_its_body(gateway: Any) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{")
    assert gateway.post({"model": "scripted", "messages": USER}).status_code == 200


def test_a_neighbour_is_not_disturbed(gateway: Any, wait: Wait) -> None:
    body = {"model": "slow", "messages": USER, "max_tokens": 20}
    alone = gateway.post(body).json()["choices"][0]["message"]["content"]
    connection = sent(gateway.url, "/v1/chat/completions", body | {"max_tokens": 500})
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body | {"stream": True}) as reply:
        lines = reply.iter_lines()
        next(lines)
        connection.close()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == alone
