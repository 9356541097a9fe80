"""/v1/feedback: what is taken, and every way in which it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deployments.gateway import Served, build_app
from deployments.given import Given, Kept, UnknownAnswer
from ensemble.testing import ScriptedMember
from tests.deployments.gateway.conftest import Running, running

TAKEN: list[Given] = []


async def keep(given: Given) -> Kept:
    if given.id == "gone":
        raise UnknownAnswer("routed has given no such answer", param="id")
    TAKEN.append(given)
    return Kept(len(TAKEN))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    member = ScriptedMember.answering("routed", ["x"])
    other = ScriptedMember.answering("plain", ["x"])
    models = {"routed": Served(member, "knn_router", ("a", "b"), feedback=keep), "plain": Served(other)}
    with running(build_app(models), {}) as served:
        yield served


def say(server: Running, **feedback: Any) -> Any:
    return server.post({"model": "routed", **feedback}, "/v1/feedback")


@pytest.mark.parametrize("prefix", ["chatcmpl-", "cmpl-", ""])
def test_an_answer_is_judged_by_its_id(server: Running, prefix: str) -> None:
    reply = say(server, id=f"{prefix}f00", quality=0.5, choice=1, key="k")
    assert reply.status_code == 200
    assert reply.json() == {"object": "feedback", "sequence": len(TAKEN), "duplicate": False}
    assert TAKEN[-1] == Given(ensemble="routed", id="f00", quality=0.5, choice=1, key="k")


def test_a_question_is_judged_with_its_member(server: Running) -> None:
    say(server, question="1+1=", member="a", quality=1)
    assert TAKEN[-1] == Given(ensemble="routed", question="1+1=", member="a", quality=1.0)


def test_a_preference(server: Running) -> None:
    say(server, question="1+1=", winner="a", loser="b", tie=True)
    assert TAKEN[-1] == Given(ensemble="routed", question="1+1=", winner="a", loser="b", tie=True)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "neither id nor question": ({"quality": 1.0}, "id"),
    "both": ({"id": "x", "question": "q", "quality": 1.0}, "id"),
    "nothing said": ({"id": "x"}, "quality"),
    "too much said": ({"id": "x", "quality": 1.0, "winner": "a", "loser": "b"}, "quality"),
    "no member": ({"question": "q", "quality": 1.0}, "member"),
    "a choice of a question": ({"question": "q", "member": "a", "quality": 1.0, "choice": 1}, "choice"),
    "a tie of one": ({"id": "x", "quality": 1.0, "tie": True}, "tie"),
    "no loser": ({"id": "x", "winner": "a"}, "loser"),
    "no winner": ({"id": "x", "loser": "a"}, "winner"),
    "against itself": ({"id": "x", "winner": "a", "loser": "a"}, "loser"),
    "a member of two": ({"id": "x", "winner": "a", "loser": "b", "member": "a"}, "member"),
    "above 1": ({"id": "x", "quality": 1.01}, "quality"),
    "text": ({"id": "x", "quality": "good"}, "quality"),
    "an empty id": ({"id": "", "quality": 1.0}, "id"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_refused(server: Running, name: str) -> None:
    feedback, param = WRONG[name]
    before = len(TAKEN)
    reply = say(server, **feedback)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text
    assert len(TAKEN) == before


def test_an_unknown_field_is_refused(server: Running) -> None:
    error = say(server, id="x", quality=1.0, mood="good").json()["error"]
    assert (error["code"], error["param"]) == ("unknown_option", "mood")


def test_who_keeps_none_says_so(server: Running) -> None:
    reply = server.post({"model": "plain", "id": "x", "quality": 1.0}, "/v1/feedback")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "model")
    unknown = server.post({"model": "nobody", "id": "x", "quality": 1.0}, "/v1/feedback")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_an_unknown_answer(server: Running) -> None:
    reply = say(server, id="chatcmpl-gone", quality=1.0)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "answer_not_found")
