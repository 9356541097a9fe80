"""What one member lists at one place, as the search wants it: tokens in order, one stop, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ensemble.during.token.agreement.items import STOP_ID
from ensemble.during.token.bytes.lexicon import Lexicon
from ensemble.member import Distribution
from ensemble.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Listing:
    """A member's likeliest next tokens at one place."""

    ids: tuple[int, ...]
    """Likeliest first; ``STOP_ID`` for all stop ids together."""
    texts: tuple[bytes, ...]
    logprobs: tuple[float, ...]
    floor: float
    """Log-probability that nothing left out exceeds, all stop ids together included; ``-inf`` where nothing is."""
    stops: tuple[int, ...] = ()
    """Stop ids that are left out while others are listed."""

    @classmethod
    def of(
        cls, distribution: Distribution, vocabulary: Vocabulary, stops: Mapping[int, float] | None = None
    ) -> Listing:
        """From what a member lists.

        Args:
            stops: log-probabilities of stop ids that it left out.
        """
        told = dict(zip(distribution.ids.tolist(), distribution.logprobs.tolist(), strict=True))
        floor = (
            -math.inf if distribution.complete else distribution.logprobs[-1] + math.log(len(vocabulary.stop_ids) or 1)
        )
        told |= stops or {}
        left = tuple(sorted(vocabulary.stop_ids - told.keys()))
        listing = cls._of(sorted(told.items(), key=lambda pair: -pair[1]), vocabulary, float(floor))
        return replace(listing, stops=left) if STOP_ID in listing.ids else listing

    @classmethod
    def exactly(cls, logprobs: Mapping[int, float], vocabulary: Vocabulary) -> Listing:
        """From look-ups of all tokens that might be written."""
        return cls._of(sorted(logprobs.items(), key=lambda pair: (-pair[1], pair[0])), vocabulary, -math.inf)

    def first(self, count: int) -> Listing:
        """The likeliest of these, as if no more had been listed."""
        if len(self.ids) <= count:
            return self
        cut = self.ids[:count], self.texts[:count], self.logprobs[:count]
        return Listing(*cut, max(self.floor, self.logprobs[count]), self.stops)

    @classmethod
    def _of(cls, told: Sequence[tuple[int, float]], vocabulary: Vocabulary, floor: float) -> Listing:
        tokens, stops = vocabulary.tokens, vocabulary.stop_ids
        moves = [(i, tokens[i], p) for i, p in told if p > -math.inf and i not in stops and tokens[i]]
        if stop := [p for i, p in told if i in stops and p > -math.inf]:
            moves.append((STOP_ID, b"", logsum(stop)))
            moves.sort(key=lambda move: -move[2])
        ids, texts, logprobs = zip(*moves, strict=True) if moves else ((), (), ())
        return cls(tuple(ids), tuple(texts), tuple(logprobs), floor)


def logsum(logprobs: Sequence[float]) -> float:
    """Logarithm of a sum of probabilities.

    >>> round(math.exp(logsum([math.log(0.2), math.log(0.3)])), 9)
    0.5
    """
    if len(logprobs) == 1:
        return logprobs[0]
    most = max(logprobs)
    return most + math.log(math.fsum(math.exp(p - most) for p in logprobs))


def writable(lexicon: Lexicon, postfix: bytes, most: int) -> list[int] | None:
    """Ids that agree with what a member has still to spell; ``None`` if they are more than ``most``."""
    if not postfix or len(lexicon.beginning(postfix).ids) > most:
        return None
    return lexicon.along(postfix)
