"""Intervals and tests against cases that can be worked out by hand."""

from __future__ import annotations

from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest

from ensemble.outcomes.bootstrap import interval, means
from jobs.evaluation.statistics import Comparison, compared, points, sign_test


def flags(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


def test_counts_of_a_comparison() -> None:
    found = compared(flags("xxx..x.."), flags("x..x.x.."))
    assert (found.won, found.lost) == (2, 1)
    assert found.difference == pytest.approx(1 / 8)
    assert found.low <= found.difference <= found.high


def test_all_resamples_of_two_questions() -> None:
    # Differences +1 and 0: the mean of two draws is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    drawn = means(np.array([1.0, 0.0]), resamples=40_000, seed=3)
    shares = [float((drawn == value).mean()) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.01)
    assert interval(np.array([1.0, 0.0])) == (0.0, 1.0)


def test_resamples_are_those_of_drawing_questions_one_by_one() -> None:
    # Every one of the 4^4 equally likely resamples, written out, against drawn counts of different values.
    values = np.array([1.0, 1.0, 0.0, -1.0])
    exact = [float(np.mean(draw)) for draw in product(values, repeat=4)]
    drawn = means(values, resamples=60_000, seed=1)
    for mean in sorted(set(exact)):
        assert float((np.abs(drawn - mean) < 1e-9).mean()) == pytest.approx(exact.count(mean) / 256, abs=0.008)


def test_the_interval_is_that_of_the_binomial() -> None:
    # 60 of 100 right: the bootstrap's mean is Binomial(100, 0.6) / 100, whose 2.5 and 97.5 % points are 0.50 and 0.69.
    cumulative = np.cumsum([comb(100, k) * 0.6**k * 0.4 ** (100 - k) for k in range(101)])
    exact = [int(np.searchsorted(cumulative, level)) / 100 for level in (0.025, 0.975)]
    assert exact == [0.50, 0.69]
    assert interval(np.array([1.0] * 60 + [0.0] * 40)) == pytest.approx(exact, abs=0.0101)


def test_pairing_narrows_the_interval() -> None:
    # Both right on the same half: the difference is 0 wherever they agree, though each alone is uncertain.
    own = flags("x" * 50 + "." * 50)
    found = compared(own, own.copy())
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert interval(own.astype(float))[0] < 0.45


@pytest.mark.parametrize(("won", "there", "back"), [(1, "tie", "tie"), (5, "tie", "tie"), (6, "wins", "loses")])
@pytest.mark.parametrize("same", [0, 3])
def test_a_few_questions_prove_nothing_even_if_all_point_one_way(won: int, there: str, back: str, same: int) -> None:
    better, worse = flags("x" * won + "." * same), flags("." * (won + same))
    assert compared(better, worse).verdict.startswith(there)
    assert compared(worse, better).verdict.startswith(back)


def test_one_that_is_always_better_has_no_doubt() -> None:
    found = compared(flags("x" * 20), flags("." * 20))
    assert (found.difference, found.low, found.high, found.won, found.lost) == (1.0, 1.0, 1.0, 20, 0)
    assert found.verdict == "wins by 100.0 [+100.0, +100.0]"


def test_the_other_way_round_is_the_mirror_image() -> None:
    rng = np.random.default_rng(0)
    own, other = rng.random(300) < 0.7, rng.random(300) < 0.6
    there, back = compared(own, other), compared(other, own)
    assert (there.won, there.lost, there.p) == (back.lost, back.won, back.p)
    assert there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.01)


def test_the_interval_covers_what_it_should() -> None:
    # In 400 experiments with a true difference of 0 the interval leaves 0 out in about 5 %.
    rng = np.random.default_rng(5)
    out = 0
    for _ in range(400):
        found = compared(rng.random(150) < 0.6, rng.random(150) < 0.6, resamples=500)
        out += not found.low <= 0 <= found.high
    assert 8 <= out <= 36


@pytest.mark.parametrize(
    ("difference", "low", "high", "verdict"),
    [
        (-0.03, -0.051, -0.009, "loses by 3.0 [−5.1, −0.9]"),
        (0.03, 0.009, 0.051, "wins by 3.0 [+0.9, +5.1]"),
        (0.03, 0.0, 0.06, "tie, +3.0 [0.0, +6.0]"),
        (0.0, 0.0, 0.0, "tie, 0.0 [0.0, 0.0]"),
    ],
)
def test_verdicts(difference: Any, low: Any, high: Any, verdict: Any) -> None:
    assert Comparison(difference, low, high, 1, 2).verdict == verdict


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (4, 4, 1.0),
        (2000, 2000, 1.0),
    ],
)
def test_mcnemar_by_hand(won: Any, lost: Any, p: Any) -> None:
    assert sign_test(won, lost) == pytest.approx(p)
    assert sign_test(lost, won) == sign_test(won, lost)


def test_mcnemar_of_thousands_is_the_normal_one() -> None:
    # 5,300 against 4,700: z = (600 - 1) / 100 with the correction for continuity, two-sided p = erfc(z / √2).
    from math import erfc, sqrt

    assert sign_test(5300, 4700) == pytest.approx(erfc(5.99 / sqrt(2)), rel=0.02)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="the same questions of both"):
        compared(flags("x"), flags("xx"))
    with pytest.raises(ValueError, match="at least one; got 0 and 0"):
        compared(flags(""), flags(""))


def test_points() -> None:
    assert [points(share) for share in (0.1234, -0.004, 0.0004, -1.0)] == ["+12.3", "−0.4", "0.0", "−100.0"]
