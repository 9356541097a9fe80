"""Where a member's weights and tokenizer come from: the values. ``fetching.py`` gets them; this imports no model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

_KINDS = ("path", "hub", "package", "zoo", "random")

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
DType = Literal["auto", "float32", "bfloat16", "float16"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PathSource(_Part):
    """A model on this machine."""

    path: Path
    """A folder with config.json, safetensors and tokenizer, or one GGUF file."""
    sha256: Sha256 | None = None
    """Of the GGUF file; checked at every start. Omitted: not checked."""


class HubSource(_Part):
    """A model on the Hugging Face hub, or in its cache on this machine."""

    hub: str
    """``organisation/name``."""
    revision: str | None = None
    """Branch, tag or commit. Omitted: the newest version."""
    file: str | None = None
    """A GGUF file of the repository. Omitted: the repository's safetensors."""
    sha256: Sha256 | None = None
    """Of ``file``; checked at every start. Omitted: not checked."""

    @model_validator(mode="after")
    def _sum_needs_file(self) -> HubSource:
        if self.sha256 and not self.file:
            raise ValueError("sha256 is of a GGUF file; name it with file, or pin the repository with revision")
        return self


class PackageSource(_Part):
    """A model inside installed Python packages, which are read as data."""

    package: str | tuple[str, ...]
    """Name of the distribution or of what it is imported as; several where parts of a file are spread over them."""
    file: str
    """Pattern of one GGUF file, of its numbered parts (``*part*``), or of a model folder's config.json."""
    sha256: Sha256 | None = None
    """Of the GGUF file, parts joined; checked at every start. Omitted: not checked."""


class ZooSource(_Part):
    """A member of the miniature zoo that ships with the package."""

    zoo: str
    """Its name: adder, words, mixed, pairs, pupil or leaky."""


class RandomModel(_Part):
    """An untrained model: for measurements and tests, where only its shape matters."""

    architecture: str
    """Model type of a causal language model in transformers: llama, gpt2, qwen2, gemma3_text, …"""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the architecture's configuration. Omitted: 2 layers of width 64 with 4 heads, 2,048 positions, and a
    vocabulary of the 256 bytes and one end token (id 256)."""
    seed: int = 0
    """Equal seeds are equal weights. Omitted: 0."""


class RandomSource(_Part):
    """A model with random weights."""

    random: RandomModel
    """Its shape."""


def _kind(value: Any) -> str | None:
    given = value if isinstance(value, Mapping) else value.model_fields_set if isinstance(value, _Part) else ()
    kinds = [kind for kind in _KINDS if kind in given]
    return kinds[0] if len(kinds) == 1 else None


Source = Annotated[
    Annotated[PathSource, Tag("path")]
    | Annotated[HubSource, Tag("hub")]
    | Annotated[PackageSource, Tag("package")]
    | Annotated[ZooSource, Tag("zoo")]
    | Annotated[RandomSource, Tag("random")],
    Discriminator(
        _kind,
        custom_error_type="model_source",
        custom_error_message=f"a model comes from exactly one of {', '.join(_KINDS)}",
    ),
]
"""Where a model comes from; exactly one of the keys path, hub, package, zoo, random decides."""
