"""Work under way at an engine: one question, or one generation, of one session.

A work says which ids must be in the cache and which logits it waits for, and takes them in when they are there. It
knows no model, no slot and no batch: those are the engine's.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from deployments.engines.guess import Guess
from deployments.engines.heads import Heads, Read
from ensemble.continuation import Continuation
from ensemble.distributions import likeliest
from ensemble.errors import BadAnswer, ContextTooLong
from ensemble.member import (
    Distribution,
    Ending,
    Floats,
    LogprobsAt,
    Next,
    Payload,
    Proposal,
    Propose,
    Question,
    Reply,
    Score,
    Scored,
)
from ensemble.request import Event
from ensemble.sampling import draw, seeded
from ensemble.vocabulary import Ids, Vocabulary
from ensemble.writer import Writer


@dataclass(slots=True, eq=False)
class State:
    """One session at the engine: its ids, and the last distribution if it still belongs to them."""

    key: str
    continuation: Continuation
    answered: tuple[int, Reply] | None = None
    """Last version and its reply."""
    touched: float = field(default_factory=time.monotonic)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Messages to one session are carried out one after another."""
    guess: Guess = field(default_factory=Guess)
    _last: tuple[list[int], Floats] | None = None
    _foreseen: tuple[list[int], Floats] | None = None

    @property
    def row(self) -> Floats | None:
        """Log-probabilities after the last id, shape [size]; ``None`` if an edit has made them stale."""
        # Every edit makes a new list, so a distribution belongs to the list object that it was computed for. A work
        # that was given up while its pass ran may still remember: for a list that is not the session's any more.
        if self._last is not None and self._last[0] is self.continuation.ids:
            return self._last[1]
        if self._foreseen is not None and self._foreseen[0] == self.continuation.ids:
            self._last, self._foreseen = (self.continuation.ids, self._foreseen[1]), None
            return self._last[1]
        return None

    def remember(self, ids: list[int], row: Floats) -> None:
        """Keep the distribution after these ids of the continuation."""
        self._last, self._foreseen = (ids, row), None

    def foresee(self, ids: list[int], row: Floats) -> None:
        """Keep the distribution after ids that the continuation may come to have."""
        self._foreseen = (ids, row)


@dataclass(frozen=True, slots=True)
class Logits:
    """What one pass computed for one work; n wanted places."""

    logprobs: Floats
    """Shape [n, size], normalised, float32."""
    top_ids: Ids
    """Shape [n, K]: the likeliest ids, K at least what the work asked for."""
    hidden: Floats | None
    """Shape [n, hidden size]."""
    outcomes: Floats | None = None
    """Shape [o]: what a head has read at the first of these places."""

    def row(self, place: int) -> Floats:
        """Log-probabilities of one place."""
        row: Floats = self.logprobs[place]
        return row

    def top(self, row: int, k: int) -> Distribution:
        """The ``k`` likeliest tokens of one place, ties in order of id; 0: all."""
        logprobs = self.logprobs[row]
        if k == 0 or k >= len(logprobs):
            return likeliest(logprobs, 0)
        ids = self.top_ids[row, :k]
        order = np.lexsort((ids, -logprobs[ids]))
        return Distribution(ids[order], logprobs[ids[order]], len(logprobs))


class Work(ABC):
    """One thing a session waits for."""

    topk = 0
    """Tokens to list per wanted place, beyond what a single maximum gives."""
    hidden = False
    read: Read | None = None
    """What a head is to read after the stem."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._ids = state.continuation.ids
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finished = False

    def stem(self) -> list[int]:
        """Ids that must be in the cache, prompt included."""
        return self.state.continuation.all_ids

    def tree(self) -> tuple[Sequence[int], Sequence[int]]:
        """Ids to be tried below the stem and each one's parent (-1: the stem)."""
        return (), ()

    @property
    def needs_stem(self) -> bool:
        """Whether the distribution after the stem has still to be computed."""
        return self.state.row is None

    def prepare(self) -> None:  # noqa: B027  (a hook that some works have no use for)
        """Finish without a pass, if that is possible."""

    @abstractmethod
    def absorb(self, logits: Logits) -> None:
        """Take in the wanted places: the stem's, if needed, then one for each id of the tree."""

    def deliver(self) -> None:
        """Hand on what is new; called on the event loop after each pass."""
        if self.finished and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        self.finished = True
        if not self.done.done():
            self.done.set_exception(error)

    def _stem_row(self, logits: Logits) -> Floats:
        if not self.needs_stem:
            assert self.state.row is not None
            return self.state.row
        row = finite(logits.row(0))
        self.state.remember(self._ids, row)
        return row


