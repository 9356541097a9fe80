"""Events become the reply to one request: one JSON object, or server-sent events as they happen.

Both tell the same. What differs between chat and text completions is in ``shapes.py``. Knows no HTTP beyond the bytes
of a stream.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from pydantic_core import to_json

from deployments.api.marks import Marks, incident_object
from deployments.api.shapes import Credits, Json, Shape, ensemble_object, error_object, trace_object, usage_object
from ensemble.errors import EnsembleError
from ensemble.request import Answer, Delta, Event, Finish, Incident, Spent, Trace, Usage, merge_credits


@dataclass(slots=True)
class Frame:
    """What a reply says besides its events."""

    id: str
    """Without the shape's prefix."""
    created: int
    """Seconds since 1970."""
    model: str
    shape: Shape
    choices: int
    """How many there will be."""
    method: str | None = None
    """Of the ensemble; ``None`` for a single model, whose replies hold no ``ensemble``."""
    members: Sequence[str] = ()
    """Of the ensemble. Both may be set as late as with the first event: who answers may be of another version."""
    trace: bool = False
    """Tell traces."""
    usage: bool = False
    """End a stream with its usage."""

    def head(self, kind: str) -> Json:
        return {"id": self.shape.prefix + self.id, "object": kind, "created": self.created, "model": self.model}


def body(value: object) -> bytes:
    """JSON text; numbers that JSON does not have become null."""
    return to_json(value, inf_nan_mode="null")


def whole(answer: Answer, frame: Frame) -> Json:
    """The reply to a request that is not streamed."""
    reply = frame.head(frame.shape.whole)
    reply["choices"] = [frame.shape.choice(i, completion) for i, completion in enumerate(answer.choices)]
    reply["usage"] = usage_object(answer.usage)
    ensemble = _ensemble(frame, [completion.credits for completion in answer.choices], marks(answer))
    if frame.trace:
        ensemble["traces"] = [[trace_object(t) for t in choice.traces] for choice in answer.choices]
    return reply | ({"ensemble": ensemble} if ensemble else {})


def marks(answer: Answer) -> Marks:
    """What a whole answer has to say of its own making."""
    return Marks([incident for choice in answer.choices for incident in choice.incidents])


def _ensemble(frame: Frame, credits: Sequence[Credits], marks: Marks) -> Json:
    """Of a single model there is only to say that its budget ended the answer."""
    if frame.method is None:
        return marks.partial
    return ensemble_object(frame.method, frame.members, credits) | marks.whole


class Begun(NamedTuple):
    """A stream of which something can be told."""

    events: AsyncGenerator[Event, None]
    """All of them."""
    marks: Marks
    """Of what has happened before."""


async def begun(events: AsyncGenerator[Event, None], frame: Frame) -> Begun:
    """The same events, returned once the first text is there, so that an earlier error is raised here."""
    waiting: list[Event] = []
    async for event in events:
        waiting.append(event)
        if isinstance(event, Delta | Finish) or (frame.trace and isinstance(event, Trace)):
            break
    return Begun(_resumed(waiting, events), Marks([event for event in waiting if isinstance(event, Incident)]))


async def _resumed(waiting: Sequence[Event], events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        for event in waiting:
            yield event
        async for event in events:
            yield event


async def server_sent(
    events: AsyncGenerator[Event, None], frame: Frame, told: Callable[[Exception], EnsembleError]
) -> AsyncIterator[bytes]:
    """The stream as bytes, one item for each event that has something to tell.

    Args:
        told: what the client may know of an error; it ends the stream in place of ``[DONE]``.
    """
    chunks = _Chunks(frame)
    try:
        async with aclosing(events):
            async for event in events:
                if told_now := chunks.of(event):
                    yield b"".join(map(_sse, told_now))
    except Exception as error:
        yield _sse(chunks.failed(told(error)))
    else:
        yield b"".join(map(_sse, chunks.last())) + b"data: [DONE]\n\n"


def _sse(value: Json) -> bytes:
    return b"data: " + body(value) + b"\n\n"


class _Chunks:
    """Chunks of one stream. Holds what the last chunks sum up: credits and usage."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._head = frame.head(frame.shape.part) | ({"usage": None} if frame.usage else {})
        self._opened: set[int] = set()
        self._unfinished = frame.choices
        self._credits: defaultdict[int, list[tuple[str, Mapping[str, float]]]] = defaultdict(list)
        self._usage: defaultdict[str, Usage] = defaultdict(Usage)
        self._incidents: list[Incident] = []

    def of(self, event: Event) -> list[Json]:
        """What is to be told now."""
        if isinstance(event, Spent):
            self._usage[event.member] += event.usage
            return []
        if isinstance(event, Trace):
            return self._traced(event) if self._frame.trace else []
        if isinstance(event, Incident):
            return self._happened(event)
        told = self._written(event) if isinstance(event, Delta) else self._finished(event)
        return self._opening(event.choice) + told

    def last(self) -> list[Json]:
        """What is told after all choices are finished."""
        return [{**self._head, "choices": [], "usage": usage_object(self._usage)}] if self._frame.usage else []

    def failed(self, error: EnsembleError) -> Json:
        """What is told in place of all the rest."""
        return error_object(error, self._usage)

    def _opening(self, choice: int) -> list[Json]:
        opening = None if choice in self._opened else self._frame.shape.opening(choice)
        self._opened.add(choice)
        return [] if opening is None else [self._chunk(opening)]

    def _written(self, delta: Delta) -> list[Json]:
        self._credits[delta.choice].append((delta.text, delta.credits))
        if not delta.text and not delta.tokens:
            return []
        shown = self._frame.shape.delta(delta.choice, delta.text, delta.tokens)
        return [self._chunk(shown, self._told({"credits": dict(delta.credits)}))]

    def _finished(self, finish: Finish) -> list[Json]:
        self._unfinished -= 1
        shown = self._frame.shape.delta(finish.choice, "", (), finish.reason)
        if self._unfinished:
            return [self._chunk(shown)]
        credits = [merge_credits(self._credits[choice]) for choice in range(self._frame.choices)]
        in_order = sorted(self._incidents, key=lambda incident: incident.choice)
        return [self._chunk(shown, _ensemble(self._frame, credits, Marks(in_order)))]

    def _traced(self, trace: Trace) -> list[Json]:
        shown = self._frame.shape.delta(trace.choice, "", ())
        return [*self._opening(trace.choice), self._chunk(shown, {"trace": trace_object(trace)})]

    def _happened(self, incident: Incident) -> list[Json]:
        self._incidents.append(incident)
        if self._frame.method is None:
            return []
        shown = self._frame.shape.delta(incident.choice, "", ())
        return [*self._opening(incident.choice), self._chunk(shown, {"incident": incident_object(incident)})]

    def _told(self, ensemble: Json) -> Json:
        """Only ensembles tell this."""
        return {} if self._frame.method is None else ensemble

    def _chunk(self, choice: Json, ensemble: Json | None = None) -> Json:
        return {**self._head, "choices": [choice]} | ({"ensemble": ensemble} if ensemble else {})
