"""LLM as a router: who is named answers, and in doubt the fallback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ensemble.before.encoders.served import Encoders, ServedEncoder
from ensemble.before.fitting.training import FitOptions
from ensemble.before.llm_router import LlmRouter, LlmRouterOptions
from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest, ConfigurationError, MemberLost
from ensemble.member import Member
from ensemble.method import Members
from ensemble.outcomes.dense import Floats
from ensemble.request import Request, collect
from tests.ensemble.before.routing.desks import Says, trace
from tests.ensemble.before.toys import table

TEXTS = {"coder": "code programs", "writer": "prose letters"}
WORDS = ("code", "programs", "prose", "letters")


class Words(ServedEncoder):
    """Counts words."""

    def __init__(self) -> None:
        pass

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(WORDS)

    async def embed(self, texts: Sequence[str]) -> Floats:
        rows = np.array([[float(word in text.split()) for word in WORDS] for text in texts], np.float32)
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))


def served(chooser: Member | None, encoders: Encoders | None = None, **options: Any) -> Ensemble:
    members: list[Member] = [Says("coder"), Says("writer")]
    given = {"descriptions": TEXTS} | ({} if chooser is None else {"asked": "boss"}) | options
    return Ensemble("led", "llm_router", [*members, *([chooser] if chooser else [])], options=given, encoders=encoders)


def boss(text: str, **given: Any) -> Says:
    return Says("boss", text, **given)


async def test_who_is_named_answers() -> None:
    asked = boss('{"route": "writer"}')
    answer = await served(asked).answer(Request.of("a letter, please"))
    assert answer.text == "writer" and set(answer.usage) == {"writer", "boss"}
    told = trace(answer)
    assert (told["why"], told["chosen"], told["scores"]) == ("policy", "writer", {"coder": 0.0, "writer": 1.0})
    assert "code programs" in asked.asked[0].question and "a letter, please" in asked.asked[0].question


@pytest.mark.parametrize("text", ['{"route": "other"}', "the writer", '{"route": "boss"}', '{"route": "nobody"}'])
@pytest.mark.parametrize("fallback", [None, "writer"])
async def test_in_doubt_the_fallback_answers(text: str, fallback: str | None) -> None:
    answer = await served(boss(text), fallback=fallback).answer(Request.of("?"))
    assert answer.text == (fallback or "coder")
    assert (trace(answer)["why"], trace(answer)["doubt"]) == ("doubt", True)


async def test_a_chooser_that_fails_is_told() -> None:
    lost = MemberLost("gone", member="boss")
    answer = await served(boss("", error=lost)).answer(Request.of("?"))
    assert answer.text == "coder"
    assert ("boss", "member_lost") in [(i.member, i.reason) for i in answer.choices[0].incidents]


@pytest.mark.parametrize(("question", "who"), [("code ?", "coder"), ("letters ?", "writer")])
async def test_without_a_chooser_the_nearest_description_decides(question: str, who: str) -> None:
    encoders = Encoders({"words": Words()}, "words")
    answer = await served(None, encoders).answer(Request.of(question))
    assert answer.text == who and trace(answer)["scores"][who] == pytest.approx(np.sqrt(0.5))


async def test_what_is_like_no_description_goes_to_the_fallback() -> None:
    encoders = Encoders({"words": Words()}, "words")
    answer = await served(None, encoders, least=0.5, fallback="writer").answer(Request.of("sing"))
    assert (answer.text, trace(answer)["why"]) == ("writer", "doubt")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"descriptions": {"coder": "x"}}, "at fault: writer; they are: coder, writer"),
        ({"descriptions": {**TEXTS, "boss": "x"}}, "at fault: boss"),
        ({"least": 0.5}, "least applies only where nobody is asked"),
        ({"path": "/nowhere"}, "llm_router is not fitted; leave path out"),
        ({"asked": "nobody"}, "'nobody' is no member"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        served(boss("x"), **options)


def test_somebody_or_something_has_to_choose() -> None:
    for chooser, encoders in ((None, None), (boss("x"), Encoders({"words": Words()}, "words"))):
        with pytest.raises(ConfigurationError, match="needs either asked, a member that chooses, or an encoder"):
            served(chooser, encoders)


async def test_while_the_chooser_is_out_of_service_the_fallback_answers() -> None:
    ensemble = served(boss("x"), fallback="writer")
    options = LlmRouterOptions(asked="boss", descriptions=TEXTS, fallback="writer")
    left = LlmRouter(options).among(["coder", "writer", "boss"], [0, 1])
    members = Members([Says("coder"), Says("writer")], prepared=ensemble.prepared)
    answer = collect([event async for event in left.run(Request.of("?"), members)])
    assert (answer.text, trace(answer)["why"]) == ("writer", "doubt")


def test_it_is_not_fitted() -> None:
    with pytest.raises(BadRequest, match="not fitted"):
        LlmRouter.fit(table(), FitOptions())
