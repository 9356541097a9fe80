"""Models to measure with: random weights in shapes that take long enough, and pairs of which one drafts for the other.

Nothing is downloaded. Random weights cost as much time as trained ones; what they write is noise, so whatever depends
on members agreeing (drafts, guesses) is measured over a pair made to agree: the larger model of ``deepened`` is the
smaller one with further layers that change little.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deployments.engines.fetching import load, resolve
from deployments.engines.sources import RandomModel, RandomSource

CONTEXT = 1024


@dataclass(frozen=True)
class Shape:
    """Of a decoder: about 12 · hidden² · layers parameters, and twice hidden · vocabulary."""

    hidden: int = 512
    layers: int = 8
    heads: int = 8
    vocabulary: int | None = None
    """``None``: the 256 bytes and an end token."""

    def config(self) -> dict[str, Any]:
        """Fields of a transformers configuration."""
        sizes = {"vocab_size": self.vocabulary} if self.vocabulary else {}
        return sizes | {
            "hidden_size": self.hidden,
            "intermediate_size": 4 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": CONTEXT,
            # Peaked distributions, as trained models have: near-uniform ones would measure widening, not lockstep.
            "initializer_range": 0.1,
        }


def even(shape: Shape, folder: Path) -> dict[str, dict[str, Any]]:
    """Sources of two models of one shape that have nothing else in common."""
    sources = {}
    for seed, architecture in enumerate(("llama", "qwen2")):
        model, tokenizer = _random(architecture, shape, seed)
        sources[architecture] = _saved(model, tokenizer, folder / architecture)
    return sources


def deepened(shape: Shape, layers: int, change: float, folder: Path) -> dict[str, dict[str, Any]]:
    """Sources of a small model and of a larger one that mostly writes the same.

    Args:
        shape: of the larger one.
        layers: of the small one; the larger one's others add ``change`` times what random ones would.
    """
    small, tokenizer = _random("llama", Shape(shape.hidden, layers, shape.heads, shape.vocabulary), 0)
    torch.manual_seed(1)
    large = type(small)._from_config(
        type(small.config)(**{**small.config.to_dict(), "num_hidden_layers": shape.layers})
    )
    large.load_state_dict(small.state_dict(), strict=False)
    with torch.no_grad():
        for layer in large.model.layers[layers:]:
            layer.self_attn.o_proj.weight.mul_(change)
            layer.mlp.down_proj.weight.mul_(change)
    return {n: _saved(model, tokenizer, folder / n) for n, model in (("draft", small), ("large", large))}


def _random(architecture: str, shape: Shape, seed: int) -> tuple[Any, Any]:
    """A model that never ends of itself, and its tokenizer: all answers have the length that is asked for."""
    source = RandomSource(random=RandomModel(architecture=architecture, config=shape.config(), seed=seed))
    model, tokenizer = load(resolve(source))
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] = 0.0
    return model, tokenizer


def _saved(model: Any, tokenizer: Any, folder: Path) -> dict[str, Any]:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"path": str(folder)}


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for models made for one run."""
    return tempfile.TemporaryDirectory(prefix="ensemble-benchmark-")
