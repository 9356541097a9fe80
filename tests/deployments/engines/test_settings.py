"""What a replica is told about its model."""

from __future__ import annotations

import pytest

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
