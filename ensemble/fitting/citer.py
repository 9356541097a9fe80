"""Labels for CITER's router (arXiv 2502.01976): which tokens of a small member are good enough.

They come from members through the session contract alone: along reference answers, and where that leaves it open, from
what the answer comes to. Knows no engine and no network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ensemble.concurrency import together
from ensemble.errors import ContextTooLong
from ensemble.fitting.router import CiterFit, Network
from ensemble.member import Append, Distribution, Floats, Member, Next, Scored, Session
from ensemble.request import Request

Right = Callable[[int, str], bool]
"""(number of the example, answer) → whether it is right."""
Told = Callable[[int, int], None]
"""Told (done, of how many)."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question and a reference answer, with its reasoning where it has one."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Open:
    """A place where both members miss the reference: what the answer comes to tells whether the small one's will do."""

    row: int
    """In the labels."""
    example: int
    ids: tuple[int, ...]
    """Of the reference before it, and the small member's token."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What a router is fitted to. n: tokens."""

    states: Floats
    """Shape [n, d]: the small member's hidden state before each token."""
    good: npt.NDArray[np.float32]
    """Shape [n]: 1 where its token is good enough."""
    open: tuple[Open, ...]


async def labelled(
    small: Member, large: Member, examples: Sequence[Example], right: Right, options: CiterFit, told: Told
) -> Labels:
    """First labels: 1 where the small member's token is the reference's, 0 where only the large one's is; where neither
    is, 1 if the small member alone gets the answer right from there.

    What does not fit into a member's context is left out: the end of a long reference, and of an answer written on.
    """
    room = asyncio.Semaphore(options.concurrency)
    done = 0

    async def one(number: int, example: Example) -> tuple[Floats, Floats, list[tuple[int, tuple[int, ...]]]]:
        nonlocal done
        async with room:
            found = await _forced(small, large, example)
        done += 1
        told(done, len(examples))
        return found

    parts = await together(one(number, example) for number, example in enumerate(examples))
    states, good, open_ = [], [], []
    rows = 0
    for number, (own, labels, places) in enumerate(parts):
        open_ += [Open(rows + place, number, ids) for place, ids in places]
        states.append(own)
        good.append(labels)
        rows += len(labels)
    found = Labels(np.concatenate(states), np.concatenate(good).astype(np.float32), tuple(open_))
    alone = [lambda place=place: _alone(small, examples[place.example], place, options) for place in open_]
    return await relabelled(found, alone, right, options, told)


async def relabelled(
    labels: Labels, answers: Sequence[Callable[[], Awaitable[str]]], right: Right, options: CiterFit, told: Told
) -> Labels:
    """Open places labelled by whether the answers that were written on from them are right.

    Args:
        answers: one for each open place.
    """
    room, good, done = asyncio.Semaphore(options.concurrency), labels.good.copy(), 0

    async def one(place: Open, answer: Callable[[], Awaitable[str]]) -> None:
        nonlocal done
        async with room:
            good[place.row] = float(right(place.example, await answer()))
        done += 1
        told(done, len(labels.open))

    await together(one(place, answer) for place, answer in zip(labels.open, answers, strict=True))
    return replace(labels, good=good)


async def _forced(
    small: Member, large: Member, example: Example
) -> tuple[Floats, Floats, list[tuple[int, tuple[int, ...]]]]:
    """States, labels and open places (position, ids) along a reference answer and its end."""
    request = Request.of(example.question)
    async with await small.start(request) as writer, await large.start(request) as checker:
        (ids,) = await small.tokenise([example.answer.encode()])
        room = min(reply.room for reply in await together(session.exchange() for session in (writer, checker)))
        reference = (*ids, *sorted(writer.vocabulary.stop_ids)[:1])[:room]
        states = await _states(writer, reference)
        (own,), (other,) = await together(session.score(reference) for session in (writer, checker))
    stops = writer.vocabulary.stop_ids
    hits, others = (_hits(scored, reference, stops) for scored in (own, other))
    neither = [
        (at, (*reference[:at], int(own.greedy[at]))) for at in range(len(reference)) if not hits[at] and not others[at]
    ]
    return states, hits.astype(np.float32), neither


async def _states(session: Session, reference: Sequence[int]) -> Floats:
    """Hidden states before each id of the reference, shape [n, d]; the session is left at its beginning."""
    found, edit = [], None
    for token in reference:
        payload = (await session.exchange(Next(1, hidden=True), edit=edit)).payload
        assert isinstance(payload, Distribution) and payload.hidden is not None
        found.append(payload.hidden)
        edit = Append((token,))
    await session.rewind(len(reference) - 1)
    return np.stack(found)


def _hits(scored: Scored, reference: Sequence[int], stops: frozenset[int]) -> npt.NDArray[np.bool_]:
    """Where the member would have written the reference's token; any stop id is as good as another."""
    greedy = scored.greedy[: len(reference)].tolist()
    return np.array([g == r or (g in stops and r in stops) for g, r in zip(greedy, reference, strict=True)])


async def _alone(small: Member, example: Example, place: Open, options: CiterFit) -> str:
    """What the small member makes of an open place by itself."""
    request = Request.of(example.question)
    async with await small.start(request) as session:
        return await _written(session, None, list(place.ids), None, options)


async def together_written(
    small: Member, large: Member, example: Example, place: Open, router: Network, options: CiterFit
) -> str:
    """What both make of an open place, by the router so far."""
    request = Request.of(example.question)
    async with await small.start(request) as writer, await large.start(request) as helper:
        return await _written(writer, helper, list(place.ids), router, options)


async def _written(
    writer: Session, helper: Session | None, ids: list[int], router: Network | None, options: CiterFit
) -> str:
    stops, known, told = writer.vocabulary.stop_ids, 0, 0
    with suppress(ContextTooLong):
        while ids[-1] not in stops and len(ids) < options.tokens:
            question = Next(1, hidden=router is not None)
            payload = (await writer.exchange(question, edit=Append(tuple(ids[known:])))).payload
            known = len(ids)
            assert isinstance(payload, Distribution)
            token = int(payload.ids[0])
            score = 1.0 if router is None or payload.hidden is None else router.score(payload.hidden[None])[0]
            if helper is not None and score < options.threshold:
                token = int((await helper.next(1, edit=Append(tuple(ids[told:])))).ids[0])
                told = len(ids)
            ids.append(token)
    return writer.vocabulary.text(ids).decode(errors="replace")
