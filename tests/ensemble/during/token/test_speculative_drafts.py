"""Acceptance, residual and draft lengths as pure functions: the worked example, the lemma, and what is measured."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.continuation import difference
from ensemble.during.token.drafting.drafts import (
    Drafting,
    Pace,
    Stream,
    acceptance,
    best_length,
    elected,
    expected,
    residual,
)
from ensemble.during.token.drafting.speculation import draft_lengths
from ensemble.during.token.election.targets import contrast
from ensemble.member import Append, Floats, Replace, Rewind
from ensemble.sampling import uniform

Q, P = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.6, 0.3])


def simplex(size: int) -> st.SearchStrategy[Floats]:
    masses = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1)), min_size=size, max_size=size).filter(
        lambda m: sum(m) > 0.01
    )
    return masses.map(lambda m: np.array(m) / sum(m))


def outcome(target: Floats, draft: Floats) -> Floats:
    """The distribution of what is elected, by adding up over drafts and over what the random numbers decide."""
    result = np.zeros(len(target))
    for token, mass in enumerate(draft):
        if not mass:
            continue
        accepted = min(1.0, target[token] / mass)
        for coin, part in ((accepted / 2, accepted), ((1 + accepted) / 2, 1 - accepted)):
            if part > 0:
                result += mass * part * elected_by_points(target, draft, token, coin)
    return result


def elected_by_points(target: Floats, draft: Floats, token: int, coin: float) -> Floats:
    """Measure of the points in [0, 1) that lead to each token."""
    edges = np.unique(np.clip([0.0, 1.0, *np.cumsum(residual(target, draft))], 0, 1))
    result = np.zeros(len(target))
    for low, high in pairwise(edges):
        result[elected(target, draft, token, coin, (low + high) / 2)] += high - low
    return result


@pytest.mark.parametrize(
    ("share", "target", "accepted"), [(0.5, (0.3, 0.45, 0.25), 0.8), (0.3, (0.22, 0.51, 0.27), 0.72)]
)
def test_worked_example(share: float, target: tuple[float, ...], accepted: float) -> None:
    mean = (1 - share) * P + share * Q
    assert mean == pytest.approx(np.array(target))
    assert acceptance(mean, Q) == pytest.approx(accepted)
    assert acceptance(mean, Q) == pytest.approx(1 - (1 - share) * (1 - acceptance(P, Q)))


def test_worked_example_of_the_residual() -> None:
    target = 0.5 * P + 0.5 * Q
    assert residual(target, Q) == pytest.approx(np.array([0, 0.75, 0.25]))
    assert Q * np.array([0.6, 1, 1]) + 0.2 * residual(target, Q) == pytest.approx(target)
    assert outcome(target, Q) == pytest.approx(target, abs=1e-12)


def test_worked_example_of_a_contrast() -> None:
    expert, amateur = (np.exp(z) / np.exp(z).sum() for z in (np.array([0.5, 1.5, 0]), np.array([1.0, 0, -1])))
    masses = np.exp(contrast(expert, amateur, 0.1, 0.0))
    assert (masses / masses.sum()).round(6).tolist() == [0.210749, 0.633125, 0.156127]


def test_what_the_expert_finds_implausible_cannot_be_elected() -> None:
    expert, amateur = np.array([0.6, 0.399999, 1e-6]), np.array([0.5, 0.5, 1e-60])
    assert np.argmax(contrast(expert, amateur, 1.0, 0.0)) == 2
    assert np.isneginf(contrast(expert, amateur, 1.0, 0.1)).tolist() == [False, False, True]


@given(simplex(4), simplex(4))
def test_what_is_elected_is_distributed_as_the_target(target: Floats, draft: Floats) -> None:
    assert outcome(target, draft) == pytest.approx(target, abs=1e-9)


@given(simplex(3), simplex(5), st.floats(0, 0.999))
def test_drafts_outside_of_the_target_are_rejected(target: Floats, draft: Floats, coin: float) -> None:
    """A decision among few: the lemma holds with the draft's masses of these alone."""
    inside = draft[:3]
    result = sum(
        (mass * min(1, r / mass)) * np.eye(3)[i] for i, (r, mass) in enumerate(zip(target, inside, strict=True)) if mass
    )
    rejected = 1 - np.sum(result)
    assert result + rejected * residual(target, inside) == pytest.approx(target, abs=1e-9)
    assert residual(target, inside)[elected(target, inside, None, coin, 0.5)] > 0


