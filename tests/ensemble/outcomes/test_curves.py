"""Quality against cost: the hull, its area, and the figures that sum it up."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.outcomes.curves import Point, aiq, area, arena, gain, hull, pareto, pareto_distance, saving

numbers = st.integers(0, 100).map(lambda number: number / 10)
points = st.builds(Point, numbers, numbers.map(lambda number: number + 0.1))
clouds = st.lists(points, min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("points", "corners"),
    [
        ([(1, 50)], [(1, 50)]),
        ([(1, 50), (2, 60), (3, 65)], [(1, 50), (2, 60), (3, 65)]),
        ([(1, 50), (2, 52), (3, 65)], [(1, 50), (3, 65)]),
        ([(1, 50), (2, 57.5), (3, 65)], [(1, 50), (3, 65)]),
        ([(1, 65), (2, 60), (3, 65)], [(1, 65)]),
        ([(1, 50), (1, 55), (2, 55), (2, 56)], [(1, 55), (2, 56)]),
        ([(2, 80), (1, 20), (4, 90), (3, 60), (3, 86)], [(1, 20), (2, 80), (3, 86), (4, 90)]),
    ],
)
def test_the_hull(points: Any, corners: Any) -> None:
    assert hull([Point(*point) for point in points]) == corners


def test_nothing_is_above_the_hull() -> None:
    rng = np.random.default_rng(2)
    points = [Point(*map(float, pair)) for pair in rng.random((60, 2))]
    corners = hull(points)
    assert set(corners) <= set(points)
    prices, qualities = zip(*corners, strict=True)
    for point in points:
        assert point.quality <= np.interp(point.cost, prices, qualities) + 1e-12


@given(clouds, points)
def test_a_point_under_the_hull_changes_nothing_and_one_above_it_enlarges_the_area(
    cloud: list[Point], other: Point
) -> None:
    before, after = area(cloud, 0, 11), area([*cloud, other], 0, 11)
    costs, qualities = zip(*hull(cloud), strict=True)
    reached = np.interp(other.cost, costs, qualities) if other.cost >= costs[0] else 0.0
    if other.quality <= reached:
        assert after == pytest.approx(before)
    else:
        assert after > before


@given(clouds)
def test_the_hull_of_all_has_no_less_area_than_any_single_point(cloud: list[Point]) -> None:
    whole = aiq(cloud, "largest", high=10.0)
    assert all(whole >= aiq([point], "largest", high=10.0) - 1e-9 for point in cloud)


CORNERS = [Point(1, 0.5), Point(2, 0.7), Point(4, 0.8)]


def test_both_normalisations_of_aiq() -> None:
    assert aiq(CORNERS, "range") == pytest.approx(0.70, abs=5e-7)
    assert aiq(CORNERS, "largest") == pytest.approx(0.525, abs=5e-7)


def test_a_common_range_extends_the_curve_to_the_right_at_its_best_quality() -> None:
    # To the area of 2.1 between 1 and 4 comes 0.8 for each unit up to 6.
    assert aiq(CORNERS, "range", low=1, high=6) == pytest.approx((2.1 + 1.6) / 5)
    assert aiq(CORNERS, "largest", high=6) == pytest.approx((2.1 + 1.6) / 6)


def test_nothing_is_reached_left_of_the_cheapest_point() -> None:
    assert area(CORNERS, 0, 1) == 0
    assert area(CORNERS, 0, 4) == area(CORNERS, 1, 4) == pytest.approx(2.1)
    assert area(CORNERS, 1.5, 2) == pytest.approx(0.5 * 0.65)


def test_an_area_needs_costs_in_order() -> None:
    with pytest.raises(ValueError, match="in order; got 2 and 1"):
        area(CORNERS, 2, 1)


def test_without_a_length_there_is_no_average() -> None:
    assert isnan(aiq([Point(0, 0.5)], "range")) and isnan(aiq([Point(0, 0.5)], "largest"))


def test_gain_and_saving_against_a_single_member() -> None:
    single = Point(4, 0.7)
    assert gain(CORNERS, single) == pytest.approx(0.8 / 0.7 - 1)
    assert saving(CORNERS, single) == pytest.approx(0.5)
    assert saving([Point(5, 0.7)], single) == pytest.approx(-0.25)
    assert isnan(saving([Point(1, 0.69)], single)) and isnan(saving(CORNERS, Point(0, 0.1)))


def test_the_front_and_the_distance_to_it() -> None:
    cloud = [*CORNERS, Point(2, 0.6), Point(4, 0.8), Point(5, 0.8)]
    assert pareto(cloud) == CORNERS
    assert pareto_distance(CORNERS, cloud) == 0
    # All points span 4 in cost and 0.3 in quality: a third of a unit down from (2, 0.7).
    assert pareto_distance([Point(2, 0.6)], cloud) == pytest.approx(1 / 3)
    assert pareto_distance([Point(2, 0.6), Point(2, 0.7)], cloud) == pytest.approx(1 / 6)


def test_the_arena_score() -> None:
    assert arena(0.70, 1.0) == pytest.approx(0.674439, abs=5e-7)
    assert arena(0.75, 10.0) == pytest.approx(0.650378, abs=5e-7)
    assert arena(0.7, 200.0) == 0 == arena(0.0, 200.0)
    assert arena(0.7, 0.0044) == arena(0.7, 0.001) == pytest.approx(1.1 * 0.7 / 1.07)
