"""Models with random weights, made where there is nothing to fetch: their configuration, weights and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from deployments.engines.sources import RandomModel
from ensemble.errors import ConfigurationError

_END = 256
"""Id of the end token of random models; the ids below are the bytes."""


def config_of(shape: RandomModel) -> Any:
    """The configuration of a random model, with what is left out filled in.

    Raises:
        ConfigurationError: there is no such architecture, or it cannot be so.
    """
    if shape.architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigurationError(
            f"{shape.architecture!r} is no causal language model of transformers; try llama, gpt2, qwen2, gemma3_text",
            param="random.architecture",
        )
    standard = AutoConfig.for_model(shape.architecture)
    known = {*standard.to_dict(), *standard.attribute_map}
    unknown = [name for name in shape.config if name not in known]
    if unknown:
        allowed = ", ".join(sorted(known))
        raise ConfigurationError(f"{shape.architecture} has no {unknown[0]}; it has {allowed}", param="random.config")
    common = {own: name for name, own in standard.attribute_map.items()}
    given = {common.get(name, name): value for name, value in shape.config.items()}
    fields = {name: value for name, value in _small(given).items() if name in known} | given
    if fields["vocab_size"] <= _END:
        raise ConfigurationError(f"vocab_size must be at least {_END + 1}", param="random.config.vocab_size")
    try:
        return AutoConfig.for_model(shape.architecture, **fields)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{shape.architecture} cannot be so: {error}", param="random.config") from error


def _small(given: Mapping[str, Any]) -> dict[str, Any]:
    width, heads = given.get("hidden_size", 64), given.get("num_attention_heads", 4)
    return {
        "vocab_size": _END + 1,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "max_position_embeddings": 2048,
        "bos_token_id": None,
        "eos_token_id": _END,
        "pad_token_id": _END,
    }


def invent(config: Any, seed: int, folder: Path) -> None:
    """Weights and a tokenizer of bytes into an empty folder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte b is id b; id 256 ends the text."""
    alphabet = {character: byte for byte, character in bytes_to_unicode().items()}
    backend = Tokenizer(models.BPE(alphabet, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
