"""A vocabulary in order of its tokens' bytes: which tokens begin with some bytes, and what their next bytes are.

Tokens with a common beginning are neighbours in that order, so that a beginning is a range, and the masses of all its
next bytes are sums over parts of the range: no token is looked at singly. Knows no member and no distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble.member import Floats
from ensemble.vocabulary import Ids, Vocabulary, common_prefix

_REMEMBERED = 8
"""Beginnings with fewer tokens are found again each time, so that what is remembered stays small."""


class Lexicon:
    """Text tokens of one vocabulary in order of bytes, then ids; stop ids apart, control ids left out. T tokens.

    >>> lexicon = Lexicon(Vocabulary((b"b", b"ab", b"", b"a"), stop_ids=frozenset({2})))
    >>> lexicon.order.tolist(), lexicon.stops.tolist(), lexicon.beginning(b"a").ids.tolist()
    ([3, 1, 0], [2], [3, 1])
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        tokens = vocabulary.tokens
        order = sorted((t, i) for i, t in enumerate(tokens) if t and i not in vocabulary.stop_ids)
        self.order: Ids = np.array([i for _, i in order], np.int32)
        """Shape [T]: ids."""
        self.places = self.order.astype(np.intp)
        """The same as numpy takes them; from ids it makes these anew each time."""
        self.stops: Ids = np.array(sorted(vocabulary.stop_ids), np.int32)
        self.lengths = np.array([len(token) for token, _ in order], np.int64)
        """Shape [T]: bytes of each token."""
        self._letters = np.frombuffer(b"".join(token for token, _ in order) or b"\0", np.uint8)
        self._begins = np.cumsum(self.lengths) - self.lengths
        self.root = Branch(self, 0, len(order), 0)
        """All tokens."""

    def letters(self, low: int, high: int, depth: int) -> npt.NDArray[np.uint8]:
        """The byte at ``depth`` of tokens in a range; all are longer."""
        return np.asarray(self._letters[self._begins[low:high] + depth])

    def beginning(self, prefix: bytes) -> Branch:
        """Tokens that begin with these bytes."""
        branch = self.root
        for byte in prefix:
            branch = branch.child(byte)
        return branch

    def along(self, text: bytes) -> list[int]:
        """Ids of all tokens that begin the text, or that the text begins: what a writer of this text may write next.

        >>> Lexicon(Vocabulary((b"a", b"ab", b"abc", b"b"))).along(b"ab")
        [0, 1, 2]
        """
        ids: list[int] = []
        branch = self.root
        for byte in text:
            branch = branch.child(byte)
            ids += branch.exact_ids.tolist()
        return [*ids, *branch.longer_ids.tolist()]


class Branch:
    """The tokens that begin with certain ``depth`` bytes: those of exactly these bytes, then longer ones."""

    __slots__ = ("_children", "_lexicon", "bytes", "depth", "exact", "high", "low", "starts")

    def __init__(self, lexicon: Lexicon, low: int, high: int, depth: int) -> None:
        self.low, self.high, self.depth = low, high, depth
        self.exact = low + int(np.count_nonzero(lexicon.lengths[low:high] == depth)) if depth else low
        """Where the longer tokens begin."""
        letters = lexicon.letters(self.exact, high, depth)
        self.starts: npt.NDArray[np.int64] = np.flatnonzero(np.diff(letters, prepend=letters[:1] ^ 255))
        """Shape [B]: where each next byte begins, counted from ``exact``."""
        self.bytes: npt.NDArray[np.uint8] = letters[self.starts]
        """Shape [B]: the next bytes there are, ascending."""
        self._lexicon = lexicon
        self._children: dict[int, Branch] = {}

    @property
    def ids(self) -> Ids:
        return self._lexicon.order[self.low : self.high]

    @property
    def exact_ids(self) -> Ids:
        return self._lexicon.order[self.low : self.exact]

    @property
    def longer_ids(self) -> Ids:
        return self._lexicon.order[self.exact : self.high]

    def child(self, byte: int) -> Branch:
        """The tokens that go on with this byte; perhaps none."""
        if (known := self._children.get(byte)) is not None:
            return known
        at = int(np.searchsorted(self.bytes, byte))
        if at == len(self.bytes) or self.bytes[at] != byte:
            return Branch(self._lexicon, self.high, self.high, self.depth + 1)
        ends = self.exact + int(self.starts[at + 1]) if at + 1 < len(self.starts) else self.high
        found = Branch(self._lexicon, self.exact + int(self.starts[at]), ends, self.depth + 1)
        if self.high - self.low >= _REMEMBERED:
            self._children[byte] = found
        return found

    def masses(self, row: Floats) -> Floats:
        """Mass of the tokens that go on with each of ``bytes``, shape [B].

        Args:
            row: shape [T], probabilities in the lexicon's order.
        """
        if not len(self.starts):
            return np.zeros(0)
        return np.asarray(np.add.reduceat(row[self.exact : self.high], self.starts))


_lexicons: dict[str, Lexicon] = {}


def lexicon_of(vocabulary: Vocabulary) -> Lexicon:
    """The lexicon of a vocabulary; made once per process, as sorting takes a good part of a second."""
    if vocabulary.fingerprint not in _lexicons:
        _lexicons[vocabulary.fingerprint] = Lexicon(vocabulary)
    return _lexicons[vocabulary.fingerprint]


def common_beginning(texts: Sequence[bytes]) -> bytes:
    """The longest text that all of these begin with; of none it is empty.

    >>> common_beginning([b"abc", b"abd"]), common_beginning([])
    (b'ab', b'')
    """
    if not texts:
        return b""
    first, last = min(texts), max(texts)
    return first[: common_prefix(first, last)]
