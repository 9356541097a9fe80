"""Members whose answers are dictated, and questions about them: real asking, voting and writing, without a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from ensemble.errors import EnsembleError
from ensemble.member import Capability, Card, Member
from ensemble.request import Delta, Event, Finish, Request, Spent, TokenLogprob, Usage
from jobs.evaluation.asks import Ledger, Reply, kept_in
from jobs.evaluation.inquiry import Inquiry
from jobs.evaluation.questions import Question, Split
from jobs.recorder import Counts

Says = Callable[[str, int], str | EnsembleError]
"""From the question and how often it was asked before to the answer."""


class Dictated(Member):
    """Says what it is told; every answer costs the same."""

    def __init__(self, name: str, says: Says, *, calls: int = 1, tokens: int = 10, logprob: float = -1.0) -> None:
        self.card = Card(name, frozenset({Capability.GENERATE}), 1000)
        self.asked: list[Request] = []
        self._says, self._logprob = says, logprob
        self._usage = Usage(calls, tokens - 1, 1, Decimal(tokens) / 1000)

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        before = sum(asked.question == request.question for asked in self.asked)
        self.asked.append(request)
        yield Spent(self.name, self._usage)
        said = self._says(request.question, before)
        if isinstance(said, EnsembleError):
            raise said
        tokens = () if request.sampling.logprobs is None else (TokenLogprob(said.encode(), self._logprob),)
        yield Delta(said, {self.name: 1.0}, tokens)
        yield Finish("stop")


def questions(*answers: str, split: Split = "test", start: int = 0) -> list[Question]:
    """Questions ``q0``, ``q1``, …, with these answers."""
    return [Question(i, f"q{i}", answer, answer, "", split) for i, answer in enumerate(answers, start)]


@contextmanager
def asking(
    folder: Path, members: Mapping[str, Member], *, concurrency: int = 4, told: list[Counts] | None = None
) -> Iterator[Inquiry]:
    """An inquiry at these members; the answers are kept in the folder."""
    with kept_in(folder) as ledger:
        yield inquiry_of(ledger, members, concurrency, told)


def inquiry_of(
    ledger: Ledger, members: Mapping[str, Member], concurrency: int = 4, told: list[Counts] | None = None
) -> Inquiry:
    meanings = dict.fromkeys(members, "as dictated")
    progress = None if told is None else told.append
    return Inquiry(members.__getitem__, meanings, ledger, concurrency=concurrency, attempts=1, progress=progress)


def reply(
    text: str, *, tokens: int = 10, calls: int = 1, logprob: float | None = None, error: str | None = None
) -> Reply:
    return Reply(
        text=text,
        finish=None if error else "stop",
        error=error,
        prompt_tokens=tokens - 1,
        completion_tokens=1,
        calls=calls,
        cost=Decimal(tokens),
        seconds=float(tokens),
        logprob=logprob,
    )
