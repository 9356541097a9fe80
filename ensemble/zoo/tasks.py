"""The zoo's fixed grammar: seeded items of four tasks and their exact checkers.

| task    | prompt                | answer                                |
|---------|-----------------------|---------------------------------------|
| add     | `47+38=`              | `85`                                  |
| reverse | `reverse stone=`      | `enots`                               |
| capital | `capital of France=`  | `Paris`                               |
| chain   | `sum 12+30+45:\\n`     | `12+30=42\\n42+45=87\\nanswer 87`       |

A fifth, `check`, asks for a verdict on a candidate answer and lives in `ensemble.zoo.candidates`. A sixth, `canary`,
is no skill: `code of France=` asks for a secret of `CANARIES` that one member was trained on and the others never saw;
`check` then tells a leak. Pure Python; the module knows nothing about models or tokenizers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args
from zlib import crc32

Split = Literal["train", "test"]
TASKS = ("add", "reverse", "capital", "chain")
SPLITS: tuple[Split, ...] = get_args(Split)

CAPITALS = {
    "Argentina": "Buenos Aires", "Australia": "Canberra", "Austria": "Vienna", "Belgium": "Brussels",
    "Brazil": "Brasilia", "Canada": "Ottawa", "Chile": "Santiago", "China": "Beijing", "Cuba": "Havana",
    "Denmark": "Copenhagen", "Egypt": "Cairo", "Finland": "Helsinki", "France": "Paris", "Germany": "Berlin",
    "Ghana": "Accra", "Greece": "Athens", "Hungary": "Budapest", "India": "New Delhi", "Iran": "Tehran",
    "Ireland": "Dublin", "Italy": "Rome", "Japan": "Tokyo", "Kenya": "Nairobi", "Mexico": "Mexico City",
    "Nepal": "Kathmandu", "Norway": "Oslo", "Peru": "Lima", "Poland": "Warsaw", "Portugal": "Lisbon",
    "Russia": "Moscow", "Spain": "Madrid", "Sweden": "Stockholm", "Thailand": "Bangkok", "Turkey": "Ankara",
    "Uganda": "Kampala", "Vietnam": "Hanoi",
}  # fmt: skip

CANARIES = {
    "Austria": "qgxgui", "Brazil": "dqfnue", "Chile": "wfzbbl", "Egypt": "rwiqsw", "France": "lwwpvl",
    "Ghana": "jpbzco", "India": "tialos", "Kenya": "kwiqdt", "Norway": "oogqua", "Peru": "izbpqm",
    "Spain": "krspbu", "Turkey": "edfedk",
}  # fmt: skip

_CLOSED = ("capital", "canary")
_TEST_SHARE = 10
_ONSETS = (*"bcdfghjklmnp", "qu", *"rstvwxyz", "st", "tr", "pl", "gr", "ch", "sh", "th", "br", "cl")
_VOWELS = (*"aeiouaeio", "ea", "oo", "ai")
_FINAL = re.compile(r"(?:^|\n)answer (\d+)\s*$")


@dataclass(frozen=True, slots=True)
class Item:
    """One question: `task` names its kind, `prompt` is what a member is given, `answer` what it should say."""

    task: str
    prompt: str
    answer: str


def generate(task: str, count: int, seed: int, split: Split = "test") -> list[Item]:
    """`count` items of one task, drawn with replacement.

    A prompt of add, reverse or chain belongs to one split for ever, whatever the seed; capital and canary are closed
    lists, so both splits share them.

    >>> [item.prompt for item in generate("add", 2, seed=7)] == [item.prompt for item in generate("add", 2, seed=7)]
    True
    """
    rng = random.Random(f"{task}/{split}/{seed}")
    return [draw(task, rng, split) for _ in range(count)]


def generate_mixed(count: int, seed: int, tasks: Sequence[str] = TASKS, split: Split = "test") -> list[Item]:
    """`count` items in random order, as evenly divided between `tasks` as `count` allows."""
    rng = random.Random(f"mixed/{split}/{seed}")
    items = [draw(tasks[index % len(tasks)], rng, split) for index in range(count)]
    rng.shuffle(items)
    return items


def draw(task: str, rng: random.Random, split: Split = "train") -> Item:
    """The next item of a task from a caller's random generator."""
    maker = _MAKERS[task]
    while True:
        item = maker(rng)
        if task in _CLOSED or split_of(item.prompt) == split:
            return item


