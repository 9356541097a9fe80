"""Models of a configuration in this process, to be fitted to: as members, and as the arrays of their embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cluster.app import settings_of
from cluster.config import Configuration
from cluster.consistency import unknown
from deployments.engines.engine import EngineMember
from deployments.engines.loading import engine_over, load_model
from ensemble.errors import UnknownModel
from ensemble.fitting.models import ModelArrays
from ensemble.member import Floats
from ensemble.vocabulary import Vocabulary

SLOTS = 32
"""Sequences computed at once: a fit has many questions and nobody else to serve."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One model."""

    member: EngineMember
    vocabulary: Vocabulary
    arrays: ModelArrays

    @property
    def name(self) -> str:
        return self.member.name


@asynccontextmanager
async def opened(configuration: Configuration, names: Sequence[str]) -> AsyncIterator[list[Opened]]:
    """These models, in this order; the transformers engine runs them, whichever serves them.

    Raises:
        UnknownModel: the configuration has no model of a name.
        ConfigurationError: a model cannot be loaded.
    """
    for name in names:
        if name not in configuration.models:
            raise UnknownModel(unknown("model", name, configuration.models), param="members")
    engines, found = [], []
    try:
        for name in names:
            settings = settings_of(name, configuration.models[name])
            # Heads are what is to be fitted, and may not be there yet.
            settings = replace(settings, engine="transformers", engine_options={}, heads={}, slots=SLOTS)
            loaded = await asyncio.to_thread(load_model, settings)
            engine = await engine_over(loaded, settings)
            engines.append(engine)
            arrays = ModelArrays(name, engine.vocabulary, *_embeddings(loaded.model))
            found.append(Opened(EngineMember(engine), engine.vocabulary, arrays))
        yield found
    finally:
        await asyncio.gather(*(engine.shut() for engine in engines))


def _embeddings(model: Any) -> list[Floats]:
    """Of a model's ids as input, and of the head's rows; float32."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return [np.asarray(layer.weight.detach().float().cpu().numpy()) for layer in layers]
