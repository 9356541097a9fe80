"""How members' tokenisers begin strings that are no token of theirs; remembered across requests."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.member import Member
from ensemble.vocabulary import Unspellable, Vocabulary

_Key = tuple[str, str, bytes]


class Beginnings:
    """The first two ids of strings, by member; forgets the oldest beyond ``limit`` strings."""

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._known: dict[_Key, tuple[int, ...]] = {}

    def unknown(self, member: Member, vocabulary: Vocabulary, strings: Sequence[bytes]) -> list[bytes]:
        """Those that ``learn`` has not met, or that have been forgotten."""
        return [string for string in strings if (member.name, vocabulary.fingerprint, string) not in self._known]

    async def learn(self, member: Member, vocabulary: Vocabulary, strings: Sequence[bytes]) -> None:
        """Ask the member how it spells these."""
        found = await _spelt(member, strings)
        for string, ids in zip(strings, found, strict=True):
            self._known[member.name, vocabulary.fingerprint, string] = ids
        for key in list(self._known)[: max(0, len(self._known) - self._limit)]:
            del self._known[key]

    def of(self, member: Member, vocabulary: Vocabulary, strings: Sequence[bytes]) -> list[tuple[int, ...]]:
        """At most two ids for each string; none where the member cannot spell it, or where it is not known."""
        return [self._known.get((member.name, vocabulary.fingerprint, string), ()) for string in strings]

    def __len__(self) -> int:
        return len(self._known)


async def _spelt(member: Member, strings: Sequence[bytes]) -> list[tuple[int, ...]]:
    try:
        return [tuple(ids[:2]) for ids in await member.tokenise(strings)]
    except Unspellable:
        if len(strings) == 1:
            return [()]
        return [ids for string in strings for ids in await _spelt(member, [string])]
