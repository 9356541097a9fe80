"""Parts of a fit that are done, kept so that one which was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Tensors = dict[str, npt.NDArray[Any]]


class Stages:
    """A folder of parts that belong to one fit: to the same members, data and settings."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """
        Args:
            identity: everything that a part depends on; parts of another fit are left alone and not used.
        """
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._folder = folder / ".stages" / digest

    async def part(self, name: str, make: Callable[[], Awaitable[Tensors]]) -> Tensors:
        """A part, made unless it is there already."""
        file = self._folder / f"{name}.safetensors"
        if file.is_file():
            return dict(load_file(file))
        made = await make()
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        save_file({key: np.ascontiguousarray(values) for key, values in made.items()}, unfinished)
        os.replace(unfinished, file)
        return made
