"""What a head is, and how one is made from an artifact. Knows no engine: a head is given tensors and gives tensors."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

from ensemble.artifacts import Artifact
from ensemble.errors import BadRequest, ConfigurationError
from ensemble.member import HeadCard

if TYPE_CHECKING:
    import torch


class Head(ABC):
    """A resident module. n: places that are read at once, of any number of sessions."""

    kind: ClassVar[str]
    """Its name in artifacts."""
    reads_states: ClassVar[bool] = False
    """Whether it reads hidden states; else log-probabilities are enough."""
    listed: ClassVar[int | None] = None
    """Likeliest tokens that are all it looks at; ``None``: it looks at all. Where it says a number it can also be
    resident at an engine that lists no more than that."""
    told: int | None = 0
    """Numbers that a question gives it (``Next.given``); ``None``: any number, or none."""
    width: int | None = None
    """Of the hidden states that it reads; ``None``: it reads none."""

    def __init__(self, space: str, labels: Sequence[str] = ()) -> None:
        """
        Args:
            space: fingerprint of what its outcomes stand for.
            labels: names of its outcomes, where they have names.
        """
        self.card = HeadCard(self.kind, space, tuple(labels))

    @classmethod
    @abstractmethod
    def of(cls, artifact: Artifact) -> Self:
        """The head that an artifact holds.

        Raises:
            ConfigurationError: its tensors are not those of this kind.
        """

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The same head on a device."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it is."""

    @abstractmethod
    def read(self, logits: torch.Tensor, states: torch.Tensor | None, given: torch.Tensor | None) -> torch.Tensor:
        """Log-probabilities of the outcomes, shape [n, outcomes].

        Args:
            logits: shape [n, V], float32, of the next tokens: the model's own for heads that read states, else up to a
                constant for each place; -inf for tokens beyond ``listed`` that are not known.
            states: shape [n, width], float32, the last layer's; ``None`` for heads that read none.
            given: shape [n, told], float32, what each question tells; ``None`` where nothing is told.
        """

    def check(self, given: int) -> None:
        """Refuse a question that tells another number of values than the head takes.

        Raises:
            BadRequest: naming the number it takes.
        """
        if self.told is not None and given != self.told:
            raise BadRequest(f"a head of kind {self.kind} is told {self.told} numbers, not {given}", param="given")


@cache
def kinds() -> Mapping[str, type[Head]]:
    """All classes of heads by name."""
    package = importlib.import_module("ensemble.heads")
    for module in pkgutil.iter_modules(package.__path__, "ensemble.heads."):
        importlib.import_module(module.name)
    return MappingProxyType({cls.kind: cls for cls in Head.__subclasses__()})


def tensor(artifact: Artifact, name: str) -> torch.Tensor:
    """One of an artifact's tensors, float32.

    Raises:
        ConfigurationError: it has none of this name.
    """
    import torch

    if name not in artifact.tensors:
        held = ", ".join(sorted(artifact.tensors)) or "none"
        raise ConfigurationError(f"a head of kind {artifact.manifest.kind} needs a tensor {name!r}; there are: {held}")
    return torch.from_numpy(artifact.tensors[name]).float()


def build(artifact: Artifact) -> Head:
    """The head that an artifact holds.

    Raises:
        ConfigurationError: it holds none, or not what its kind needs.
    """
    kind = artifact.manifest.kind
    if kind not in kinds():
        raise ConfigurationError(f"{kind!r} is no kind of head; allowed: {', '.join(sorted(kinds()))}")
    return kinds()[kind].of(artifact)
