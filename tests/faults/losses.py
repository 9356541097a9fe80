"""Processes that die under streams: members, drivers, Serve's own, whole nodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from tests.faults import faults
from tests.faults.cluster import Stage
from tests.faults.faults import Event
from tests.faults.load import Heard, Stream, answers, ask, freed, held, metrics, wait_for
from tests.faults.scenarios import Found, Play, Scenario

STREAMS = 3
TOKENS = 1500
"""Of each stream: some seconds of work, so that the blow falls early in it."""
BEFORE = 60
"""Pieces that each stream has written when the blow falls."""
MEMBERS = {"ramble": ("rambler", "frail"), "thinned": ("rambler", "frail"), "lasting": ("rambler", "steady")}


@dataclass(frozen=True)
class Struck:
    """Streams that were under way when something was hit."""

    stage: Stage
    model: str
    plain: str
    """What the same request is answered when nothing happens."""
    heard: list[Heard]
    early: list[str]
    """What each had written when the blow fell."""
    moment: float

    def kept(self) -> None:
        """Nothing that was streamed before is missing, repeated or taken back."""
        for heard, early in zip(self.heard, self.early, strict=True):
            assert heard.text.startswith(early) and self.plain.startswith(early)

    @property
    def pause(self) -> float:
        """Seconds, the longest that a stream stood still after the blow."""
        return max(heard.longest_pause for heard in self.heard)


Ending = Callable[[Struck], float]
"""Asserts how the streams ended; returns the figure."""


@cache
def undisturbed(url: str, model: str) -> str:
    heard = Stream(url, model, max_tokens=TOKENS).result()
    assert heard.answered, heard.error
    return heard.text


def struck(model: str, event: Event, ending: Ending, *, release: float = 2.0) -> Play:
    """Streams are under way, the blow falls, they end as they should, and nothing is held any more.

    Args:
        release: seconds after the last stream's end within which everything is free.
    """

    def play(stage: Stage) -> Found:
        # What is still starting after the scenario before takes the cores that this one is measured on.
        stage.settled(model)
        plain = undisturbed(stage.url, model)
        streams = [Stream(stage.url, model, max_tokens=TOKENS) for _ in range(STREAMS)]
        for stream in streams:
            stream.under_way(BEFORE)
        at_work = held(stage.url)
        assert at_work.get(("ensemble_running", model), 0) == STREAMS, at_work
        early = [stream.heard.text for stream in streams]
        moment = time.monotonic()
        hit = event(stage)
        heard = [stream.result(150) for stream in streams]
        of_all = Struck(stage, model, plain, heard, early, moment)
        of_all.kept()
        figure = ending(of_all)
        freed(stage.url, release)
        return Found(f"{hit}; {STREAMS} streams after {min(map(len, early))} characters", figure)

    return play


def ended_typed(code: str) -> Ending:
    """Each stream ends with this error, and what it wrote is the beginning of the answer. Figure: seconds till then."""

    def check(struck: Struck) -> float:
        assert [heard.code for heard in struck.heard] == [code] * STREAMS, [h.error or h.broken for h in struck.heard]
        assert all(struck.plain.startswith(heard.text) for heard in struck.heard)
        return max(heard.ended for heard in struck.heard) - struck.moment

    return check


def unbroken(struck: Struck) -> float:
    """Each stream is the undisturbed answer to the letter. Figure: the longest pause."""
    assert all(heard.answered for heard in struck.heard), [h.error or h.broken or h.status for h in struck.heard]
    assert [heard.text == struck.plain for heard in struck.heard] == [True] * STREAMS
    return struck.pause


def without_the_member(struck: Struck) -> float:
    """Each stream goes on to its full length and says who is missing; later requests have all members again."""
    assert all(heard.answered for heard in struck.heard), [h.error or h.broken or h.status for h in struck.heard]
    for heard in struck.heard:
        assert heard.finish == "length"
        degraded = heard.ensemble["degraded"]
        assert "frail" in str(degraded), heard.ensemble
    stage = struck.stage
    counted = {key: value for key, value in metrics(stage.url).items() if key[0] == "ensemble_incidents_total"}
    assert sum(value for key, value in counted.items() if "dropped" in key) >= STREAMS, counted
    assert wait_for(lambda: complete(stage, struck.model), 60) is not None, "the member does not come back"
    return struck.pause


def complete(stage: Stage, model: str) -> bool:
    """Whether an answer is written by all members."""
    reply = ask(stage.url, model, max_tokens=4)
    return reply.status_code == 200 and not reply.json()["ensemble"].get("degraded")


def typed_or_unbroken(struck: Struck) -> float:
    """The dead driver's streams end typed or go on, the others do not notice. Figure: seconds.or pause."""
    for heard in struck.heard:
        assert heard.text == struck.plain if heard.answered else heard.code == "member_lost", (
            heard.error or heard.broken
        )
    lost = [heard for heard in struck.heard if not heard.answered]
    return max((heard.ended - struck.moment for heard in lost), default=struck.pause)


