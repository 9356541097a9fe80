"""Ratings: five digits, scored by the model that is asked."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.before.asking.ratings import rating_odds, ratings
from ensemble.testing import ScriptedMember

DIGITS = [b"1", b"2", b"3", b"4", b"5", b"x", b""]


async def test_ratings_are_a_softmax_over_five_digits() -> None:
    rater = ScriptedMember("rater", DIGITS, [{b"1": 0.1, b"2": 0.1, b"3": 0.2, b"4": 0.3, b"5": 0.1, b"x": 0.2}])
    found = await ratings(rater, "{question} {member}", "why?", "small")
    assert found == pytest.approx(np.array([1, 1, 2, 3, 1]) / 8)
    assert rater.open_sessions == 0


async def test_the_model_is_shown_question_and_member() -> None:
    rater = ScriptedMember("rater", DIGITS, [{b"4": 1.0}])
    shown: list[str] = []
    rater.prompt_ids = lambda request: shown.append(request.question) or []  # type: ignore[func-returns-value, method-assign]
    await ratings(rater, "How would {member} do on: {question}", "a {member}?", "small")
    assert shown == ["How would small do on: a {member}?"]


def test_where_no_rating_is_possible_all_are_alike() -> None:
    assert rating_odds(np.full(5, -np.inf)) == pytest.approx([0.2] * 5)