class NextWork(Work):
    """``Next``: one distribution, over tokens or over a head's outcomes."""

    def __init__(self, state: State, question: Next, read: Read | None) -> None:
        super().__init__(state)
        self.topk, self.hidden, self.read = question.topk, question.hidden, read
        self.payload: Payload = None

    @property
    def needs_stem(self) -> bool:
        return self.hidden or self.state.row is None or (self.read is not None and self.read.fresh)

    @property
    def looks(self) -> bool:
        """Whether nothing is missing but what a head makes of a distribution that is known."""
        return self.read is not None and not self.read.fresh and self.state.row is not None

    def prepare(self) -> None:
        if not self.needs_stem and self.read is None:
            assert self.state.row is not None
            self.payload, self.finished = likeliest(self.state.row, self.topk), True

    def absorb(self, logits: Logits) -> None:
        self._stem_row(logits)
        hidden = logits.hidden[0] if logits.hidden is not None and self.hidden else None
        if self.read is not None:
            assert logits.outcomes is not None
            self.payload, self.finished = likeliest(finite(logits.outcomes), self.topk, hidden), True
            return
        top = logits.top(0, self.topk)
        self.payload, self.finished = Distribution(top.ids, top.logprobs, top.size, hidden), True

    def looked(self, outcomes: Floats) -> None:
        """Take in what a head has read of the known distribution."""
        self.payload, self.finished = likeliest(finite(outcomes), self.topk), True


class LogprobsAtWork(Work):
    """``LogprobsAt``: look-ups, free of charge when the distribution is there."""

    def __init__(self, state: State, question: LogprobsAt) -> None:
        super().__init__(state)
        state.continuation.known(question.ids)
        self._wanted = list(question.ids)
        self.payload: Payload = None

    def prepare(self) -> None:
        if self.state.row is not None:
            self._look_up(self.state.row)

    def absorb(self, logits: Logits) -> None:
        self._look_up(self._stem_row(logits))

    def _look_up(self, row: Floats) -> None:
        self.payload, self.finished = row[self._wanted], True


class ScoreWork(Work):
    """``Score``: continuations as a tree over their common prefixes, in one pass."""

    def __init__(self, state: State, question: Score) -> None:
        super().__init__(state)
        self.topk, self._full = question.topk, question.full
        self._continuations = [state.continuation.spelt(c) for c in question.continuations]
        if max(map(len, self._continuations), default=0) > state.continuation.room:
            raise ContextTooLong(f"a continuation does not fit into the {state.continuation.room} tokens that are left")
        self._nodes, self._parents, self._places = _tree(self._continuations)
        self.payload: Payload = None

    def tree(self) -> tuple[Sequence[int], Sequence[int]]:
        return self._nodes, self._parents

    def prepare(self) -> None:
        if not self._nodes and self.state.row is not None:
            self._conclude([self.state.row], [self._listed(self.state.row)])

    def absorb(self, logits: Logits) -> None:
        first = int(self.needs_stem)
        stem = self._stem_row(logits)
        rows = [stem, *(finite(logits.row(first + node)) for node in range(len(self._nodes)))]
        lists = [logits.top(first + node, self.topk) for node in range(len(self._nodes))] if self.topk else []
        self._conclude(rows, [self._listed(stem), *lists])

    def _listed(self, row: Floats) -> Distribution | None:
        return likeliest(row, self.topk) if self.topk else None

    def _conclude(self, rows: Sequence[Floats], lists: Sequence[Distribution | None]) -> None:
        """From the distributions after the stem and after each id of the tree."""
        self.payload = tuple(
            self._scored(ids, [0, *(place + 1 for place in places)], rows, lists)
            for ids, places in zip(self._continuations, self._places, strict=True)
        )
        self.finished = True

    def _scored(
        self, ids: tuple[int, ...], way: list[int], rows: Sequence[Floats], lists: Sequence[Distribution | None]
    ) -> Scored:
        own = [rows[place] for place in way]
        return Scored(
            ids,
            np.array([row[i] for row, i in zip(own, ids, strict=False)], np.float32),
            np.array([row.argmax() for row in own], np.int32),
            tuple(found for place in way if (found := lists[place]) is not None) if self.topk else (),
            np.stack(own) if self._full else None,
        )


