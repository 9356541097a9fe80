"""A client that leaves frees every member within a second, however it leaves and wherever its request is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.conftest import wait_for

if TYPE_CHECKING:
    from tests.conftest import Service
    from tests.serving.conftest import Door

RAMBLING = ("rambler", "ramble", "crowd")
"""They write for many seconds: one model, a lockstep of two, and samples of which some come from a lockstep."""

pytestmark = pytest.mark.usefixtures("free")


@pytest.mark.parametrize("model", RAMBLING[:2])
def test_in_the_middle_of_a_stream(door: Door, service: Service, model: str) -> None:
    with sent(service, model, stream=True) as connection:
        assert read(connection, 2000).count(b"data: ") > 2
        assert door.held()
    assert door.is_free(), door.held()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", RAMBLING)
def test_before_the_answer(door: Door, service: Service, model: str, stream: bool) -> None:
    """Of ``crowd`` nothing is told before all samples are there, streamed or not."""
    with sent(service, model, stream=stream, ensemble=None):
        assert wait_for_work(door)
    assert door.is_free(), door.held()


def test_twenty_at_once(door: Door, service: Service) -> None:
    connections = [sent(service, RAMBLING[i % 3], stream=i % 2 == 0, seed=i, temperature=1) for i in range(20)]
    assert wait_for_work(door)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(socket.socket.close, connections))
    assert door.is_free(2), door.held()


def test_a_command_that_is_killed(door: Door, service: Service) -> None:
    command = [sys.executable, "-m", "cluster.cli", "ask", "ramble", "go", "--url", service.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None and asking.stdout.read(8)
        assert door.held()
        asking.kill()
    assert door.is_free(), door.held()


@pytest.mark.parametrize("stream", [False, True])
def test_in_the_queue(door: Door, service: Service, stream: bool) -> None:
    """Who waits for a place and leaves holds up nobody behind it."""
    with ExitStack() as busy:
        for seed in range(5):
            busy.enter_context(sent(service, "narrow", seed=seed))
        assert wait_for(lambda: door.metrics()["ensemble_open_sessions", "rambler"] == 5, 20)
        waiting = sent(service, "narrow", stream=stream)
        assert wait_for(lambda: door.metrics()["ensemble_waiting", "narrow"] == 1, 20)
        waiting.close()
        assert wait_for(lambda: door.metrics()["ensemble_waiting", "narrow"] == 0, 1)
        assert door.metrics()["ensemble_running", "narrow"] == 5
    assert door.is_free(), door.held()


@pytest.mark.parametrize("stream", [False, True])
def test_in_the_middle_of_a_search(door: Door, service: Service, stream: bool) -> None:
    with sent(service, "search", stream=stream, ensemble={"iterations": 64}):
        assert wait_for_work(door)
    assert door.is_free(), door.held()


def wait_for_work(door: Door) -> bool:
    """Whether a member has begun to work."""
    return any(door.held() for _ in range(100))


def sent(service: Service, model: str, **fields: Any) -> socket.socket:
    """A connection on which a request for a long answer has been sent."""
    request = {"model": model, "messages": [{"role": "user", "content": "go"}], "max_tokens": 1900, **fields}
    content = json.dumps(request).encode()
    host, port = service.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(4096)
        assert piece, data
        data += piece
    return data
