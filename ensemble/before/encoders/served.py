"""Encoders that run elsewhere, as routers see them: what a router was fitted on and what it is served with must agree.

Knows nothing of where they run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ensemble.errors import ConfigurationError
from ensemble.outcomes.dense import Floats


class ServedEncoder(ABC):
    """Texts to unit vectors, at a price of milliseconds."""

    name: str
    fingerprint: str
    """Equal where embeddings are: of the weights, the tokenizer and the pooling."""
    size: int
    """Length d of the embeddings."""

    @property
    def identity(self) -> str:
        """What the manifest of a router says that was fitted on its embeddings."""
        return f"{self.name} {self.fingerprint}"

    @abstractmethod
    async def embed(self, texts: Sequence[str]) -> Floats:
        """[n, d] float32, unit rows.

        Raises:
            MemberError: it cannot be reached.
        """


@dataclass(frozen=True, slots=True)
class Encoders:
    """Those that an ensemble may use."""

    served: Mapping[str, ServedEncoder] = field(default_factory=dict)
    """By name."""
    chosen: str | None = None
    """Name of the one that the configuration gives the ensemble; ``None``: the router says which it needs."""

    def reading(self, identity: str) -> ServedEncoder:
        """The encoder for a router that has none of its own.

        Args:
            identity: name and fingerprint of the encoder it was fitted on; empty: embeddings that came with the table.

        Raises:
            ConfigurationError: there is no such encoder, or it makes other embeddings.
        """
        fitted, _, fingerprint = identity.partition(" ")
        name = self.chosen or fitted
        if not name:
            rule = "the router was fitted on embeddings that came with the table; name the encoder that made them"
            raise ConfigurationError(f"{rule}: {self._allowed}", param="encoder")
        if name not in self.served:
            rule = f"the router reads embeddings of the encoder {name}, which is not served"
            raise ConfigurationError(f"{rule}; served: {self._allowed}", param="encoder")
        found = self.served[name]
        if fingerprint and fingerprint != found.fingerprint:
            rule = f"the router was fitted on embeddings of {identity}, but {name} is {found.fingerprint} here"
            raise ConfigurationError(f"{rule}; serve that encoder, or fit the router again", param="encoder")
        return found

    @property
    def _allowed(self) -> str:
        return ", ".join(sorted(self.served)) or "none"