@given(simplex(5), st.integers(0, 4), st.floats(0, 1, exclude_max=True))
def test_a_draft_of_the_target_itself_is_accepted(target: Floats, token: int, coin: float) -> None:
    if target[token] > 0:
        assert elected(target, target, token, coin, 0.5) == token


def test_streams_are_not_those_of_the_members() -> None:
    numbers = {uniform(seed, position) for seed in [7, *(s.seed(7) for s in Stream)] for position in range(50)}
    assert len(numbers) == 200
    assert Stream.ACCEPT.seed(7) == Stream.ACCEPT.seed(7) != Stream.ACCEPT.seed(8)


@pytest.mark.parametrize(
    ("drafts", "per_token", "gain"), [(2, 3.333, 1.5), (3, 2.869, 1.743), (5, 2.677, 1.868), (8, 2.884, 1.734)]
)
def test_published_costs(drafts: int, per_token: float, gain: float) -> None:
    """Without the token that verifying adds: a serial ensemble takes 5 for a token, t_q = 1, t_p = 4, a = .8."""
    cost = (drafts + 4) / expected(0.8, drafts - 1)
    assert (round(cost, 3), round(5 / cost, 3)) == (per_token, gain)


@given(st.floats(0, 1), st.floats(0.1, 10), st.floats(0.1, 10), st.integers(1, 12))
def test_the_best_length_is_the_best(accepted: float, draft: float, verify: float, longest: int) -> None:
    def rate(n: int) -> float:
        return sum(accepted**i for i in range(n + 1)) / (n * draft + verify) if n else 1 / max(draft, verify)

    best = best_length(accepted, draft, verify, longest)
    assert rate(best) == pytest.approx(max(map(rate, range(longest + 1))))


def test_lengths_follow_acceptance() -> None:
    pace = Pace(Drafting(longest=12), {0: 4, 1: 1}, timed=True)
    assert (pace.length(0), pace.length(1)) == (4, 1)
    for _ in range(100):
        pace.judged(0, 1.0)
    assert pace.length(0) == 12
    for _ in range(100):
        pace.judged(0, 0.0)
    lengths = [pace.length(0) for _ in range(34)]
    assert lengths == ([0] * 16 + [1]) * 2
    assert pace.length(1) == 1


def test_fixed_lengths_stay() -> None:
    pace = Pace(Drafting(adaptive=False), {0: 4}, timed=True)
    for _ in range(100):
        pace.judged(0, 0.0)
    assert pace.length(0) == 4


@pytest.mark.parametrize("timed", [True, False])
def test_lengths_follow_times_only_where_nothing_is_drawn(timed: bool) -> None:
    def length(verify: float) -> int:
        pace = Pace(Drafting(), {0: 4, 1: 1}, timed=timed)
        pace.judged(0, 0.8)
        pace.drafted(0, 4, 0.4)
        pace.verified(1, verify)
        return pace.length(0)

    assert (length(0.11) < length(5.0)) is timed


def test_running_ahead_takes_no_longer_than_verifying() -> None:
    pace = Pace(Drafting(adaptive=False), {0: 8, 1: 1}, timed=True)
    assert pace.ahead(0) == 8
    pace.drafted(0, 2, 0.2)
    pace.verified(1, 0.35)
    assert pace.ahead(0) == 3


def test_who_drafts() -> None:
    assert draft_lengths(Drafting(), [0, 1, 2], 3) == {0: 5, 1: 1, 2: 1}
    assert draft_lengths(Drafting(), [1, 2], 3) == {1: 5, 2: 1}
    assert list(draft_lengths(Drafting(lengths=(1, 4, 2)), [0, 2], 3)) == [1, 2, 0]
    assert draft_lengths(Drafting(lengths=(4, 1)), [0], 2) == {0: 4}


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_the_difference_makes_one_end_the_other(held: list[int], wanted: list[int]) -> None:
    edit = difference(held, wanted)
    if edit is None:
        assert held == wanted
        return
    dropped = edit.count if isinstance(edit, Rewind | Replace) else 0
    added = edit.ids if isinstance(edit, Append | Replace) else ()
    assert [*held[: len(held) - dropped], *added] == wanted
    assert dropped == 0 or not added or held[len(held) - dropped] != added[0]
