"""Vocabularies as bytes: the common ground on which members with different tokenizers meet.

A vocabulary says which bytes every id stands for. A union of vocabularies puts all ids of all members that stand for
the same bytes into one class, and all their stop ids into one stop class. Knows nothing of tokenizer libraries;
``deployments/engines/tokenisation.py`` makes these values from real tokenizers.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ensemble.errors import MemberError

Ids = npt.NDArray[np.int32]

STOP = 0
"""Class of all stop ids in every union."""
NO_CLASS = -1
"""Class of ids that no ensemble may elect: control tokens, and logit rows that no token uses."""


class Unspellable(MemberError):
    """The member's vocabulary has no ids for these bytes."""

    code = "unspellable"


@dataclass(frozen=True)
class Vocabulary:
    """The bytes of every id of one model.

    >>> Vocabulary((b"a", b"b", b""), stop_ids=frozenset({2})).size
    3
    """

    tokens: tuple[bytes, ...]
    """Bytes by id; ``b""`` for stop ids, control tokens and unused logit rows. As long as the logits are wide."""
    stop_ids: frozenset[int] = frozenset()
    """Every id that ends an answer."""

    @property
    def size(self) -> int:
        """Width of the logits."""
        return len(self.tokens)

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal vocabularies, on any machine."""
        digest = hashlib.sha256(repr(sorted(self.stop_ids)).encode())
        for token in self.tokens:
            digest.update(len(token).to_bytes(4, "big") + token)
        return digest.hexdigest()[:16]

    @cached_property
    def writable(self) -> npt.NDArray[np.bool_]:
        """Shape [size]: ids that may be written, that is text tokens and stop ids."""
        mask = np.fromiter((bool(token) for token in self.tokens), dtype=bool, count=self.size)
        mask[list(self.stop_ids)] = True
        return mask

    def text(self, ids: Iterable[int]) -> bytes:
        """The bytes that a sequence of ids stands for; stop ids stand for none."""
        return b"".join(self.tokens[i] for i in ids)


class Tokeniser(ABC):
    """Turns bytes into ids of one vocabulary. The bytes of the ids are always the bytes given."""

    vocabulary: Vocabulary

    @abstractmethod
    def encode(self, text: bytes) -> list[int]:
        """Ids of text in the middle of an answer: no special tokens are added, none is read from the text.

        Bytes that are no complete UTF-8 character are spelt with single-byte tokens.

        Raises:
            Unspellable: the vocabulary lacks tokens for some byte.
        """


class LongestMatch(Tokeniser):
    """Greedy longest-match tokeniser over a plain vocabulary.

    >>> LongestMatch(Vocabulary((b"a", b"ab", b"c"))).encode(b"abca")
    [1, 2, 0]
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._ids = {token: i for i, token in reversed(list(enumerate(vocabulary.tokens))) if token}
        self._longest = max(map(len, self._ids), default=0)

    def encode(self, text: bytes) -> list[int]:
        ids: list[int] = []
        position = 0
        while position < len(text):
            token = self._match(text, position)
            ids.append(self._ids[token])
            position += len(token)
        return ids

    def _match(self, text: bytes, position: int) -> bytes:
        for length in range(min(self._longest, len(text) - position), 0, -1):
            if (token := text[position : position + length]) in self._ids:
                return token
        raise Unspellable(f"no token begins {text[position : position + 8]!r}")


class Union:
    """Classes of equal bytes over several vocabularies; class 0 is the stop class, the rest are sorted by bytes.

    >>> union = Union([Vocabulary((b"a", b"")), Vocabulary((b"b", b"a"))])
    >>> [union.bytes_of(c) for c in range(union.size)], union.classes[1].tolist()
    ([b'', b'a', b'b'], [2, 1])
    """

    def __init__(self, vocabularies: Sequence[Vocabulary]) -> None:
        distinct = set().union(*(set(v.tokens) for v in vocabularies)) - {b""}
        self._bytes = [b"", *sorted(distinct)]
        self._index = {token: c for c, token in enumerate(self._bytes) if token}
        self.classes: list[Ids] = [self._classes(v) for v in vocabularies]
        """Per member, shape [its size]: class of each id, ``NO_CLASS`` where an ensemble may not elect it."""
        self._members = [_ids_by_class(classes) for classes in self.classes]

    def _classes(self, vocabulary: Vocabulary) -> Ids:
        classes = np.fromiter(
            (self._index[token] if token else NO_CLASS for token in vocabulary.tokens), np.int32, vocabulary.size
        )
        classes[list(vocabulary.stop_ids)] = STOP
        return classes

    @property
    def size(self) -> int:
        """Number of classes."""
        return len(self._bytes)

    def bytes_of(self, class_: int) -> bytes:
        """Bytes of a class; none for the stop class."""
        return self._bytes[class_]

    def ids(self, member: int, class_: int) -> tuple[int, ...]:
        """The member's ids in a class; empty where its vocabulary has none."""
        return self._members[member].get(class_, ())

    def spelt(self, member: int, classes: Sequence[int]) -> list[tuple[int, ...]]:
        """``ids`` of several classes."""
        ids = self._members[member]
        return [ids.get(class_, ()) for class_ in classes]

    def count(self, member: int, class_: int) -> int:
        """How many ids the member has in a class."""
        return len(self.ids(member, class_))

    @cached_property
    def largest(self) -> tuple[int, ...]:
        """Per member: ids in its largest class, the stop class left out."""
        return tuple(
            max((len(ids) for class_, ids in members.items() if class_ != STOP), default=0) for members in self._members
        )


def _ids_by_class(classes: Ids) -> dict[int, tuple[int, ...]]:
    order = np.argsort(classes, kind="stable")
    values, starts = np.unique(classes[order], return_index=True)
    groups = np.split(order, starts[1:])
    return {int(v): tuple(g.tolist()) for v, g in zip(values, groups, strict=True) if v != NO_CLASS}


_unions: dict[tuple[str, ...], Union] = {}


def union_of(vocabularies: Sequence[Vocabulary]) -> Union:
    """The union of these vocabularies, in this order; built once per process, as building takes up to a second."""
    key = tuple(v.fingerprint for v in vocabularies)
    if key not in _unions:
        _unions[key] = Union(vocabularies)
    return _unions[key]


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix, found by comparing halves: both are often long and nearly equal.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5]), common_prefix((1, 2), [1, 2, 3]), common_prefix(b"", b"a")
    (2, 2, 0)
    """
    if type(left) is not type(right):
        left, right = tuple(left), tuple(right)  # slices of lists and of tuples are never equal
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    low, high = 0, length - 1
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
