"""One member's covering tree and the session that fills it.

What all paths share is committed to the session; the rows of paths are asked for by scoring what they have beyond
that, all in one message. So no prefix is encoded twice, and most bytes need no message. Nothing here knows how bytes
are elected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.during.token.bytes.lexicon import lexicon_of
from ensemble.during.token.bytes.tree import CoveringTree, Path
from ensemble.during.token.lockstep import NoRoom
from ensemble.errors import BadAnswer, ContextTooLong
from ensemble.member import Append, Distribution, Edit, Floats, Member, Next, Payload, Score, Session, SyncText
from ensemble.request import Request


class Reader:
    """A member as a distribution over the next byte."""

    def __init__(self, member: Member, request: Request, *, keep: float, limit: int, window: int) -> None:
        self.member = member
        self._request = request
        self._bounds = {"limit": limit, "window": window}
        self._keep = keep
        self._session: Session | None = None
        self._tree: CoveringTree | None = None
        self._settled: tuple[int, ...] = ()
        """Ids of the trunk that the session has not been told."""
        self._length = 0
        """Ids of the session."""
        self._room: int | None = None
        self._begun: int | None = None
        """Ids that the session began with."""

    @property
    def tree(self) -> CoveringTree:
        assert self._tree is not None, "a reader has a tree once it has been made ready"
        return self._tree

    @property
    def ready(self) -> bool:
        """Whether the distribution is known."""
        return self._tree is not None and not self._tree.lost and not self._tree.unread

    @property
    def tokens(self) -> int:
        """Tokens of the answer by the likeliest path, the one that is being written left out."""
        tail = 0 if self._tree is None or self._tree.lost else len(self._tree.likeliest.ids)
        return self._length - (self._begun or 0) + len(self._settled) + tail

    async def make_ready(self, text: bytes) -> None:
        """Get the rows that are missing.

        Args:
            text: all that the assistant has said; a member that gave it no chance spells it anew.

        Raises:
            NoRoom: the context is full.
            BadAnswer: a row without mass on text tokens and stop ids.
        """
        if self._session is None:
            self._session = await self.member.start(self._request)
            self._tree = CoveringTree(lexicon_of(self._session.vocabulary), keep=self._keep, **self._bounds)
        edit: Edit | None = Append(self._settled) if self._settled else None
        if self.tree.lost:
            self.tree.restart()
            edit = SyncText(text)
        elif self._room is not None and len(self._settled) + self.tree.longest >= self._room:
            raise NoRoom
        await self._fetch(self._session, self.tree.unread, edit)

    def distribution(self) -> Floats:
        """Probabilities of the next byte and of the stop, shape [257]; the reader is ready."""
        return self.tree.distribution()

    def advance(self, byte: int) -> None:
        """Let the text go on with a byte."""
        self.tree.advance(byte)
        self._settled += self.tree.settle()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _fetch(self, session: Session, paths: Sequence[Path], edit: Edit | None) -> None:
        at_trunk = not paths[0].ids
        question = Next(0) if at_trunk else Score(tuple(path.ids for path in paths), full=True)
        try:
            reply = await session.exchange(question, edit=edit)
        except ContextTooLong as error:
            raise NoRoom from error
        if self._begun is None:
            self._begun = reply.length
        self._length, self._room, self._settled = reply.length, reply.room, ()
        for path, row in zip(paths, _rows(reply.payload), strict=True):
            try:
                self.tree.read(path, row)
            except BadAnswer as error:
                error.member = self.member.name
                raise


def _rows(payload: Payload) -> list[Floats]:
    """Log-probabilities by id of the tokens after each path."""
    if isinstance(payload, Distribution):
        row = np.empty(payload.size, payload.logprobs.dtype)
        row[payload.ids] = payload.logprobs
        return [row]
    assert isinstance(payload, tuple)
    tables = [scored.table for scored in payload]
    return [table[-1] for table in tables if table is not None]
