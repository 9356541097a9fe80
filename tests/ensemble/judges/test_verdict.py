"""A verdict is the model's own odds of yes against no, asked in the configured words."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from ensemble.distributions import log_softmax
from ensemble.errors import MemberLost, MissingCapability
from ensemble.judges.verdict import VerdictJudge
from ensemble.member import Floats, Member, Session
from ensemble.meter import Meter
from ensemble.request import Budget, Request
from ensemble.testing import ScriptedMember, TinyMember
from ensemble.testing.local import LocalMember
from ensemble.vocabulary import LongestMatch, Vocabulary

LETTERS = Vocabulary((b"", *(bytes([b]) for b in range(1, 128))), frozenset({0}))


class Asked(ScriptedMember):
    """Remembers what it was asked."""

    def __init__(self, script: Sequence[Mapping[bytes, float]]) -> None:
        super().__init__("checker", [b"yes", b"no", b"y", b"es", b"so", b""], script)
        self.requests: list[Request] = []

    async def start(self, request: Request) -> Session:
        self.requests.append(request)
        return await super().start(request)


def checker(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
    """Says yes where the prompt holds a 7, no elsewhere."""
    row = np.zeros(LETTERS.size)
    expected = (b"yes" if b"7" in LETTERS.text(prompt) else b"no")[len(ids) : len(ids) + 1]
    row[expected[0] if expected else 0] = 9.0
    return log_softmax(row)


async def test_the_reward_is_the_share_of_yes() -> None:
    model = Asked([{b"yes": 0.6, b"no": 0.2, b"so": 0.2}])
    assert await VerdictJudge("v", model).judge(Request.of("?"), [["a"]]) == [[pytest.approx(0.75)]]
    assert model.open_sessions == 0


async def test_whole_continuations_are_compared() -> None:
    member = LocalMember("checker", LongestMatch(LETTERS), checker)
    async with await member.start(Request(prompt="3")) as session:
        yes, no = await session.score(b"yes", b"no")
    expected = math.exp(yes.total) / (math.exp(yes.total) + math.exp(no.total))
    judge = VerdictJudge("v", member, template="{answer}", chat=False)
    assert await judge.judge(Request.of("?"), [["3"]]) == [[pytest.approx(expected, abs=1e-12)]]


async def test_each_step_is_shown_with_what_stands_before_it() -> None:
    model = Asked([{b"yes": 0.5, b"no": 0.5}])
    judge = VerdictJudge("v", model, template="{question}|{answer}|{step}", chat=False)
    rewards = await judge.judge(Request.of("q"), [["a\n", "b\n"], [], ["c"]])
    assert [request.prompt for request in model.requests] == ["q|a|a", "q|a\nb|b", "q|c|c"]
    assert rewards == [[0.5, 0.5], [], [0.5]]


async def test_a_chat_model_is_asked_in_a_message() -> None:
    model = Asked([{b"yes": 0.5, b"no": 0.5}])
    await VerdictJudge("v", model, template="{{{question}}} {answer}").judge(Request.of("q"), [["a"]])
    assert model.requests[0].prompt is None and model.requests[0].question == "{q} a"


async def test_braces_in_answers_are_text() -> None:
    model = Asked([{b"yes": 0.5, b"no": 0.5}])
    await VerdictJudge("v", model, template="{answer}", chat=False).judge(Request.of("{x}"), [["{question}{0}"]])
    assert model.requests[0].prompt == "{question}{0}"


async def test_other_verdicts_may_be_asked_for() -> None:
    model = Asked([{b"so": 0.3, b"no": 0.1, b"yes": 0.6}])
    judge = VerdictJudge("v", model, yes="so", no="yes")
    assert await judge.judge(Request.of("?"), [["a"]]) == [[pytest.approx(1 / 3)]]


async def test_the_model_tells_right_from_wrong() -> None:
    judge = VerdictJudge(
        "v", LocalMember("c", LongestMatch(LETTERS), checker), template="{question}{answer}?", chat=False
    )
    ((right,), (wrong,)) = await judge.judge(Request.of("3+4="), [["7"], ["8"]])
    assert right > 0.99 and wrong < 0.01


async def test_solutions_are_judged_at_once() -> None:
    model = TinyMember("slow", delay=0.05)
    judge = VerdictJudge("v", model)
    loop = asyncio.get_running_loop()
    began = loop.time()
    rewards = await judge.judge(Request.of("?"), [["a", "b"], ["c"], ["d"]])
    assert loop.time() - began < 0.15 and [len(r) for r in rewards] == [2, 1, 1]


async def test_a_metered_judge_is_charged() -> None:
    judge = VerdictJudge("v", TinyMember("tiny"))
    meter = Meter(Budget())
    await judge.over(meter.wrap(judge.models)).judge(Request.of("?"), [["a"], ["b"]])
    (spent,) = meter.drain()
    assert spent.member == "tiny" and spent.usage.calls == 2 and spent.usage.prompt_tokens > 10


async def test_a_lost_model_fails_the_judgement_and_leaves_no_session() -> None:
    model = TinyMember("tiny", fail_at=1)
    with pytest.raises(MemberLost):
        await VerdictJudge("v", model).judge(Request.of("?"), [["a"], ["b"], ["c"]])
    assert model.open_sessions == 0


def test_a_model_without_sessions_is_refused() -> None:
    model: Member = ScriptedMember.answering("talker", ["yes"])
    with pytest.raises(MissingCapability, match="judge v needs a model with sessions; talker has none"):
        VerdictJudge("v", model)


@pytest.mark.parametrize(
    "template", ["{question}?", "{answer} {other}", "{answer", "{}{answer}", "{answer:{step}}", "{answer!x}"]
)
def test_templates_that_cannot_be_used_are_refused(template: str) -> None:
    with pytest.raises(ValidationError, match="template"):
        VerdictJudge("v", TinyMember("tiny"), template=template)


def test_verdicts_must_differ() -> None:
    with pytest.raises(ValidationError, match="differ"):
        VerdictJudge("v", TinyMember("tiny"), yes="ok", no="ok")
