"""What a text answers: from text to a canonical key, so that answers which mean the same are equal.

Keys are equal or not, without tolerance; so "means the same" is an equivalence, and votes do not depend on their order.
``None`` stands for "no answer" and never votes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Annotated

import regex
from pydantic import AfterValidator

from ensemble.errors import BadAnswer

Key = str | Fraction

_NUMBER = re.compile(r"[$€£]?\s*([-+]?)\s*[$€£]?((?:\d{1,3}(?:,\d{3})+|\d*)(?:\.\d*)?(?:[eE][-+]?\d{1,2})?)\.?")
_RATIO = re.compile(r"([-+]?\d{1,50})\s*/\s*(\d{1,50})")
_LONGEST = 100
_PATIENCE = 1.0
"""Seconds of looking for a pattern in one text: a sound pattern needs a few steps for a letter, and has millions."""


def extract(text: str, pattern: re.Pattern[str] | None) -> str | None:
    """The answer in a text: the group of the pattern's last match, or the whole text; ``None`` if there is none.

    Raises:
        BadAnswer: the search takes seconds, as patterns that can match a text in very many ways do.

    >>> extract("answer 8, no: answer 87 ", re.compile(r"answer (\\S+)")), extract(" Paris", None), extract(" ", None)
    ('87', 'Paris', None)
    """
    if pattern is None:
        return text.strip() or None
    try:
        found = [match.group(1) or "" for match in _timed(pattern).finditer(text, timeout=_PATIENCE)]
    except TimeoutError as error:
        shown = f"the pattern {pattern.pattern!r} is still at a text of {len(text):,} characters after"
        raise BadAnswer(f"{shown} {_PATIENCE:g} s; write it without repeats of repeats", reason="slow") from error
    return found[-1].strip() or None if found else None


@lru_cache(maxsize=64)
def _timed(pattern: re.Pattern[str]) -> regex.Pattern[str]:
    """The same pattern for an engine that can be told to give up."""
    own = (flag for flag in "AILMSX" if pattern.flags & getattr(re, flag))
    return regex.compile(pattern.pattern, sum(getattr(regex, flag) for flag in own))


def one_group(pattern: re.Pattern[str] | None) -> re.Pattern[str] | None:
    """The pattern, if it says in one group what the answer is.

    Raises:
        ValueError: it has no group or several, or is written as only the standard library reads it.
    """
    if pattern is not None and pattern.groups != 1:
        raise ValueError(f"must have exactly one group, around the answer; {pattern.pattern!r} has {pattern.groups}")
    try:
        _ = pattern and _timed(pattern)
    except regex.error as error:
        raise ValueError(f"is not understood: {error}") from error
    return pattern


AnswerPattern = Annotated[re.Pattern[str] | None, AfterValidator(one_group)]
"""An option that says where in a text the answer is; see ``extract``."""


def exact(answer: str) -> Key | None:
    """The answer itself: equal strings are equal answers."""
    return answer


def numeric(answer: str) -> Key | None:
    """Its exact value: ``1,200.50``, ``$1200.5`` and ``2401/2`` are equal; ``None`` for what is no number.

    >>> numeric("1,200.50") == numeric("$1200.5") == numeric("2401/2"), numeric("12 apples")
    (True, None)
    """
    answer = answer.strip().replace("−", "-")
    if len(answer) > _LONGEST:
        return None
    if ratio := _RATIO.fullmatch(answer):
        return Fraction(int(ratio[1]), int(ratio[2])) if int(ratio[2]) else None
    number = _NUMBER.fullmatch(answer)
    if number is None or not re.match(r"\.?\d", number[2]):
        return None
    return Fraction(number[1] + number[2].replace(",", "").rstrip("."))


KEYS: Mapping[str, Callable[[str], Key | None]] = {"exact": exact, "numeric": numeric}
"""Notions of equal answers, by option value."""
