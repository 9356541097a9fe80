"""Member and Session: the contract at which algorithms and engines meet.

A member is anything that answers: a model in this process, a replica three nodes away, a scripted double, or an
ensemble. A session is one member's view of one answer being written: its ids, its cache, its last distribution. The
driver edits a session and asks it a question in one message. Nothing here knows how either is carried out.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from ensemble.errors import BadRequest, MissingCapability
from ensemble.request import Answer, Event, Request, Sampling, Usage, collect
from ensemble.vocabulary import Ids, Vocabulary

Floats = npt.NDArray[np.floating]

Ending = Literal["stop", "boundary", "length", "context", "gate"]
"""Why a proposal ended: a stop id; one of ``Until.text``; ``Until.tokens``; no room left in the context; before a token
that ``Until.gate`` does not leave to the member."""


class Capability(StrEnum):
    """What a member may be able to do. What it cannot do it does not declare."""

    GENERATE = "generate"
    """Write whole answers."""
    SESSIONS = "sessions"
    """Be co-decoded: edit, top-k and look-ups, score, propose."""
    FULL_DISTRIBUTION = "full_distribution"
    """Send distributions over the whole vocabulary at a bearable price."""
    HIDDEN_STATES = "hidden_states"
    """Send the last layer's hidden state."""


@dataclass(frozen=True, slots=True)
class Price:
    """Money per million tokens, in one unit for the whole configuration."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)

    def of(self, usage: Usage) -> Usage:
        """The usage with its cost filled in."""
        cost = (usage.prompt_tokens * self.input + usage.completion_tokens * self.output) / 1_000_000
        return Usage(usage.calls, usage.prompt_tokens, usage.completion_tokens, cost)


@dataclass(frozen=True, slots=True)
class HeadCard:
    """What is known of a resident head: a small module that lives at a member and reads each of its positions."""

    kind: str
    """Name of a class of heads (``ensemble.heads``)."""
    space: str = ""
    """Fingerprint of what its outcomes stand for, equal where they mean the same. Empty: not known yet."""
    labels: tuple[str, ...] = ()
    """Names of its outcomes, where they have names and these are known."""


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a member before it is asked anything."""

    name: str
    capabilities: frozenset[Capability]
    context_length: int
    """Tokens of prompt and answer together."""
    vocabulary: str = ""
    """Fingerprint; empty for members without a vocabulary of their own (ensembles)."""
    price: Price = field(default_factory=Price)
    fan_out: int = 1
    """Answers and sessions that one choice begins at models: 1 at a model; of an ensemble all that it may begin."""
    depth: int = 0
    """Ensembles within one another; 0 for a model."""
    heads: Mapping[str, HeadCard] = field(default_factory=dict)
    """Resident heads by name."""

    def require(self, needed: frozenset[Capability], method: str) -> None:
        """Refuse a member that lacks a capability.

        Raises:
            MissingCapability: naming method, member and capability.
        """
        for capability in sorted(needed - self.capabilities):
            has = ", ".join(sorted(self.capabilities)) or "nothing"
            raise MissingCapability(
                f"method {method} needs members with {capability}; {self.name} has only {has}", member=self.name
            )

    def require_head(self, head: str, kind: str, method: str) -> HeadCard:
        """The resident head of this name.

        Raises:
            MissingCapability: there is none, or it is of another kind; naming method, member and what it has.
        """
        found = self.heads.get(head)
        if found is None or found.kind != kind:
            has = ", ".join(f"{name} ({card.kind})" for name, card in sorted(self.heads.items())) or "none"
            rule = f"method {method} needs a head {head!r} of kind {kind} at {self.name}; its heads: {has}"
            raise MissingCapability(rule, member=self.name)
        return found


@dataclass(frozen=True, slots=True)
class Distribution:
    """The likeliest next tokens with their true log-probabilities, normalised over the whole vocabulary."""

    ids: Ids
    """Shape [k], likeliest first; equal log-probabilities in order of id."""
    logprobs: Floats
    """Shape [k], natural logarithm, of the raw distribution (temperature 1)."""
    size: int
    """Width of the whole distribution."""
    hidden: Floats | None = None
    """Shape [hidden size]: the last layer's state, where asked for."""

    @property
    def probabilities(self) -> Floats:
        """Shape [k]."""
        return np.exp(self.logprobs)

    @property
    def complete(self) -> bool:
        return len(self.ids) == self.size

    @property
    def tail(self) -> float:
        """Mass of the tokens that are not listed."""
        return 0.0 if self.complete else max(0.0, 1.0 - float(self.probabilities.sum(dtype=np.float64)))


# Edits: how the driver makes a session's continuation what it should be.


