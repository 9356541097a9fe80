"""Members that live in this process and need no engine: exact in float64, deterministic, with faults on demand.

``LocalMember`` turns any function from ids to log-probabilities into a full member. ``ScriptedMember`` says what it is
told; ``TinyMember`` is a small random recurrent network over bytes, so that caches, rewinds and forks mean something.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import cycle

import numpy as np

from ensemble.continuation import Continuation
from ensemble.distributions import entropy, likeliest, log_softmax
from ensemble.errors import BadRequest, MemberLost
from ensemble.heads import Head
from ensemble.member import (
    Append,
    Capability,
    Card,
    Distribution,
    Ending,
    Exchange,
    Floats,
    Gate,
    LogprobsAt,
    Member,
    Next,
    Payload,
    Price,
    Proposal,
    Propose,
    Question,
    Reply,
    Score,
    Scored,
    Session,
)
from ensemble.request import Delta, Event, Finish, Request, Spent, Usage
from ensemble.sampling import draw, seeded
from ensemble.vocabulary import LongestMatch, Tokeniser, Vocabulary
from ensemble.writer import Writer

Model = Callable[[Sequence[int], Sequence[int]], Floats]
"""(prompt ids, continuation ids) → log-probabilities of the next token, shape [V]."""

SESSION_CAPABILITIES = frozenset({Capability.GENERATE, Capability.SESSIONS, Capability.FULL_DISTRIBUTION})


class LocalMember(Member):
    """A pure function as a member."""

    def __init__(
        self,
        name: str,
        tokeniser: Tokeniser,
        model: Model,
        *,
        context_length: int = 4096,
        price: Price | None = None,
        delay: float = 0.0,
        fail_at: int | None = None,
        capabilities: frozenset[Capability] = SESSION_CAPABILITIES,
        heads: Mapping[str, Head] | None = None,
        states: Model | None = None,
    ) -> None:
        """
        Args:
            delay: seconds that every exchange takes.
            fail_at: the exchange (counted from 0 over all sessions) at which the member is lost, for good.
            heads: resident heads by name.
            states: (prompt ids, continuation ids) → the last layer's state, shape [width], for heads that read it.
        """
        if states is not None:
            capabilities |= {Capability.HIDDEN_STATES}
        self.heads = heads or {}
        cards = {name: head.card for name, head in self.heads.items()}
        fingerprint = tokeniser.vocabulary.fingerprint
        self.card = Card(name, capabilities, context_length, fingerprint, price or Price(), heads=cards)
        self.tokeniser = tokeniser
        self.model = model
        self.states = states
        self.exchanges = 0
        """Exchanges so far, over all sessions."""
        self.open_sessions = 0
        self._delay = delay
        self._fail_at = fail_at

    def prompt_ids(self, request: Request) -> list[int]:
        text = request.question if request.prompt is None else request.prompt
        return self.tokeniser.encode(text.encode())

    async def start(self, request: Request) -> Session:
        session = LocalSession(self, Continuation(self.prompt_ids(request), self.tokeniser, self.card.context_length))
        if request.partial:
            try:
                await session.sync_text(request.partial.encode())
            except BaseException:
                await session.close()
                raise
        return session

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        return [self.tokeniser.encode(text) for text in texts]

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        yield Spent(self.name, self.card.price.of(Usage(calls=1)))
        for choice in range(request.n):
            async with await self.start(request) as session:
                async for event in _written(self, session, request, choice):
                    yield event

    async def work(self) -> None:
        """One exchange's time and its chance to fail."""
        number, self.exchanges = self.exchanges, self.exchanges + 1
        if self._delay:
            await asyncio.sleep(self._delay)
        if self._fail_at is not None and number >= self._fail_at:
            raise MemberLost(f"{self.name} was lost at exchange {number}", member=self.name)


async def _written(member: LocalMember, session: Session, request: Request, choice: int) -> AsyncIterator[Event]:
    reply = await session.exchange(Next(topk=0))
    sampling = seeded(request.sampling, choice)
    writer = Writer(member.name, session.vocabulary, sampling, position=reply.length, room=reply.room, choice=choice)
    while True:
        yield Spent(member.name, reply.usage)
        for event in writer.write(_by_id(reply.payload)):
            yield event
        if writer.finished:
            return
        reply = await session.exchange(Next(topk=0), edit=Append((writer.ids[-1],)))


def _by_id(payload: Payload) -> Floats:
    assert isinstance(payload, Distribution)
    logprobs = np.empty(payload.size)
    logprobs[payload.ids] = payload.logprobs
    return logprobs


