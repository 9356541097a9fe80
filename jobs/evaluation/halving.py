"""Successive halving: all candidates answer a few questions, the better half of them more, until one is left.

Everyone in a rung answers the same questions, and those of the rung before are among them, so no answer is wasted.
Knows nothing of what candidates are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, log2
from typing import NamedTuple

from ensemble.concurrency import together
from ensemble.errors import BadRequest
from jobs.evaluation.systems import Outcome, mean


class Rung(NamedTuple):
    """One round."""

    candidates: int
    questions: int
    """For each candidate."""


def schedule(candidates: int, questions: int, budget: int | None = None) -> list[Rung]:
    """Rungs of equal size: half the candidates, twice the questions.

    Args:
        questions: that there are.
        budget: answers in all, at most; ``None``: so many that the last two candidates answer every question.

    Raises:
        BadRequest: the budget does not let every candidate answer one question.

    >>> schedule(8, 100)
    [Rung(candidates=8, questions=25), Rung(candidates=4, questions=50), Rung(candidates=2, questions=100)]
    """
    rounds = max(1, ceil(log2(candidates)))
    share = 2 * questions if budget is None else budget // rounds
    left = [ceil(candidates / 2**r) for r in range(rounds)]
    if share < candidates:
        raise BadRequest(
            f"{budget if budget is not None else questions} questions are too few for {candidates} candidates; "
            f"give at least {candidates * rounds}, or fewer candidates",
            param="budget",
        )
    return [Rung(size, min(questions, share // size)) for size in left]


@dataclass
class Purse:
    """Tokens that may be spent; what is under way when it is empty is still paid."""

    limit: int | None = None
    spent: int = 0

    @property
    def empty(self) -> bool:
        return self.limit is not None and self.spent >= self.limit


@dataclass
class Standing:
    """A candidate's answers so far, by the place of the question; and how far it came."""

    candidate: int
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    rungs: int = 0

    def score(self, places: Sequence[int]) -> tuple[float, float]:
        """The larger the better: accuracy on these questions, then fewer tokens."""
        outcomes = [self.outcomes[place] for place in places]
        return mean([float(o.right) for o in outcomes]), -mean([float(o.tokens) for o in outcomes])

    @property
    def accuracy(self) -> float:
        return self.score(list(self.outcomes))[0] if self.outcomes else 0.0


async def search(
    rungs: Sequence[Rung], answer: Callable[[int, int], Awaitable[Outcome]], purse: Purse, *, width: int = 8
) -> list[Standing]:
    """How all candidates stood when they went, the best first.

    Args:
        answer: a candidate's outcome of the question at a place.
        width: answers under way at a time, at most.

    Raises:
        BadRequest: the purse was empty before all candidates had answered one question.
    """
    here = [Standing(i) for i in range(rungs[0].candidates)]
    gone: list[Standing] = []
    for rung in rungs:
        kept, out = here[: rung.candidates], here[rung.candidates :]
        gone = [*out, *gone]
        await _round(kept, rung, answer, purse, asyncio.Semaphore(width))
        common = [place for place in range(rung.questions) if all(place in one.outcomes for one in kept)]
        if not common:
            raise BadRequest("the budget of tokens is too small for one answer of each candidate", param="budget")
        here = sorted(kept, key=lambda one: one.score(common), reverse=True)
        if purse.empty:
            break
    return [*here, *gone]


async def _round(
    kept: Sequence[Standing],
    rung: Rung,
    answer: Callable[[int, int], Awaitable[Outcome]],
    purse: Purse,
    places: asyncio.Semaphore,
) -> None:
    """Question by question, so that candidates have answered the same ones wherever the purse ends it."""

    async def one(standing: Standing, place: int) -> None:
        async with places:
            if not purse.empty:
                standing.outcomes[place] = outcome = await answer(standing.candidate, place)
                purse.spent += outcome.tokens

    for standing in kept:
        standing.rungs += 1
    await together(
        one(standing, place) for place in range(rung.questions) for standing in kept if place not in standing.outcomes
    )
