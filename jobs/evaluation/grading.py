"""What a text answers and whether that is right: one canonical key for an answer and for its reference.

The same key decides what is right and which answers vote together, so a vote is never graded by another notion than it
was counted by. Knows nothing of files or models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from ensemble.after.answers import Key, extract, one_group
from ensemble.errors import BadAnswer, BadRequest

_NUMBER = re.compile(
    r"""(?<![\w.]) [-+−]? [$€£]?
    (?: (?: \d{1,3} (?:,\d{3}){1,30} (?![\d,]) | \d+ ) (?:\.\d+)? | \.\d+ )
    (?: [eE][-+−]?\d{1,3} (?!\w) )?
    (?: [ ]?/[ ]?\d+ )?""",
    re.VERBOSE,
)
_FRACTION = re.compile(r"(?<!\w)\\[cdt]?frac\{([-+−]?\d+)\}\{(\d+)\}")
# A small letter counts where nothing goes on after it: "the answer is a guess" names no letter.
_SAID = re.compile(
    r"""\b(?i:answer|choice|option)\b (?:\s+(?i:is))? \s* (?::\s*)? [(\[*"']*
    ( [A-Z]\b(?!['’]\w) | [a-z](?=[)\].,:;!?*"']|\s*$) (?!['’.]\w) )""",
    re.VERBOSE | re.MULTILINE,
)
_LEADING = re.compile(r"\s*[(\[*\"']*([A-Za-z])(?:\s*$|[)\].:,*\"'](?!\w))")
_ENCLOSED = re.compile(r"[(\[]([A-Z])[)\]]")
_ENDING = re.compile(r"(?<![\w'’])([A-Z])\W*$")
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class Grade:
    """A notion of right answers.

    >>> number = grade("number")
    >>> number.right("47+38=85.", number.expected("#### 85")), number.right("about 84", number.expected("85"))
    (True, False)
    """

    name: str
    """As it is written on the command line."""
    key: Callable[[str], Key | None]
    """What a text answers; ``None``: nothing, which is never right and never votes. Raises ``BadRequest`` where a
    pattern is too slow to tell."""
    reference: Callable[[str], Key | None]
    """What a reference says."""

    def expected(self, reference: str) -> Key:
        """The key that answers must have.

        Raises:
            BadRequest: the reference holds no answer that this notion can read.
        """
        key = self.reference(reference)
        if key is None:
            shown = reference if len(reference) <= 40 else reference[:37] + "..."
            raise BadRequest(f"the answer {shown!r} cannot be read by --grade {self.name}", param="grade")
        return key

    def right(self, text: str, expected: Key) -> bool:
        """Whether a text answers what is expected."""
        return self.key(text) == expected


def grade(name: str) -> Grade:
    """The notion of a name: ``exact``, ``number``, ``choice``, ``last-line`` or ``regex:PATTERN``.

    Raises:
        BadRequest: there is none of this name, or the pattern is none with exactly one group.
    """
    if name.startswith("regex:"):
        return _by_pattern(name)
    if name not in KEYS:
        raise BadRequest(f"unknown grade {name!r}; allowed: {', '.join(KEYS)}, regex:PATTERN", param="grade")
    return Grade(name, KEYS[name], KEYS[name])


def exact(text: str) -> Key | None:
    """The whole text without the blanks around it."""
    return text.strip() or None


def last_line(text: str) -> Key | None:
    """The last line that is not blank, without the blanks around it.

    >>> last_line("12+30=42\\nanswer 42\\n\\n")
    'answer 42'
    """
    return exact(text.rstrip().rsplit("\n", 1)[-1])


def number(text: str) -> Key | None:
    """The exact value of the last number in the text; units, currency and thousands separators do not matter.

    >>> number("3 x 400 = $1,200.50 in all"), number("so it is 1/2"), number("no idea")
    (Fraction(2401, 2), Fraction(1, 2), None)
    >>> number("about 1.2e3"), number(r"$\\frac{1}{2}$")
    (Fraction(1200, 1), Fraction(1, 2))
    """
    values = [match.group() for match in _NUMBER.finditer(_FRACTION.sub(r"\1/\2", text))]
    return _value(values[-1]) if values else None


def choice(text: str) -> Key | None:
    """A letter: the last one said to be the answer, else the one that the text begins with, else the last in brackets,
    else the capital that the text ends with. What is said to be the answer in small letters must end there.

    >>> choice("(A) is wrong, so the answer is B."), choice("c) 12"), choice("It is (D)"), choice("A man left")
    ('B', 'C', 'D', None)
    """
    said = _SAID.findall(text)
    leading = _LEADING.match(text)
    found = said or ([leading[1]] if leading else _ENCLOSED.findall(text) or _ENDING.findall(text))
    return str(found[-1]).upper() if found else None


KEYS: Mapping[str, Callable[[str], Key | None]] = {
    "exact": exact,
    "number": number,
    "choice": choice,
    "last-line": last_line,
}
"""What a text answers, by the grade's name."""


def _value(written: str) -> Fraction | None:
    """``None`` for what divides by zero or is longer than any answer."""
    plain = re.sub(r"[$€£, ]", "", written.replace("−", "-"))
    top, _, bottom = plain.partition("/")
    if len(plain) > _LONGEST or (bottom and not int(bottom)):
        return None
    return Fraction(top) / int(bottom or 1)


def _by_pattern(name: str) -> Grade:
    try:
        pattern = one_group(re.compile(name.removeprefix("regex:")))
    except (re.error, ValueError) as error:
        raise BadRequest(f"the pattern of --grade {name} cannot be used: {error}", param="grade") from error

    def key(text: str) -> Key | None:
        try:
            return extract(text, pattern)
        except BadAnswer as error:
            raise BadRequest(error.message, param="grade") from error

    def reference(text: str) -> Key | None:
        return key(text) or exact(text)

    return Grade(name, key, reference)
