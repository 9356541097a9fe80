"""A generation that is not what was asked for: it ends typed and with a reason to count, whatever it goes on with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from ensemble.ensemble import Ensemble
from ensemble.errors import BadAnswer
from ensemble.failures.policy import Policy
from ensemble.member import Capability, Card, Member
from ensemble.request import Delta, Event, Finish, Incident, Request
from ensemble.testing import ScriptedMember


class Says(Member):
    """These events, whatever is asked."""

    def __init__(self, *events: Event) -> None:
        self.card = Card("odd", frozenset({Capability.GENERATE}), 4096)
        self._events = events

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        for event in self._events:
            yield event


WRONG: dict[str, tuple[Sequence[Event], str]] = {
    "nothing": ([], "unfinished"),
    "no end": ([Delta("8")], "unfinished"),
    "another choice": ([Delta("8", choice=1), Finish("stop", 1)], "over_long"),
    "a choice below all": ([Finish("stop", -1)], "over_long"),
    "text after the end": ([Delta("8"), Finish("stop"), Delta("9")], "over_long"),
    "two ends": ([Delta("8"), Finish("stop"), Finish("stop")], "over_long"),
    "more than was asked for": ([*[Delta("8")] * 6, Finish("stop")], "over_long"),
}


def forest(odd: Member, policy: Policy) -> Ensemble:
    calm = [ScriptedMember.answering(name, ["7"]) for name in "ab"]
    options = {"samples": 3, "early_stop": False}
    return Ensemble("e", "agent_forest", [odd, *calm], options=options, policy=policy)


@pytest.mark.parametrize("case", WRONG)
async def test_it_is_excluded_and_counted_or_ends_the_request(case: str) -> None:
    events, reason = WRONG[case]
    asked = Request.of("?", max_tokens=4)
    with pytest.raises(BadAnswer) as refused:
        await forest(Says(*events), Policy()).answer(asked)
    assert (refused.value.reason, refused.value.member) == (reason, "odd")
    answer = await forest(Says(*events), Policy(on_loss="degrade")).answer(asked)
    assert answer.text == "7" and Incident("excluded", reason, "odd") in answer.choices[0].incidents
