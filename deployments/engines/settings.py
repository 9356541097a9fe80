"""What a replica is told about its model and its limits: plain values that travel. Imports no engine and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from deployments.engines.engine import EngineKind
from deployments.engines.sources import DType, Source
from ensemble.errors import ConfigurationError
from ensemble.member import Price

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one replica takes on."""

    prefill_chunk: int = 256
    """Prompt tokens computed in one tick; bounds how long a prefill delays decoding neighbours."""
    run_ahead: bool | None = None
    """Compute on guesses of what drivers decide while nobody waits. ``None``: on a GPU, which is idle otherwise; on a
    CPU a guess takes cores that drivers and other members need."""
    sessions: int = 1024
    """Open sessions; further ones are refused as overload."""
    requests: int = 1024
    """Plain requests that are written or wait for their turn; further ones are refused."""
    idle_seconds: float = 60.0
    """A session not spoken to for so long is closed, unless a driver that has it is connected."""


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """Where a resident head comes from."""

    kind: str
    """Class of heads that it is of."""
    path: Path
    """Folder of its artifact."""
    digest: str = ""
    """Of the artifact, where it could be read when the replica was asked for: another one makes another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """Everything a replica needs to load one sentence encoder."""

    name: str
    source: Source
    pooling: Pooling = "mean"
    """What becomes of the last layer's states: their mean over the text, or the first one alone."""
    max_tokens: int = 256
    """Of a text; the rest is not read."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: the GPU if this process can see one."""
    threads: int = 1
    """Of one forward pass on the CPU."""
    batch: int = 32
    """Texts of one forward pass at most."""
    remembered: int = 10_000
    """Texts whose embeddings are kept at hand, those that were asked for last."""
    cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Everything a replica needs to load one model."""

    name: str
    source: Source
    engine: EngineKind = "transformers"
    dtype: DType = "auto"
    """``auto``: as stored on a GPU, float32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: the GPU if this process can see one."""
    context_length: int | None = None
    """``None``: what the model was trained for."""
    slots: int = 16
    """Answers decoded at once: the cache slots of the transformers engine, ``max_num_seqs`` of vLLM."""
    threads: int = 1
    """Of one forward pass on the CPU."""
    limits: Limits = field(default_factory=Limits)
    price: Price = field(default_factory=Price)
    chat_template: str | None = None
    cache: Path | None = None
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the engine: of vLLM's ``AsyncEngineArgs``."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    gpu_share: float = 1.0
    """Part of a GPU that this replica may use; 1 where it has whole ones."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """Folders of LoRA adapters by the name they are served under; of vLLM only."""
    heads: Mapping[str, HeadSettings] = field(default_factory=dict)
    """Resident heads by name."""

    def context_of(self, trained: int | None) -> int:
        """The context that is served: what is asked for, or what the model was trained for.

        Raises:
            ConfigurationError: more is asked for, or neither says.
        """
        wanted = self.context_length
        if trained is not None and wanted is not None and wanted > trained:
            raise ConfigurationError(f"context_length is {wanted}; {self.name} was trained for {trained} at most")
        length = wanted or trained
        if length is None:
            raise ConfigurationError(f"{self.name} does not say its context length; set context_length")
        return length
