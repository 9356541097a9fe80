"""Models to measure with: random weights in shapes that take long enough, and pairs of which one drafts for the other.

Nothing is downloaded. Random weights cost as much time as trained ones; what they write is noise, so whatever depends
on members agreeing (drafts, guesses) is measured over a pair made to agree: the larger model of ``deepened`` is the
smaller one with further layers that change little.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenisations
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from deployments.engines.fetching import load, resolve
from deployments.engines.sources import RandomModel, RandomSource

CONTEXT = 1024
END = 256
"""Id of the end token; the ids below are the bytes."""

NORM = "model.norm.weight"
"""The last norm of a llama."""

Sources = dict[str, dict[str, Any]]
"""``source`` of each model's configuration, by name."""


@dataclass(frozen=True)
class Shape:
    """Of a decoder: about 12 · hidden² · layers parameters, and twice hidden · vocabulary."""

    hidden: int = 512
    layers: int = 8
    heads: int = 8
    vocabulary: int | None = None
    """``None``: the 256 bytes and an end token. A number: these, and strings of two to four letters."""
    kv_heads: int | None = None
    """``None``: as many as heads."""
    intermediate: int | None = None
    """``None``: four times ``hidden``."""
    context: int = CONTEXT

    def config(self) -> dict[str, Any]:
        """Fields of a transformers configuration."""
        sizes = {"vocab_size": self.vocabulary} if self.vocabulary else {}
        return sizes | {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate or 4 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads or self.heads,
            "max_position_embeddings": self.context,
            # Peaked distributions, as trained models have: near-uniform ones would measure widening, not lockstep.
            "initializer_range": 0.1,
        }

    @property
    def parameters(self) -> int:
        """Of a llama of this shape, norms left out."""
        narrow = self.hidden * (self.kv_heads or self.heads) // self.heads
        layer = 2 * self.hidden * (self.hidden + narrow) + 3 * self.hidden * (self.intermediate or 4 * self.hidden)
        return self.layers * layer + 2 * self.hidden * (self.vocabulary or END + 1)

    @property
    def cached(self) -> int:
        """Numbers that a cache keeps for each token."""
        return 2 * self.layers * self.hidden * (self.kv_heads or self.heads) // self.heads


def even(shape: Shape, folder: Path, count: int = 2) -> Sources:
    """Sources of models of one shape that have nothing else in common."""
    sources = {}
    for seed in range(count):
        architecture = ("llama", "qwen2")[seed % 2]
        name = architecture if seed < 2 else f"{architecture}-{seed + 1}"
        model, tokenizer = _random(architecture, shape, seed, folder)
        sources[name] = _saved(model, tokenizer, folder / name)
    return sources


def deepened(shape: Shape, layers: int, change: float, folder: Path) -> Sources:
    """Sources of a small model and of a larger one that mostly writes the same.

    Args:
        shape: of the larger one.
        layers: of the small one; the larger one's others add ``change`` times what random ones would.
    """
    small, tokenizer = _random("llama", replace(shape, layers=layers), 0, folder)
    torch.manual_seed(1)
    large = type(small)._from_config(
        type(small.config)(**{**small.config.to_dict(), "num_hidden_layers": shape.layers})
    )
    large.load_state_dict(small.state_dict(), strict=False)
    _dampen(large, layers, change)
    return {n: _saved(model, tokenizer, folder / n) for n, model in (("draft", small), ("large", large))}


