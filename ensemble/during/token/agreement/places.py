"""One member's sessions behind several partial answers: whoever asks names the ids, and the nearest session goes there.

A session is forked only where more places are asked about at once than there are sessions; then sessions move by the
difference in ids. A single partial answer that grows needs one session and nothing but appends.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ensemble.concurrency import together
from ensemble.continuation import difference
from ensemble.during.token.lockstep import NoRoom
from ensemble.errors import ContextTooLong
from ensemble.member import Member, Payload, Question, Session
from ensemble.request import Request
from ensemble.vocabulary import Vocabulary, common_prefix

Ids = tuple[int, ...]
Place = tuple[int, Ids]
"""A seat, and the ids behind which it is asked."""


@dataclass(slots=True, eq=False)
class _Held:
    """A session and the ids that it holds behind what it began with."""

    session: Session
    ids: Ids = ()


class Places:
    """The places at which one member is asked."""

    def __init__(self, member: Member, request: Request) -> None:
        self.member = member
        self._request = request
        self._held: list[_Held] = []

    @property
    def vocabulary(self) -> Vocabulary:
        """Of a member that has been asked before."""
        assert self._held, "a member's vocabulary is known once it has been asked"
        return self._held[0].session.vocabulary

    @property
    def sessions(self) -> int:
        return len(self._held)

    async def open(self) -> None:
        """Open the first session, unless there is one."""
        if not self._held:
            self._held.append(_Held(await self.member.start(self._request)))

    async def ask(self, questions: Mapping[Ids, Question]) -> dict[Ids, Payload]:
        """One question behind each of these ids, all at once.

        Raises:
            NoRoom: some ids do not fit into the context.
        """
        await self.open()
        chosen = await self._chosen(list(questions))
        payloads = await together(_asked(chosen[ids], ids, question) for ids, question in questions.items())
        return dict(zip(questions, payloads, strict=True))

    async def close(self) -> None:
        await together(held.session.close() for held in self._held)

    async def _chosen(self, wanted: Sequence[Ids]) -> dict[Ids, _Held]:
        """A session for each place: those that are nearest go there, forks make up the number."""
        if len(wanted) == len(self._held) == 1:
            return {wanted[0]: self._held[0]}
        free, chosen = list(self._held), dict[Ids, _Held]()
        near = [(common_prefix(held.ids, ids), held, ids) for held in free for ids in wanted]
        for _, held, ids in sorted(near, key=lambda pair: -pair[0]):
            if held in free and ids not in chosen:
                free.remove(held)
                chosen[ids] = held
        left = [ids for ids in wanted if ids not in chosen]
        forks = await together(self._forked(ids) for ids in left)
        return chosen | dict(zip(left, forks, strict=True))

    async def _forked(self, ids: Ids) -> _Held:
        parent = max(self._held, key=lambda held: common_prefix(held.ids, ids))
        fork = _Held(await parent.session.fork(), parent.ids)
        self._held.append(fork)
        return fork


class Bench:
    """The members of one run who have a weight, by seat among these."""

    def __init__(self, request: Request, members: Sequence[Member]) -> None:
        self.places = [Places(member, request) for member in members]

    def vocabulary(self, seat: int) -> Vocabulary:
        """Of a seat that has been asked before."""
        return self.places[seat].vocabulary

    async def ask(self, questions: Mapping[Place, Question]) -> dict[Place, Payload]:
        """Questions by seat and the ids behind which they are asked, all at once."""
        by_seat: defaultdict[int, dict[Ids, Question]] = defaultdict(dict)
        for (seat, ids), question in questions.items():
            by_seat[seat][ids] = question
        told = await together(self.places[seat].ask(asked) for seat, asked in by_seat.items())
        return {(seat, ids): p for seat, payloads in zip(by_seat, told, strict=True) for ids, p in payloads.items()}

    async def close(self) -> None:
        await together(places.close() for places in self.places)


async def _asked(held: _Held, ids: Ids, question: Question) -> Payload:
    try:
        reply = await held.session.exchange(question, edit=difference(held.ids, ids))
    except ContextTooLong as error:
        raise NoRoom from error
    held.ids = ids
    return reply.payload
