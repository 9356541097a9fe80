"""Toy members over different tokenisations of one alphabet, and the plain rule they are compared with."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from ensemble.distributions import log_softmax
from ensemble.ensemble import Ensemble
from ensemble.member import Floats
from ensemble.request import Delta, Event
from ensemble.testing import LocalMember
from ensemble.vocabulary import LongestMatch, Vocabulary

CONTROL = b"<control>"
"""Stands for a control token: no bytes, and no stop id."""
LETTERS = (b"a", b"b", b"c", b" ", b"\xc3", b"\xa9")

MERGED = (b"", b"", CONTROL, *LETTERS, b"ab", b"a", b" a", b"abc")
"""Two stop ids, a control id, and two ids for ``a``."""
SINGLE = (*LETTERS, b"")
"""Bytes alone, so that é is two tokens."""
WORDS = (b"bc", b"\xc3\xa9", *LETTERS, b"ca", CONTROL, b"", b"cab", b"ca")


def vocabulary(tokens: Sequence[bytes]) -> Vocabulary:
    stops = frozenset(i for i, token in enumerate(tokens) if token == b"")
    return Vocabulary(tuple(b"" if token == CONTROL else token for token in tokens), stops)


class Toy(LocalMember):
    """An n-gram model: the next token depends on the last three bytes of the text alone, however it is tokenised."""

    def __init__(
        self, name: str, tokens: Sequence[bytes], seed: int, *, sharpness: float = 2.0, stop: float = -4.0, **options
    ) -> None:
        self.seed, self.sharpness, self.stop = seed, sharpness, stop
        super().__init__(name, LongestMatch(vocabulary(tokens)), self._row, **options)

    def _row(self, prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        return self.after(self.tokeniser.vocabulary.text([*prompt, *ids]))

    def after(self, text: bytes) -> Floats:
        """Log-probabilities of the next token after prompt and answer, shape [V]."""
        rng = np.random.default_rng([self.seed, zlib.crc32(text[-3:])])
        logits = rng.normal(size=self.tokeniser.vocabulary.size) * self.sharpness
        logits[list(self.tokeniser.vocabulary.stop_ids)] += self.stop
        return log_softmax(logits)


def table(name: str, tokens: Sequence[bytes], rows: Sequence[Sequence[float]], **options) -> LocalMember:
    """A member whose distributions are written out by the number of committed ids; the last row repeats."""

    def row(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        with np.errstate(divide="ignore"):
            return np.log(np.array(rows[min(len(ids), len(rows) - 1)]))

    member = LocalMember(name, LongestMatch(vocabulary(tokens)), row, **options)
    member.prompt_ids = lambda request: []  # type: ignore[method-assign]
    return member


def trio(**options) -> list[Toy]:
    return [Toy("merged", MERGED, 1, **options), Toy("single", SINGLE, 2, **options), Toy("words", WORDS, 3, **options)]


def masses(member: Toy, text: bytes) -> Mapping[bytes, float]:
    """Probability by bytes, ``b""`` for stop; control ids left out."""
    vocabulary = member.tokeniser.vocabulary
    found: dict[bytes, float] = {}
    for token, probability in enumerate(np.exp(member.after(text))):
        if vocabulary.writable[token]:
            found[vocabulary.tokens[token]] = found.get(vocabulary.tokens[token], 0.0) + float(probability)
    return found


def mean(members: Sequence[Toy], weights: Sequence[float], text: bytes) -> dict[bytes, float]:
    """Weighted mean by bytes in order, over everything the members know."""
    rows = [masses(member, text) for member in members]
    strings = sorted(set().union(*rows))
    return {s: sum(w * row.get(s, 0.0) for w, row in zip(weights, rows, strict=True)) for s in strings}


def greedy(members: Sequence[Toy], weights: Sequence[float], prompt: bytes, steps: int) -> bytes:
    """The answer of the plain rule."""
    answer = b""
    for _ in range(steps):
        distribution = mean(members, weights, prompt + answer)
        best = max(distribution, key=lambda s: distribution[s])
        if not best:
            break
        answer += best
    return answer


def shown(answer: bytes) -> str:
    return answer.decode(errors="replace")


def gac(members: Sequence[LocalMember], **options) -> Ensemble:
    return Ensemble("e", "gac", members, options=options)


def unite(members: Sequence[LocalMember], **options) -> Ensemble:
    return Ensemble("e", "unite", members, options=options)


def deltas(events: Sequence[Event]) -> list[Delta]:
    return [event for event in events if isinstance(event, Delta)]
