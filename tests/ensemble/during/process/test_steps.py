"""Steps are exact bytes, end where they should, and cost one session for each member and worker."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from ensemble.during.process.steps import Step, StepWriters
from ensemble.request import Request, Sampling
from ensemble.testing import ScriptedMember

TOKENS = [b"a", b"b", b"\n", b"\n\n", b"E", b"N", b"D", b""]


def writers(*scripts: list[bytes], request: Request | None = None, **options: Any) -> tuple[StepWriters, Any]:
    members = [ScriptedMember(f"m{i}", TOKENS, script) for i, script in enumerate(scripts)]
    options = {"step_tokens": 8, "delimiter": "\n", **options}
    return StepWriters(request or Request.of("?"), members, **options), members


async def steps(writing: StepWriters, *, member: int = 0, most: int = 9) -> list[Step]:
    written: list[Step] = []
    while len(written) < most and not (written and written[-1].end):
        text = b"".join(step.text for step in written)
        step = await writing.write(member, 0, text, sum(s.tokens for s in written), Sampling())
        assert step is not None
        written.append(step)
    await writing.close()
    return written


async def test_a_step_ends_with_its_delimiter_and_the_answer_where_its_writer_stops() -> None:
    writing, (member,) = writers([b"a", b"\n", b"b", b"\n\n", b"a", b""])
    assert await steps(writing) == [Step(b"a\n", 0, 2), Step(b"b\n\n", 0, 2), Step(b"a", 0, 1, "stop")]
    assert member.open_sessions == 0


async def test_a_step_without_delimiter_ends_at_its_token_limit() -> None:
    writing, _ = writers([b"a"] * 5, step_tokens=2)
    assert [step.text for step in await steps(writing)] == [b"aa", b"aa", b"a"]


async def test_the_requests_limit_ends_the_answer() -> None:
    writing, _ = writers([b"a"] * 9, step_tokens=2, request=Request.of("?", max_tokens=3))
    assert await steps(writing) == [Step(b"aa", 0, 2), Step(b"a", 0, 1, "length")]


async def test_a_full_context_ends_the_answer() -> None:
    member = ScriptedMember("m", TOKENS, [b"a"] * 99, context_length=5)
    writing = StepWriters(Request.of("?"), [member], step_tokens=8, delimiter="\n")
    (step,) = await steps(writing)
    assert step.end == "length" and 0 < step.tokens <= 5


async def test_text_that_does_not_fit_gets_no_step() -> None:
    member = ScriptedMember("m", TOKENS, [b"a"] * 99, context_length=5)
    writing = StepWriters(Request.of("?"), [member], step_tokens=8, delimiter="\n")
    assert await writing.write(0, 0, b"a" * 9, 9, Sampling()) is None
    assert await writing.write(0, 0, b"a", 1, Sampling()) is not None
    await writing.close()


async def test_a_marker_ends_the_answer_once_its_step_is_complete() -> None:
    marker = re.compile("b+")
    whole, _ = writers([b"a", b"\n", b"b", b"b", b"\n", b"a", b""], terminal=marker)
    assert [(step.text, step.end) for step in await steps(whole)] == [(b"a\n", None), (b"bb\n", "stop")]
    capped, _ = writers([b"a", b"b", b"b", b"\n", b"a", b""], terminal=marker, step_tokens=2)
    assert [(step.text, step.end) for step in await steps(capped)] == [(b"ab", None), (b"b\n", "stop")]


@pytest.mark.parametrize(
    ("step_tokens", "expected"),
    [
        (8, [(b"a", "stop")]),
        (2, [(b"aE", None), (b"ND", "stop")]),
        (1, [(b"a", None), (b"E", None), (b"N", None), (b"D", "stop")]),
    ],
)
async def test_a_stop_string_ends_the_answer(step_tokens: int, expected: list[tuple[bytes, str | None]]) -> None:
    request = Request.of("?", stop=("END",))
    writing, _ = writers([b"a", b"E", b"N", b"D", b"b", b"b"], request=request, step_tokens=step_tokens)
    assert [(step.text, step.end) for step in await steps(writing)] == expected


async def test_text_before_the_answer_is_not_part_of_it() -> None:
    request = replace(Request.of("?", stop=("a",)), partial="ab")
    writing, _ = writers([b"a", b"b", b"b", b"\n"], request=request)
    assert [step.text for step in await steps(writing, most=1)] == [b"b\n"]


async def test_members_go_on_from_each_others_text() -> None:
    writing, members = writers([b"a", b"\n", b"a", b"\n"], [b"b", b"b", b"b", b""])
    first = await writing.write(0, 0, b"", 0, Sampling())
    assert first is not None
    assert await writing.write(1, 0, first.text, first.tokens, Sampling()) == Step(b"b", 1, 1, "stop")
    assert await writing.write(0, 0, b"b\n", 2, Sampling()) == Step(b"a\n", 0, 2)
    assert [member.open_sessions for member in members] == [1, 1]
    await writing.write(0, 1, b"", 0, Sampling())
    assert [member.open_sessions for member in members] == [2, 1]
    await writing.close()
    assert [member.open_sessions for member in members] == [0, 0]
