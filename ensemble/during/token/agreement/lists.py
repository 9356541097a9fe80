"""One step's questions of a beam search: short lists first, then only what might hold back a better move."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from ensemble.during.token.agreement.items import Item
from ensemble.during.token.agreement.listing import Listing, writable
from ensemble.during.token.agreement.places import Bench, Place
from ensemble.during.token.agreement.search import Found
from ensemble.during.token.bytes.lexicon import lexicon_of
from ensemble.member import Distribution, Floats, LogprobsAt, Next, Question

LOOKED_UP = 256
"""A member that has to spell what others wrote is asked about all tokens that agree with it, if they are not more."""

_GROWTH = 4
"""How many times as long a list gets that was too short: a round takes longer than its bytes."""

Spelling = tuple[Place, bytes]
"""A place, and what is to be spelt from there."""


class Lists:
    """What members have listed in one step."""

    def __init__(self, bench: Bench, items: Sequence[Item], topk: int) -> None:
        self._bench = bench
        self._topk = topk
        self._spellings: list[dict[int, Spelling]] = [
            {seat: ((seat, item.tracks[seat].ids), item.postfix(seat)) for seat in item.moving} for item in items
        ]
        self._listed: dict[Place, int] = {}
        """Tokens asked for."""
        self._known: dict[Spelling, Listing] = {}

    @property
    def listings(self) -> list[dict[int, Listing]]:
        """By item and seat."""
        return [{seat: self._known[s] for seat, s in spellings.items()} for spellings in self._spellings]

    async def begin(self) -> None:
        """The first lists of all who move."""
        await self._list(dict.fromkeys((place for place, _ in self._all), self._topk))

    async def more(self, found: Found, patience: int) -> bool:
        """Ask for what a search lacked; false if there was nothing to ask.

        Args:
            patience: tokens listed at most where something has been found.
        """
        short = [self._spellings[item][seat] for item, seat in found.short]
        exact = {s: ids for s in short if (ids := self._writable(s)) is not None}
        places = sorted({place for place, postfix in short if (place, postfix) not in exact})
        wanted = {place: _GROWTH * self._listed[place] for place in places}
        if found.moves:
            wanted = {place: min(k, patience) for place, k in wanted.items() if self._listed[place] < patience}
        if exact:
            await self._look_up(exact)
        if wanted:
            await self._list(wanted)
        return bool(exact or wanted)

    @property
    def _all(self) -> Iterable[Spelling]:
        return (s for spellings in self._spellings for s in spellings.values())

    def _writable(self, spelling: Spelling) -> list[int] | None:
        (seat, _), postfix = spelling
        return writable(lexicon_of(self._bench.vocabulary(seat)), postfix, LOOKED_UP)

    async def _list(self, topk: Mapping[Place, int]) -> None:
        questions: dict[Place, Question] = {place: Next(k) for place, k in topk.items()}
        told = cast(dict[Place, Distribution], await self._bench.ask(questions))
        made = {place: Listing.of(d, self._bench.vocabulary(place[0])) for place, d in told.items()}
        split: dict[Place, Question] = {place: LogprobsAt(m.stops) for place, m in made.items() if m.stops}
        if split:
            for place, payload in (await self._bench.ask(split)).items():
                stops = dict(zip(made[place].stops, cast(Floats, payload).tolist(), strict=True))
                made[place] = Listing.of(told[place], self._bench.vocabulary(place[0]), stops)
        self._listed |= topk
        self._known |= {s: made[s[0]] for s in self._all if s[0] in made}

    async def _look_up(self, wanted: Mapping[Spelling, list[int]]) -> None:
        """Exact listings of what agrees with a spelling; those of one place are asked for together."""
        by_place: defaultdict[Place, dict[int, None]] = defaultdict(dict)
        for (place, _), ids in wanted.items():
            by_place[place] |= dict.fromkeys(ids)
        questions: dict[Place, Question] = {place: LogprobsAt(tuple(ids)) for place, ids in by_place.items()}
        told = cast(dict[Place, Floats], await self._bench.ask(questions))
        for (place, postfix), ids in wanted.items():
            known = dict(zip(by_place[place], told[place].tolist(), strict=True))
            listing = Listing.exactly({i: known[i] for i in ids}, self._bench.vocabulary(place[0]))
            self._known[place, postfix] = listing
