"""Fan-out: many sampled answers to one request, as they are finished, over all members at once.

Each member writes its samples in one call, so that it reads the prompt once. Whoever iterates decides when there is
enough: closing the iterator cancels what is outstanding. Knows nothing of votes or rewards.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random

from ensemble.concurrency import merge
from ensemble.errors import MEMBER_FAILURES, BadAnswer, BudgetExceeded, ConfigurationError
from ensemble.member import Member
from ensemble.method import Members
from ensemble.request import Delta, Event, Finish, FinishReason, Request, Sampling, Spent, Trace
from ensemble.sampling import seeded

Place = tuple[int, int]
"""(member, sample): order in which candidates are declared, whenever they arrive. All ties go to the smallest."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One finished answer."""

    place: Place
    writer: str
    """Name of the member that wrote it."""
    deltas: tuple[Delta, ...]
    finish: FinishReason
    traces: tuple[Trace, ...] = ()
    """Why it reads as it does, where its writer is an ensemble."""

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    def spans(self) -> Iterator[Delta]:
        """The text in as few deltas as its credits allow, with its token reports."""
        start = 0
        for end in range(1, len(self.deltas) + 1):
            if end == len(self.deltas) or self.deltas[end].credits != self.deltas[start].credits:
                joined = self.deltas[start:end]
                tokens = tuple(token for delta in joined for token in delta.tokens)
                yield Delta("".join(delta.text for delta in joined), joined[0].credits, tokens)
                start = end


def shares(total: int, members: int) -> list[int]:
    """Samples of each member: an even split, the first members getting one more where it does not come out even.

    >>> shares(10, 3)
    [4, 3, 3]
    """
    each, more = divmod(total, members)
    return [each + (member < more) for member in range(members)]


def require_one_each(samples: int, members: int) -> None:
    """Refuse fewer samples than members.

    Raises:
        ConfigurationError: some member would never be asked.
    """
    if samples < members:
        raise ConfigurationError(
            f"samples is {samples}; it must be at least {members}, one for each member", param="samples"
        )


def fan_out(
    request: Request, members: Members, counts: Sequence[int], sampling: Sampling
) -> AsyncGenerator[Candidate, None]:
    """Candidates as they are finished; empty ones are no candidates.

    A member that fails and may be spared, or a budget that is used up where the answer may be a partial one, leaves
    the candidates that are there; otherwise the failure ends all of them and is raised.

    Args:
        counts: samples of each member; members with 0 are not called.
        sampling: how candidates are drawn. Seeds follow from its own and the member's position alone, so the same
            seed gives the same candidates in whatever order they arrive.

    Raises:
        BadAnswer: a member ended without finishing all its samples.
    """
    base = seeded(sampling).seed
    streams = [
        _spared(
            _candidates(
                replace(request, n=count, sampling=replace(sampling, seed=_seed(base, position))), member, position
            ),
            members,
        )
        for position, (member, count) in enumerate(zip(members, counts, strict=True))
        if count
    ]
    return merge(streams)


def drawn(sampling: Sampling, temperature: float, top_p: float) -> Sampling:
    """The request's sampling, with a method's temperature and top-p where the request leaves them at their defaults.

    >>> drawn(Sampling(top_p=0.9), temperature=1.0, top_p=0.5)
    Sampling(max_tokens=None, temperature=1.0, top_p=0.9, top_k=0, seed=None, stop=(), logprobs=None)
    """
    return replace(
        sampling,
        temperature=temperature if sampling.greedy else sampling.temperature,
        top_p=top_p if sampling.top_p == 1 else sampling.top_p,
    )


def _seed(base: int | None, position: int) -> int:
    return Random(f"{base}/member {position}").getrandbits(62)


async def _spared(candidates: AsyncGenerator[Candidate, None], members: Members) -> AsyncGenerator[Candidate, None]:
    """Those of one member that count, until it fails."""
    try:
        async with aclosing(candidates):
            async for candidate in candidates:
                if candidate.text:
                    yield candidate
                else:
                    members.exclude(candidate.writer, "empty")
    except MEMBER_FAILURES as error:
        if not members.spare(error):
            raise
    except BudgetExceeded as error:
        if not members.settle(error):
            raise


async def _candidates(request: Request, member: Member, position: int) -> AsyncGenerator[Candidate, None]:
    written: dict[int, list[Event]] = {sample: [] for sample in range(request.n)}
    async with aclosing(member.generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Finish):
                sample = event.choice
                yield _finished((position, sample), member.name, written.pop(sample), event.reason)
            elif not isinstance(event, Spent):
                written[event.choice].append(replace(event, choice=0))
    if written:
        left = f"{member.name} left {len(written)} of {request.n} answers unfinished"
        raise BadAnswer(left, member=member.name, reason="unfinished")


def _finished(place: Place, writer: str, events: Sequence[Event], reason: FinishReason) -> Candidate:
    deltas = tuple(event for event in events if isinstance(event, Delta))
    return Candidate(place, writer, deltas, reason, tuple(event for event in events if isinstance(event, Trace)))
