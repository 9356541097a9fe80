"""Small models with random weights under the transformers engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers

from deployments.engines.forward import Forward
from deployments.engines.heads import Heads
from deployments.engines.settings import Limits
from deployments.engines.transformers import TransformersEngine
from ensemble.artifacts import Artifact, Manifest
from ensemble.heads import Head
from ensemble.member import Capability, Card
from ensemble.request import Request
from ensemble.vocabulary import LongestMatch, Vocabulary

CONTEXT = 96
BYTES = Vocabulary((b"", b"", *(bytes([b]) for b in range(256)), b"th", b"ab", b"a", b"o s"), frozenset({0, 1}))
WIDTH = 32
"""Of hidden states."""
SIZES = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON = {"vocab_size": BYTES.size, "max_position_embeddings": CONTEXT, "initializer_range": 0.3, **SIZES}
ARCHITECTURES: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**COMMON, num_key_value_heads=2),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=BYTES.size, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3
    ),
    "qwen2": lambda: transformers.Qwen2Config(**COMMON, num_key_value_heads=2),
    "mistral-sliding": lambda: transformers.MistralConfig(**COMMON, num_key_value_heads=2, sliding_window=7),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **COMMON,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "gemma2-capped": lambda: transformers.Gemma2Config(
        **COMMON, num_key_value_heads=2, head_dim=8, sliding_window=6, final_logit_softcapping=5.0
    ),
}


def engine_of(
    architecture: str,
    *,
    slots: int = 3,
    device: str = "cpu",
    heads: Mapping[str, Head] | None = None,
    **limits: Any,
) -> TransformersEngine:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[architecture]()).to(device)
    tokeniser = LongestMatch(BYTES)
    resident = Heads(heads)
    card = Card(architecture, frozenset(Capability), CONTEXT, BYTES.fingerprint, heads=resident.cards)

    def prompts(request: Request) -> list[int]:
        return tokeniser.encode(request.question.encode())

    forward = Forward(model, slots, resident)
    return TransformersEngine(card, tokeniser, prompts, forward, Limits(**{"prefill_chunk": 8, **limits}))


def router(width: int = WIDTH, vocabulary: str = "v", seed: int = 0) -> Artifact:
    """A router with random layers."""
    random = np.random.default_rng(seed)
    shapes = {"weight0": (2 * width, width), "bias0": (2 * width,), "weight1": (width, 2 * width), "bias1": (width,)}
    shapes |= {"weight2": (1, width), "bias2": (1,)}
    tensors = {name: random.normal(size=shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    return Artifact(Manifest(method="citer", kind="router", member="m", vocabulary=vocabulary), tensors)


def experts(names: tuple[str, ...] = ("law", "code"), seed: int = 1) -> Artifact:
    """Random expert rows, about as large as the models' own."""
    rows = np.random.default_rng(seed).normal(size=(len(names), WIDTH)).astype(np.float32) / 10
    manifest = Manifest(method="etr", kind="experts", member="m", vocabulary="v", settings={"experts": list(names)})
    return Artifact(manifest, {"rows": rows, "bias": np.zeros(len(names), np.float32)})
