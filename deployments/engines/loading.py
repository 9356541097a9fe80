"""From settings to a running engine."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import torch

from deployments.engines.engine import CAPABILITIES, Engine
from deployments.engines.fetching import load, resolve
from deployments.engines.forward import Forward
from deployments.engines.heads import load_heads
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import DType
from deployments.engines.templates import Prompts
from deployments.engines.tokenisation import tokeniser_of
from deployments.engines.transformers import TransformersEngine
from ensemble.errors import ConfigurationError
from ensemble.member import Card
from ensemble.vocabulary import Tokeniser


async def start(settings: ModelSettings) -> dict[str, Engine]:
    """Load a model and start its engine on the running event loop; engines by the name they are served under.

    Raises:
        ConfigurationError: the source cannot be had, or the engine cannot serve what it holds.
    """
    if settings.engine == "vllm":
        # vLLM decides at its import how many threads it uses and on which device; nobody else needs it.
        from deployments.engines.vllm.starting import start as start_vllm

        return await start_vllm(settings)
    torch.set_num_threads(settings.threads)
    loaded = await asyncio.to_thread(load_model, settings)
    return {settings.name: await engine_over(loaded, settings)}


class Loaded(NamedTuple):
    """A model in memory."""

    model: Any
    """A ``PreTrainedModel``."""
    tokenizer: Any
    tokeniser: Tokeniser


def load_model(settings: ModelSettings) -> Loaded:
    """A model and its tokenizer, whichever engine is to serve it.

    Raises:
        ConfigurationError: the source cannot be had.
    """
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # Half precision saves memory on a GPU; on a CPU it only costs accuracy and, where it is emulated, time.
    dtype: DType = "float32" if settings.dtype == "auto" and device == "cpu" else settings.dtype
    model, tokenizer = load(resolve(settings.source, settings.cache), dtype, device)
    if settings.chat_template is not None:
        tokenizer.chat_template = settings.chat_template
    return Loaded(model, tokenizer, tokeniser_of(model, tokenizer))


async def engine_over(loaded: Loaded, settings: ModelSettings) -> TransformersEngine:
    """The engine of a loaded model, on the running event loop.

    Raises:
        ConfigurationError: the engine cannot serve this model, or a head does not fit it.
    """
    model, tokenizer, tokeniser = loaded
    config = model.config.get_text_config()
    heads = load_heads(settings.heads, tokeniser.vocabulary.fingerprint, config.hidden_size)
    card = Card(
        settings.name,
        CAPABILITIES["transformers"],
        _context(settings, config),
        tokeniser.vocabulary.fingerprint,
        settings.price,
        heads=heads.cards,
    )
    forward = await asyncio.to_thread(Forward, model, settings.slots, heads, card.context_length)
    return TransformersEngine(card, tokeniser, Prompts(tokenizer, tokeniser), forward, settings.limits)


def _context(settings: ModelSettings, config: Any) -> int:
    """The context that is served.

    A model with two sets of rotations (LongRoPE, arXiv:2402.13753) takes the second for all of a pass as soon as one
    token in it is far out, and makes nonsense of what neighbours, or the session itself, have in the cache from before.
    So it is served as far as the first set goes.

    Raises:
        ConfigurationError: more is asked for than the model was trained for, or than it can be served.
    """
    trained = getattr(config, "max_position_embeddings", None)
    length = settings.context_of(trained)
    rope = getattr(config, "rope_parameters", None) or {}
    parts = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    first = [part["original_max_position_embeddings"] for part in parts if part.get("rope_type") == "longrope"]
    steady = min(first, default=length)
    if (settings.context_length or 0) > steady:
        raise ConfigurationError(
            f"context_length is {settings.context_length}; beyond {steady} {settings.name} rotates otherwise, which "
            f"sessions in one pass cannot do apart (longrope); allowed: {steady} at most, or the engine vllm"
        )
    return min(length, steady)
