"""What was fitted, as a folder: a manifest in JSON and tensors in safetensors; saved and loaded whole or not at all.

Knows nothing of what the tensors mean: that is the business of whoever fitted them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ensemble.errors import ConfigurationError

Tensors = Mapping[str, npt.NDArray[Any]]

_MANIFEST = "manifest.json"
_TENSORS = "tensors.safetensors"


class Manifest(BaseModel):
    """What an artifact is, of what it was made, and how well it did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    """Of which method it is a part."""
    kind: str
    """What can load it: a class of heads, for what is resident at a member."""
    member: str = ""
    """Name of the member it is for when it was fitted; another name may serve the same model. Empty where it is for
    none in particular."""
    vocabulary: str = ""
    """Fingerprint of that member's vocabulary."""
    space: str = ""
    """Fingerprint of what its outcomes stand for."""
    others: dict[str, str] = Field(default_factory=dict)
    """Other members that took part in the fit, with the fingerprints of their vocabularies."""
    members: tuple[str, ...] = ()
    """Of a router: whom it chooses from."""
    encoder: str = ""
    """Of a router: name and fingerprint of the served encoder whose embeddings it reads; empty where it has its own."""
    parts: dict[str, Any] = Field(default_factory=dict)
    """Of a router: what it is made of, beside the tensors."""
    data: str = ""
    """Digest of the data it was fitted on; empty where none was needed."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """With which options it was fitted."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """How well it did, on data that it was not fitted on where there was some."""
    version: str = ""
    """Of the software that made it."""
    tensors: str = ""
    """Digest of the tensors that it goes with, so that those of another fit are found out while a folder is copied over
    it. Empty in those of before: not known."""


class Artifact(NamedTuple):
    """A folder's content."""

    manifest: Manifest
    tensors: Tensors


def save(folder: Path, manifest: Manifest, tensors: Tensors) -> None:
    """Write an artifact; one that is there already is replaced at once, so that a reader finds the old or the new."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, new / _TENSORS)
        manifest = manifest.model_copy(update={"tensors": _digest(new / _TENSORS)})
        (new / _MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)


def manifest_of(folder: Path) -> Manifest:
    """An artifact's manifest alone.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    try:
        return Manifest.model_validate_json((folder / _MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{folder} holds no artifact: {error.strerror}") from error
    except (ValidationError, UnicodeError) as error:
        raise ConfigurationError(f"the manifest of {folder} cannot be read: {error}") from error


def load(folder: Path) -> Artifact:
    """An artifact.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    manifest = manifest_of(folder)
    try:
        found = Artifact(manifest, load_file(folder / _TENSORS))
        known = _digest(folder / _TENSORS) if manifest.tensors else ""
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"the tensors of {folder} cannot be read: {error}") from error
    if known != manifest.tensors:
        raise ConfigurationError(f"the tensors of {folder} are not those that its manifest goes with")
    return found


def digest(folder: Path) -> str:
    """Changes whenever the artifact does.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        both = "".join(_digest(folder / name) for name in (_MANIFEST, _TENSORS))
    except OSError as error:
        raise ConfigurationError(f"{folder} holds no artifact: {error.strerror}") from error
    return hashlib.sha256(both.encode()).hexdigest()[:16]


def stamp(folder: Path) -> object:
    """Changes whenever either file of an artifact is written or replaced; ``None`` while one is not there. Costs no
    reading."""
    try:
        stats = [(folder / name).stat() for name in (_MANIFEST, _TENSORS)]
    except OSError:
        return None
    return [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats]


def _digest(file: Path) -> str:
    with file.open("rb") as read:
        return hashlib.file_digest(read, "sha256").hexdigest()
