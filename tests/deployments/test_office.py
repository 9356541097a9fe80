"""What a driver tells the keeper of feedback: who has answered, so that feedback can name it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments import routing
from deployments.api.requests import ChatBody, CompletionBody
from deployments.api.wire import parse
from deployments.feedback import Writer
from deployments.given import Given, Kept, prompt_id, told_as
from deployments.journal import Journal
from deployments.routing import Office
from ensemble.before.routing.method import ANSWERED
from ensemble.errors import BadRequest, MemberLost
from ensemble.request import Request, Trace
from tests.ensemble.before.routing.desks import artifact, ensemble


class Keeper:
    """A keeper in this process, which may be away."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal(path)
        self.writer = Writer(self.journal)
        self.away = 0

    async def call(self, method: Any, *arguments: Any) -> Any:
        if self.away:
            self.away -= 1
            raise MemberLost("away", member=routing._KEEPER)
        return await getattr(self.writer, method)(*arguments)


class Handle:
    """Names of methods in place of methods."""

    def __getattr__(self, name: str) -> str:
        return name


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    found = Keeper(tmp_path / "said.jsonl")
    monkeypatch.setattr(routing, "call", found.call)
    monkeypatch.setattr(routing, "pinned", lambda handle: handle)
    yield found
    found.journal.close()


async def opened(tmp_path: Path) -> Office:
    desk = ensemble(artifact(tmp_path / "router")).prepared
    office = await Office.opened("routed", desk, Handle())  # type: ignore[arg-type]
    assert office is not None
    return office


def answered(office: Office, request: Request, member: str, choice: int = 0, ensemble: str = "routed") -> None:
    data = {"ensemble": ensemble, "member": member, "cost": 0.5, "latency": 1.0, "propensity": 1.0}
    office.note(request, Trace(ANSWERED, data, choice))


@pytest.mark.parametrize("kind", ["prompts", "a chat"])
async def test_every_choice_of_a_reply_can_be_judged(tmp_path: Path, keeper: Keeper, kind: str) -> None:
    office = await opened(tmp_path)
    if kind == "prompts":
        requests = parse(CompletionBody, {"model": "routed", "prompt": ["p", "q", "r"], "n": 2}).requests()
    else:
        messages = [{"role": "user", "content": "p"}]
        requests = parse(ChatBody, {"model": "routed", "messages": messages, "n": 2}).requests()
    for place, request in enumerate(requests):
        for choice in range(request.n):
            answered(office, request, "ab"[(place + choice) % 2], choice)
    for index in range(2 * len(requests)):
        await office.keep(Given(ensemble="routed", id=requests[0].id, choice=index, quality=1.0))
    rows, _ = keeper.journal.since(0, "routed")
    told = [(row["choice"], row["question"], row["member"]) for row in rows]
    expected = [(0, "p", "a"), (1, "p", "b"), (2, "q", "b"), (3, "q", "a"), (4, "r", "a"), (5, "r", "b")]
    assert told == expected[: 2 * len(requests)]


@pytest.mark.parametrize("id", ["f00", "f00.x", ".5", "a.b"])
def test_an_id_without_a_number_is_whole(id: str) -> None:
    assert told_as(id, 3) == (id, 3) and prompt_id(id, 0) == id


async def test_answers_of_an_ensemble_within_are_its_own(tmp_path: Path, keeper: Keeper) -> None:
    office = await opened(tmp_path)
    request = Request.of("p")
    answered(office, request, "b", ensemble="inner")
    answered(office, request, "a")
    await office.keep(Given(ensemble="routed", id=request.id, quality=1.0))
    assert keeper.journal.since(0, "routed")[0][0]["member"] == "a"


async def test_answers_are_told_when_the_keeper_is_back(
    tmp_path: Path, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = await opened(tmp_path)
    monkeypatch.setattr(routing, "_AGAIN", 0.01)
    keeper.away = 3
    request = Request.of("p")
    answered(office, request, "a")
    await asyncio.sleep(0.2)
    assert keeper.journal.route("routed", request.id, 0) is not None


async def test_feedback_that_may_have_been_written_is_only_sent_again_where_it_counts_once(
    tmp_path: Path, keeper: Keeper
) -> None:
    office = await opened(tmp_path)
    given = {"ensemble": "routed", "question": "q", "member": "a", "quality": 1.0}
    keeper.away = 1
    with pytest.raises(MemberLost):
        await office.keep(Given(**given))  # type: ignore[arg-type]
    keeper.away = 1
    assert await office.keep(Given(**given, key="k")) == Kept(1)  # type: ignore[arg-type]


async def test_a_member_that_the_router_does_not_know_is_refused(tmp_path: Path, keeper: Keeper) -> None:
    office = await opened(tmp_path)
    with pytest.raises(BadRequest, match="knows: a, b, c"):
        await office.keep(Given(ensemble="routed", question="q", member="z", quality=1.0))
