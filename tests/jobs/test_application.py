"""Which deployment a job's model is asked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.application import _deployment


@pytest.mark.parametrize(
    ("name", "expected"), [("base", "model-base"), ("adapted", "model-base"), ("both", "ensemble-both")]
)
def test_an_adapter_is_asked_at_its_model(name: str, expected: str) -> None:
    configuration = SimpleNamespace(ensembles={"both": None}, bases={"base": "base", "adapted": "base"})
    assert _deployment(cast(Any, configuration), name) == expected