class LocalSession(Session):
    """A session over a pure function: every question is answered from the ids alone."""

    def __init__(self, member: LocalMember, continuation: Continuation) -> None:
        self.member = member.name
        self.vocabulary = member.tokeniser.vocabulary
        self._member = member
        self._continuation = continuation
        self._last: tuple[int, Reply] | None = None
        self._closed = False
        member.open_sessions += 1

    async def _send(self, exchange: Exchange) -> Reply:
        if self._last and self._last[0] == exchange.version:
            return self._last[1]
        if self._closed:
            raise MemberLost("the session is closed", member=self.member)
        await self._member.work()
        self._continuation.apply(exchange.edit)
        payload = self._answered(exchange.question)
        usage = self._member.card.price.of(self._continuation.usage(exchange.question, payload))
        reply = Reply(payload, len(self._continuation.ids), usage, self._continuation.room)
        self._last = (exchange.version, reply)
        return reply

    def _logprobs(self, extra: Sequence[int] = ()) -> Floats:
        return self._member.model(self._continuation.prompt, [*self._continuation.ids, *extra])

    def _read(self, head: str, extra: Sequence[int], given: Floats | None = None) -> Floats:
        """What a head makes of the place after some more ids."""
        import torch  # only heads need it

        found = self._member.heads.get(head)
        if found is None:
            raise BadRequest(f"{self.member} has no head {head!r}", param="head")
        found.check(0 if given is None else len(given))
        ids, of = [*self._continuation.ids, *extra], self._member.states
        states = None if of is None else torch.tensor(of(self._continuation.prompt, ids)).float()[None]
        told = None if given is None else torch.tensor(given).float()[None]
        outcomes: Floats = found.read(torch.tensor(self._logprobs(extra)).float()[None], states, told)[0].numpy()
        return outcomes

    def _leaves(self, gate: Gate, extra: Sequence[int], row: Floats) -> tuple[bool, Distribution | None]:
        """Whether a gate ends a proposal here, and what its head has read."""
        if gate.entropy is not None:
            return gate.ends(np.array([entropy(row)])), None
        outcomes = self._read(gate.head, extra)
        return gate.ends(outcomes), likeliest(outcomes, 0)

    def _answered(self, question: Question | None) -> Payload:
        if isinstance(question, Next) and question.head:
            return likeliest(self._read(question.head, (), question.given), question.topk)
        if isinstance(question, Next):
            if question.given is not None:
                raise BadRequest("given is for heads; name one in head, or leave it out", param="given")
            hidden = self._member.states if question.hidden else None
            state = None if hidden is None else hidden(self._continuation.prompt, self._continuation.ids)
            return likeliest(self._logprobs(), question.topk, state)
        if isinstance(question, LogprobsAt):
            self._continuation.known(question.ids)
            return self._logprobs()[list(question.ids)]
        if isinstance(question, Score):
            return tuple(self._scored(self._continuation.spelt(c), question) for c in question.continuations)
        return self._proposed(question) if isinstance(question, Propose) else None

    def _scored(self, ids: tuple[int, ...], question: Score) -> Scored:
        rows = [self._logprobs(ids[:i]) for i in range(len(ids) + 1)]
        return Scored(
            ids,
            np.array([row[i] for row, i in zip(rows, ids, strict=False)]),
            np.array([row.argmax() for row in rows], np.int32),
            tuple(likeliest(row, question.topk) for row in rows) if question.topk else (),
            np.stack(rows) if question.full else None,
        )

    def _proposed(self, question: Propose) -> Proposal:
        ids: list[int] = []
        rows: list[Floats] = []
        sampling = seeded(question.sampling)
        finish, outcomes, gate = None, None, question.until.gate
        if gate is not None:
            gate.check()
        while finish is None:
            row = self._logprobs(ids)
            if gate is not None:
                left, outcomes = self._leaves(gate, ids, row)
                if left:
                    return self._proposal(question, ids, rows, "gate", outcomes)
            rows.append(row)
            allowed = np.where(self.vocabulary.writable, row, -np.inf)
            ids.append(draw(allowed, sampling, len(self._continuation.ids) + len(ids)))
            finish = question.until.reached(ids, self.vocabulary, self._continuation.room)
        return self._proposal(question, ids, rows, finish, None)

    def _proposal(
        self, question: Propose, ids: list[int], rows: list[Floats], finish: Ending, outcomes: Distribution | None
    ) -> Proposal:
        table = np.array(rows).reshape(-1, self.vocabulary.size)
        return Proposal(
            tuple(ids),
            self.vocabulary.text(ids),
            np.array([row[i] for row, i in zip(rows, ids, strict=True)]),
            finish,
            tuple(likeliest(row, question.topk) for row in rows) if question.topk else (),
            table if question.full else None,
            outcomes,
        )

    async def fork(self) -> Session:
        return LocalSession(self._member, self._continuation.fork())

    async def close(self) -> None:
        self._member.open_sessions -= not self._closed
        self._closed = True


