"""Models of other kinds than the usual: computed as by themselves, or refused; never merely wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from random_models import CONTEXT, engine_of

from deployments.engines.batch import Row
from deployments.engines.engine import EngineMember
from deployments.engines.forward import Forward
from ensemble.concurrency import together
from ensemble.errors import BadRequest, ConfigurationError, ContextTooLong
from ensemble.request import Request

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON = {"vocab_size": 300, "max_position_embeddings": CONTEXT, "initializer_range": 0.3, "pad_token_id": 0, **SIZES}
SERVED: dict[str, dict[str, Any]] = {
    # Attention written out in the model's code, with sinks; every second layer slides.
    "gpt_oss": {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "sliding_window": 4},
    "granite_swa": {"num_key_value_heads": 2, "sliding_window": 4},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 4, "sliding_window": 4},
    "cohere": {"num_key_value_heads": 2, "logit_scale": 0.1},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48},
    # What is cached is of other sizes for keys than for values.
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 4,
        "qk_nope_head_dim": 8,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    },
    # The last layers read the caches of others; hidden states are listed for several streams at once.
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 4,
        "laurel_rank": 4,
        "vocab_size_per_layer_input": 300,
        "hidden_size_per_layer_input": 8,
        "intermediate_size": 48,
    },
}
REFUSED: dict[str, dict[str, Any]] = {
    "bert": {},
    "mpt": {"max_seq_len": CONTEXT},
    "bloom": {},
    "rwkv": {"attention_hidden_size": 32},
    "bart": {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 4},
}


def model_of(architecture: str, fields: dict[str, Any]) -> Any:
    standard = transformers.AutoConfig.for_model(architecture)
    known = {*standard.to_dict(), *standard.attribute_map}
    config = transformers.AutoConfig.for_model(architecture, **{k: v for k, v in COMMON.items() if k in known} | fields)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("architecture", sorted(SERVED))
def test_in_parts_and_in_trees_it_computes_what_it_does_by_itself(architecture: str) -> None:
    model = model_of(architecture, SERVED[architecture])
    ids = list(range(65, 85))
    with torch.inference_mode():
        alone = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1).numpy()
    forward = Forward(model, 3)
    forward([Row(0, 0, ids[:9])], 1, False)
    branches, whole = forward(
        [Row(0, 9, [ids[9], 90, ids[10]], [-1, -1, 0], [0, 2]), Row(1, 0, ids, None, [19])], 1, True
    )
    assert branches.hidden is not None and branches.hidden.shape == (2, 32)
    np.testing.assert_allclose([branches.row(0), branches.row(1), whole.row(0)], alone[[9, 10, 19]], atol=1e-4)


@pytest.mark.parametrize("architecture", sorted(REFUSED))
def test_what_it_would_compute_wrongly_is_refused(architecture: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot serve .*allowed: decoder-only"):
        Forward(model_of(architecture, REFUSED[architecture]), 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_alike_and_told_in_whole(dtype: torch.dtype) -> None:
    forward = Forward(model_of("gpt_oss", SERVED["gpt_oss"]).to(dtype), 2)
    for hidden in (False, True):
        (logits,) = forward([Row(0, 0, [65, 66, 67], None, [2])], 5, hidden)
        assert logits.row(0).dtype == np.float32 and np.exp(logits.row(0)).sum() == pytest.approx(1, abs=1e-3)
        assert (logits.hidden is not None and logits.hidden.shape == (1, 32)) if hidden else logits.hidden is None


@pytest.mark.parametrize("slots", [1, 2])
def test_one_slot_is_enough_to_try_a_model(slots: int) -> None:
    Forward(model_of("mixtral", SERVED["mixtral"]), slots)


def test_a_head_that_scales_is_spared_for_tokens_that_want_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("cohere", SERVED["cohere"])
    forward = Forward(model, 2)
    heights = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _, given, __: heights.append(given[0].shape[-2]))
    forward([Row(0, 0, list(range(65, 75)))], 1, False)
    forward([Row(0, 10, [75], None, [0])], 1, False)
    assert heights == [0, 1]


async def test_a_continuation_beyond_the_context_is_refused_and_harms_nobody() -> None:
    engine = engine_of("gpt2")
    member = EngineMember(engine)
    async with await member.start(Request.of("hello")) as session, await member.start(Request.of("other")) as other:
        room = CONTEXT - len("hello")
        outcomes = await together([_outcome(session.score([70] * (room + 1))), _outcome(other.next(3))])
        assert isinstance(outcomes[0], ContextTooLong) and not isinstance(outcomes[1], Exception)
        assert len((await session.score([70] * room))[0].logprobs) == room
    await engine.shut()


async def _outcome(work: Any) -> Any:
    try:
        return await work
    except Exception as error:
        return error


async def test_a_prompt_with_tokens_that_the_model_has_no_row_for_is_refused() -> None:
    engine = engine_of("llama")
    engine._prompts = lambda request: [5, engine.vocabulary.size]  # type: ignore[assignment]
    member = EngineMember(engine)
    with pytest.raises(BadRequest, match="the prompt has the token"):
        await member.start(Request.of("hello"))
    with pytest.raises(BadRequest, match="the prompt has the token"):
        await member.answer(Request.of("hello"))
    assert engine.stats()["open_sessions"] == 0
    await engine.shut()
