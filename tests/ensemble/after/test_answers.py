"""Answers are found and compared without tolerance, so that agreement is an equivalence."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.after.answers import exact, extract, numeric, one_group
from ensemble.errors import BadAnswer

ANSWER = re.compile(r"answer (\S+)")


def test_the_last_match_is_the_answer() -> None:
    assert extract("answer 8\nno, answer 87\n", ANSWER) == "87"


@pytest.mark.parametrize("text", ["", "so it is 87", "answer "])
def test_no_match_is_no_answer(text: str) -> None:
    assert extract(text, ANSWER) is None


def test_an_empty_or_absent_group_is_no_answer() -> None:
    assert extract("answer", re.compile(r"answer( \d+)?")) is None
    assert extract("answer: ", re.compile(r"answer:(.*)")) is None


def test_without_a_pattern_the_text_is_the_answer() -> None:
    assert extract(" Buenos Aires\n", None) == "Buenos Aires" and extract(" \n", None) is None


@pytest.mark.parametrize("pattern", [r"answer \d+", r"(answer) (\d+)"])
def test_a_pattern_needs_one_group(pattern: str) -> None:
    with pytest.raises(ValueError, match="exactly one group"):
        one_group(re.compile(pattern))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("42", 42),
        ("042", 42),
        ("42.0", 42),
        ("42.", 42),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("-3", -3),
        ("−3", -3),
        ("$-3", -3),
        ("-$3", -3),
        ("1,234,567.5", Fraction("1234567.5")),
        ("1e3", 1000),
        (" 7 ", 7),
    ],
)
def test_numbers_have_exact_values(answer: str, value: Fraction | int) -> None:
    assert numeric(answer) == value


@pytest.mark.parametrize(
    "answer", ["", "-", ".", "e5", "12 apples", "1,23", "1/0", "1e999", "12%", "nan", "inf", "9" * 101]
)
def test_other_texts_are_no_numbers(answer: str) -> None:
    assert numeric(answer) is None


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=3))
def test_spellings_of_one_number_agree(number: Fraction) -> None:
    assert numeric(f"{number:,f}") == numeric(f"{number:f}0") == Fraction(number)


@given(st.text(max_size=30))
def test_any_text_has_a_number_or_none(text: str) -> None:
    assert numeric(text) is None or isinstance(numeric(text), Fraction)
    assert exact(text) == text


def test_a_pattern_that_would_search_for_ever_is_given_up() -> None:
    slow = one_group(re.compile(r"((?:a|a)+)c"))
    assert extract("aac", slow) == "aa"
    with pytest.raises(BadAnswer, match=r"still at a text of 41 characters after .* without repeats of repeats"):
        extract("a" * 40 + "b", slow)


def test_flags_of_a_pattern_are_kept() -> None:
    assert extract("ANSWER\n8", re.compile(r"answer.(\d)", re.IGNORECASE | re.DOTALL)) == "8"
    assert extract("answer é", re.compile(r"answer (\w)", re.ASCII)) is None
    assert extract("answer é", re.compile(r"answer (\w)")) == "é"
