"""What a model computes and is no distribution is refused with its reason, so that it is counted by it."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.engines.work import finite
from ensemble.errors import BadAnswer


@pytest.mark.parametrize("row", [[np.nan] * 3, [np.nan, -1.0, -2.0]])
def test_rows_that_hold_no_numbers_are_counted_as_such(row: list[float]) -> None:
    with pytest.raises(BadAnswer) as refused:
        finite(np.array(row))
    assert refused.value.reason == "nan"


def test_impossible_tokens_are_numbers() -> None:
    row = np.array([-np.inf, 0.0])
    assert finite(row) is row
