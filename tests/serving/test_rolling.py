"""Replicas that go under load.

A new configuration: no request fails, and each answer is wholly of the old one or of the new one. A driver that is
killed: only what was under way on it fails, typed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import ray
from ray import serve

from cluster import census
from cluster.admission import Seats, spare
from cluster.app import Arguments, build
from cluster.config import parse
from cluster.schema import Configuration
from tests.serving.conftest import body, wait_for

if TYPE_CHECKING:
    from tests.conftest import Service

pytestmark = pytest.mark.slow
NAME = "rolling"
SMALL = {"cpus": 0.1}
SHORT, LONG = 6, 300
"""Tokens; the longer answers take longer than Serve does to stop a replica that looks idle."""
ASKING = (SHORT, SHORT, SHORT, LONG, LONG)
"""What threads ask for, each without a pause."""


def configuration(members: tuple[str, str], **seeds: int) -> Configuration:
    """Models that babble, each by its seed, and a pair of them: a changed word of one changes what follows."""
    models = {
        name: {"source": {"random": {"architecture": "llama", "seed": seed}}, "resources": SMALL}
        for name, seed in seeds.items()
    }
    pair = {"method": "gac", "members": list(members), "replicas": 2, "resources": SMALL}
    return parse({"name": NAME, "models": models, "ensembles": {"pair": pair}, "gateway": {"resources": SMALL}})


FIRST = configuration(("left", "right"), left=1, right=2, third=3)
OTHER_MEMBERS = configuration(("left", "third"), left=1, right=2, third=3)
OTHER_MODELS = configuration(("left", "third"), left=4, right=2, third=5)


@dataclass
class Load:
    """What came of requests that are sent all the time."""

    url: str
    answers: list[tuple[int, str]] = field(default_factory=list)
    """With how many tokens were asked for."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def applied(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self._ask, args=[tokens]) for tokens in ASKING]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def goes_on(self) -> bool:
        """Whether everyone who asks is answered again, soon."""
        mark = len(self.answers)
        return wait_for(lambda: {tokens for tokens, _ in self.answers[mark + len(ASKING) :]} == {SHORT, LONG}, 30)

    def _ask(self, tokens: int) -> None:
        with httpx.Client(timeout=60) as http:
            while not self._stop.is_set():
                reply = asked(http, self.url, tokens)
                if reply.status_code == 200:
                    self.answers.append((tokens, text(reply)))
                else:
                    self.failures.append(reply.json()["error"])


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    """An application of its own beside the one that all tests share."""
    deploy(FIRST)
    yield f"{service.url}/{NAME}"
    serve.delete(NAME)


def test_other_members(url: str) -> None:
    before = replicas()
    rolled(url, OTHER_MEMBERS)
    after = replicas()
    models = {name for name in before if name.startswith("model-")}
    assert len(models) == 3
    assert {name for name in before if after[name] == before[name]} == models
    assert not after["ensemble-pair"] & before["ensemble-pair"]


def test_other_models_under_the_same_names(url: str) -> None:
    before = replicas()
    rolled(url, OTHER_MODELS)
    after = replicas()
    assert after["model-right"] == before["model-right"]
    assert not any(after[name] & before[name] for name in ("model-left", "model-third", "ensemble-pair"))


def test_the_same_again_changes_nothing(url: str) -> None:
    before = replicas()
    deploy(OTHER_MODELS)
    assert replicas() == before


def test_a_driver_is_killed(url: str) -> None:
    (one, _) = replicas()["ensemble-pair"]
    with Load(url).applied() as load:
        assert load.goes_on(), load.failures
        kill(one)
        assert load.goes_on(), load.failures
    assert len(load.failures) <= len(ASKING)
    assert all((error["code"], error["member"]) == ("member_lost", "pair") for error in load.failures)
    assert len(replicas()["ensemble-pair"]) == 2


def rolled(url: str, to: Configuration) -> None:
    """Go over to another configuration under load."""
    with httpx.Client(timeout=60) as http:
        old = {(tokens, text(asked(http, url, tokens))) for tokens in (SHORT, LONG)}
        with Load(url).applied() as load:
            assert load.goes_on(), load.failures
            deploy(to)
            mark = len(load.answers)
            assert load.goes_on(), load.failures
        new = {(tokens, text(asked(http, url, tokens))) for tokens in (SHORT, LONG)}
    assert not load.failures
    assert not old & new
    assert set(load.answers) == old | new
    assert set(load.answers[mark + len(ASKING) :]) == new


def asked(http: httpx.Client, url: str, tokens: int) -> httpx.Response:
    return http.post(f"{url}/v1/chat/completions", json=body("pair", "go", max_tokens=tokens))


def text(reply: httpx.Response) -> str:
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def deploy(wanted: Configuration) -> None:
    """What ``cluster.local.start`` does, under a path of its own; returns when nothing is left of what was before."""
    seats = Seats({}, {})
    room = spare(wanted, census.nodes(), census.places(NAME), seats)
    application = build(Arguments(config=wanted.as_dict(), spare=room))
    serve.run(application, name=NAME, route_prefix=f"/{NAME}")


def replicas() -> dict[str, set[str]]:
    """Names of the actors of each deployment, when there are as many as there should be."""
    found: dict[str, set[str]] = {}

    def settled() -> bool:
        found.clear()
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if actor["name"].startswith(f"SERVE_REPLICA::{NAME}#"):
                found.setdefault(actor["name"].split("#")[1], set()).add(actor["name"])
        return all(len(names) == 1 + (name == "ensemble-pair") for name, names in found.items())

    assert wait_for(settled, 60), found
    return found


def kill(replica: str) -> None:
    """Without warning."""
    ray.kill(ray.get_actor(replica, namespace="serve"), no_restart=True)
