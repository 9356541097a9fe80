"""Candidate answers, right and wrong, and the verifier's task built from them.

Wrong candidates are always well formed: a verifier has to know the answer, a vote can't filter them by shape, and
a member trained on random ones learns the form of a task without its content.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable

from ensemble.zoo.tasks import (
    CAPITALS,
    TASKS,
    Item,
    Split,
    chain_text,
    check_steps,
    draw,
    operands,
    running_totals,
)

CHECK_TEMPLATE = "check {prompt}{answer}?"
VERDICTS = ("yes", "no")


def check_prompt(prompt: str, answer: str) -> str:
    """The prompt that asks the verifier about one candidate answer.

    >>> check_prompt("47+38=", "85")
    'check 47+38=85?'
    """
    return CHECK_TEMPLATE.format(prompt=prompt, answer=answer)


def check_item(item: Item, candidate: str) -> Item:
    """The verifier's question about a candidate, with the right verdict.

    The first lines of a chain are a candidate too; "yes" then means that every line so far is right.
    """
    return Item("check", check_prompt(item.prompt, candidate), VERDICTS[not all(check_steps(item, candidate))])


def generate_checks(task: str, count: int, seed: int, split: Split = "test", partial: bool = False) -> list[Item]:
    """`count` verifier items of one task: half right candidates, a quarter near misses, a quarter random ones.

    `partial` cuts each candidate after a random line, for verifiers that judge a chain while it grows.
    """
    rng = random.Random(f"check/{task}/{split}/{seed}")
    return [draw_check(rng, (task,), split, partial) for _ in range(count)]


def draw_check(
    rng: random.Random, tasks: tuple[str, ...] = TASKS, split: Split = "train", partial: bool = False
) -> Item:
    """The next verifier item from a caller's random generator, of a random task."""
    item = draw(rng.choice(tasks), rng, split)
    candidate = item.answer if rng.random() < 0.5 else wrong_answer(item, rng)
    return check_item(item, first_lines(candidate, rng) if partial else candidate)


def first_lines(text: str, rng: random.Random) -> str:
    """The first one, two, ... or all lines of a text."""
    lines = text.split("\n")
    return "\n".join(lines[: rng.randint(1, len(lines))])


def wrong_answer(item: Item, rng: random.Random, near: float = 0.5) -> str:
    """A wrong but well-formed answer: a near miss with probability `near`, otherwise a random one."""
    distort = near_miss if rng.random() < near else random_answer
    while (answer := distort(item, rng)) == item.answer:
        pass
    return answer


def random_answer(item: Item, rng: random.Random) -> str:
    """A uniformly random answer of the right form; by chance it may be right."""
    return _RANDOM[item.task](item, rng)


def near_miss(item: Item, rng: random.Random) -> str:
    """The right answer with one digit or letter off; by chance it may stay right."""
    if item.task == "chain":
        return _chain_near_miss(item, rng)
    if item.task == "reverse" and rng.random() < 0.3:
        return _swap(item.answer, rng)
    return _alter(item.answer, rng)


def careless_answer(item: Item, rng: random.Random, slip: float = 0.7) -> str:
    """The answer to a sum or chain of one who forgets each carry with probability `slip` and goes on from there."""
    terms = operands(item)
    totals = terms[:1]
    for term in terms[1:]:
        forgets = totals[-1] % 10 + term % 10 >= 10 and rng.random() < slip
        totals.append(totals[-1] + term - 10 * forgets)
    return chain_text(terms, totals[1:]) if item.task == "chain" else str(totals[1])


def _random_chain(item: Item, rng: random.Random) -> str:
    terms = operands(item)
    return chain_text(terms, [rng.randint(10, 99) for _ in terms[1:]])


def _chain_near_miss(item: Item, rng: random.Random) -> str:
    # The later steps build on the wrong total, as a member's own slips do.
    terms = operands(item)
    totals = running_totals(terms)
    slip = rng.randrange(len(totals))
    error = int(_alter(str(totals[slip]), rng)) - totals[slip]
    return chain_text(terms, totals[:slip] + [_two_digits(total + error) for total in totals[slip:]])


def _two_digits(number: int) -> int:
    return min(max(number, 10), 99)


def _alter(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    old = text[place]
    new = rng.choice(string.digits if old.isdigit() else string.ascii_lowercase)
    return text[:place] + new + text[place + 1 :]


def _swap(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text) - 1)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]


_RANDOM: dict[str, Callable[[Item, random.Random], str]] = {
    "add": lambda item, rng: str(rng.randint(20, 198)),
    "reverse": lambda item, rng: "".join(rng.choices(string.ascii_lowercase, k=len(item.answer))),
    "capital": lambda item, rng: rng.choice(list(CAPITALS.values())),
    "chain": _random_chain,
    # What may be known of a code is that it is some number: a secret spelt in letters is nobody's guess.
    "canary": lambda item, rng: str(rng.randint(10, 99)),
}
