"""The arithmetic judge reads what is arithmetic, exactly, and leaves everything else alone."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.judges.equalities import EqualityJudge, equalities, value
from ensemble.request import Request


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("12+30=42", [True]),
        ("12+30=43", [False]),
        ("12+30=42\n42+45=88", [True, False]),
        ("3+4=7=8=8", [True, False, True]),
        ("1,200 ÷ 5 = 240", [True]),
        ("1,200.50 × 2 = 2,401", [True]),
        ("2*(3+4)=14", [True]),
        ("2-3-4=-5", [True]),
        ("8/4/2=1", [True]),
        ("2+3*4=14", [True]),
        ("-3+5=2", [True]),
        ("0.1+0.2=0.3", [True]),
        ("1/3=0.333", [False]),
        ("$5 + $3 = $8", [True]),
        ("Step 1: 3 + 4 = 7 apples.", [True]),
        ("3+4==7", [True]),
        ("1/0=1", [False]),
        ("2+3=5 and 4+5=8", [True, False]),
        ("a=5, 5=5", [True]),
    ],
)
def test_equalities_are_found_and_checked(text: str, verdicts: list[bool]) -> None:
    assert equalities(text) == verdicts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "answer 87",
        "so it is 7",
        "x + 3 = 7",
        "x2=4",
        "2x=4",
        "2*3=6x",
        "f(3)=3",
        "2^3=8",
        "3 >= 3",
        "3 != 4",
        "10% = 0.1",
        "3 and 4 = 7",
        "7 plus 3*2 = 13",
        "2(3)=6",
        "3:4=2",
        "7=",
        "=7",
        "((3)=3",
        "3+=3",
        "(" * 5000 + "3" + ")" * 5000 + "=4",
        "9" * 5000 + "=3",
    ],
)
def test_what_is_no_readable_equality_does_not_count(text: str) -> None:
    assert equalities(text) == []


@given(st.integers(-999, 999), st.sampled_from("+-*"), st.integers(0, 999), st.integers(-3, 3))
def test_sums_hold_exactly_where_the_difference_is_none(left: int, operator: str, right: int, off: int) -> None:
    result = {"+": left + right, "-": left - right, "*": left * right}[operator] + off
    assert equalities(f"{left}{operator}{right}={result}") == [off == 0]


@given(
    st.recursive(
        st.integers(0, 99).map(str), lambda inner: st.builds("({}{}{})".format, inner, st.sampled_from("+-*"), inner)
    )
)
def test_nested_expressions_have_their_exact_value(expression: str) -> None:
    parts = re.findall(r"\d+|\D", expression)
    assert value(parts) == Fraction(eval(expression))


async def test_a_step_earns_the_share_that_holds() -> None:
    judge = EqualityJudge("sums", neutral=0.25)
    rewards = await judge.judge(Request.of("?"), [["1+1=2, 1+2=4\n", "so be it"], ["2+2=4"], []])
    assert rewards == [[0.5, 0.25], [1.0], []]


def test_it_calls_no_member() -> None:
    judge = EqualityJudge("sums")
    assert judge.models == () and judge.over(()) is judge
