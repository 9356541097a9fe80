"""Where two tokenisations meet, and what is said there."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_toys import vocabulary

from ensemble.distributions import likeliest
from ensemble.during.span.alignment import Opinion, disputed, opinions, settled, whole
from ensemble.during.span.drafting import Drafted
from ensemble.member import Scored

WORDS = vocabulary([b"ab", b"a", b"b", b"c", b"bc", b"a", b""])
A, B, C, STOP = 1, 2, 3, 6


def draft(*texts: bytes) -> list[Drafted]:
    listed = likeliest(np.log([0.5, 0.5]), 0)
    return [Drafted(0, text, -1.0, listed) for text in texts]


def scored(ids: list[int], rows: list[list[float]], topk: int = 0) -> Scored:
    logs = [np.log(row) for row in rows]
    return Scored(
        tuple(ids),
        np.array([row[i] for row, i in zip(logs, ids, strict=False)]),
        np.array([row.argmax() for row in logs], np.int32),
        tuple(likeliest(row, topk) for row in logs),
    )


FLAT = [0.1, 0.2, 0.15, 0.15, 0.1, 0.2, 0.1]


def test_places_align_where_tokens_end_together() -> None:
    reading = scored([0, C], [FLAT] * 3)
    assert set(opinions(draft(b"a", b"b", b"c"), reading, WORDS, 0)) == {0, 2}
    assert set(opinions(draft(b"a", b"bc"), reading, WORDS, 0)) == {0}
    assert set(opinions(draft(b"c"), reading, WORDS, 2)) == {0}
    assert set(opinions(draft(b"b", b"c"), reading, WORDS, 1)) == {1}


def test_a_verifier_tells_of_its_own_token() -> None:
    opinion = opinions(draft(b"a", b"b"), scored([0], [FLAT] * 2), WORDS, 0)[0]
    assert opinion == Opinion(0, pytest.approx(0.1), False)


def test_another_id_for_the_same_bytes_is_the_same_token() -> None:
    row = [0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.1]
    assert opinions(draft(b"a"), scored([A], [row, FLAT]), WORDS, 0)[0].agrees


def test_a_stop_is_the_mass_of_all_stop_ids() -> None:
    stops = vocabulary([b"a", b"", b"", b"b"])
    reading = scored([0], [[0.7, 0.1, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]])
    said = opinions(draft(b"a", b""), reading, stops, 0)
    assert said[1] == Opinion(1, pytest.approx(0.5), False)
    assert set(opinions(draft(b"a", b""), reading, stops, 0, stops=False)) == {0}


def test_what_may_not_be_written_is_no_favourite() -> None:
    control = vocabulary([b"a", b"<control>", b"b"])
    row = [0.3, 0.6, 0.1]
    assert opinions(draft(b"a"), scored([0], [row, row]), control, 0)[0].agrees
    assert not opinions(draft(b"b"), scored([2], [row, row]), control, 0)[0].agrees
    assert not opinions(draft(b"b"), scored([2], [row, row], topk=1), control, 0)[0].agrees


@given(st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_only_unsure_drafts_are_disputed_and_only_by_those_who_differ(drafted: float, own: float, agrees: bool) -> None:
    opinion = Opinion(0, own, agrees)
    objection = disputed(drafted, opinion, 0.5, 1.0)
    assert objection == (drafted < 0.5 and drafted + own < 1 and not agrees)
    assert not disputed(drafted, opinion, 0.0, 2.0)


@given(st.text(), st.integers(0, 3))
def test_whole_characters_end_where_they_end(text: str, cut: int) -> None:
    data = text.encode()
    ends = [0, *accumulate(len(c.encode()) for c in text)]
    short = data[: max(0, len(data) - cut)]
    assert whole(short) == max(end for end in ends if end <= len(short))


def test_bytes_that_are_no_character_are_not_waited_for() -> None:
    for broken in (b"a\xff", b"\xa9\xa9\xa9\xa9", b"\xc3a", b"\xf0\x9f\x99\x82\x80"):
        assert whole(broken) == (len(broken) if broken[-1] != 0xFF else len(broken) - 1)


def test_the_last_word_with_enough_behind_it_begins_what_is_read_again() -> None:
    tokens = [b"one", b" two", b" thr", b"ee", b"\n", b" four", b" five"]
    assert [settled(tokens, 24, margin) for margin in (5, 6, 11, 13, 17, 18, 22)] == [6, 4, 4, 2, 2, 1, 0]


def test_the_end_of_what_is_certain_counts() -> None:
    tokens = [b"one", b" two", b" three", b" four"]
    assert [settled(tokens, end, 4) for end in (18, 17, 11, 10, 7, 6)] == [3, 3, 2, 1, 1, 0]


def test_text_without_words_is_cut_far_from_its_end() -> None:
    tokens = ["漢".encode()] * 50 + [b"\xe6", b"\xbc", b"\xa2"] * 2
    assert settled(tokens, 156, margin=10) == 25
    assert settled(tokens[50:] * 20, 120, margin=5) % 3 == 0
    assert settled(tokens, 60, margin=10) == 0
