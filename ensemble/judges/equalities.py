"""A step judge by rule: the share of the arithmetic equalities in a step that hold.

Needs no model and reads nothing but the step. Numbers are exact fractions; text is parsed, never evaluated as code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field

from ensemble.judges.judge import Judge, Solution
from ensemble.request import Request

_PIECE = re.compile(
    r"""(?P<number> (?:\d{1,3}(?:,\d{3})+(?!\d) | \d+) (?:\.\d+)? | \.\d+ )
      | (?P<operator> [-+*/()×÷−·] )
      | (?P<foreign> [<>!~:]= | (?<=\d):(?=\d) | [^\W\d]\w*(?=[\d(]) | [\^%√≠≈≤≥<>] )
      | (?P<equals> ={1,2} )
      | (?P<word> [^\W\d]\w* )
      | (?P<space> [^\S\n]+ | [$€£] )
      | (?P<other> . | \n )""",
    re.VERBOSE,
)
_PLAIN = str.maketrans("×÷−·", "*/-*")
_OPERATOR_WORDS = frozenset({"plus", "minus", "times", "over", "by", "of"})
_DEEPEST = 50
_LONGEST = 100


class EqualityOptions(BaseModel):
    """Options of a judge of kind ``equalities``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    neutral: float = Field(default=0.5, ge=0, le=1)
    """Reward of a step that holds no equality. Omitted: 0.5."""


class EqualityJudge(Judge):
    """Checks ``3 + 4 = 7``, ``2*(3+4) = 14 = 7+7`` and ``1,200 ÷ 5 = 240``; sides it cannot read do not count.

    Equality is exact: ``1/3 = 0.333`` does not hold, nor does anything that divides by zero.

    >>> import asyncio
    >>> asyncio.run(EqualityJudge("sums").judge(Request.of("?"), [["12+30=42\\n", "42+45=88\\n", "answer 88"]]))
    [[1.0, 0.0, 0.5]]
    """

    Options = EqualityOptions

    def __init__(self, name: str, *, neutral: float = 0.5) -> None:
        self.name = name
        self._neutral = neutral

    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        return [[self._reward(step) for step in solution] for solution in solutions]

    def _reward(self, step: str) -> float:
        verdicts = equalities(step)
        return sum(verdicts) / len(verdicts) if verdicts else self._neutral


def equalities(text: str) -> list[bool]:
    """Whether each arithmetic equality in the text holds, in order; ``a = b = c`` is two.

    What may be only a part of its side does not count: ``x + 3 = 7``, ``3 and 4 = 7``, ``2^3 = 8``.

    >>> equalities("so 3 + 4 = 7 = 8 apples, and x + 1 = 5")
    [True, False]
    """
    return [holds for word, run in _runs(text) for holds in _chain(word, run)]


def value(tokens: Sequence[str]) -> Fraction | None:
    """Exact value of an arithmetic expression; ``None`` if it is none.

    Raises:
        ZeroDivisionError: it divides by zero.
    """
    parser = _Parser(tokens)
    result = parser.sum()
    return result if parser.done else None


def _chain(word: str, run: Sequence[str]) -> Iterator[bool]:
    first, *others = _sides(run)
    for left, right in pairwise([["?"] if word and _belongs_to(word, first) else first, *others]):
        try:
            values = value(left), value(right)
        except ZeroDivisionError:
            yield False
        else:
            if None not in values:
                yield values[0] == values[1]


def _belongs_to(word: str, side: Sequence[str]) -> bool:
    """Whether a side that follows a word may go on from it: ``apples + 3``, ``and 4``, ``plus 3*2``."""
    return len(side) < 2 or side[0] in "+-*/" or word.lower() in _OPERATOR_WORDS


def _sides(run: Sequence[str]) -> list[list[str]]:
    sides: list[list[str]] = [[]]
    for token in run:
        if token == "=":
            sides.append([])
        else:
            sides[-1].append(token)
    return sides


def _runs(text: str) -> Iterator[tuple[str, list[str]]]:
    """Stretches of arithmetic, each with the word right before it; ``?`` stands for what cannot be read."""
    word, run = "", list[str]()
    for match in _PIECE.finditer(text):
        kind, piece = match.lastgroup, match.group()
        if kind in ("word", "other"):
            touching = kind == "word" and text[match.start() - 1 : match.start()].isdigit()
            yield word, [*run, "?"] if touching else run
            word, run = piece if kind == "word" else "", []
        elif kind != "space":
            run.append(_token(kind, piece))
    yield word, run


def _token(kind: str | None, piece: str) -> str:
    if kind == "equals":
        return "="
    if kind == "foreign" or len(piece) > _LONGEST:
        return "?"
    return piece.replace(",", "").translate(_PLAIN)


class _Parser:
    """Recursive descent over +, -, *, / and parentheses; ``None`` wherever the text is no expression."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._tokens)

    def sum(self) -> Fraction | None:
        total = self._product()
        while total is not None and (operator := self._take("+-")):
            term = self._product()
            total = None if term is None else total + term if operator == "+" else total - term
        return total

    def _product(self) -> Fraction | None:
        product = self._factor()
        while product is not None and (operator := self._take("*/")):
            factor = self._factor()
            product = None if factor is None else product * factor if operator == "*" else product / factor
        return product

    def _factor(self) -> Fraction | None:
        sign = -1 if self._take("+-") == "-" else 1
        inner = self._parenthesised() if self._take("(") else self._number()
        return None if inner is None else sign * inner

    def _parenthesised(self) -> Fraction | None:
        self._depth += 1
        inner = self.sum() if self._depth <= _DEEPEST else None
        self._depth -= 1
        return inner if self._take(")") else None

    def _number(self) -> Fraction | None:
        if self.done or not self._tokens[self._at].lstrip(".")[:1].isdigit():
            return None
        self._at += 1
        return Fraction(self._tokens[self._at - 1])

    def _take(self, any_of: str) -> str:
        if self.done or self._tokens[self._at] not in any_of:
            return ""
        self._at += 1
        return self._tokens[self._at - 1]
