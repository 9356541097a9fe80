"""What a replica is told about its model and its limits: plain values that travel. Imports no engine and no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deployments.engines.engine import EngineKind
from deployments.engines.sources import DType, Source
from ensemble.member import Price


@dataclass(frozen=True, slots=True)
class Limits:
    """What one replica takes on."""

    prefill_chunk: int = 256
    """Prompt tokens computed in one tick; bounds how long a prefill delays decoding neighbours."""
    sessions: int = 1024
    """Open sessions; further ones are refused as overload."""
    idle_seconds: float = 60.0
    """A session not spoken to for so long is closed: its driver is gone."""


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
    threads: int = 1
    """Of one forward pass on the CPU."""
    limits: Limits = field(default_factory=Limits)
    price: Price = field(default_factory=Price)
    chat_template: str | None = None
    cache: Path | None = None
