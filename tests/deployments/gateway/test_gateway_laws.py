"""Laws of the wire: no body crashes the parser, and streams and whole replies tell the same for any events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.api import replies
from deployments.api.metrics import exposition
from deployments.api.replies import Frame
from deployments.api.requests import Body, ChatBody, CompletionBody
from deployments.api.shapes import ChatShape, Shape, TextShape
from deployments.api.wire import parse
from ensemble.errors import BadRequest, EnsembleError
from ensemble.request import Delta, Event, Finish, Incident, Spent, TokenLogprob, Trace, Usage, collect

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
FIELDS = sorted({*ChatBody.model_fields, *CompletionBody.model_fields, *ChatBody.not_offered, "other"})
PLAIN = {"model": "m", "messages": [{"role": "user", "content": "?"}]}


@given(st.sampled_from([ChatBody, CompletionBody]), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_body_is_honoured_or_refused(kind: type[Body], fields: dict[str, Any]) -> None:
    subject = PLAIN if kind is ChatBody else {"model": "m", "prompt": "?"}
    try:
        requests = parse(kind, {**subject, **fields}).requests()
    except BadRequest as error:
        assert error.status == 400 and error.message and error.param
    else:
        assert all(request.n >= 1 for request in requests)
        assert fields.get("other", 1) == 1 or "other" not in fields


@given(st.text(min_size=1, max_size=20).filter(lambda name: name not in FIELDS))
def test_no_unknown_field_is_ignored(name: str) -> None:
    with pytest.raises(BadRequest, match="is unknown"):
        parse(ChatBody, {**PLAIN, name: None})


@given(st.sampled_from(sorted(ChatBody.not_offered)), JSON)
def test_fields_not_offered_mean_nothing_or_are_refused(name: str, value: Any) -> None:
    try:
        asked = parse(ChatBody, {**PLAIN, name: value})
    except BadRequest as error:
        assert error.message.startswith(f"{name} is not offered by this server; leave it out, or send")
        assert all(json.dumps(nothing) in error.message for nothing in (None, *ChatBody.not_offered[name]))
    else:
        assert value is None or value in ChatBody.not_offered[name]
        assert asked == parse(ChatBody, PLAIN)


WEIGHTS = st.sampled_from([{"a": 1.0}, {"b": 1.0}, {"a": 0.5, "b": 0.5}])
TOKENS = st.lists(st.builds(TokenLogprob, st.binary(max_size=3), st.floats(max_value=0)), max_size=2).map(tuple)
SPENDING = st.builds(Spent, st.sampled_from("ab"), st.builds(Usage, *[st.integers(0, 9)] * 3, st.just(Decimal("0.1"))))


VOTE = st.just({"for": "x"})
CHOICES = st.integers(0, 2)
HAPPENING = st.sampled_from(["dropped", "rejoined", "recovered", "hedged", "excluded", "exhausted"])
TOLD = (
    st.builds(Delta, st.text(max_size=3), WEIGHTS, TOKENS, CHOICES)
    | st.builds(Trace, st.just("vote"), VOTE, CHOICES)
    | st.builds(Incident, HAPPENING, st.sampled_from(["member_lost", "nan"]), st.sampled_from(["a", None]), CHOICES)
)
ENDS = st.lists(st.builds(Finish, st.sampled_from(["stop", "length"])), min_size=3, max_size=3)


@st.composite
def event_streams(draw: st.DrawFn) -> tuple[int, list[Event]]:
    """(choices, events): choices side by side, each finished right after its last piece."""
    choices = 3
    events: list[Event] = draw(st.lists(TOLD | SPENDING, max_size=10))
    for choice, end in enumerate(draw(ENDS)):
        last = max((i for i, e in enumerate(events) if not isinstance(e, Spent) and e.choice == choice), default=-1)
        events.insert(last + 1, Finish(end.reason, choice))
    return choices, events


async def told(events: Sequence[Event], frame: Frame) -> list[Any]:
    """The data of a stream of these events."""

    async def source() -> AsyncGenerator[Event, None]:
        for event in events:
            yield event

    def unexpected(error: Exception) -> EnsembleError:
        raise error

    stream = replies.server_sent((await replies.begun(source(), frame)).events, frame, unexpected)
    pieces = b"".join([piece async for piece in stream]).decode().split("\n\n")
    assert pieces[-2:] == ["data: [DONE]", ""]
    return [json.loads(piece.removeprefix("data: ")) for piece in pieces[:-2]]


@given(event_streams(), st.sampled_from([ChatShape, TextShape]))
async def test_streams_tell_what_whole_replies_tell(streamed: tuple[int, list[Event]], shape: type[Shape]) -> None:
    choices, events = streamed

    def frame() -> Frame:
        return Frame("x", 0, "m", shape(), choices, "method", ("a", "b"), trace=True, usage=True)

    whole = json.loads(replies.body(replies.whole(collect(events), frame())))
    *chunks, usage = await told(events, frame())
    assert usage["usage"] == whole["usage"] and usage["choices"] == []
    *_, last = (chunk["ensemble"] for chunk in chunks if "method" in chunk.get("ensemble", {}))
    assert last == {key: value for key, value in whole["ensemble"].items() if key != "traces"}
    for expected in whole["choices"]:
        pieces = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == expected["index"]]
        assert joined(pieces) == joined([expected])
        assert [piece["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1]["finish_reason"] == expected["finish_reason"]
    traced = [chunk["ensemble"]["trace"] for chunk in chunks if "trace" in chunk.get("ensemble", {})]
    assert traced == [{"kind": "vote", "data": {"for": "x"}}] * sum(map(len, whole["ensemble"]["traces"]))
    happened = [chunk["ensemble"]["incident"] for chunk in chunks if "incident" in chunk.get("ensemble", {})]
    assert sorted(happened, key=lambda incident: incident["choice"]) == whole["ensemble"].get("incidents", [])


def joined(pieces: Sequence[Any]) -> tuple[str, dict[str, list[Any]]]:
    """Text and log-probabilities of a choice's pieces."""
    text, logprobs = "", {}
    for piece in pieces:
        written = piece.get("message") or piece.get("delta") or {}
        text += piece["text"] if "text" in piece else written.get("content", "")
        for field, values in (piece["logprobs"] or {}).items():
            logprobs.setdefault(field, []).extend(values)
    return text, logprobs


