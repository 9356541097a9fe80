"""A class that every member likes best by far is elected by any mean, and nothing weaker is taken for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import CONTROL, vocabulary

from ensemble.distributions import likeliest, log_softmax
from ensemble.during.token.election.ballot import favourite
from ensemble.during.token.lockstep import Decision
from ensemble.member import Floats
from ensemble.vocabulary import STOP, Union, Vocabulary

STRINGS = (b"", CONTROL, b"a", b"b", b"ab", b"c")
vocabularies = st.lists(st.sampled_from(STRINGS), min_size=2, max_size=10).map(vocabulary)


def told(union: Union, rows: Sequence[Floats], k: int = 2) -> Decision | None:
    listed = [likeliest(row, k) for row in rows]
    weights = {2 * member: 1 / len(rows) for member in range(len(rows))}
    return favourite(union, weights, [(d.ids, d.probabilities) for d in listed])


def masses(union: Union, rows: Sequence[Floats]) -> Floats:
    """Shape [M, classes]; control ids left out."""
    found = np.zeros((len(rows), union.size))
    for member, row in enumerate(rows):
        written = union.classes[member] >= STOP
        np.add.at(found[member], union.classes[member][written], np.exp(row[written]))
    return found


@given(
    st.lists(vocabularies, min_size=1, max_size=3), st.integers(0, 2**32), st.sampled_from([1.0, 4.0, 9.0]), st.data()
)
@settings(max_examples=200, deadline=None)
def test_it_leads_at_every_member(members: list[Vocabulary], seed: int, spread: float, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    union = Union(members)
    rows = [log_softmax(spread * rng.standard_normal(v.size)) for v in members]
    decision = told(union, rows, data.draw(st.integers(1, 10)))
    if decision is not None:
        each = masses(union, rows)
        (winner,) = {int(row.argmax()) for row in each}
        assert union.bytes_of(winner) == decision.text
        assert list(decision.shares) == list(decision.spelling) == [2 * member for member in range(len(rows))]
        np.testing.assert_allclose(list(decision.shares.values()), each[:, winner] / len(rows))
        assert all(int(union.classes[seat // 2][ids[0]]) == winner for seat, ids in decision.spelling.items())


def test_who_agrees_is_seen_in_two_tokens() -> None:
    union = Union([vocabulary((b"a", b"b", b"")), vocabulary((b"b", b"a", b""))])
    peaked = [np.log([0.5, 0.3, 0.2]), np.log([0.3, 0.4, 0.3])]
    decision = told(union, peaked)
    assert decision is not None and decision.text == b"a" and decision.spelling == {0: (0,), 2: (1,)}
    assert told(union, peaked, k=1) is None, "what a list leaves out may be as likely as its only token"
    assert told(union, [peaked[0], np.log([0.4, 0.3, 0.3])]) is None, "the second likes b best"
    assert told(union, [peaked[0], np.log([0.4, 0.4, 0.2])]) is None, "a tie is for the order of bytes to decide"


def test_ids_that_are_alike_count_together() -> None:
    union = Union([vocabulary((b"a", b"b", b"b", b""))])
    assert told(union, [np.log([0.4, 0.3, 0.2, 0.1])]) is None, "both ids of b may have 0.3"
    assert told(union, [np.log([0.7, 0.1, 0.1, 0.1])]) is not None
    assert told(union, [np.log([0.1, 0.8, 0.05, 0.05])]) is None, "which id of b is written depends on both"
    stops = Union([vocabulary((b"a", b"b", b"", b""))])
    assert told(stops, [np.log([0.4, 0.01, 0.3, 0.29])]) is None, "both stop ids count as one"


def test_a_control_id_is_nobodys_favourite() -> None:
    union = Union([vocabulary((CONTROL, b"a", b""))])
    assert told(union, [np.log([0.8, 0.15, 0.05])]) is None
