"""One sentence encoder as one Serve deployment, and its client side: a handle that is a ``ServedEncoder``.

Texts of all requests that wait are embedded together; those that were asked for last are remembered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.calls import CONCURRENT_CALLS, GRACE, LOGGING, WATCHED, ending
from deployments.engines.settings import EncoderSettings
from deployments.member import call, pinned, translated
from deployments.placement import ANYWHERE, Placement
from deployments.retrial import Retrial
from deployments.versions import version_of, versioned
from ensemble.before.encoders.served import ServedEncoder
from ensemble.errors import MemberLost, MemberTimeout
from ensemble.outcomes.dense import Floats

if TYPE_CHECKING:
    from deployments.engines.encoding import TextEncoder

WITHIN = 5.0
"""Seconds that an encoder has; whoever waits has an answer without it."""


class EncoderCard(NamedTuple):
    """What a driver learns of an encoder when it connects."""

    name: str
    fingerprint: str
    size: int


class Embeds(Protocol):
    """What makes embeddings."""

    size: int

    def embed(self, texts: Sequence[str]) -> Floats: ...


def loaded(settings: EncoderSettings) -> TextEncoder:
    """The encoder in this process, for fits.

    Raises:
        ConfigurationError: the source cannot be had, or holds no encoder in safetensors.
    """
    # Only who embeds imports torch.
    from deployments.engines.encoding import TextEncoder

    return TextEncoder.load(settings)


class Embedding:
    """Embeddings of an encoder, made together for all that ask meanwhile, and remembered."""

    def __init__(self, encoder: Embeds, batch: int, remembered: int) -> None:
        """
        Args:
            batch: texts that are embedded at once.
            remembered: texts whose embeddings are kept at hand.
        """
        self._encoder, self._batch, self._most = encoder, batch, remembered
        # By digest: a text may be a hundred times as long as its embedding.
        self._known: OrderedDict[bytes, Floats] = OrderedDict()
        self._wanted: dict[str, asyncio.Future[Floats]] = {}
        self._work: asyncio.Task[None] | None = None
        self.hits = self.misses = 0

    async def of(self, texts: Sequence[str]) -> Floats:
        """[n, d]."""
        rows = [self._row(text) for text in texts]
        if not rows:
            return np.zeros((0, self._encoder.size), np.float32)
        return np.stack([row if isinstance(row, np.ndarray) else await asyncio.shield(row) for row in rows])

    def _row(self, text: str) -> Floats | asyncio.Future[Floats]:
        key = _digest(text)
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            self.hits += 1
            return known
        self.misses += 1
        if text not in self._wanted:
            self._wanted[text] = asyncio.get_running_loop().create_future()
            if self._work is None:
                self._work = asyncio.create_task(self._embedded())
        return self._wanted[text]

    async def _embedded(self) -> None:
        """Embed until nobody waits."""
        while texts := list(islice(self._wanted, self._batch)):
            try:
                rows = await asyncio.to_thread(self._encoder.embed, texts)
                if len(rows) != len(texts):
                    raise ValueError(f"the encoder has made {len(rows)} rows of {len(texts)} texts")
            except Exception as error:
                if len(texts) == 1:
                    self._failed(texts[0], error)
                else:
                    await self._apart(texts)
            else:
                self._told(texts, rows)
        self._work = None

    async def _apart(self, texts: Sequence[str]) -> None:
        """One by one, so that nobody fails for the text of another."""
        for text in texts:
            try:
                self._told([text], await asyncio.to_thread(self._encoder.embed, [text]))
            except Exception as error:
                self._failed(text, error)

    def _told(self, texts: Sequence[str], rows: Floats) -> None:
        for text, row in zip(texts, rows, strict=True):
            # A copy: a view would keep the rows of all of them.
            own = row.copy()
            self._wanted.pop(text).set_result(own)
            self._known[_digest(text)] = own
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def _failed(self, text: str, error: Exception) -> None:
        future = self._wanted.pop(text)
        future.set_exception(error)
        # Whoever waited may have left; then nobody is told.
        future.exception()


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


class EncoderReplica:
    """One copy of an encoder."""

    async def __init__(self, settings: EncoderSettings) -> None:  # type: ignore[misc]  # Serve awaits it
        encoder = await asyncio.to_thread(loaded, settings)
        self._card = EncoderCard(encoder.name, encoder.fingerprint, encoder.size)
        self._embedding = Embedding(encoder, settings.batch, settings.remembered)

    async def describe(self) -> EncoderCard:
        return self._card

    async def embed(self, texts: Sequence[str]) -> Floats:
        """[n, d] float32, unit rows."""
        return await self._embedding.of(texts)

    async def stats(self) -> Mapping[str, float]:
        return {"remembered": self._embedding.hits, "embedded": self._embedding.misses}


class RemoteEncoder(ServedEncoder):
    """A deployed encoder."""

    def __init__(self, handle: DeploymentHandle[Any], card: EncoderCard) -> None:
        self.name, self.fingerprint, self.size = card
        self._handle = handle

    @classmethod
    async def connect(cls, name: str, handle: DeploymentHandle[Any]) -> Self:
        """Wait until the deployment runs, and learn what it is."""
        with translated(name):
            card: EncoderCard = await call(pinned(handle).describe)
        return cls(handle, card)

    async def embed(self, texts: Sequence[str]) -> Floats:
        """An embedding is the same at every replica, so that one that is lost is no matter while there is another.

        Raises:
            MemberTimeout: none has answered within seconds.
        """
        retrial = Retrial(self.name, again=True)
        while True:
            try:
                with translated(self.name):
                    async with asyncio.timeout(WITHIN):
                        found: Floats = await call(pinned(self._handle).embed, list(texts))
                        return found
            except TimeoutError as error:
                late = f"the encoder {self.name} has not answered in {WITHIN:g} seconds"
                raise MemberTimeout(late, member=self.name) from error
            except MemberLost as error:
                await retrial.after(error)


def deploy(
    settings: EncoderSettings, *, replicas: int = 1, placement: Placement = ANYWHERE, grace: float = GRACE
) -> serve.Application:
    """The deployment of an encoder.

    Args:
        grace: seconds that a replica which is stopped has for what is under way.
    """
    deployment = serve.deployment(
        EncoderReplica,
        name=f"encoder-{settings.name}",
        num_replicas=replicas,
        **placement.options(),
        max_ongoing_requests=CONCURRENT_CALLS,
        logging_config=LOGGING,
        **WATCHED,
        **ending(grace),
    )
    return versioned(deployment, version_of(settings)).bind(settings)
