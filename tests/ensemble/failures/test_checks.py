"""What counts as an answer: all that members really give, and nothing that no member could mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.errors import BadAnswer
from ensemble.failures.checks import check
from ensemble.member import (
    LogprobsAt,
    Next,
    Payload,
    Propose,
    Question,
    Score,
    Scored,
    Until,
)
from ensemble.request import Request
from ensemble.testing import TinyMember

QUESTIONS: dict[str, Question] = {
    "next": Next(5),
    "all": Next(0),
    "look-up": LogprobsAt((1, 2, 255)),
    "no look-up": LogprobsAt(()),
    "score": Score(((65, 66), b"xyz", ()), topk=3),
    "propose": Propose(Until(4), topk=2),
}


def answer(question: Question, prompt: str = "?") -> Payload:
    async def asked() -> Payload:
        async with await TinyMember("a", seed=1).start(Request.of(prompt)) as session:
            return (await session.exchange(question)).payload

    return asyncio.run(asked())


@given(prompt=st.text(max_size=8), name=st.sampled_from(sorted(QUESTIONS)))
def test_what_a_member_says_counts(prompt: str, name: str) -> None:
    question = QUESTIONS[name]
    assert check("a", question, answer(question, "q" + prompt), 256) is None


def _with(values: Any, position: int, value: float) -> Any:
    changed = np.array(values)
    changed[position] = value
    return changed


def first(told: Payload) -> tuple[Scored, tuple[Scored, ...]]:
    assert isinstance(told, tuple)
    return told[0], told[1:]


def rescored(told: Payload, **changes: Any) -> Payload:
    one, others = first(told)
    return (replace(one, **changes), *others)


WRONG: dict[str, tuple[str, str, Callable[[Any], Payload]]] = {
    "NaN likeliest": ("next", "nan", lambda d: replace(d, logprobs=_with(d.logprobs, 0, np.nan))),
    "NaN last": ("next", "nan", lambda d: replace(d, logprobs=_with(d.logprobs, -1, np.nan))),
    "all impossible": ("next", "nan", lambda d: replace(d, logprobs=np.full(len(d.ids), -np.inf))),
    "above one": ("all", "nan", lambda d: replace(d, logprobs=_with(d.logprobs, 3, 0.5))),
    "id too large": ("next", "wrong_ids", lambda d: replace(d, ids=_with(d.ids, 2, 256))),
    "negative id": ("next", "wrong_ids", lambda d: replace(d, ids=_with(d.ids, 2, -1))),
    "fewer ids": ("next", "wrong_ids", lambda d: replace(d, ids=d.ids[1:])),
    "nothing listed": ("next", "empty", lambda d: replace(d, ids=d.ids[:0], logprobs=d.logprobs[:0])),
    "another answer": ("next", "empty", lambda d: None),
    "look-up of NaN": ("look-up", "nan", lambda a: _with(a, 1, np.nan)),
    "look-up too short": ("look-up", "empty", lambda a: a[:2]),
    "scores of NaN": ("score", "nan", lambda s: rescored(s, logprobs=_with(first(s)[0].logprobs, 0, np.nan))),
    "scores missing": ("score", "empty", lambda s: s[1:]),
    "score of other ids": ("score", "wrong_ids", lambda s: rescored(s, ids=(65,))),
    "score beside the vocabulary": ("score", "wrong_ids", lambda s: rescored(s, ids=(65, 900))),
    "empty proposal": ("propose", "empty", lambda p: replace(p, ids=())),
    "proposal over-long": ("propose", "over_long", lambda p: replace(p, ids=p.ids * 5)),
    "proposal of unknown ids": ("propose", "wrong_ids", lambda p: replace(p, ids=(-1, *p.ids[1:]))),
    "proposal of NaN": ("propose", "nan", lambda p: replace(p, logprobs=_with(p.logprobs, 0, np.nan))),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_nobody_could_mean_does_not(name: str) -> None:
    asked, reason, spoilt = WRONG[name]
    question = QUESTIONS[asked]
    with pytest.raises(BadAnswer) as refused:
        check("a", question, spoilt(answer(question)), 256)
    assert (refused.value.reason, refused.value.member) == (reason, "a")
