"""Works that no session has asked for: the choices of a generation, and what an idle engine computes ahead."""

from __future__ import annotations

import asyncio

from deployments.engines.answering import NextWork
from deployments.engines.work import Logits, State, Work, finite
from ensemble.request import Event
from ensemble.writer import Writer


class WriteWork(Work):
    """One choice of a generation, streamed."""

    def __init__(self, state: State, writer: Writer) -> None:
        super().__init__(state)
        self._writer = writer
        self._new: list[Event] = []
        self._written = 0
        self.events: asyncio.Queue[tuple[list[Event], int] | None] = asyncio.Queue()
        """(events, tokens written) after each pass; ``None`` at the end."""

    def stem(self) -> list[int]:
        return [*self.state.continuation.all_ids, *self._writer.ids]

    @property
    def needs_stem(self) -> bool:
        return True

    def absorb(self, logits: Logits) -> None:
        self._new.extend(self._writer.write(finite(logits.row(0))))
        self._written += 1
        self.finished = self._writer.finished

    def deliver(self) -> None:
        if self._written:
            self.events.put_nowait((self._new, self._written))
            self._new, self._written = [], 0
        if self.finished:
            self.events.put_nowait(None)
        super().deliver()

    def fail(self, error: Exception) -> None:
        super().fail(error)
        self.events.put_nowait(None)


class AheadWork(Work):
    """The distribution after a guess; kept with the session until the decision is known. Nobody waits for it."""

    def __init__(self, state: State, token: int) -> None:
        super().__init__(state)
        self._token = token

    def stem(self) -> list[int]:
        return [*self.state.continuation.prompt, *self._ids, self._token]

    @property
    def needs_stem(self) -> bool:
        return True

    def absorb(self, logits: Logits) -> None:
        self.state.foresee([*self._ids, self._token], finite(logits.row(0)))
        self.finished = True

    def fail(self, error: Exception) -> None:
        self.finished = True

    def answers(self, work: Work) -> bool:
        """Whether this is what another work waits for."""
        ids = work.state.continuation.ids
        return work.state is self.state and ids == [*self._ids, self._token] and isinstance(work, NextWork)