def family(
    shape: Shape, layers: int, change: float, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Sources:
    """Sources of three models that share files, so that large weights are made on a device and written once.

    ``large``; ``twin``, which takes as long and writes something else, as its last norm flips signs; and ``draft``,
    the first layers of ``large``, which mostly writes the same.

    Args:
        layers, change: as for ``deepened``.
    """
    weights = _weights(shape, layers, change, device, dtype)
    norm = weights.pop(NORM)
    signs = torch.randint(0, 2, norm.shape, device=device) * 2 - 1
    parts = {"plain": {NORM: norm}, "flipped": {NORM: norm * signs.to(dtype)}, **_grouped(weights, layers)}
    for part, tensors in parts.items():
        save_file(tensors, folder / f"{part}.safetensors", metadata={"format": "pt"})
    held = {part: list(tensors) for part, tensors in parts.items()}
    del weights, parts
    if device == "cuda":
        # The engines' processes need what this one has kept.
        torch.cuda.empty_cache()
    added = [part for part in held if part.startswith("added")]
    draft = replace(shape, layers=layers)
    made = {"large": (shape, ["base", *added, "plain"]), "twin": (shape, ["base", *added, "flipped"])}
    made["draft"] = (draft, ["base", "plain"])
    return {name: _linked(folder, name, own, {p: held[p] for p in of}, dtype) for name, (own, of) in made.items()}


def lettered(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of so many tokens: bytes, the end token, and strings of two, three and four small letters."""
    alphabet = {character: byte for byte, character in bytes_to_unicode().items()}
    pairs = [(a, b) for a, b in product(ascii_lowercase, repeat=2)]
    words = ["".join(pair) for pair in pairs]
    merges = list(islice(chain(pairs, product(words, ascii_lowercase), product(words, words)), size - END - 1))
    ids = alphabet | {"<eos>": END} | {a + b: END + 1 + number for number, (a, b) in enumerate(merges)}
    backend = Tokenizer(tokenisations.BPE(ids, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")


def _random(architecture: str, shape: Shape, seed: int, folder: Path) -> tuple[Any, Any]:
    """A model that never ends of itself, and its tokenizer: all answers have the length that is asked for."""
    source = RandomSource(random=RandomModel(architecture=architecture, config=shape.config(), seed=seed))
    model, tokenizer = load(resolve(source, folder / "made"))
    _sharpen(model, shape)
    return model, lettered(shape.vocabulary) if shape.vocabulary else tokenizer


def _sharpen(model: Any, shape: Shape) -> None:
    """Let no answer end of itself, and few tokens of a large vocabulary have most of the mass."""
    head = model.get_output_embeddings().weight
    with torch.no_grad():
        if shape.vocabulary:
            # Of n normal logits with a deviation of √(2·ln n) the largest few hold most of the mass, for any n.
            head.mul_(math.sqrt(2 * math.log(shape.vocabulary) / shape.hidden) / shape.config()["initializer_range"])
        head[END] = 0.0


def _dampen(model: Any, layers: int, change: float) -> None:
    """Let layers behind the first ones change little."""
    with torch.no_grad():
        for layer in model.model.layers[layers:]:
            layer.self_attn.o_proj.weight.mul_(change)
            layer.mlp.down_proj.weight.mul_(change)


def _weights(shape: Shape, layers: int, change: float, device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Of a random model that is made on a device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(_config(shape), dtype=dtype)
    _sharpen(model, shape)
    _dampen(model, layers, change)
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def _grouped(weights: Mapping[str, torch.Tensor], layers: int) -> dict[str, dict[str, torch.Tensor]]:
    """Weights by file: ``base`` with the first layers and what is in none, then the other layers, a few to a file."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in weights.items():
        # While a file is written, main memory holds all of it.
        group = "base" if _layer(name) < layers else f"added-{_layer(name) // 8}"
        groups.setdefault(group, {})[name] = tensor
    return groups


def _config(shape: Shape) -> LlamaConfig:
    ends = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": END}
    return LlamaConfig(**{"vocab_size": END + 1, **shape.config(), **ends, "tie_word_embeddings": False})


def _layer(name: str) -> int:
    """Number of the layer that a weight belongs to; -1 for none."""
    parts = name.split(".")
    return int(parts[2]) if parts[1] == "layers" else -1


def _linked(folder: Path, name: str, shape: Shape, held: Mapping[str, list[str]], dtype: torch.dtype) -> dict[str, Any]:
    """A model folder whose weights are links to files beside it."""
    target = folder / name
    config = _config(shape)
    config.architectures, config.dtype = ["LlamaForCausalLM"], dtype
    config.save_pretrained(target)
    lettered(shape.vocabulary or END + 1).save_pretrained(target)
    files = {part: f"{part}.safetensors" for part in held}
    for file in files.values():
        (target / file).hardlink_to(folder / file)
    weight_map = {tensor: files[part] for part, tensors in held.items() for tensor in tensors}
    size = sum((target / file).stat().st_size for file in files.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return {"path": str(target)}


def _saved(model: Any, tokenizer: Any, folder: Path) -> dict[str, Any]:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"path": str(folder)}


def scratch(parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A folder for models made for one run."""
    return tempfile.TemporaryDirectory(prefix="ensemble-benchmark-", dir=parent)
