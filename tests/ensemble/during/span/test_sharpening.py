"""Which class wins where none has half of the mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.during.span.sharpening import collected, geometric, sharpened

STRINGS = [b"Par", b"Pari", b"Paris", b"the", b"x", b"y"]
MASSES = np.array([[0.10, 0, 0.28, 0.35, 0.27, 0], [0.30, 0.05, 0.05, 0.25, 0, 0.35]])
HALVES = [0.5, 0.5]

rows = st.lists(st.floats(0.01, 1), min_size=6, max_size=6)


def test_the_worked_example() -> None:
    assert collected(STRINGS, MASSES.mean(0))[0] == pytest.approx(0.78 / 2)
    assert geometric(MASSES, HALVES)[3] == pytest.approx(0.295804, abs=1e-6)


def test_strings_of_little_mass_collect_nothing() -> None:
    mean = np.array([0.09, 0.4, 0.01, 0.2, 0.2, 0.1])
    assert collected([b"a", b"ab", b"abc", b"x", b"y", b"z"], mean)[:2] == pytest.approx([0.09, 0.41])


@pytest.mark.parametrize("beginning", [b" ", b""])
def test_blank_and_stop_collect_nothing(beginning: bytes) -> None:
    mean = np.array([0.3, 0.4, 0.3])
    assert collected([beginning, b" a", b" b"], mean).tolist() == mean.tolist()


def test_only_the_ten_likeliest_count() -> None:
    strings = [b"a", *(bytes([98 + n]) for n in range(9)), b"ab"]
    mean = np.array([0.2, *[0.08] * 9, 0.07])
    assert collected(strings, mean)[0] == pytest.approx(0.2)
    assert collected([b"a", *strings[2:]], np.delete(mean, 1))[0] == pytest.approx(0.27)


@pytest.mark.parametrize("how", ["heur", "geom", "none"])
def test_half_of_the_mean_wins_as_it_is(how) -> None:
    masses = np.array([[0.0, 1.0, 0.0], [0.9, 0.0, 0.1]])
    assert sharpened(how, [b"a", b"b", b"ba"], masses, masses.mean(0), HALVES) == 1


def test_without_a_common_class_the_mean_decides() -> None:
    masses = np.array([[0.45, 0.55, 0.0, 0.0], [0.0, 0.0, 0.8, 0.2]])
    assert sharpened("geom", [b"a", b"b", b"c", b"d"], masses, masses.mean(0), HALVES) == 2


@given(rows, rows, st.sampled_from(["geom", "none"]))
def test_members_that_agree_win_in_any_way(left, right, how) -> None:
    masses = np.array([left, right])
    masses[:, 3] = 2
    masses /= masses.sum(1, keepdims=True)
    assert sharpened(how, STRINGS, masses, masses.mean(0), HALVES) == 3


@given(rows, rows, st.sampled_from(["heur", "geom", "none"]))
def test_the_order_of_members_does_not_matter(left, right, how) -> None:
    masses = np.array([left, right])
    masses /= masses.sum(1, keepdims=True)
    swapped = masses[::-1]
    assert sharpened(how, STRINGS, masses, masses.mean(0), HALVES) == sharpened(
        how, STRINGS, swapped, swapped.mean(0), HALVES
    )
