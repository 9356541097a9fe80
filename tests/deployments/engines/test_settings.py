"""What a replica is told about its model."""

from __future__ import annotations

import pytest
from transformers import Phi3Config

from deployments.engines.loading import _context as context
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import ZooSource
from ensemble.errors import ConfigurationError


def settings(context_length: int | None = None) -> ModelSettings:
    return ModelSettings(name="m", source=ZooSource(zoo="adder"), context_length=context_length)


def test_the_context_is_what_was_asked_for_within_what_was_trained() -> None:
    assert settings().context_of(100) == 100
    assert settings(60).context_of(100) == 60
    assert settings(60).context_of(None) == 60
    with pytest.raises(ConfigurationError, match="was trained for 100 at most"):
        settings(101).context_of(100)
    with pytest.raises(ConfigurationError, match="set context_length"):
        settings().context_of(None)


def test_a_model_that_rotates_otherwise_far_out_is_served_as_far_as_it_does_not() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    lengths = {"max_position_embeddings": 64, "original_max_position_embeddings": 16}
    longrope = Phi3Config(**sizes, **lengths, rope_parameters=rope)
    assert context(settings(), longrope) == 16
    assert context(settings(12), longrope) == 12
    with pytest.raises(ConfigurationError, match="allowed: 16 at most, or the engine vllm"):
        context(settings(17), longrope)
    assert context(settings(), Phi3Config(**sizes, **lengths)) == 64