@dataclass(frozen=True, slots=True)
class Append:
    """Commit these ids after the present ones."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rewind:
    """Drop the last ``count`` ids of the continuation."""

    count: int


@dataclass(frozen=True, slots=True)
class SyncText:
    """Make the continuation spell these bytes.

    If the present ids already spell them nothing changes. If they spell a prefix of them and the rest can be
    appended without re-tokenising, ids may stay; otherwise the whole continuation is tokenised anew and the longest
    common id prefix is kept.
    """

    text: bytes


@dataclass(frozen=True, slots=True)
class Replace:
    """Drop the last ``count`` ids of the continuation and commit these in their place."""

    count: int
    ids: tuple[int, ...]


Edit = Append | Rewind | Replace | SyncText

# Questions: what a session can be asked, after the edit has been applied.


@dataclass(frozen=True, slots=True)
class Next:
    """The next-token distribution, or what a resident head makes of it."""

    topk: int = 20
    """Tokens to list; 0 lists all."""
    hidden: bool = False
    head: str = ""
    """Name of a resident head: the answer is the distribution over its outcomes. Empty: over the next tokens."""
    given: Floats | None = field(default=None, compare=False)
    """Shape [n]: what the head is told, for those that are told something."""


@dataclass(frozen=True, slots=True)
class LogprobsAt:
    """Log-probabilities of these ids in the next-token distribution; no forward pass if it was just asked for."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probabilities of several continuations, none of them committed.

    Continuations that share a prefix are computed once (a tree). Text is tokenised by itself, as a continuation.
    """

    continuations: tuple[tuple[int, ...] | bytes, ...]
    topk: int = 0
    """List this many tokens of the distribution before each token and after the last; 0 lists none."""
    full: bool = False
    """Return these distributions whole, as a table."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Which tokens a proposal leaves to others: it ends before the first of them.

    Either by a resident head, whose outcome 0 is to stay, or by entropy.
    """

    head: str = ""
    """Name of a resident head. Empty: none, the entropy is looked at."""
    stay: float | None = None
    """The member goes on where outcome 0 has at least this probability. ``None``: where it is the likeliest."""
    entropy: float | None = None
    """The member goes on where the raw next-token distribution has at most this entropy, in nats."""

    def check(self) -> None:
        """Refuse a gate that looks at nothing, or at two things.

        Raises:
            BadRequest: naming what a gate has.
        """
        if bool(self.head) == (self.entropy is not None):
            raise BadRequest("a gate has either a head or an entropy", param="gate")

    def ends(self, read: Floats) -> bool:
        """Whether a proposal ends here.

        Args:
            read: shape [o], log-probabilities of the head's outcomes; or the entropy alone.
        """
        if self.entropy is not None:
            return bool(read[0] > self.entropy)
        if self.stay is None:
            return bool(read.argmax() != 0)
        return bool(np.exp(read[0], dtype=np.float64) < self.stay)


@dataclass(frozen=True, slots=True)
class Until:
    """Where a proposal ends: at the first of these, at a stop id, or at the end of the context."""

    tokens: int
    text: tuple[bytes, ...] = ()
    """The proposal ends with the token that completes any of these."""
    gate: Gate | None = None
    """The proposal ends before the first token that this does not leave to the member; it may then be empty."""

    def reached(self, ids: Sequence[int], vocabulary: Vocabulary, room: int) -> Ending | None:
        """Why a proposal of these ids is finished; ``None`` if it goes on. ``room``: ids that fit into the context."""
        if ids[-1] in vocabulary.stop_ids:
            return "stop"
        if self.text and any(boundary in vocabulary.text(ids) for boundary in self.text):
            return "boundary"
        if len(ids) >= self.tokens:
            return "length"
        return "context" if len(ids) >= room else None


@dataclass(frozen=True, slots=True)
class Propose:
    """Write on alone for a while. Nothing is committed; ``Append`` the proposal's ids to accept it at no cost."""

    until: Until
    sampling: Sampling = field(default_factory=Sampling)
    """Only temperature, top_p, top_k and seed matter here."""
    topk: int = 0
    """List this many tokens of the raw distribution before each token; 0 lists none."""
    full: bool = False
    """Return these distributions whole, as a table."""


Question = Next | LogprobsAt | Score | Propose


