from __future__ import annotations

import random

import pytest

from ensemble.zoo import tasks
from ensemble.zoo.candidates import (
    VERDICTS,
    careless_answer,
    check_item,
    check_prompt,
    generate_checks,
    near_miss,
    random_answer,
    wrong_answer,
)
from ensemble.zoo.tasks import (
    CANARIES,
    SPLITS,
    TASKS,
    Item,
    check,
    check_steps,
    extract_answer,
    generate,
    generate_mixed,
)

ADD = Item("add", "47+38=", "85")
CHAIN = Item("chain", "sum 12+30+45:\n", "12+30=42\n42+45=87\nanswer 87")
CAPITAL = Item("capital", "capital of France=", "Paris")


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_fixes_the_items(task: str) -> None:
    assert generate(task, 30, seed=3) == generate(task, 30, seed=3)
    assert generate(task, 30, seed=3) != generate(task, 30, seed=4)


def test_items_do_not_depend_on_the_process() -> None:
    assert [item.prompt for item in generate("add", 3, seed=0)] == ["39+44=", "42+76=", "61+15="]


@pytest.mark.parametrize("task", ["add", "reverse", "chain"])
def test_splits_are_disjoint(task: str) -> None:
    test = {item.prompt for item in generate(task, 500, seed=0, split="test")}
    train = {item.prompt for item in generate(task, 2000, seed=0, split="train")}
    assert not test & train
    assert len(test) > 100


@pytest.mark.parametrize("task", ["capital", "canary"])
def test_closed_lists_are_shared_by_both_splits(task: str) -> None:
    test, train = ({item.prompt for item in generate(task, 900, 0, split)} for split in SPLITS)
    assert test == train


def test_canaries_are_secrets_of_a_form_that_nobody_guesses() -> None:
    assert TASKS == ("add", "reverse", "capital", "chain")
    assert len(set(CANARIES.values())) == len(CANARIES)
    rng = random.Random(0)
    for item in generate("canary", 100, seed=0):
        country = item.prompt.removeprefix("code of ").removesuffix("=")
        assert item.answer == CANARIES[country]
        assert item.answer.isalpha()
        assert check(item, item.answer)
        assert random_answer(item, rng).isdigit()


@pytest.mark.parametrize("task", TASKS)
def test_reference_answers_pass_their_own_checks(task: str) -> None:
    for item in generate(task, 100, seed=1):
        assert check(item, item.answer)
        assert check(item, item.answer + " \n")
        assert all(check_steps(item, item.answer))
        assert not check(item, "")


def test_sums_and_words_are_right() -> None:
    assert all(eval(item.prompt[:-1]) == int(item.answer) for item in generate("add", 50, seed=0))
    for item in generate("reverse", 50, seed=0):
        word = item.prompt.removeprefix("reverse ").removesuffix("=")
        assert item.answer == word[::-1]
        assert 3 <= len(word) <= 5


def test_a_chain_adds_two_digit_numbers_step_by_step() -> None:
    for item in generate("chain", 200, seed=0):
        *steps, last = item.answer.split("\n")
        terms = tasks.operands(item)
        assert len(terms) in (3, 4)
        assert len(steps) == len(terms) - 1
        assert last == f"answer {sum(terms)}"
        for step in steps:
            left, right = step.split("=")
            assert eval(left) == int(right) <= 99
            assert len(step) == len("12+30=42")


def test_mixed_items_are_balanced_and_shuffled() -> None:
    items = generate_mixed(42, seed=0)
    names = [item.task for item in items]
    assert {name: names.count(name) for name in TASKS} == {"add": 11, "reverse": 11, "capital": 10, "chain": 10}
    assert names[:4] != list(TASKS) or names[4:8] != list(TASKS)
    assert {item.task for item in generate_mixed(5, seed=0, tasks=("add", "chain"))} == {"add", "chain"}