class ScriptedMember(LocalMember):
    """Says what it is told.

    >>> import asyncio
    >>> member = ScriptedMember("a", [b"4", b"2", b""], [{b"4": 0.9, b"2": 0.1}, b"2"])
    >>> asyncio.run(member.answer(Request.of("?"))).text
    '42'
    """

    def __init__(
        self,
        name: str,
        tokens: Sequence[bytes],
        script: Sequence[Mapping[bytes, float] | bytes] | Callable[[bytes], Mapping[bytes, float]],
        **options: object,
    ) -> None:
        """
        Args:
            tokens: the vocabulary; ``b""`` is the stop token (several are several stop ids).
            script: for each number of committed ids a distribution over tokens, or one dictated token; after the last
                the answer stops. Or a function from the committed bytes to a distribution.
        """
        stops = frozenset(i for i, token in enumerate(tokens) if not token)
        vocabulary = Vocabulary(tuple(tokens), stops)
        super().__init__(name, _AnyPrompt(vocabulary), self._scripted, **options)  # type: ignore[arg-type]
        self._script = script

    def prompt_ids(self, request: Request) -> list[int]:
        return []

    def _scripted(self, prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        step = self._step(ids)
        tokens = self.tokeniser.vocabulary.tokens
        weights = {step: 1.0} if isinstance(step, bytes) else step
        first = {token: i for i, token in reversed(list(enumerate(tokens)))}
        row = np.zeros(len(tokens))
        for token, probability in weights.items():
            row[first[token]] = probability
        with np.errstate(divide="ignore"):
            return np.log(row)

    def _step(self, ids: Sequence[int]) -> Mapping[bytes, float] | bytes:
        if callable(self._script):
            return self._script(self.tokeniser.vocabulary.text(ids))
        return self._script[len(ids)] if len(ids) < len(self._script) else b""

    @classmethod
    def answering(cls, name: str, answers: Sequence[str], **options: object) -> Member:
        """A member that can only generate: its answers in turn, over and over."""
        return _AnsweringMember(name, answers, **options)  # type: ignore[arg-type]


class _AnyPrompt(LongestMatch):
    """Longest match; scripted members take no notice of prompts."""


class _AnsweringMember(Member):
    def __init__(
        self, name: str, answers: Sequence[str], *, delay: float = 0.0, fail: bool = False, price: Price | None = None
    ) -> None:
        self.card = Card(name, frozenset({Capability.GENERATE}), 4096, price=price or Price())
        self.calls = 0
        self.cancelled = 0
        """Generations that were closed before their end."""
        self._answers: Iterator[str] = cycle(answers)
        self._delay, self._fail = delay, fail

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        self.calls += 1
        finished = False
        try:
            yield Spent(self.name, self.card.price.of(Usage(1, prompt_tokens=len(request.question.split()))))
            for choice in range(request.n):
                text = next(self._answers)
                await asyncio.sleep(self._delay)
                if self._fail:
                    raise MemberLost(f"{self.name} was lost", member=self.name)
                yield Spent(self.name, self.card.price.of(Usage(completion_tokens=len(text.split()))))
                yield Delta(text, {self.name: 1.0}, (), choice)
                yield Finish("stop", choice)
            finished = True
        finally:
            self.cancelled += not finished


class TinyMember(LocalMember):
    """A random recurrent network over single bytes, in float64.

    Its weights come from ``seed``, so equal seeds are equal models. Byte 0 is the stop id.
    """

    WIDTH = 16

    def __init__(self, name: str, seed: int = 0, **options: object) -> None:
        vocabulary = Vocabulary((b"", *(bytes([b]) for b in range(1, 256))), frozenset({0}))
        super().__init__(name, LongestMatch(vocabulary), self._forward, states=self._state, **options)  # type: ignore[arg-type]
        random = np.random.default_rng(seed)
        self._embedding = random.normal(size=(256, self.WIDTH))
        self._recurrent = random.normal(size=(self.WIDTH, self.WIDTH)) / np.sqrt(self.WIDTH)
        self._head = random.normal(size=(self.WIDTH, 256))

    def _state(self, prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        state = np.zeros(self.WIDTH)
        for i in (*prompt, *ids):
            state = np.tanh(self._recurrent @ state + self._embedding[i])
        return state

    def _forward(self, prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        return log_softmax(self._state(prompt, ids) @ self._head)