@dataclass(frozen=True, slots=True)
class Scored:
    """One continuation under one member."""

    ids: tuple[int, ...]
    logprobs: Floats
    """Shape [len(ids)]."""
    greedy: Ids
    """Shape [len(ids) + 1]: likeliest token at each position and after the last."""
    distributions: tuple[Distribution, ...] = ()
    """One for each position and one after the last, where ``Score.topk`` asked for them."""
    table: Floats | None = None
    """Shape [len(ids) + 1, size]: the same distributions whole, log-probabilities in order of id, where
    ``Score.full`` asked for them."""

    @property
    def total(self) -> float:
        """Log-probability of the whole continuation."""
        return float(self.logprobs.sum(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a member would write next."""

    ids: tuple[int, ...]
    """Ends with a stop id if ``finish`` is ``"stop"``."""
    text: bytes
    logprobs: Floats
    """Shape [len(ids)], of the raw distribution."""
    finish: Ending
    distributions: tuple[Distribution, ...] = ()
    """The raw distribution before each token, where ``Propose.topk`` asked for them."""
    table: Floats | None = None
    """Shape [len(ids), size]: the same distributions whole, log-probabilities in order of id, where ``Propose.full``
    asked for them. ``sampling.processed`` of a row, unwritable ids masked, is what its token was drawn from."""
    outcomes: Distribution | None = None
    """Of the gate's head, where the proposal ended at it."""


Payload = Distribution | Floats | tuple[Scored, ...] | Proposal | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One message to a session: an edit, then a question."""

    version: int
    """Counts up from 1. A message sent twice is carried out once and gets the same reply."""
    edit: Edit | None = None
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to one exchange."""

    payload: Payload
    length: int
    """Ids in the continuation after the edit."""
    usage: Usage
    room: int = 0
    """Tokens that still fit into the context."""
    seconds: float = 0.0
    """Time inside the engine, queueing included."""


class Session(ABC):
    """One member's view of one answer being written.

    ``exchange`` (or ``post``) is the whole contract; the named operations are its common uses.
    """

    member: str
    vocabulary: Vocabulary
    _version: int = 0

    async def exchange(self, question: Question | None = None, *, edit: Edit | None = None) -> Reply:
        """Apply the edit, then answer the question, in one message.

        Raises:
            MemberLost: the session or its replica is gone; reopen it from the committed bytes.
            ContextTooLong: the edit does not fit into the context; the session is as it was.
        """
        self._version += 1
        return await self._send(Exchange(self._version, edit, question))

    def post(self, question: Question | None = None, *, edit: Edit | None = None) -> asyncio.Future[Reply]:
        """``exchange`` without waiting: the message is under way when this returns. Cancelling gives it up."""
        self._version += 1
        return asyncio.ensure_future(self._send(Exchange(self._version, edit, question)))

    @abstractmethod
    def _send(self, exchange: Exchange) -> Awaitable[Reply]:
        """Carry a message; a coroutine, or a future of what is under way already."""

    @abstractmethod
    async def fork(self) -> Session:
        """A second session that goes on from the same ids."""

    @abstractmethod
    async def close(self) -> None:
        """Free everything the member holds for this session. Closing twice is harmless; it never raises."""

    async def append(self, ids: Sequence[int]) -> None:
        await self.exchange(edit=Append(tuple(ids)))

    async def rewind(self, count: int) -> None:
        await self.exchange(edit=Rewind(count))

    async def sync_text(self, text: bytes) -> None:
        await self.exchange(edit=SyncText(text))

    async def next(
        self, topk: int = 20, *, edit: Edit | None = None, head: str = "", given: Floats | None = None
    ) -> Distribution:
        payload = (await self.exchange(Next(topk, head=head, given=given), edit=edit)).payload
        assert isinstance(payload, Distribution)
        return payload

    async def logprobs_at(self, ids: Sequence[int]) -> Floats:
        payload = (await self.exchange(LogprobsAt(tuple(ids)))).payload
        assert isinstance(payload, np.ndarray)
        return payload

    async def score(
        self, *continuations: Sequence[int] | bytes, topk: int = 0, full: bool = False, edit: Edit | None = None
    ) -> tuple[Scored, ...]:
        wanted = tuple(c if isinstance(c, bytes) else tuple(c) for c in continuations)
        payload = (await self.exchange(Score(wanted, topk, full), edit=edit)).payload
        assert isinstance(payload, tuple)
        return payload

    async def propose(
        self,
        until: Until,
        sampling: Sampling | None = None,
        *,
        edit: Edit | None = None,
        topk: int = 0,
        full: bool = False,
    ) -> Proposal:
        payload = (await self.exchange(Propose(until, sampling or Sampling(), topk, full), edit=edit)).payload
        assert isinstance(payload, Proposal)
        return payload

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class Member(ABC):
    """Anything that answers requests."""

    card: Card

    @property
    def name(self) -> str:
        return self.card.name

    @abstractmethod
    def generate(self, request: Request) -> AsyncIterator[Event]:
        """Write an answer; every event stream holds one ``Finish`` for each choice.

        Closing the iterator early frees everything the request holds.
        """

    async def start(self, request: Request) -> Session:
        """Open a session on the request's conversation; its continuation begins with ``request.partial``.

        Raises:
            MissingCapability: this member has no sessions.
            ContextTooLong: the prompt leaves no room for an answer.
        """
        raise MissingCapability(f"{self.name} has no sessions", member=self.name)

    async def restart(self, request: Request, lost: Session) -> Session:
        """Open a session like one that is lost or slow was opened; at another replica, where there is one.

        Raises:
            MemberLost: there is no replica to open it at.
        """
        return await self.start(request)

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Ids of each text as a continuation (see ``Tokeniser.encode``)."""
        raise MissingCapability(f"{self.name} has no vocabulary", member=self.name)

    def spent(self) -> Usage:
        """What whole answers of this one have used, where somebody counts that; else nothing."""
        return Usage()

    async def answer(self, request: Request) -> Answer:
        """The whole answer at once."""
        async with aclosing(self.generate(request)) as events:  # type: ignore[type-var]
            return collect([event async for event in events])