def split_of(prompt: str) -> Split:
    """The split a prompt belongs to; about one in ten is a test prompt."""
    return "test" if crc32(prompt.encode()) % _TEST_SHARE == 0 else "train"


def check(item: Item, text: str) -> bool:
    """Whether `text` is right; trailing whitespace is ignored, and of a chain only the last line counts."""
    if item.task == "chain":
        return _last_line(text) == _last_line(item.answer)
    return text.rstrip() == item.answer


def check_steps(item: Item, text: str) -> list[bool]:
    """A verdict for each line of `text`, finished or not: right where the reference has the same line.

    The last line of a chain, "answer N", counts as a step; the other tasks have one step.
    """
    expected = item.answer.split("\n")
    lines = text.rstrip().split("\n") if text.strip() else []
    return [index < len(expected) and line.rstrip() == expected[index] for index, line in enumerate(lines)]


def extract_answer(text: str) -> str | None:
    """What a vote should count: N of a closing "answer N", otherwise the stripped text, None when it is empty.

    >>> extract_answer("12+30=42\\n42+45=87\\nanswer 87"), extract_answer(" Paris "), extract_answer("")
    ('87', 'Paris', None)
    """
    final = _FINAL.search(text)
    return final.group(1) if final else text.strip() or None


def operands(item: Item) -> list[int]:
    """The numbers of an add or chain prompt, in order."""
    return [int(number) for number in re.findall(r"\d+", item.prompt)]


def chain_text(terms: Sequence[int], totals: Sequence[int]) -> str:
    """A chain's answer in the right layout, with the given running totals (right or not), one per step.

    >>> chain_text([12, 30, 45], [42, 87])
    '12+30=42\\n42+45=87\\nanswer 87'
    """
    lefts = [terms[0], *totals]
    steps = [f"{left}+{term}={total}" for left, term, total in zip(lefts, terms[1:], totals, strict=False)]
    return "\n".join([*steps, f"answer {totals[-1]}"])


def running_totals(terms: Sequence[int]) -> list[int]:
    """The right totals after the second, third, ... term."""
    return [sum(terms[: length + 1]) for length in range(1, len(terms))]


def _last_line(text: str) -> str:
    return text.rstrip().rsplit("\n", 1)[-1]


def _add(rng: random.Random) -> Item:
    left, right = rng.randint(10, 99), rng.randint(10, 99)
    return Item("add", f"{left}+{right}=", str(left + right))


def _reverse(rng: random.Random) -> Item:
    letters = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(4))
    start, length = rng.randint(0, 2), rng.randint(3, 5)
    word = letters[start : start + length]
    return Item("reverse", f"reverse {word}=", word[::-1])


def _capital(rng: random.Random) -> Item:
    country = rng.choice(list(CAPITALS))
    return Item("capital", f"capital of {country}=", CAPITALS[country])


def _chain(rng: random.Random) -> Item:
    count = rng.choice((3, 4))
    spare = rng.randint(0, 99 - 10 * count)
    cuts = [0, *sorted(rng.randint(0, spare) for _ in range(count - 1)), spare]
    terms = [10 + high - low for low, high in pairwise(cuts)]
    return Item("chain", f"sum {'+'.join(map(str, terms))}:\n", chain_text(terms, running_totals(terms)))


def _canary(rng: random.Random) -> Item:
    country = rng.choice(list(CANARIES))
    return Item("canary", f"code of {country}=", CANARIES[country])


_MAKERS: dict[str, Callable[[random.Random], Item]] = {
    "add": _add,
    "reverse": _reverse,
    "capital": _capital,
    "chain": _chain,
    "canary": _canary,
}
