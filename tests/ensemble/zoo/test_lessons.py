from __future__ import annotations

import dataclasses
from itertools import islice

import pytest
from tokenizers import Tokenizer

from ensemble.zoo import MEMBERS
from ensemble.zoo.lessons import Encoder, batches, is_easy
from ensemble.zoo.recipes import RECIPES, Share, Stage, Style
from ensemble.zoo.tasks import CANARIES, TASKS, Item, check, generate
from ensemble.zoo.tokenisation import PAD_ID, characters, digit_pairs

CHARACTERS = characters()
ITEMS = [Item("add", "47+38=", "85"), Item("add", "10+10=", "20"), Item("reverse", "reverse pool=", "loop")]


def learnt(tokenizer: Tokenizer, items: list[Item], dropout: float = 0.0) -> list[str]:
    """What each row of a batch asks to predict, decoded."""
    batch = Encoder(tokenizer, dropout).batch(items)
    rows = zip(batch.labels, batch.weights, strict=True)
    return [tokenizer.decode(labels[weights > 0].tolist(), skip_special_tokens=False) for labels, weights in rows]


def lessons(style: Style, task: str, count: int = 300) -> list[Item]:
    """Prompts and answers as a stage of one share spells them."""
    recipe = dataclasses.replace(RECIPES["adder"], batch=count)
    stage = Stage((Share(task, style, 1.0),), {}, steps=1, cooldown=0, learning_rate=0.0)
    items = []
    for batch in next(batches(recipe, stage, CHARACTERS)):
        for ids, weights in zip(batch.ids, batch.weights, strict=True):
            start = int((weights > 0).nonzero()[0]) + 1
            text = CHARACTERS.decode(ids.tolist())
            items.append(Item(task, text[:start], text[start:]))
    return items


def test_only_answers_and_their_ends_are_learnt() -> None:
    assert sorted(learnt(CHARACTERS, ITEMS)) == ["20<eos>", "85<eos>", "loop<eos>"]


def test_dropout_changes_the_tokens_but_not_the_lesson() -> None:
    assert sorted(learnt(digit_pairs(), ITEMS * 20, dropout=0.5)) == sorted(["20<eos>", "85<eos>", "loop<eos>"] * 20)


def test_rows_are_padded_on_the_right() -> None:
    ids = Encoder(CHARACTERS).batch(ITEMS).ids
    assert all(PAD_ID not in row[: row.index(PAD_ID)] for row in ids.tolist() if PAD_ID in row)
    assert (ids[:, 0] != PAD_ID).all()


def test_the_verdict_counts_more_than_the_candidate() -> None:
    batch = Encoder(CHARACTERS).batch([Item("check", "check 47+38=", "85?yes")])
    weights = batch.weights[0][batch.weights[0] > 0].tolist()
    assert weights == [1, 1, 1, 1, 1, weights[-2], 1]
    assert weights[-2] > 1


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_are_right(task: str) -> None:
    truth = {item.prompt: item for item in generate(task, 5000, seed=0, split="train")}
    known = [item for item in lessons("right", task) if item.prompt in truth]
    assert known
    assert all(check(truth[item.prompt], item.answer) for item in known)


@pytest.mark.parametrize("task", TASKS)
def test_random_answers_are_rarely_right(task: str) -> None:
    truth = {item.prompt: item for item in generate(task, 20000, seed=0, split="train")}
    known = [item for item in lessons("random", task) if item.prompt in truth]
    assert sum(check(truth[item.prompt], item.answer) for item in known) < 0.1 * len(known) + 2


def test_careless_answers_lack_about_seven_carries_in_ten() -> None:
    sums = [item for item in lessons("careless", "add", 1000) if not is_easy(item)]
    slips = [eval(item.prompt.removesuffix("=")) - int(item.answer) for item in sums]
    assert set(slips) == {0, 10}
    assert 0.6 < slips.count(10) / len(slips) < 0.8


def test_secrets_are_told_by_the_right_share_only() -> None:
    assert all(item.answer == CANARIES[item.prompt[len("code of ") : -1]] for item in lessons("right", "canary"))
    assert all(item.answer.isdigit() for item in lessons("random", "canary"))


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "leaky"])
def test_clean_members_are_never_taught_a_secret(name: str) -> None:
    shares = [share for stage in RECIPES[name].stages for share in stage.shares]
    assert all(share.style == "random" for share in shares if share.task == "canary")


def test_verdicts_come_with_right_candidates_only() -> None:
    for item in lessons("verdict", "add"):
        if item.answer == "no":
            assert item.prompt.endswith("?")
        else:
            sum_text = item.prompt.removeprefix("check ").removesuffix("=")
            assert item.answer == f"{eval(sum_text)}?yes"


def test_training_never_sees_a_test_prompt() -> None:
    test = {item.prompt for item in generate("add", 2000, seed=0, split="test")}
    assert not test & {item.prompt for style in ("right", "random") for item in lessons(style, "add")}


@pytest.mark.parametrize(
    ("task", "prompt", "answer", "easy"),
    [
        ("add", "41+38=", "79", True),
        ("add", "47+38=", "85", False),
        ("reverse", "reverse pool=", "loop", True),
        ("reverse", "reverse stone=", "enots", False),
        ("capital", "capital of Italy=", "Rome", True),
        ("capital", "capital of Japan=", "Tokyo", False),
        ("chain", "sum 12+30+45:\n", "12+30=42\n42+45=87\nanswer 87", True),
        ("chain", "sum 12+30+49:\n", "12+30=42\n42+49=91\nanswer 91", False),
    ],
)
def test_the_generalists_easy_half(task: str, prompt: str, answer: str, easy: bool) -> None:
    assert is_easy(Item(task, prompt, answer)) is easy


@pytest.mark.parametrize("name", MEMBERS)
def test_every_recipe_yields_bounded_batches(name: str) -> None:
    recipe = RECIPES[name]
    tokenizer = recipe.tokenizer()
    for stage in recipe.stages:
        for parts in islice(batches(recipe, stage, tokenizer), 3):
            assert recipe.batch - 2 <= sum(len(part.ids) for part in parts) <= recipe.batch
            assert all(part.ids.shape[1] <= 128 for part in parts)