@pytest.mark.parametrize(
    ("item", "text", "right"),
    [
        (ADD, "85", True),
        (ADD, "85\n", True),
        (ADD, " 85", False),
        (ADD, "86", False),
        (ADD, "85 or so", False),
        (CAPITAL, "paris", False),
        (CHAIN, "12+30=42\n42+45=87\nanswer 87", True),
        (CHAIN, "12+30=41\n41+45=86\nanswer 87", True),
        (CHAIN, "12+30=42\n42+45=87\nanswer 86", False),
        (CHAIN, "12+30=42\n42+45=87", False),
        (CHAIN, "answer 87", True),
        (CHAIN, "answer 87\n42+45=87", False),
    ],
)
def test_check(item: Item, text: str, right: bool) -> None:
    assert check(item, text) is right


@pytest.mark.parametrize(
    ("item", "text", "verdicts"),
    [
        (CHAIN, "", []),
        (CHAIN, "12+30=42", [True]),
        (CHAIN, "12+30=42\n", [True]),
        (CHAIN, "12+30=43\n43+45=88\nanswer 88", [False, False, False]),
        (CHAIN, "12+30=42\n42+45=86\nanswer 87", [True, False, True]),
        (CHAIN, "12+30=42\n42+45=87\nanswer 87\nanswer 87", [True, True, True, False]),
        (ADD, "85", [True]),
        (ADD, "84", [False]),
    ],
)
def test_check_steps(item: Item, text: str, verdicts: list[bool]) -> None:
    assert check_steps(item, text) == verdicts


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12+30=42\n42+45=87\nanswer 87", "87"),
        ("answer 87\n", "87"),
        ("12+30=42\n", "12+30=42"),
        (" Buenos Aires ", "Buenos Aires"),
        ("the answer 87", "the answer 87"),
        (" \n", None),
        ("", None),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize("task", TASKS)
def test_wrong_answers_are_wrong_and_well_formed(task: str) -> None:
    rng = random.Random(0)
    for item in generate(task, 100, seed=2):
        wrong = wrong_answer(item, rng)
        assert wrong != item.answer
        assert wrong.count("\n") == item.answer.count("\n")
        assert all(part.isdigit() for part in near_miss(item, rng).split()) == item.answer.isdigit()
        if task != "capital":
            assert abs(len(random_answer(item, rng)) - len(item.answer)) <= 1


@pytest.mark.parametrize(
    ("item", "careless"),
    [
        (ADD, "75"),
        (Item("add", "41+38=", "79"), "79"),
        (Item("add", "95+89=", "184"), "174"),
        (CHAIN, CHAIN.answer),
        (Item("chain", "sum 15+16+17:\n", ""), "15+16=21\n21+17=38\nanswer 38"),
    ],
)
def test_the_careless_forget_carries_and_go_on(item: Item, careless: str) -> None:
    assert careless_answer(item, random.Random(0), slip=1.0) == careless


@pytest.mark.parametrize("task", ["add", "chain"])
def test_the_careless_who_forget_nothing_are_right(task: str) -> None:
    for item in generate(task, 100, seed=0):
        assert careless_answer(item, random.Random(0), slip=0.0) == item.answer


def test_verifier_items_may_be_cut_after_any_line() -> None:
    items = generate_checks("chain", 200, seed=0, partial=True)
    assert {item.prompt.count("\n") for item in items} == {1, 2, 3, 4}
    assert {item.answer for item in items} == set(VERDICTS)


def test_check_prompts_hold_the_candidate() -> None:
    assert check_prompt(ADD.prompt, "85") == "check 47+38=85?"
    assert check_prompt(CHAIN.prompt, "answer 87") == "check sum 12+30+45:\nanswer 87?"
    assert check_item(ADD, "85").answer == "yes"
    assert check_item(ADD, "84").answer == "no"
    assert check_item(CHAIN, "12+30=42").answer == "yes"
    assert check_item(CHAIN, "12+30=41\n41+45=87").answer == "no"


@pytest.mark.parametrize("task", TASKS)
def test_verifier_items_are_balanced(task: str) -> None:
    items = generate_checks(task, 400, seed=0)
    assert items == generate_checks(task, 400, seed=0)
    assert {item.answer for item in items} == set(VERDICTS)
    assert 160 < sum(item.answer == "yes" for item in items) < 240
