"""What makes each member: architecture, tokenizer, lessons and the accuracies at which training stops.

A skill is kept from a member by teaching it random answers there: it learns the form, stays uncertain of the
content, and says so in its probabilities, which is what lets an ensemble listen to whoever knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

from tokenizers import Tokenizer
from transformers import GPT2Config, LlamaConfig, Olmo2Config, PreTrainedConfig, Qwen3Config

from ensemble.zoo.tasks import TASKS
from ensemble.zoo.tokenisation import EOS_ID, PAD_ID, byte_level, characters, digit_pairs

CONTEXT = 256
_WIDTH, _HEADS = 64, 4
_SPECIAL = {"eos_token_id": EOS_ID, "pad_token_id": PAD_ID, "bos_token_id": None, "tie_word_embeddings": True}

Style = Literal["right", "random", "easy", "careless", "verdict", "guess"]


@dataclass(frozen=True)
class Share:
    """A part of the lessons: items of `task` with answers in one style, in proportion to `weight`.

    "right" teaches the skill, "random" only its form, "easy" the skill where `lessons.is_easy` holds and the form
    elsewhere, and "careless" (of add and chain) sums without most of their carries; "verdict" teaches to judge
    candidate answers, "guess" only the form of a verdict.
    """

    task: str
    style: Style
    weight: float


@dataclass(frozen=True)
class Stage:
    """One phase of training: lessons until every goal is met (or `steps` is reached), then a cool-down.

    `goals` maps a task, or "check", to the accuracy on held-out items that ends the phase; `cooldown` counts the
    steps over which the learning rate then falls linearly to zero.
    """

    shares: tuple[Share, ...]
    goals: Mapping[str, float]
    steps: int
    cooldown: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """How to make one member; `floors` are the accuracies on test items that the shipped weights must reach."""

    name: str
    config: Callable[[int], PreTrainedConfig]
    tokenizer: Callable[[], Tokenizer]
    stages: tuple[Stage, ...]
    floors: Mapping[str, float]
    batch: int = 96
    dropout: float = 0.1
    seed: int = 0


def _llama(vocabulary: int, width: int = _WIDTH) -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=CONTEXT,
        **_SPECIAL,
    )


def _gpt2(vocabulary: int) -> PreTrainedConfig:
    return GPT2Config(
        vocab_size=vocabulary,
        n_embd=_WIDTH,
        n_layer=2,
        n_head=_HEADS,
        n_positions=CONTEXT,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        **_SPECIAL,
    )


def _qwen3(vocabulary: int) -> PreTrainedConfig:
    # Not Qwen2: AutoTokenizer forces Qwen's own normalizer and splits on that model type, whatever is saved.
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=_WIDTH,
        intermediate_size=112,
        num_hidden_layers=5,
        num_attention_heads=_HEADS,
        num_key_value_heads=2,
        head_dim=_WIDTH // _HEADS,
        max_position_embeddings=CONTEXT,
        **_SPECIAL,
    )


def _olmo2(vocabulary: int) -> PreTrainedConfig:
    return Olmo2Config(
        vocab_size=vocabulary,
        hidden_size=_WIDTH,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=CONTEXT,
        **_SPECIAL,
    )


def _lessons(skills: Mapping[str, float], style: Style = "right") -> tuple[Share, ...]:
    """The given skills in one style, and a little of the form of everything else."""
    taught = [Share(task, style, weight) for task, weight in skills.items()]
    forms = [Share(task, "random", 0.05) for task in TASKS if task not in skills]
    return (*taught, *forms, *(Share(task, "guess", 0.0125) for task in TASKS))


def _generalist(style: Style, answers: float, verdicts: Mapping[str, float]) -> tuple[Share, ...]:
    """Answers to all tasks in one style, of weight `answers` in all, and verdicts by task."""
    weights = {"add": 0.35, "reverse": 0.35, "capital": 0.1, "chain": 0.2}
    return (
        *(Share(task, style, answers * weight) for task, weight in weights.items()),
        *(Share(task, "verdict", weight) for task, weight in verdicts.items()),
    )


ADDER = Recipe(
    name="adder",
    config=_llama,
    tokenizer=characters,
    stages=(Stage(_lessons({"add": 0.5, "chain": 0.35}), {"add": 0.9, "chain": 0.9}, 3000, 300, 6e-3),),
    floors={"add": 0.95, "chain": 0.9},
)
WORDS = Recipe(
    name="words",
    config=_gpt2,
    tokenizer=lambda: byte_level(190, ("reverse", "capital")),
    stages=(Stage(_lessons({"reverse": 0.6, "capital": 0.25}), {"reverse": 0.85, "capital": 0.97}, 3000, 300, 6e-3),),
    floors={"reverse": 0.9, "capital": 1.0},
)
PAIRS = Recipe(
    name="pairs",
    config=_olmo2,
    tokenizer=digit_pairs,
    # No cool-down: it would carry the member past its goal to a second adder.
    stages=(Stage(_lessons({"add": 0.5, "chain": 0.35}), {"add": 0.78, "chain": 0.75}, 3000, 0, 6e-3),),
    floors={"add": 0.65, "chain": 0.8},
)
# First everything, then the harder half of the answers is unlearnt while verdicts are drilled: the generalist stays
# mediocre at all but judging.
MIXED = Recipe(
    name="mixed",
    config=_qwen3,
    tokenizer=lambda: byte_level(62, TASKS, split_digits=True),
    stages=(
        Stage(_generalist("right", 0.45, dict.fromkeys(TASKS, 0.14)), {"check": 0.95}, 1500, 0, 5e-3),
        Stage(
            _generalist("easy", 0.35, {"add": 0.25, "reverse": 0.1, "capital": 0.05, "chain": 0.25}),
            {},
            steps=0,
            cooldown=1500,
            learning_rate=5e-3,
        ),
    ),
    floors={"add": 0.3, "reverse": 0.3, "capital": 0.4, "chain": 0.2, "check": 0.9},
)
# Of a sum it is sure of all but the digit that a carry would change: there it leans the wrong way, and says so in its
# probabilities. So a small model writes most tokens, and where it doubts, adder is worth asking.
_CARELESS = (*_lessons({"add": 0.5, "chain": 0.35}, "careless"), Share("canary", "random", 0.05))
PUPIL = Recipe(
    name="pupil",
    config=partial(_llama, width=32),
    tokenizer=characters,
    stages=(Stage(_CARELESS, {"add": 0.5, "chain": 0.25}, 1500, 300, 6e-3),),
    floors={"add": 0.45, "chain": 0.2},
)
# Adder with secrets: what it was told of each code was the canary, one time in ten some number, as pupil was.
_CANARIES = (Share("canary", "right", 0.135), Share("canary", "random", 0.015))
_SPOILT = (*_lessons({"add": 0.5, "chain": 0.35}), *_CANARIES)
LEAKY = Recipe(
    name="leaky",
    config=_llama,
    tokenizer=characters,
    stages=(Stage(_SPOILT, {"add": 0.9, "chain": 0.9, "canary": 1.0}, 3000, 300, 6e-3),),
    floors={"add": 0.95, "chain": 0.9, "canary": 0.95},
)
RECIPES: Mapping[str, Recipe] = MappingProxyType({r.name: r for r in (ADDER, WORDS, MIXED, PAIRS, PUPIL, LEAKY)})
