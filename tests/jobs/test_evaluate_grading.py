from __future__ import annotations

from fractions import Fraction
from time import perf_counter
from typing import Any

import pytest

from ensemble.errors import BadRequest
from ensemble.zoo.tasks import check, generate_mixed
from jobs.evaluation.grading import choice, grade, number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3-4", 4),
        ("12+30=42", 42),
        ("it is -7.", -7),
        ("it is −7", -7),
        ("v2 took 10.5 s", Fraction(21, 2)),
        ("$1,234,567.00", 1234567),
        ("50%", 50),
        ("1/3", Fraction(1, 3)),
        ("x = 0.1", Fraction(1, 10)),
        ("10/0", None),
        ("none", None),
        ("", None),
        ("7 " + "9" * 5000, None),
        ("1e3", 1000),
        ("1.5E-05", Fraction(15, 1_000_000)),
        ("2e", 2),
        ("x1e3", None),
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("-0", 0),
        ("1 / 2", Fraction(1, 2)),
        (r"$\boxed{\frac{3}{4}}$", Fraction(3, 4)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        (r"\frac{1}{0}", None),
        ("1,000", 1000),
    ],
)
def test_numbers(text: Any, value: Any) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b) because", "B"),
        ("(C)", "C"),
        ("The answer is (B).", "B"),
        ("First I took A. Answer: C", "C"),
        ("**A**", "A"),
        ("Not (A) but (D), I think", "D"),
        ("It must be D.", "D"),
        ("A man walked in", None),
        ("I don't know", None),
        ("The answer is a guess, but (B)", "B"),
        ("the answer is a cat", None),
        ("the answer is b.", "B"),
        ("answer: c", "C"),
        ("Answer is 'a'", "A"),
        ("The answer I'd give is (C)", "C"),
        ("", None),
    ],
)
def test_choices(text: Any, letter: Any) -> None:
    assert choice(text) == letter


def test_a_small_number_is_a_reference_as_python_spells_it() -> None:
    notion = grade("number")
    assert notion.right("it is 0.00001", notion.expected(str(0.00001)))
    assert not notion.right("it is 5", notion.expected(str(0.00001)))


@pytest.mark.parametrize(
    ("key", "text"),
    [(choice, "answer" + " " * 100_000 + "!"), (number, "1" + ",111" * 50_000 + ",1"), (number, "1/" * 100_000)],
)
def test_degenerate_answers_take_no_time(key: Any, text: str) -> None:
    """What a model writes that repeats itself; time that goes with the square of the length would be minutes."""
    began = perf_counter()
    key(text)
    assert perf_counter() - began < 2


def test_the_reference_is_read_as_answers_are() -> None:
    gsm = grade("number")
    expected = gsm.expected("He has 3 + 4 = 7.\n#### 1,200")
    assert gsm.right("so 1200 in all", expected)
    assert not gsm.right("so 120 in all", expected)


def test_patterns() -> None:
    by_pattern = grade(r"regex:answer (\d+)")
    assert by_pattern.right("answer 1\nanswer 42", by_pattern.expected("42"))
    assert by_pattern.right("answer 42", by_pattern.expected("sum: answer 42"))
    assert not by_pattern.right("42", by_pattern.expected("42"))


def test_exact_and_last_line() -> None:
    assert grade("exact").right(" Paris\n", "Paris")
    assert not grade("exact").right("paris", "Paris")
    assert grade("last-line").right("1+1=2\nanswer 2 \n", grade("last-line").expected("x\nanswer 2"))


def test_last_line_is_the_zoos_own_check() -> None:
    notion = grade("last-line")
    for item in generate_mixed(80, seed=4):
        for text in (item.answer, item.answer + "\n", "x" + item.answer, item.answer[:-1], item.answer + "\nmore"):
            if item.task == "chain" or "\n" not in text.strip():
                assert notion.right(text, notion.expected(item.answer)) == check(item, text), text


def test_no_answer_is_never_right() -> None:
    for name in ("exact", "number", "choice", "last-line", r"regex:(\d+)"):
        assert grade(name).key(" ") is None
        with pytest.raises(BadRequest, match="cannot be read by --grade"):
            grade(name).expected(" ")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("numeric", "unknown grade 'numeric'; allowed: exact, number, choice, last-line, regex:PATTERN"),
        ("regex:(", "cannot be used: missing"),
        ("regex:a(b)(c)", "must have exactly one group"),
    ],
)
def test_refused(name: Any, told: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        grade(name)
    assert told in refusal.value.message
