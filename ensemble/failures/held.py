"""What a session holds, as far as it takes to make an equal one of a new session. Knows no replicas."""

from __future__ import annotations

from copy import copy

from ensemble.member import Append, Edit, Replace, SyncText
from ensemble.vocabulary import Vocabulary

_LOG = 256
"""Edits after which they are summed up: few enough to keep, many enough to make a step cheap."""


class Held:
    """What a session's continuation holds: a text in its member's spelling, then ids, then edits not yet summed up."""

    def __init__(self, text: bytes, vocabulary: Vocabulary) -> None:
        self._text = text
        self._vocabulary = vocabulary
        self._changed = False
        self._ids: list[int] = []
        self._log: list[Edit] = []
        self._known = True

    @property
    def known(self) -> bool:
        """False once it was cut back into the text, whose ids only the member knows."""
        self._sum_up()
        return self._known

    @property
    def edits(self) -> list[Edit]:
        """What makes a session like this one of one that was just opened."""
        self._sum_up()
        edits: list[Edit] = [SyncText(self._text)] if self._changed else []
        return [*edits, Append(tuple(self._ids))] if self._ids else edits

    def copy(self) -> Held:
        self._sum_up()
        held = copy(self)
        held._ids, held._log = list(self._ids), []
        return held

    def note(self, edit: Edit) -> None:
        """An edit that was carried out."""
        self._log.append(edit)
        if len(self._log) >= _LOG:
            self._sum_up()

    def _sum_up(self) -> None:
        for edit in self._log:
            if isinstance(edit, SyncText):
                self._respell(edit.text)
            elif isinstance(edit, Append):
                self._ids.extend(edit.ids)
            else:
                self._cut(edit.count)
                self._ids.extend(edit.ids if isinstance(edit, Replace) else ())
        self._log.clear()

    def _respell(self, text: bytes) -> None:
        # Ids that spell the text already stay as they are.
        if self._text + self._vocabulary.text(self._ids) != text:
            self._text, self._ids, self._changed = text, [], True

    def _cut(self, count: int) -> None:
        kept = len(self._ids) - count
        self._known = self._known and kept >= 0
        del self._ids[max(kept, 0) :]
