"""Systems made of replies: a member alone, an ensemble, a vote, a choice by likelihood, and the bound of them all.

Pure functions from replies to one outcome for each question. Calls, tokens and cost of several replies add up; their
seconds are those of the slowest, as they can be asked at once. Knows nothing of how replies were come by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np

from ensemble.after.votes import Vote, tallied
from jobs.evaluation.asks import Reply
from jobs.evaluation.grading import Grade
from jobs.evaluation.questions import Question
from jobs.evaluation.statistics import Flags

Kind = Literal["member", "vote", "rerank", "oracle", "ensemble"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one system made of one question."""

    question: Question
    text: str
    right: bool
    calls: int
    tokens: int
    """Prompt and completion tokens of all models."""
    seconds: float
    cost: Decimal
    finish: str | None
    error: str | None
    """Where there is no answer; such an outcome is wrong."""


@dataclass(frozen=True, slots=True)
class System:
    """One way of answering, and how it did."""

    name: str
    kind: Kind
    outcomes: tuple[Outcome, ...]
    """Of the same questions in the same order for all systems that are compared."""

    @property
    def right(self) -> Flags:
        """Shape [questions]."""
        return np.array([outcome.right for outcome in self.outcomes], bool)

    @property
    def accuracy(self) -> float:
        return mean([float(outcome.right) for outcome in self.outcomes])

    def mean(self, amount: Literal["calls", "tokens", "seconds", "cost"]) -> float:
        """Of an amount, for each answer."""
        return mean([float(getattr(outcome, amount)) for outcome in self.outcomes])

    @property
    def errors(self) -> int:
        return sum(outcome.error is not None for outcome in self.outcomes)


def mean(values: Sequence[float]) -> float:
    """Of at least one value; sums are exact."""
    return math.fsum(values) / len(values)


def alone(question: Question, reply: Reply, grade: Grade) -> Outcome:
    """One reply as it is."""
    return _outcome(question, [reply], reply, grade)


def within(replies: Sequence[Reply], *, calls: int | None = None, tokens: int | None = None) -> Sequence[Reply]:
    """As many of the first replies as come to no more than these calls and tokens; the first one in any case.

    An answer has to be given, so the first counts even where it alone is above the budget.
    """
    kept, spent_calls, spent_tokens = 0, 0, 0
    for reply in replies:
        spent_calls, spent_tokens = spent_calls + reply.calls, spent_tokens + reply.tokens
        over = (calls is not None and spent_calls > calls) or (tokens is not None and spent_tokens > tokens)
        if kept and over:
            break
        kept += 1
    return replies[:kept]


def voted(question: Question, replies: Sequence[Reply], grade: Grade) -> Outcome:
    """The first reply that gave the commonest answer; of answers equally common the one given first.

    Replies without an answer do not vote. Where none has one, the first reply stands.
    """
    votes = [Vote((i, 0), None if r.error else question.key(grade, r.text)) for i, r in enumerate(replies)]
    tallies = tallied(votes)
    return _outcome(question, replies, replies[tallies[0].first[0] if tallies else 0], grade)


def reranked(question: Question, replies: Sequence[Reply], grade: Grade) -> Outcome:
    """The reply with the largest mean log-probability for each byte, under the member that wrote it; the first of such.

    Bytes, as members with different vocabularies write tokens of different lengths. Empty answers and those whose
    log-probability was not told come last.
    """
    return _outcome(question, replies, max(replies, key=likelihood), grade)


def likelihood(reply: Reply) -> float:
    """Mean log-probability of each byte of the answer, natural logarithm; the stop token counts above, not below.

    >>> likelihood(Reply(text="four", logprob=-2.0)), likelihood(Reply(text="four"))
    (-0.5, -inf)
    """
    size = len(reply.text.encode())
    return -math.inf if reply.logprob is None or not size else reply.logprob / size


def oracle(question: Question, replies: Sequence[Reply], grade: Grade) -> Outcome:
    """A right reply where there is one, else the first: what a perfect choice among the members could reach."""
    right = (r for r in replies if not r.error and question.right(grade, r.text))
    return _outcome(question, replies, next(right, replies[0]), grade)


def round_robin(samples: int, members: int) -> Iterator[tuple[int, int]]:
    """Member and sample of each candidate of a vote: everyone's first, then everyone's second, …

    >>> list(round_robin(2, members=2))
    [(0, 0), (1, 0), (0, 1), (1, 1)]
    """
    yield from ((member, sample) for sample in range(samples) for member in range(members))


def ranked(systems: Iterable[System]) -> list[System]:
    """The most accurate first; of equals the one with fewer tokens, then the one given first."""
    return sorted(systems, key=lambda system: (-int(system.right.sum()), system.mean("tokens")))


def _outcome(question: Question, spent: Sequence[Reply], chosen: Reply, grade: Grade) -> Outcome:
    return Outcome(
        question=question,
        text=chosen.text,
        right=chosen.error is None and question.right(grade, chosen.text),
        calls=sum(reply.calls for reply in spent),
        tokens=sum(reply.tokens for reply in spent),
        seconds=max(reply.seconds for reply in spent),
        cost=sum((reply.cost for reply in spent), Decimal()),
        finish=chosen.finish,
        error=chosen.error,
    )
