"""The ids of one session, what edits do to them, and which edit leads from some ids to others.

Shared by engines and by drivers that keep sessions by ids; knows no model and no cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.errors import BadRequest, ContextTooLong
from ensemble.member import Append, Edit, LogprobsAt, Next, Payload, Proposal, Question, Replace, Rewind
from ensemble.request import Usage
from ensemble.vocabulary import Tokeniser, common_prefix


class Continuation:
    """Prompt ids, and the ids of the answer so far.

    An edit that cannot be carried out raises and leaves everything as it was.

    >>> from ensemble.vocabulary import LongestMatch, Vocabulary
    >>> from ensemble.member import SyncText
    >>> answer = Continuation([], LongestMatch(Vocabulary((b"a", b"b", b"ab"))), context_length=8)
    >>> answer.apply(Append((0,))); answer.apply(SyncText(b"ab")); answer.ids
    [2]
    """

    def __init__(self, prompt: Sequence[int], tokeniser: Tokeniser, context_length: int) -> None:
        self.prompt = tuple(prompt)
        self.ids: list[int] = []
        self._tokeniser = tokeniser
        self._context_length = context_length
        self._unread = len(self.prompt)
        self._paid = 0
        if self.room < 1:
            raise ContextTooLong(
                f"the prompt has {len(self.prompt)} tokens; the context holds {context_length}, answer included",
                param="messages",
            )

    @property
    def all_ids(self) -> list[int]:
        return [*self.prompt, *self.ids]

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self._context_length - len(self.prompt) - len(self.ids)

    def fork(self) -> Continuation:
        copy = Continuation(self.prompt, self._tokeniser, self._context_length)
        copy.ids, copy._unread = list(self.ids), self._unread
        return copy

    def apply(self, edit: Edit | None) -> None:
        """Carry out one edit.

        Raises:
            ContextTooLong: the result would not leave room for one more token.
            BadRequest: ids outside the vocabulary, or a rewind past the beginning.
        """
        if edit is not None:
            ids = self._edited(edit)
            if len(self.prompt) + len(ids) >= self._context_length:
                raise ContextTooLong(f"the answer does not fit into the context of {self._context_length} tokens")
            adopted = len(ids) - common_prefix(self.ids, ids)
            self._unread += max(0, adopted - self._paid)
            self._paid = 0
            self.ids = ids

    def usage(self, question: Question | None, payload: Payload) -> Usage:
        """What answering costs: ids not read before are prompt tokens, distributions produced are completion tokens.

        An id that the member itself just wrote or was asked about is not read again when it is committed.
        """
        if question is None or isinstance(question, LogprobsAt):
            return Usage()
        read, self._unread = self._unread, 0
        written = _written(payload) if isinstance(payload, Proposal) else int(isinstance(question, Next))
        if isinstance(question, Next) and self._paid:
            written = 0  # asked again about the same place, say for a longer list
        self._paid = max(self._paid, written)
        if isinstance(payload, tuple):
            read += sum(len(scored.ids) for scored in payload)
        return Usage(prompt_tokens=read, completion_tokens=written)

    def _edited(self, edit: Edit) -> list[int]:
        if isinstance(edit, Append):
            self.known(edit.ids)
            return [*self.ids, *edit.ids]
        if isinstance(edit, Rewind):
            return self._without(edit.count)
        if isinstance(edit, Replace):
            self.known(edit.ids)
            return [*self._without(edit.count), *edit.ids]
        return self._respelt(edit.text)

    def _without(self, count: int) -> list[int]:
        if not 0 <= count <= len(self.ids):
            raise BadRequest(f"cannot rewind {count} of {len(self.ids)} ids", param="rewind")
        return self.ids[: len(self.ids) - count]

    def known(self, ids: Sequence[int]) -> None:
        """Refuse ids outside the vocabulary."""
        size = self._tokeniser.vocabulary.size
        if any(not 0 <= i < size for i in ids):
            raise BadRequest(f"ids must be between 0 and {size - 1}", param="ids")

    def spelt(self, continuation: Sequence[int] | bytes) -> tuple[int, ...]:
        """Ids of a continuation that is to be scored."""
        if isinstance(continuation, bytes):
            return tuple(self._tokeniser.encode(continuation))
        self.known(continuation)
        return tuple(continuation)

    def _respelt(self, text: bytes) -> list[int]:
        if self._tokeniser.vocabulary.text(self.ids) == text:
            return self.ids
        ids = self._tokeniser.encode(text)
        kept = common_prefix(self.ids, ids)
        return [*self.ids[:kept], *ids[kept:]]


def _written(proposal: Proposal) -> int:
    """Distributions that were computed to write it: one more than tokens where a gate ended it."""
    return len(proposal.ids) + (proposal.finish == "gate")


def difference(held: Sequence[int], wanted: Sequence[int]) -> Edit | None:
    """The edit that makes one end of a continuation the other.

    >>> difference([1, 2, 3], [1, 4]), difference([1], [1, 2]), difference([1, 2], [1]), difference([1], [1])
    (Replace(count=2, ids=(4,)), Append(ids=(2,)), Rewind(count=1), None)
    """
    kept = common_prefix(held, wanted)
    dropped, added = len(held) - kept, tuple(wanted[kept:])
    if dropped and added:
        return Replace(dropped, added)
    if dropped:
        return Rewind(dropped)
    return Append(added) if added else None
