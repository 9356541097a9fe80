"""Verifiers: members that read a draft in their own tokens and say what they think of it.

A member with the drafter's vocabulary reads the drafter's ids. Any other reads text: its session holds canonical ids
up to an anchor, some words before the draft, and the text from there on is scored in one message, in which the
member's own tokeniser spells it. What was held is thus never re-tokenised, no token of the draft is forced upon the
member, and nothing has to be taken back when a draft is dropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ensemble.during.span.alignment import Opinion, opinions, settled, whole
from ensemble.during.span.drafting import Drafted, Drafter
from ensemble.during.span.seats import Seat
from ensemble.during.token.lockstep import NoRoom
from ensemble.member import Distribution, Score, Scored
from ensemble.request import Request
from ensemble.vocabulary import common_prefix

_MARGIN = 24
"""Bytes between the anchor and the end of what is committed: a few tokens, so that scoring them again is cheap."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One member at one place of a draft."""

    seat: Seat
    ids: Sequence[int]
    """Those that bring its session there."""
    listed: Distribution
    """Its next tokens there."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one verifier says of a draft."""

    opinions: Mapping[int, Opinion]
    """By place in the draft, where its tokens and the draft's meet."""
    seat: Seat
    ids: Sequence[int]
    """Of its continuation before ``scored``."""
    scored: Scored

    def standing(self, place: int) -> Standing:
        """The verifier at a place it has an opinion on."""
        node = self.opinions[place].node
        return Standing(self.seat, [*self.ids, *self.scored.ids[:node]], self.scored.distributions[node])


class Verifier(ABC):
    """A member that reads drafts."""

    def __init__(self, seat: Seat, topk: int, *, stops: bool) -> None:
        """
        Args:
            topk: tokens to list at each place.
            stops: whether it says what it thinks of a drafted stop id.
        """
        self.seat = seat
        self._topk = topk
        self._stops = stops

    @abstractmethod
    async def read(self, committed: bytes, drafted: Sequence[Drafted]) -> Reading:
        """Score a draft that stands after what is committed; its text ends with a whole character.

        Raises:
            NoRoom: the draft does not fit into the verifier's context.
            Unspellable: the verifier has no ids for its text.
        """

    async def _scored(self, continuation: tuple[int, ...] | bytes, ids: Sequence[int]) -> Scored:
        # The last distribution is wanted as well, but not the place for one more id.
        if len(continuation) > self.seat.room(ids):
            continuation = await self._fitting(continuation, ids)
        payload = (await self.seat.ask(Score((continuation,), self._topk), ids)).payload
        assert isinstance(payload, tuple)
        (scored,) = payload
        return scored

    async def _fitting(self, continuation: tuple[int, ...] | bytes, ids: Sequence[int]) -> tuple[int, ...]:
        if isinstance(continuation, bytes):
            continuation = tuple((await self.seat.member.tokenise([continuation]))[0])
        if len(continuation) > self.seat.room(ids):
            raise NoRoom
        return continuation


class Mirror(Verifier):
    """A verifier with the drafter's vocabulary: it holds the drafter's ids, and every place aligns."""

    def __init__(self, seat: Seat, topk: int, drafter: Drafter, *, stops: bool) -> None:
        super().__init__(seat, topk, stops=stops)
        self._drafter = drafter
        self._text: bytes | None = None

    async def read(self, committed: bytes, drafted: Sequence[Drafted]) -> Reading:
        ids = list(self._drafter.ids)
        if self._drafter.adopted is not self._text:
            self._text = self._drafter.adopted
            assert self._text is not None, "a drafter goes on adopting texts once it has"
            self.seat.rebase(self._text)
        scored = await self._scored(tuple(token.id for token in drafted if token.text), ids)
        said = opinions(drafted, scored, self.seat.vocabulary, 0, stops=self._stops)
        return Reading(said, self.seat, ids, scored)


class Reader(Verifier):
    """A verifier with a vocabulary of its own."""

    def __init__(self, seat: Seat, topk: int, request: Request, *, stops: bool) -> None:
        super().__init__(seat, topk, stops=stops)
        self._margin = _MARGIN
        self._tail = b""
        self._tail_ids: tuple[int, ...] = ()
        self._restart(rebase=bool(request.partial))

    async def read(self, committed: bytes, drafted: Sequence[Drafted]) -> Reading:
        text = committed + b"".join(token.text for token in drafted)
        text = text[: whole(text)]
        expected = self._advance(committed)
        scored = await self._read(text)
        if expected != scored.ids[: len(expected)]:
            # The text after the anchor is not spelt by itself as it is spelt behind the text before.
            self._margin *= 2
            self._restart(rebase=True)
            scored = await self._read(text)
        said = opinions(drafted, scored, self.seat.vocabulary, len(committed) - self._anchor, stops=self._stops)
        return Reading(said, self.seat, list(self._ids), scored)

    def _restart(self, *, rebase: bool) -> None:
        """Hold nothing, so that all of the answer is tokenised as a whole."""
        self._ids: list[int] = []
        self._anchor = 0
        if rebase:
            self.seat.rebase(b"")

    def _advance(self, committed: bytes) -> tuple[int, ...]:
        """Move the anchor after what was read last; ids behind it that must be read again as they were."""
        certain = common_prefix(self._tail, committed[self._anchor :])
        tokens = [self.seat.vocabulary.tokens[i] for i in self._tail_ids]
        count = settled(tokens, certain, self._margin)
        again = sum(start < certain - self._margin // 2 for start in accumulate(map(len, tokens), initial=0))
        self._ids += self._tail_ids[:count]
        self._anchor += sum(map(len, tokens[:count]))
        return self._tail_ids[count:again] if count else ()

    async def _read(self, text: bytes) -> Scored:
        self._tail = text[self._anchor :]
        scored = await self._scored(self._tail, self._ids)
        self._tail_ids = scored.ids
        return scored
