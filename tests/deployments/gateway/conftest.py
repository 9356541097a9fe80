"""A gateway served over real HTTP on the loopback, with members that live in the test's process."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from importlib import import_module
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from deployments.gateway import Served, build_app
from ensemble.ensemble import Caps, Ensemble
from ensemble.errors import ContextTooLong, MemberLost
from ensemble.member import Capability, Card, Member, Price
from ensemble.method import Members, Method, Options, Stage
from ensemble.request import Delta, Event, Finish, Request, Trace
from ensemble.testing import ScriptedMember, TinyMember

methods = import_module("ensemble.method")

PRICE = Price(Decimal("1000"), Decimal("2000"))
"""0.001 for each prompt token, 0.002 for each completion token."""


@dataclass(frozen=True)
class Running:
    """A served gateway and the members behind it."""

    url: str
    members: Mapping[str, Any]
    http: httpx.Client

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20)

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=20)

    def post(self, body: Any, path: str = "/v1/chat/completions", **options: Any) -> httpx.Response:
        return self.http.post(self.url + path, json=body, **options)

    def at_rest(self) -> bool:
        """No session is open at any member."""
        return not any(getattr(member, "open_sessions", 0) for member in self.members.values())


@contextmanager
def running(app: FastAPI, members: Mapping[str, Any]) -> Iterator[Running]:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    within(5, lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(timeout=20) as http:
        yield Running(f"http://127.0.0.1:{port}", members, http)
    server.should_exit = server.force_exit = True
    thread.join(5)


def within(seconds: float, holds: Callable[[], bool]) -> float:
    """Seconds until something holds; fails the test if that takes too long."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s"
        time.sleep(0.005)
    return time.monotonic() - begin


class Faulty(Member):
    """Fails in the way its name says."""

    def __init__(self, name: str, error: Exception | None, said: str = "") -> None:
        self.card = Card(name, frozenset({Capability.GENERATE}), 4096)
        self._error = error
        self._said = said

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        if self._said:
            yield Delta(self._said, {self.name: 1.0})
        if self._error is not None:
            raise self._error


class RelayOptions(Options):
    times: int = 1


class Relay(Method[RelayOptions]):
    """All members answer, one after the other."""

    caps = {"times": 3}  # noqa: RUF012

    async def run(self, request: Request, members: Members) -> AsyncIterator[Event]:
        yield Trace("order", {"members": list(members.names)})
        for member in [*members] * self.options.times:
            async with aclosing(member.generate(request)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        yield event
        yield Finish("stop")


@pytest.fixture(scope="session")
def relay() -> Iterator[str]:
    """A registered method that is in nobody's way afterwards."""
    options: dict[str, Any] = {"stage": Stage.SELECTION, "paper": "", "needs": {Capability.GENERATE}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "_registry", {**methods.methods()})
        yield methods.method("relay", options=RelayOptions, **options)(Relay).name


@pytest.fixture(scope="session")
def gateway(relay: str) -> Iterator[Running]:
    """Models and an ensemble of every kind that the tests need."""
    two = ScriptedMember.answering("two", ["2 €😀"], price=PRICE)
    scripted = ScriptedMember("scripted", [b"a", b"b", "é".encode()[:1], "é".encode()[1:], b""], _script, price=PRICE)
    members = {
        "scripted": scripted,
        "tiny": TinyMember("tiny", seed=1, context_length=512),
        "org/two": two,
        "pair": Ensemble("pair", relay, [scripted, two], caps=Caps(n=4)),
        "slow": TinyMember("slow", seed=2, delay=0.02),
        "lost": ScriptedMember.answering("lost", ["x"], fail=True),
        "breaking": ScriptedMember("breaking", [b"a", b""], [b"a"] * 9, fail_at=2),
        "crashing": Faulty("crashing", RuntimeError("secret of the house")),
        "crashing late": Faulty("crashing late", RuntimeError("secret of the house"), "so far"),
        "endless": Faulty("endless", None, "so far"),
        "narrow": Faulty("narrow", ContextTooLong("the prompt leaves no room", param="messages")),
        "gone": Faulty("gone", MemberLost("gone was lost", member="gone")),
    }
    with running(build_app({n: Served.of(m) for n, m in members.items()}, clock=lambda: 1.7e9), members) as server:
        yield server


def _script(written: bytes) -> dict[bytes, float]:
    """aé, then the end; a close second at the first token."""
    steps: list[dict[bytes, float]] = [
        {b"a": 0.75, b"b": 0.25},
        {"é".encode()[:1]: 1.0},
        {"é".encode()[1:]: 1.0},
    ]
    return steps[len(written)] if len(written) < len(steps) else {b"": 1.0}


Serve = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def serve() -> Serve:
    """Serve some members for one test: ``with serve({"a": member}, limits=...) as gateway``."""

    def start(members: Mapping[str, Member], **options: Any) -> AbstractContextManager[Running]:
        return running(build_app({name: Served.of(m) for name, m in members.items()}, **options), members)

    return start


@pytest.fixture
def wait() -> Callable[[float, Callable[[], bool]], float]:
    return within


@pytest.fixture(autouse=True)
def nothing_is_lost(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test a good request still works and no session is open."""
    yield
    if "gateway" not in request.fixturenames:
        return
    gateway: Running = request.getfixturevalue("gateway")
    within(1, gateway.at_rest)
    good = gateway.post({"model": "scripted", "messages": [{"role": "user", "content": "?"}]})
    assert good.json()["choices"][0]["message"]["content"] == "aé"
