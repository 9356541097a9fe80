"""Votes are counted exactly: order never matters, ties go to the declared order, stopping early changes nothing."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.after.fan_out import Place
from ensemble.after.votes import SIMILARITIES, Vote, decided, sentence_bleu, support, tallied, unigram_f1

TEXTS = ["return a + b", "return a + b + 0", "print ( a )"]

keys = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=9)
texts = st.lists(st.text("ab c", max_size=8), min_size=1, max_size=5)


def votes_of(keys: list[str | None], members: int = 3) -> list[Vote]:
    return [Vote((i % members, i // members), key) for i, key in enumerate(keys)]


def winner(votes: list[Vote]) -> tuple[object, Place] | None:
    best = tallied(votes)
    return (best[0].key, best[0].first) if best else None


@given(keys, st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(keys: list[str | None], random: Random) -> None:
    votes = votes_of(keys)
    shuffled = random.sample(votes, len(votes))
    assert tallied(shuffled) == tallied(votes)


@given(keys)
def test_duplicating_every_sample_changes_nothing(keys: list[str | None]) -> None:
    votes = votes_of(keys, members=1)
    again = [Vote((0, vote.place[1] + 100), vote.key) for vote in votes]
    assert winner(votes + again) == winner(votes)


@given(st.sampled_from(["a", None]))
def test_one_sample_is_elected(key: str | None) -> None:
    assert winner([Vote((2, 1), key)]) == (("a", (2, 1)) if key else None)


def test_ties_go_to_the_first_member_then_its_first_sample() -> None:
    assert winner([Vote((1, 0), "b"), Vote((0, 3), "a"), Vote((0, 1), "c")]) == ("c", (0, 1))


def test_no_answer_never_wins() -> None:
    assert winner(votes_of([None, None, None, "a"])) == ("a", (0, 1))


def test_weights_add_exactly() -> None:
    votes = [Vote((0, i), "a", 0.1) for i in range(3)] + [Vote((1, 0), "b", 0.3)]
    assert [(tally.key, float(tally.weight)) for tally in tallied(votes)] == [("a", 0.30000000000000004), ("b", 0.3)]


def test_votes_are_counted_by_name_also_where_members_share_one() -> None:
    (tally,) = tallied([Vote((0, 0), "a"), Vote((1, 0), "a"), Vote((2, 0), "a")])
    assert tally.by_name(["x", "x", "y"]) == {"x": 2, "y": 1}


@pytest.mark.parametrize(("voters", "accuracy"), [(3, 0.784), (5, 0.83692)])
def test_independent_voters_of_accuracy_seventy_percent(voters: int, accuracy: float) -> None:
    right = 0.0
    for outcome in product([True, False], repeat=voters):
        probability = 0.7 ** sum(outcome) * 0.3 ** (voters - sum(outcome))
        elected = winner([Vote((i, 0), "right" if correct else "wrong") for i, correct in enumerate(outcome)])
        right += probability * (elected is not None and elected[0] == "right")
    assert right == pytest.approx(accuracy, abs=1e-12)


@given(keys, st.randoms(use_true_random=False))
def test_a_decided_vote_stays_decided(keys: list[str | None], random: Random) -> None:
    votes = votes_of(keys)
    arrived = random.sample(votes, len(votes))
    for count in range(1, len(votes) + 1):
        if decided(arrived[:count], [vote.place for vote in arrived[count:]]):
            assert winner(arrived[:count]) == winner(votes)


@given(keys, st.integers(0, 8))
def test_an_undecided_vote_can_still_turn(keys: list[str | None], arrived: int) -> None:
    """Stopping is as early as exactness allows: some completion changes the elected candidate, or merely ties."""
    votes = votes_of(keys, members=1)
    seen, missing = votes[:arrived], votes[arrived:]
    places = [vote.place for vote in missing]
    if not decided(seen, places) and seen and winner(seen):
        challenger = max((t.key for t in tallied(seen)[1:]), key=lambda k: sum(v.key == k for v in seen), default="new")
        final = tallied([*seen, *(Vote(place, challenger) for place in places)])
        assert final[0].key == challenger or (len(final) > 1 and final[0].weight == final[1].weight)


def test_the_candidate_that_stands_for_the_answer_must_have_arrived() -> None:
    late_first = [Vote((1, 0), "a"), Vote((1, 1), "a")]
    assert not decided(late_first, [(0, 0)])
    assert decided(late_first, [(1, 2)])


def test_the_medoid_by_f1() -> None:
    matrix = unigram_f1(TEXTS)
    assert [matrix[0][1], matrix[0][2], matrix[1][2]] == pytest.approx([0.8, 0.25, 0.2])
    assert [float(score) for score in support(matrix)] == pytest.approx([1.05, 1.00, 0.45])


def test_the_medoid_by_bleu() -> None:
    matrix = sentence_bleu(TEXTS)
    assert [round(100 * matrix[0][1], 2), round(100 * matrix[1][0], 2)] == [60.65, 50.81]
    assert [round(100 * float(score), 2) for score in support(matrix)] == [76.63, 58.93, 25.66]


@given(texts)
def test_f1_is_symmetric(texts: list[str]) -> None:
    matrix = unigram_f1(texts)
    assert all(matrix[i][j] == matrix[j][i] for i in range(len(texts)) for j in range(len(texts)))


@pytest.mark.parametrize("similarity", sorted(SIMILARITIES))
@given(texts=texts)
def test_similarities_are_shares_and_one_for_the_text_itself(similarity: str, texts: list[str]) -> None:
    matrix = SIMILARITIES[similarity](texts)
    assert all(0 <= value <= 1 + 1e-12 for row in matrix for value in row)
    assert all(matrix[i][i] == pytest.approx(1) for i in range(len(texts)))


@given(texts)
def test_duplicating_every_text_keeps_the_medoid(texts: list[str]) -> None:
    once, twice = support(unigram_f1(texts)), support(unigram_f1(texts + texts))
    assert once.index(max(once)) == twice.index(max(twice))


@given(texts, st.randoms(use_true_random=False))
def test_support_follows_its_text(texts: list[str], random: Random) -> None:
    order = random.sample(range(len(texts)), len(texts))
    before, after = support(sentence_bleu(texts)), support(sentence_bleu([texts[i] for i in order]))
    assert [before[i] for i in order] == after


def test_case_does_not_matter() -> None:
    assert unigram_f1(["Paris", "paris"])[0][1] == 1 and sentence_bleu(["Paris", "PARIS"])[0][1] == 1
