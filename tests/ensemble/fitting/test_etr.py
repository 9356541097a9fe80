"""What a fit of expert rows refuses, and what it says of queries that are not there; how rows learn is tested with the
method."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.errors import ConfigurationError
from ensemble.fitting.etr import EtrFit, accuracies, fit


@pytest.mark.parametrize("option", [{"epochs": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}, {"batch": 0}])
def test_options_out_of_bounds_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="must be") as refused:
        EtrFit(**option)  # type: ignore[arg-type]
    assert refused.value.param == next(iter(option))


def test_rows_take_queries() -> None:
    with pytest.raises(ConfigurationError, match="one query at least"):
        fit(np.zeros((0, 3)), np.zeros(0), np.zeros(0, int), np.zeros(3), 1)


def test_of_no_queries_nothing_is_told() -> None:
    # A figure that is no number cannot be read back from a manifest.
    assert accuracies(np.zeros(0, int), np.zeros(0, int), ["a"]) == {}
    assert accuracies(np.array([1, 0]), np.array([1, 1]), ["a"]) == {"accuracy": 0.5, "accuracy.a": 0.5}
