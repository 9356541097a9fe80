"""Works that answer what a session is asked: its next token, look-ups, scores, proposals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deployments.engines.heads import Heads, Read
from deployments.engines.work import Logits, State, Work, finite
from ensemble.distributions import likeliest
from ensemble.errors import ContextTooLong
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
    Score,
    Scored,
)
from ensemble.sampling import draw, seeded
from ensemble.vocabulary import Vocabulary


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
