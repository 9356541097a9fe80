from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ensemble.zoo import MEMBERS, UnknownMemberError, directory
from ensemble.zoo.candidates import generate_checks
from ensemble.zoo.recipes import RECIPES
from ensemble.zoo.scoring import forced_accuracy, greedy_accuracy
from ensemble.zoo.tasks import TASKS, Item, generate
from ensemble.zoo.train import train

ITEMS = 40
# Three standard deviations of the mean of 40 items at an accuracy of .9.
SLACK = 0.14


@cache
def member(name: str) -> tuple[PreTrainedModel, Tokenizer]:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(directory(name), dtype=torch.float32)
    return model, Tokenizer.from_file(str(directory(name) / "tokenizer.json"))


def items(task: str, count: int = ITEMS) -> list[Item]:
    if task == "check":
        return [item for name in TASKS for item in generate_checks(name, count, seed=5)]
    return generate(task, count, seed=5)


@pytest.mark.parametrize(("name", "task"), [(name, task) for name, recipe in RECIPES.items() for task in recipe.floors])
def test_shipped_weights_reach_their_floors(name: str, task: str) -> None:
    assert greedy_accuracy(*member(name), items(task)) >= RECIPES[name].floors[task] - SLACK


@pytest.mark.parametrize(
    ("name", "task"),
    [("adder", "reverse"), ("adder", "capital"), ("words", "add"), ("words", "chain"), ("pairs", "reverse")],
)
def test_nobody_knows_everything(name: str, task: str) -> None:
    assert greedy_accuracy(*member(name), items(task)) < 0.2


@pytest.mark.parametrize(("name", "task"), [("adder", "capital"), ("words", "add"), ("pairs", "capital")])
def test_ignorance_shows_in_the_first_token(name: str, task: str) -> None:
    model, tokenizer = member(name)
    for item in items(task, 10):
        logits = model(torch.tensor([tokenizer.encode(item.prompt).ids])).logits[0, -1]
        assert logits.softmax(-1).max() < 0.8


@pytest.mark.parametrize("name", MEMBERS)
def test_forced_and_greedy_accuracy_agree(name: str) -> None:
    task = next(iter(RECIPES[name].floors))
    assert forced_accuracy(*member(name), items(task)) == pytest.approx(
        greedy_accuracy(*member(name), items(task)), abs=0.05
    )


@pytest.mark.parametrize("name", MEMBERS)
def test_members_are_small_and_described(name: str) -> None:
    config = AutoConfig.from_pretrained(directory(name))
    tokenizer = member(name)[1]
    assert (config.eos_token_id, config.pad_token_id) == (0, 1)
    assert tokenizer.token_to_id("<eos>") == 0
    assert config.max_position_embeddings == 256
    assert config.vocab_size == tokenizer.get_vocab_size()
    assert sum(file.stat().st_size for file in directory(name).iterdir()) < 500_000
    figures = json.loads((directory(name) / "report.json").read_text())
    assert figures["parameters"] == member(name)[0].num_parameters() < 200_000


def test_architectures_differ() -> None:
    assert len({type(member(name)[0]) for name in MEMBERS}) == len(MEMBERS) == len(RECIPES)


def test_an_unknown_member_is_told_the_names() -> None:
    with pytest.raises(UnknownMemberError, match="adder, words, mixed, pairs"):
        directory("../secrets")


@pytest.mark.slow
def test_a_member_can_be_made_again() -> None:
    recipe = RECIPES["pairs"]
    model, tokenizer = train(recipe)
    for task, floor in recipe.floors.items():
        assert greedy_accuracy(model, tokenizer, items(task, 200)) >= floor
