"""The contract of encoders that run in the process of who asks them; a served one has a deployment of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from ensemble.before.routing.parts import Part
from ensemble.outcomes.dense import Floats


class Encoder(Part):
    """Kept with the router that was fitted on its embeddings."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Length d of the embeddings."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> Floats:
        """[n, d] float32; rows of unit length (or zero, for a text in which it knows nothing)."""
