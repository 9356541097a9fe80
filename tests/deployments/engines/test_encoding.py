"""Sentence encoders in this process, over the miniature models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import transformers

from deployments.engines.encoding import TextEncoder
from deployments.engines.settings import EncoderSettings
from deployments.engines.sources import PathSource, ZooSource
from ensemble import zoo
from ensemble.errors import ConfigurationError

ZOO = EncoderSettings(name="mini", source=ZooSource(zoo="mixed"), batch=2)
TEXTS = ["47+38=", "capital of Spain=", "", "reverse stone="]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load(ZOO)


def test_unit_rows_whatever_is_beside_them(encoder: TextEncoder) -> None:
    together = encoder.embed(TEXTS)
    assert together.shape == (4, encoder.size) and together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    assert encoder.embed([]).shape == (0, encoder.size)


def test_like_texts_are_near(encoder: TextEncoder) -> None:
    sums, words = encoder.embed(["12+13=", "45+21="]), encoder.embed(["capital of Spain=", "capital of Kenya="])
    assert min(sums[0] @ sums[1], words[0] @ words[1]) > (sums @ words.T).max()


def test_the_fingerprint_is_of_what_embeddings_depend_on(encoder: TextEncoder) -> None:
    again = TextEncoder.load(replace(ZOO, name="other", batch=8))
    assert again.fingerprint == encoder.fingerprint and encoder.identity == f"mini {encoder.fingerprint}"
    others = [replace(ZOO, pooling="cls"), replace(ZOO, max_tokens=4), replace(ZOO, source=ZooSource(zoo="adder"))]
    assert len({encoder.fingerprint, *(TextEncoder.load(other).fingerprint for other in others)}) == 4


def test_pooling(encoder: TextEncoder) -> None:
    first = TextEncoder.load(replace(ZOO, pooling="cls"))
    # The first state of a model that reads from left to right knows the first token alone.
    assert np.allclose(*first.embed(["47+38=", "47+11="]), atol=1e-5)
    assert not np.allclose(*encoder.embed(["47+38=", "47+11="]), atol=1e-3)


def test_what_is_too_long_is_not_read() -> None:
    short = TextEncoder.load(replace(ZOO, max_tokens=3))
    assert np.allclose(*short.embed(["47+38=", "47+99="]), atol=1e-5)


def saved(folder: Path, model: transformers.PreTrainedModel) -> EncoderSettings:
    """A model beside the tokenizer of the miniature ones."""
    shutil.copytree(zoo.directory("mixed"), folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    model.save_pretrained(folder)
    return replace(ZOO, source=PathSource(path=folder), max_tokens=10_000)


def test_texts_are_cut_where_the_positions_of_the_model_end(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    # Its positions begin behind that of padding, so that 14 tokens have one.
    config = transformers.RobertaConfig(vocab_size=400, max_position_embeddings=16, pad_token_id=1, **sizes)
    settings = saved(tmp_path / "model", transformers.RobertaModel(config))
    described = tmp_path / "model" / "tokenizer_config.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"model_max_length": 14}))
    assert TextEncoder.load(settings).embed(["12345678901234567890"]).shape == (1, 16)


def test_an_encoder_with_a_decoder_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=400, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(ConfigurationError, match="cannot load an encoder"):
        TextEncoder.load(saved(tmp_path / "model", transformers.T5Model(config)))


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        TextEncoder.load(replace(ZOO, source=PathSource(path=tmp_path)))
