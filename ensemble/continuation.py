"""The ids of one session, and what edits do to them. Shared by every engine; knows no model and no cache."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.errors import BadRequest, ContextTooLong
from ensemble.member import Append, Edit, Rewind
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
        copy.ids = list(self.ids)
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
            self.ids = ids

    def _edited(self, edit: Edit) -> list[int]:
        if isinstance(edit, Append):
            self.known(edit.ids)
            return [*self.ids, *edit.ids]
        if isinstance(edit, Rewind):
            if not 0 <= edit.count <= len(self.ids):
                raise BadRequest(f"cannot rewind {edit.count} of {len(self.ids)} ids", param="rewind")
            return self.ids[: len(self.ids) - edit.count]
        return self._respelt(edit.text)

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
