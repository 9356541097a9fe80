"""A judge whose model fails: there is no answer without a verdict, whatever the policy, and no work for nothing."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from ensemble.ensemble import Ensemble
from ensemble.errors import BadAnswer, EnsembleError, MemberLost, QueueFull
from ensemble.failures.policy import OnLoss, Policy
from ensemble.judges.verdict import VerdictJudge
from ensemble.member import Member, Session
from ensemble.request import Request
from ensemble.testing import ScriptedMember, TinyMember

VERDICTS = [b"yes", b"no", b""]


class Failing(ScriptedMember):
    """Opens no session for a while; counts how often it is asked for one."""

    def __init__(self, name: str, error: EnsembleError, times: float = math.inf) -> None:
        super().__init__(name, VERDICTS, lambda _: {b"yes": 0.75, b"no": 0.25})
        self._error, self._times = error, times
        self.asked = 0

    async def start(self, request: Request) -> Session:
        self.asked += 1
        if self.asked <= self._times:
            raise self._error
        return await super().start(request)


def best(judging: Member, members: list[Member], **policy: Any) -> Ensemble:
    judge = VerdictJudge("verdict", judging, template="{answer}?", chat=False)
    return Ensemble("e", "best_of_n", members, options={"samples": 2}, judge=judge, policy=Policy(**policy))


@pytest.mark.parametrize("error", [MemberLost("gone"), QueueFull("busy"), BadAnswer("odd", reason="nan")])
@pytest.mark.parametrize("on_loss", ["fail", "degrade"])
async def test_a_lost_judge_ends_the_request_at_once(on_loss: OnLoss, error: EnsembleError) -> None:
    members: list[Member] = [ScriptedMember.answering(name, ["x"]) for name in "ab"]
    judging = Failing("judging", error)
    with pytest.raises(type(error)):
        async with asyncio.timeout(20):
            await best(judging, members, on_loss=on_loss).answer(Request.of("?"))
    assert [member.calls for member in members] == [1, 1] and judging.asked <= 2  # type: ignore[attr-defined]


async def test_a_judge_that_is_a_member_too_is_not_done_without() -> None:
    lost = Failing("both", MemberLost("gone", member="both"))
    ensemble = best(lost, [TinyMember("a", seed=1), lost], on_loss="degrade", quorum=1)
    with pytest.raises(MemberLost):
        async with asyncio.timeout(20):
            await ensemble.answer(Request.of("?", max_tokens=3))
    assert lost.asked <= 4


async def test_a_judge_is_recovered() -> None:
    members: list[Member] = [ScriptedMember.answering(name, ["x"]) for name in "ab"]
    judging = Failing("judging", MemberLost("gone"), times=3)
    answer = await best(judging, members, on_loss="recover", patience=5.0).answer(Request.of("?"))
    assert answer.text == "x" and {i.kind for i in answer.choices[0].incidents} == {"recovered"}
