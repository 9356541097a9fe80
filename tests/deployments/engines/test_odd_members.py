"""Members of odd tokenizers decode together: special ids amid the vocabulary, rows without a token, no stop at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import torch
import transformers
from random_models import ARCHITECTURES
from test_tokenisation import gemma, llama2, squeezing
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from deployments.engines.engine import EngineMember
from deployments.engines.loading import Loaded, engine_over
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import ZooSource
from deployments.engines.tokenisation import tokeniser_of
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.request import Request


def in_the_middle() -> PreTrainedTokenizerFast:
    """Bytes, a special token and an end token amid them, and a text token of the same bytes as another."""
    alphabet = [*bytes_to_unicode().values()]
    words = [*alphabet[:100], "<|pad|>", "<|end|>", *alphabet[100:], "th", "the"]
    backend = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [("t", "h"), ("th", "e")]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
    backend.add_special_tokens(["<|pad|>", "<|end|>"])
    backend.add_tokens([" the", "\n\n"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")


def endless() -> PreTrainedTokenizerFast:
    tokenizer = squeezing()
    tokenizer.eos_token = None
    return tokenizer


MEMBERS = {"a": ("gpt2", in_the_middle, 9), "b": ("gemma3", gemma, 64), "c": ("qwen2", endless, 0)}
"""Architecture, tokenizer, and rows beyond it; all but the twin are of different vocabularies."""
TWINS = {"a": ("gpt2", llama2, 5), "b": ("gemma3", llama2, 5)}


async def member(name: str, architecture: str, make: Any, surplus: int) -> EngineMember:
    tokenizer = make()
    config = ARCHITECTURES[architecture]()
    config.vocab_size, config.eos_token_id = len(tokenizer) + surplus, tokenizer.eos_token_id
    torch.manual_seed(ord(name))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    loaded = Loaded(model, tokenizer, tokeniser_of(model, tokenizer))
    settings = ModelSettings(name=name, source=ZooSource(zoo="adder"), slots=6)
    return EngineMember(await engine_over(loaded, settings))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def members() -> AsyncIterator[dict[str, list[EngineMember]]]:
    made = {
        kind: [await member(name, *shape) for name, shape in shapes.items()]
        for kind, shapes in {"apart": MEMBERS, "alike": TWINS}.items()
    }
    yield made
    for one in (one for those in made.values() for one in those):
        assert one._engine.stats()["open_sessions"] == one._engine.stats()["running"] == 0
        await one._engine.shut()


METHODS: list[tuple[str, str, dict[str, Any]]] = [
    ("gac", "apart", {}),
    ("gac", "apart", {"threshold": 0.3}),
    ("unite", "apart", {}),
    ("unite", "apart", {"duplicates": "keep"}),
    ("unite", "apart", {"fidelity": "reference"}),
    ("core", "apart", {}),
    ("packllm", "apart", {}),
    ("packllm", "apart", {"weights": "opt"}),
    ("safe", "apart", {}),
    ("byte_level", "apart", {}),
    ("byte_level", "apart", {"combine": "product"}),
    ("abe", "apart", {"beam": 1}),
    ("abe", "apart", {"beam": 2}),
    ("r2r", "alike", {"entropy": 3.0}),
    ("speculative_ensemble", "alike", {}),
    ("purify", "alike", {}),
]


def ensemble(method: str, members: list[EngineMember], options: dict[str, Any]) -> Ensemble:
    return Ensemble("e", method, members, options=options)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "kind", "options"), METHODS)
async def test_answers_are_whole_and_the_same_again(members, method: str, kind: str, options: dict[str, Any]) -> None:
    pair = ensemble(method, members[kind], options)
    request = Request.of("the naïve 中文 <|end|></s>\n", max_tokens=10)
    first, *others = await together(pair.answer(request) for _ in range(3))
    assert first.text and [other.text for other in others] == [first.text] * 2
    assert {usage.calls for usage in first.usage.values()} <= {1, 2, 3} and len(first.usage) >= 1
    assert first.choices[0].finish_reason in ("length", "stop")
    stop = first.text[1:3]
    cut = await pair.answer(Request.of("the naïve 中文 <|end|></s>\n", max_tokens=10, stop=(stop,)))
    assert cut.text == first.text[: first.text.index(stop)] and cut.choices[0].finish_reason == "stop"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("method", "kind", "options"), [m for m in METHODS if m[0] not in ("safe", "abe")])
async def test_draws_follow_their_seed_and_reports_their_text(
    members, method: str, kind: str, options: dict[str, Any]
) -> None:
    pair = ensemble(method, members[kind], options)
    drawn = Request.of("the", max_tokens=6, temperature=1.0, top_p=0.9, seed=3)
    assert (await pair.answer(drawn)).text == (await pair.answer(drawn)).text
    answer = await pair.answer(Request.of("the", max_tokens=6, logprobs=3))
    tokens = answer.choices[0].tokens
    assert b"".join(token.token for token in tokens).decode(errors="replace") == answer.text
    assert all(token.logprob <= 1e-6 and token.logprob <= token.top[0][1] + 1e-6 for token in tokens)
