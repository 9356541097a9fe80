"""What the tests over HTTP share: clients of the running service, and a look at what its members hold."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

if TYPE_CHECKING:
    from tests.conftest import Service

Json = dict[str, Any]
SAMPLE = re.compile(r'^(\w+)\{model="([^"]+)"\} ([\d.e+-]+)$', re.MULTILINE)
"""Of metrics that have no other label."""


@dataclass(frozen=True)
class Door:
    """The service from outside."""

    http: httpx.Client
    openai: openai.OpenAI

    def ask(self, model: str, question: str, **fields: Any) -> Json:
        """The whole reply to one question; an error is a failure of the test."""
        reply = self.http.post("/v1/chat/completions", json=body(model, question, **fields))
        assert reply.status_code == 200, reply.text
        value: Json = reply.json()
        return value

    def text(self, model: str, question: str, **fields: Any) -> str:
        content: str = self.ask(model, question, **fields)["choices"][0]["message"]["content"]
        return content

    def metrics(self) -> dict[tuple[str, str], float]:
        """Value by (metric, model)."""
        found = SAMPLE.findall(self.http.get("/metrics").text)
        return {(metric, model): float(value) for metric, model, value in found}

    def held(self) -> dict[tuple[str, str], float]:
        """What requests hold at the moment, where that is not nothing."""
        gauges = ("ensemble_open_sessions", "ensemble_running")
        return {key: value for key, value in self.metrics().items() if key[0] in gauges and value}

    def is_free(self, within: float = 1.0) -> bool:
        """Whether every member is free of every request within so many seconds."""
        return wait_for(lambda: not self.held(), within)


def body(model: str, question: str, **fields: Any) -> Json:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": question}], **fields}


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return met


@pytest.fixture(scope="session")
def door(service: Service) -> Iterator[Door]:
    limits = httpx.Limits(max_connections=None)
    with (
        httpx.Client(base_url=service.url, timeout=60, limits=limits) as http,
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", timeout=60, max_retries=0) as client,
    ):
        yield Door(http, client)


@pytest.fixture
def free(door: Door) -> Iterator[None]:
    """For tests that look at what is held: nothing is when they begin, and nothing is left when they end."""
    assert door.is_free(10), door.held()
    yield
    assert door.is_free(), door.held()
