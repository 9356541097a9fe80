"""What members make of a prompt's text before they answer.

Text is read plainly, without chat templates, in each member's own tokenisation. Its first characters have nothing
before them and are not scored; where one place is a token boundary for all members, scoring begins there for all.
Nothing here knows what a loss is used for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensemble.concurrency import shielded, together
from ensemble.member import Member, Scored
from ensemble.request import Request
from ensemble.vocabulary import Vocabulary

_CHARACTERS, _WORDS = 16, 4
"""Beginnings of a text that are tried as the part that is not scored: of so many characters, and of so many words."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One member's way through a text. N tokens were scored."""

    vocabulary: Vocabulary
    scored: Scored
    """With the distributions before each token where they were asked for."""
    ends: npt.NDArray[np.int64]
    """Shape [N + 1]: where the text in front of the first token ends, and each token; bytes from the text's begin."""

    @property
    def nats(self) -> float:
        """Minus the log-probability of what was scored."""
        return -self.scored.total

    @property
    def bytes(self) -> int:
        return int(self.ends[-1] - self.ends[0])

    def loss(self, *, by_token: bool = False) -> float:
        """Nats for each byte, or for each token; 0 where nothing was scored."""
        length = len(self.scored.ids) if by_token else self.bytes
        return self.nats / length if length else 0.0


async def read(members: Sequence[Member], text: str, topk: int = 0) -> list[Reading]:
    """Let all members read a text at once.

    Args:
        text: of two characters at least.
        topk: tokens listed at each position; 0: none.
    """
    heads = _heads(text)
    wanted = [text.encode(), *(head.encode() for head in heads)]
    spelt = await together(member.tokenise(wanted) for member in members)
    fitting = [_fitting(ids) for ids in spelt]
    shared = set.intersection(*(set(fits) for fits in fitting))
    chosen = [min(shared or fits, default=None) for fits in fitting]
    return await together(
        _read(member, text, *_divided(text, heads, ids, head), topk)
        for member, ids, head in zip(members, spelt, chosen, strict=True)
    )


async def _read(member: Member, text: str, head: str, rest: tuple[int, ...] | bytes, topk: int) -> Reading:
    session = await member.start(Request(prompt=head))
    try:
        [scored] = await session.score(rest, topk=topk)
        tokens = [len(session.vocabulary.tokens[i]) for i in scored.ids]
        return Reading(session.vocabulary, scored, len(head.encode()) + np.cumsum([0, *tokens]))
    finally:
        await shielded(session.close())


def _heads(text: str) -> list[str]:
    """Beginnings of a text, shortest first."""
    ends = {match.end() for match, _ in zip(re.finditer(r"\S+", text), range(_WORDS), strict=False)}
    return [text[:end] for end in sorted(ends | set(range(1, _CHARACTERS + 1))) if end < len(text)] or [text]


def _fitting(spelt: Sequence[Sequence[int]]) -> list[int]:
    """Which beginnings the text's own ids begin with; ``spelt``: the text's ids, then theirs."""
    whole, *heads = spelt
    return [i for i, head in enumerate(heads) if list(whole[: len(head)]) == list(head)]


def _divided(
    text: str, heads: Sequence[str], spelt: Sequence[Sequence[int]], head: int | None
) -> tuple[str, tuple[int, ...] | bytes]:
    """What is not scored, and what is: ids of the text's own tokenisation, or text where that has no such place."""
    if head is None:
        return heads[0], text[len(heads[0]) :].encode()
    return heads[head], tuple(spelt[0][len(spelt[head + 1]) :])
