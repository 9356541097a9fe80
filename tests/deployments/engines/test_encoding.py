"""Sentence encoders in this process, over the miniature models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deployments.engines.encoding import TextEncoder
from deployments.engines.settings import EncoderSettings
from deployments.engines.sources import PathSource, ZooSource
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


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        TextEncoder.load(replace(ZOO, source=PathSource(path=tmp_path)))