@given(event_streams())
def test_credits_cover_the_text_without_gap_or_overlap(streamed: tuple[int, list[Event]]) -> None:
    choices, events = streamed
    answer = collect(events)
    credits = replies.whole(answer, Frame("x", 0, "m", ChatShape(), choices, "method"))["ensemble"]["credits"]
    for completion, spans in zip(answer.choices, credits, strict=True):
        borders = [0, *(span["end"] for span in spans)]
        assert [span["start"] for span in spans] == borders[:-1] and borders[-1] == len(completion.text)
        assert [completion.text[span["start"] : span["end"]] for span in spans] == [t for t, _ in completion.credits]


@given(st.text(max_size=12).filter(lambda text: "\n" not in text and "�" not in text), st.integers(1, 3))
def test_text_offsets_point_at_their_tokens(text: str, size: int) -> None:
    data = text.encode()
    tokens = tuple(TokenLogprob(data[i : i + size], -1.0) for i in range(0, len(data), size))
    logprobs = TextShape().delta(0, text, tokens)["logprobs"] or {"text_offset": []}
    before = [len(data[:i].decode(errors="ignore")) for i in range(0, len(data), size)]
    assert logprobs["text_offset"] == before


@given(st.text(max_size=10))
def test_no_label_breaks_its_line(name: str) -> None:
    lines = exposition({name: {"x": 1}}).split("\n")
    assert len(lines) == 3 and lines[1].endswith('"} 1')