class ProposeWork(Work):
    """``Propose``: writes alone for several passes; commits nothing."""

    def __init__(self, state: State, question: Propose, vocabulary: Vocabulary, read: Read | None) -> None:
        super().__init__(state)
        self._question, self._vocabulary, self.read = question, vocabulary, read
        self.topk = question.topk
        self._sampling = seeded(question.sampling)
        self._draft: list[int] = []
        self._logprobs: list[float] = []
        self._rows: list[Floats] = []
        self._lists: list[Distribution] = []
        self.payload: Payload = None

    def stem(self) -> list[int]:
        return [*self.state.continuation.all_ids, *self._draft]

    @property
    def needs_stem(self) -> bool:
        return bool(self._draft) or self.state.row is None or self.read is not None

    def prepare(self) -> None:
        if not self.needs_stem:
            assert self.state.row is not None
            self._write(self.state.row)

    def absorb(self, logits: Logits) -> None:
        row = finite(logits.row(0)) if self._draft else self._stem_row(logits)
        gate = self._question.until.gate
        if gate is not None and gate.ends(finite(_read(logits))):
            outcomes = likeliest(_read(logits), 0) if gate.head else None
            self.payload, self.finished = self._proposal("gate", outcomes), True
        else:
            self._write(row, logits.top(0, self.topk) if self.topk else None)

    def _write(self, row: Floats, listed: Distribution | None = None) -> None:
        allowed = np.where(self._vocabulary.writable, row, -np.inf)
        continuation = self.state.continuation
        token = draw(allowed, self._sampling, len(continuation.ids) + len(self._draft))
        self._draft.append(token)
        self._logprobs.append(float(row[token]))
        if self.topk:
            self._lists.append(listed or likeliest(row, self.topk))
        if self._question.full:
            self._rows.append(row)
        ending = self._question.until.reached(self._draft, self._vocabulary, continuation.room)
        if ending is not None:
            self.payload, self.finished = self._proposal(ending), True

    def _proposal(self, ending: Ending, outcomes: Distribution | None = None) -> Proposal:
        return Proposal(
            tuple(self._draft),
            self._vocabulary.text(self._draft),
            np.array(self._logprobs, np.float32),
            ending,
            tuple(self._lists),
            _table(self._rows, self._vocabulary.size) if self._question.full else None,
            outcomes,
        )


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


Answering = NextWork | LogprobsAtWork | ScoreWork | ProposeWork


def work_for(state: State, question: Question, vocabulary: Vocabulary, heads: Heads) -> Answering:
    """The work that answers a question.

    Raises:
        BadRequest: ids outside the vocabulary, or a head that there is not.
        ContextTooLong: a continuation that is to be scored does not fit.
    """
    if isinstance(question, Next):
        return NextWork(state, question, heads.of_question(question))
    if isinstance(question, LogprobsAt):
        return LogprobsAtWork(state, question)
    if isinstance(question, Score):
        return ScoreWork(state, question)
    return ProposeWork(state, question, vocabulary, heads.of_gate(question.until.gate))


def finite(row: Floats) -> Floats:
    """The row, if it is a distribution.

    Raises:
        BadAnswer: the model computed something that is none.
    """
    if np.isnan(row[0]):
        raise BadAnswer("the model's logits are not numbers", reason="nan")
    return row


def _read(logits: Logits) -> Floats:
    assert logits.outcomes is not None, "what a work wants to have read is read in the same pass"
    return logits.outcomes


def _table(rows: Sequence[Floats], width: int) -> Floats:
    return np.stack(rows) if rows else np.empty((0, width), np.float32)


def _tree(continuations: Sequence[Sequence[int]]) -> tuple[list[int], list[int], list[list[int]]]:
    """Ids and parents of the prefix tree, and for each continuation the nodes on its way."""
    ids: list[int] = []
    parents: list[int] = []
    nodes: dict[tuple[int, int], int] = {}
    places: list[list[int]] = []
    for continuation in continuations:
        node, way = -1, []
        for token in continuation:
            if (node, token) not in nodes:
                nodes[node, token] = len(ids)
                ids.append(token)
                parents.append(node)
            node = nodes[node, token]
            way.append(node)
        places.append(way)
    return ids, parents, places
