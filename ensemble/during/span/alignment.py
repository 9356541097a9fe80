"""Where two tokenisations of one text meet, and what a verifier says of a drafted token there. Pure functions.

All positions are counted in bytes, so that no spelling of blanks or of broken characters can hide that two prefixes
are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ensemble.during.span.drafting import Drafted
from ensemble.member import Distribution, Scored
from ensemble.vocabulary import Vocabulary

_TIE = 1e-4
"""Log-probabilities this close are equal: the same model computes them differently alone and in a batch."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """A verifier on one drafted token, at a place where its own tokens and the draft's end together."""

    node: int
    """Ids of the scored continuation that come before the place."""
    probability: float
    """Of the verifier's own next token there in its reading of the draft."""
    agrees: bool
    """Whether that token is its likeliest."""


def opinions(
    drafted: Sequence[Drafted], scored: Scored, vocabulary: Vocabulary, before: int, *, stops: bool = True
) -> Mapping[int, Opinion]:
    """What a verifier says of a draft, by place in the draft; places that do not align are left out.

    Args:
        scored: the verifier's reading of some text and the draft after it, or of the draft's beginning, with lists.
        vocabulary: the verifier's.
        before: bytes of that text before the draft.
        stops: whether a drafted stop id is looked at, too.
    """
    nodes = {
        end: node for node, end in enumerate(accumulate((len(vocabulary.tokens[i]) for i in scored.ids), initial=0))
    }
    places = accumulate((len(token.text) for token in drafted), initial=before)
    found: dict[int, Opinion] = {}
    for place, (token, offset) in enumerate(zip(drafted, places, strict=False)):
        node = nodes.get(offset)
        if node is None:
            continue
        if not token.text and stops:
            found[place] = _on_stop(node, scored.distributions[node], vocabulary)
        elif token.text and node < len(scored.ids):
            found[place] = _on_text(node, scored, vocabulary)
    return found


def _on_text(node: int, scored: Scored, vocabulary: Vocabulary) -> Opinion:
    id_, logprob = scored.ids[node], float(scored.logprobs[node])
    listed = scored.distributions[node]
    favourite = _favourite(listed, vocabulary)
    same = favourite is not None and vocabulary.tokens[int(listed.ids[favourite])] == vocabulary.tokens[id_]
    tied = favourite is not None and logprob >= float(listed.logprobs[favourite]) - _TIE
    return Opinion(node, float(np.exp(logprob)), same or tied)


def _on_stop(node: int, listed: Distribution, vocabulary: Vocabulary) -> Opinion:
    stops = np.isin(listed.ids, list(vocabulary.stop_ids))
    favourite = _favourite(listed, vocabulary)
    mass = float(np.exp(listed.logprobs[stops], dtype=np.float64).sum())
    return Opinion(node, mass, favourite is not None and bool(stops[favourite]))


def _favourite(listed: Distribution, vocabulary: Vocabulary) -> int | None:
    """Rank of the likeliest token that may be written; ``None`` if none is listed."""
    writable = vocabulary.writable[listed.ids]
    return int(np.argmax(writable)) if writable.any() else None


def disputed(drafted: float, opinion: Opinion, threshold: float, agreement: float) -> bool:
    """Whether a verifier objects to a token that the drafter gave this probability.

    >>> rows = [(0.45, 0.40, False), (0.45, 0.60, False), (0.70, 0.10, False), (0.30, 0.30, True)]
    >>> [disputed(d, Opinion(0, v, same), threshold=0.5, agreement=1.0) for d, v, same in rows]
    [True, False, False, False]
    """
    return drafted < threshold and drafted + opinion.probability < agreement and not opinion.agrees


def whole(text: bytes) -> int:
    """Bytes of a text without a character that has only begun at its end.

    >>> whole("né".encode()), whole("né".encode()[:-1])
    (3, 1)
    """
    for back in range(1, min(3, len(text)) + 1):
        lead = text[-back]
        if lead >= 0xC0:
            needed = 2 + (lead >= 0xE0) + (lead >= 0xF0)
            return len(text) - back if back < needed else len(text)
        if lead < 0x80:
            break
    return len(text)


def settled(tokens: Sequence[bytes], end: int, margin: int) -> int:
    """How many of a text's first tokens no later text will change, so that the rest may be tokenised by itself.

    Tokenisers split text into words before anything else, so the beginning of a word is such a place once some more
    text stands after it. Without words any token's beginning will do, farther from the end.

    Args:
        tokens: of the text.
        end: bytes of the text that are certain.
        margin: bytes that must stand after the place.

    >>> settled([b"one", b" two", b" thr", b"ee", b" four"], end=17, margin=6)
    2
    """
    starts = list(accumulate((len(token) for token in tokens), initial=0))
    near = [k for k in range(1, len(tokens)) if starts[k] <= end - margin]
    words = [k for k in near if tokens[k][:1].isspace() and not tokens[k - 1][-1:].isspace()]
    if words:
        return words[-1]
    far = [k for k in near if starts[k] <= end - 8 * margin and not 0x80 <= tokens[k][0] < 0xC0]
    return far[-1] if far else 0