def cut_off(struck: Struck) -> float:
    """The connections are gone; the members are free at once. Figure: seconds until requests are answered again."""
    assert not any(heard.answered for heard in struck.heard)
    assert all(struck.plain.startswith(heard.text) for heard in struck.heard)
    struck.stage.answering(struck.model, seconds=90)
    return time.monotonic() - struck.moment


def back_again(struck: Struck) -> float:
    """Every request ends, new ones are never left hanging, and later ones are answered. Figure: seconds until then."""
    ended_typed("member_lost")(struck)
    stage = struck.stage
    asked = ask(stage.url, struck.model, seconds=60, max_tokens=2)
    assert asked.status_code in (200, 429, 502, 503, 504), asked.text
    stage.answering(struck.model, seconds=90)
    return time.monotonic() - struck.moment


def controller(stage: Stage) -> str:
    hit = faults.actors("SERVE_CONTROLLER")(stage)
    assert answers(stage.url, "ramble"), "requests need no controller"
    return hit


SCENARIOS = [
    Scenario(
        name="member killed, fail",
        claim="a member killed in the middle of an answer ends it with the typed error member_lost",
        play=struck("ramble", faults.replica("model-frail"), ended_typed("member_lost")),
        bound=8,
        unit="s to the error",
        quick=True,
    ),
    Scenario(
        name="member killed, recover",
        claim="a member's work is taken up by another replica: the text is the undisturbed one, to the letter",
        play=struck("lasting", faults.replica("model-steady"), unbroken),
        bound=10,
        unit="s pause",
    ),
    Scenario(
        name="member killed, degrade",
        claim="the answer goes on without the member and says so; the member takes part again when it is back",
        play=struck("thinned", faults.replica("model-frail"), without_the_member),
        bound=8,
        unit="s pause",
    ),
    Scenario(
        name="driver killed",
        claim="with two drivers, requests of the one that dies end typed or go on; those of the other do not notice",
        play=struck("lasting", faults.replica("ensemble-lasting"), typed_or_unbroken),
        bound=8,
        unit="s",
    ),
    Scenario(
        name="controller killed",
        claim="without Serve's controller streams go on and new requests are answered",
        play=struck("ramble", controller, unbroken),
        bound=3,
        unit="s pause",
    ),
    Scenario(
        name="proxies killed",
        claim="requests over a proxy that dies are cut off, their members free; the door opens again by itself",
        play=struck("ramble", faults.actors("SERVE_PROXY"), cut_off),
        bound=60,
        unit="s closed",
    ),
    Scenario(
        name="node killed, recover",
        claim="a node with all its processes dies: its members' work is taken up elsewhere, the text is the same",
        play=struck("lasting", faults.node_of("model-steady"), unbroken),
        bound=90,
        unit="s pause",
    ),
    Scenario(
        name="all members down and back",
        claim="with every replica gone requests end typed; the service answers again without help",
        play=struck("ramble", faults.every_replica("model-rambler", "model-frail"), back_again),
        bound=60,
        unit="s to an answer",
    ),
]
