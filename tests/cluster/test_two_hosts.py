"""A driver on one host, its members on another: they speak over the network, and notice when it is gone."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.hosts import Host, Pair, pair, unavailable

pytestmark = pytest.mark.slow

CONFIGURATION = """
name: far
models:
  # Write until they are stopped: nobody taught them to end.
  rambler: {source: {random: {architecture: llama}}, resources: &back {cpus: 0.1, custom: {back: 0.1}}}
  frail: {source: {random: {architecture: llama, seed: 1}}, resources: *back}
ensembles:
  ramble: {method: gac, members: [rambler, frail], resources: &front {cpus: 0.1, custom: {front: 0.1}}}
gateway: {resources: *front}
"""
GCS, HTTP = 6379, 8000
ATTEMPTS = 3
STARTING = 240.0
"""Seconds that two Ray nodes and two models may take to start on a busy machine."""
SOON = 10.0
"""Seconds after which a link that is cut has been noticed."""
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def hosts() -> Iterator[Pair]:
    """Ray's head with the driver in front, a second node with the models at the back; each wants the token."""
    if (reason := unavailable()) is not None:
        pytest.skip(reason)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    with pair(environment) as hosts:
        head = [f"--port={GCS}", "--head", "--include-dashboard=false"]
        assert any(joined(hosts.front, "front", head) for _ in range(ATTEMPTS)), hosts.front.said
        assert any(joined(hosts.back, "back", [f"--address={gcs(hosts)}"]) for _ in range(ATTEMPTS)), hosts.back.said
        yield hosts


def joined(host: Host, name: str, place: list[str]) -> bool:
    """Start a Ray node there. It gives up by itself after half a minute, which can be too short on a busy machine."""
    own = [f"--node-ip-address={host.address}", f"--temp-dir={host.folder}", "--object-store-memory=80000000"]
    there = ["--num-cpus=4", f"--resources={json.dumps({name: 1})}", "--block"]
    if host.begun("Ray runtime started", STARTING, str(BIN / "ray"), "start", *place, *own, *there):
        return True
    host.kill()
    return False


@pytest.fixture(scope="module")
def url(hosts: Pair, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the service, which runs when every model is ready."""
    file = tmp_path_factory.mktemp("far") / "far.yaml"
    file.write_text(CONFIGURATION)
    listen = ["--address", gcs(hosts), "--host", hosts.door, "--port", str(HTTP)]
    command = str(BIN / "ensemble")
    assert hosts.front.begun("serving at", STARTING, command, "serve", str(file), *listen), hosts.front.said
    return f"http://{hosts.door}:{HTTP}"


def gcs(hosts: Pair) -> str:
    return f"{hosts.front.address}:{GCS}"


def comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return met


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "ramble", "messages": [{"role": "user", "content": "go"}], **fields}


def wires(hosts: Pair) -> set[str]:
    """Where replicas at the back listen for drivers: the places bound to one address on which they have callers.

    Ray's own servers in these processes listen on all addresses.
    """
    listening = {words[3] for words in hosts.back.sockets("-lp") if "ray::ServeRepl" in words[-1]}
    called = {words[4] for words in hosts.front.sockets("-p") if "ray::ServeRepl" in words[-1]}
    return listening & called


def open_sessions(url: str) -> dict[str, float]:
    metrics = httpx.get(f"{url}/metrics", timeout=5).text.splitlines()
    found = [line.split() for line in metrics if line.startswith("ensemble_open_sessions{")]
    return {name: float(value) for name, value in found}


def test_members_on_another_host_answer(url: str, hosts: Pair) -> None:
    answers = [httpx.post(f"{url}/v1/chat/completions", json=asked(max_tokens=12), timeout=60) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    first, second = (answer.json() for answer in answers)
    assert first["usage"]["completion_tokens"] >= 24  # twelve of each member
    assert first["choices"] == second["choices"]
    assert len(open_sessions(url)) == 2
    assert comes_true(lambda: not any(open_sessions(url).values()), 2)


def test_engines_listen_on_the_address_of_the_cluster_alone(url: str, hosts: Pair) -> None:
    httpx.post(f"{url}/v1/chat/completions", json=asked(max_tokens=2), timeout=60).raise_for_status()
    found = wires(hosts)
    assert len(found) == 2
    assert {place.rpartition(":")[0] for place in found} == {hosts.back.address}


def test_a_link_that_is_cut_ends_the_stream_and_the_sessions_at_both_ends(url: str, hosts: Pair) -> None:
    wanted = asked(max_tokens=1900, stream=True)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=wanted, timeout=60) as reply:
        lines = (line for line in reply.iter_lines() if line)
        early = [next(lines) for _ in range(20)]
        assert sum(open_sessions(url).values()) == 2
        engines = wires(hosts)
        hosts.back.link("down")
        cut = time.monotonic()
        *_, last = lines
    assert time.monotonic() - cut < SOON
    error = json.loads(last.removeprefix("data: "))["error"]
    assert all('"content"' in line or '"role"' in line for line in early)
    assert error["code"] == "member_lost"
    assert error["member"] in ("rambler", "frail")
    # The engines find out for themselves: nobody can tell them.
    assert comes_true(lambda: not engines & {words[3] for words in hosts.back.sockets()}, SOON)
    hosts.back.link("up")
    assert comes_true(lambda: not any(open_sessions(url).values()), 2)
    answer = httpx.post(f"{url}/v1/chat/completions", json=asked(max_tokens=4), timeout=60)
    assert answer.status_code == 200, answer.text
