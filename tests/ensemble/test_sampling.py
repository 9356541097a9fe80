"""Truncated draws: what is kept is what sorting the whole vocabulary would keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.member import Floats
from ensemble.request import Sampling
from ensemble.sampling import processed


def by_sorting(probabilities: Floats, top_k: int, top_p: float) -> set[int]:
    order = np.argsort(-probabilities, kind="stable")
    keep = order[:top_k] if top_k else order
    mass = np.cumsum(probabilities[keep]) / probabilities[keep].sum()
    return set(keep[: int(np.searchsorted(mass, top_p)) + 1].tolist() if top_p < 1 else keep.tolist())


@given(
    size=st.integers(1, 2000),
    spread=st.sampled_from([0.0, 0.5, 4.0]),
    top_k=st.sampled_from([0, 1, 7, 300, 5000]),
    top_p=st.sampled_from([1.0, 0.05, 0.5, 0.9, 0.9999]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_kept_is_what_sorting_would_keep(size: int, spread: float, top_k: int, top_p: float) -> None:
    if not top_k and top_p == 1:
        return
    # Quarters, so that there are ties.
    logprobs = np.round(np.random.default_rng(size).normal(size=size) * spread * 4) / 4
    found = processed(logprobs, Sampling(temperature=1.0, top_k=top_k, top_p=top_p))
    whole = processed(logprobs, Sampling(temperature=1.0))
    assert set(np.flatnonzero(found).tolist()) == by_sorting(whole, top_k, top_p)
    assert found.sum() == pytest.approx(1)
