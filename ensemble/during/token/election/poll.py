"""One step's questions about a weighted average: lists first, then only what they leave open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ensemble.during.token.election.ballot import Ballot, favourite, likeliest_spelling, log
from ensemble.during.token.election.certificate import (
    Certain,
    Evidence,
    LookUp,
    Tally,
    Widen,
    clear_winner,
    tally,
    unknown_ids,
    verdict,
    whole,
)
from ensemble.during.token.lockstep import Decision, Panel
from ensemble.vocabulary import Union, Vocabulary

Unite = Callable[[Sequence[Vocabulary]], Union]
"""Makes classes out of vocabularies."""


class Poll:
    """What members have told in one step, and what else they are to be asked."""

    def __init__(self, panel: Panel, topk: int, unite: Unite) -> None:
        """
        Args:
            topk: tokens a member lists at first; 0: all.
        """
        self._panel = panel
        self._topk = topk
        self._unite = unite
        self._evidence: dict[int, Evidence] = {}
        self._listed: dict[int, int] = {}

    async def ask(self, seats: Iterable[int]) -> None:
        """Get the lists of those that have not been asked in this step."""
        await self._list({seat: self._topk for seat in seats if seat not in self._evidence})

    async def settled(self, seats: Mapping[int, float]) -> tuple[Tally, int]:
        """A tally that decides, and the winner's column; asks on until there is one."""
        while True:
            seen = self.tally(seats)
            match verdict(seen):
                case Certain(column):
                    return seen, column
                case LookUp(columns):
                    await self._look_up(seats, seen, columns)
                case Widen():
                    await self._list({seat: 2 * self._listed[seat] for seat in seats if self._evidence[seat].tail})

    def clear(self, seats: Mapping[int, float]) -> Decision | None:
        """The decision, where the lists leave no doubt at all: what a ballot would give, without counting one."""
        if not self._topk:
            return None
        union, evidence, weights = self._union(seats), [self._evidence[seat] for seat in seats], list(seats.values())
        if (agreed := favourite(union, seats, [(e.ids, e.masses) for e in evidence])) is not None:
            return agreed
        found = clear_winner(union, evidence, weights)
        if found is None:
            return None
        winner, masses = found
        shares = [weight * mass for weight, mass in zip(weights, masses, strict=True)]
        ids = [likeliest_spelling(union.ids(i, winner), e.ids, e.masses) for i, e in enumerate(evidence)]
        return Decision(
            text=union.bytes_of(winner),
            spelling={seat: own for seat, own in zip(seats, ids, strict=True) if own},
            shares=dict(zip(seats, shares, strict=True)),
            logprob=log(sum(shares)),
        )

    async def filled(self, seats: Mapping[int, float], seen: Tally, columns: Iterable[int]) -> Tally:
        """The tally with the exact masses of the classes in these columns."""
        await self._look_up(seats, seen, columns)
        return self.tally(seats)

    def tally(self, seats: Mapping[int, float]) -> Tally:
        """What seats that have been asked have told; ``seats``: their weights."""
        count = tally if self._topk else whole
        return count(self._union(seats), [self._evidence[seat] for seat in seats], list(seats.values()))

    def ballot(self, seats: Mapping[int, float], seen: Tally) -> Ballot:
        told = [(self._evidence[seat].ids, self._evidence[seat].masses) for seat in seats]
        return Ballot(self._union(seats), seats, seen.classes, seen.masses, seen.known, told)

    async def _list(self, topk: Mapping[int, int]) -> None:
        if topk:
            for seat, distribution in (await self._panel.next(topk)).items():
                self._evidence[seat] = Evidence.of(distribution)
                self._listed[seat] = topk[seat]

    async def _look_up(self, seats: Mapping[int, float], seen: Tally, columns: Iterable[int]) -> None:
        order = list(seats)
        evidence = [self._evidence[seat] for seat in order]
        wanted = unknown_ids(self._union(seats), evidence, seen, columns)
        if wanted:
            ids = {order[member]: unknown for member, unknown in wanted.items()}
            for seat, logprobs in (await self._panel.logprobs_at(ids)).items():
                self._evidence[seat] = self._evidence[seat].joined(ids[seat], logprobs)

    def _union(self, seats: Iterable[int]) -> Union:
        return self._unite([self._panel.vocabulary(seat) for seat in seats])
