"""What an engine is: one loaded model that answers sessions and generations, many at once.

An engine knows nothing of Ray: a replica (``deployments/model.py``) holds one, and so can a notebook, through
``EngineMember``. Every engine passes ``ensemble.testing.conformance``.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal

from ensemble import heads
from ensemble.concurrency import shielded
from ensemble.member import Capability, Card, Exchange, Member, Reply, Session
from ensemble.request import Event, Request
from ensemble.vocabulary import Vocabulary

EngineKind = Literal["transformers", "vllm"]

CAPABILITIES: dict[EngineKind, frozenset[Capability]] = {
    "transformers": frozenset(Capability),
    "vllm": frozenset({Capability.GENERATE, Capability.SESSIONS}),
}
"""What members of each engine can do, known before anything is loaded."""


def hosted(engine: EngineKind) -> frozenset[str]:
    """Kinds of heads that can be resident at models of this engine."""
    kinds = heads.kinds()
    if engine == "vllm":
        # Its process tells lists of likely tokens, and neither hidden states nor whole distributions.
        return frozenset(kind for kind, head in kinds.items() if head.listed and not head.reads_states)
    return frozenset(kinds)


class Engine(ABC):
    """One model. Sessions are named by the caller; an unknown or expired name raises ``MemberLost``."""

    card: Card
    vocabulary: Vocabulary
    claimed: Callable[[str], bool] = staticmethod(lambda session: False)
    """Whether a driver that is known to live has this session, which is then never idle for too long."""

    @abstractmethod
    async def open(self, session: str, request: Request) -> None:
        """Begin a session on the request; opening the same name twice is one opening.

        Raises:
            ContextTooLong: the prompt leaves no room.
            Overloaded: too many sessions are open.
        """

    @abstractmethod
    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        """Carry out one message; a version seen before gets the same reply again."""

    @abstractmethod
    async def fork(self, session: str, fork: str) -> None:
        """Begin a session ``fork`` that goes on from the ids of ``session``."""

    @abstractmethod
    async def close(self, session: str) -> None:
        """End a session; unknown names are ignored."""

    @abstractmethod
    def generate(self, request: Request) -> AsyncIterator[Event]:
        """Write whole answers; closing the iterator stops the work within one step."""

    @abstractmethod
    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Ids of texts as continuations."""

    @abstractmethod
    def stats(self) -> Mapping[str, float]:
        """Gauges and counters by name: ``open_sessions``, ``running``, ``steps``, ``tokens``, ``step_seconds``; and
        usage, ``billed_calls``, ``billed_prompt_tokens``, ``billed_completion_tokens``, ``billed_cost``."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether it still works; a replica whose engine is not alive is unhealthy."""

    @abstractmethod
    async def shut(self) -> None:
        """Stop all work and free the model."""


class EngineMember(Member):
    """An engine in this process as a member."""

    def __init__(self, engine: Engine) -> None:
        self.card = engine.card
        self._engine = engine

    def generate(self, request: Request) -> AsyncIterator[Event]:
        return self._engine.generate(request)

    async def start(self, request: Request) -> Session:
        session = _EngineSession(self._engine, uuid.uuid4().hex)
        await self._engine.open(session.key, request)
        return session

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        return await self._engine.tokenise(texts)


class _EngineSession(Session):
    def __init__(self, engine: Engine, key: str) -> None:
        self.member, self.vocabulary, self.key = engine.card.name, engine.vocabulary, key
        self._engine = engine

    async def _send(self, exchange: Exchange) -> Reply:
        return await self._engine.exchange(self.key, exchange)

    async def fork(self) -> Session:
        fork = _EngineSession(self._engine, uuid.uuid4().hex)
        await self._engine.fork(self.key, fork.key)
        return fork

    async def close(self) -> None:
        await shielded(self._engine.close(self.key))
