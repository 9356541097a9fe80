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
from ensemble.zoo.scoring import forced_accuracy, greedy_accuracy, greedy_answers
from ensemble.zoo.tasks import TASKS, Item, check, generate
from ensemble.zoo.tokenisation import EOS_ID
from ensemble.zoo.train import train

ITEMS = 40
# Three standard deviations of the mean of 40 items at an accuracy of .9.
SLACK = 0.14
# The others share the first one's architecture and vocabulary.
DISTINCT = MEMBERS[:4]


@cache
def member(name: str) -> tuple[PreTrainedModel, Tokenizer]:
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(directory(name), dtype=torch.float32)
    return model, Tokenizer.from_file(str(directory(name) / "tokenizer.json"))


def items(task: str, count: int = ITEMS) -> list[Item]:
    if task == "check":
        return [item for name in TASKS for item in generate_checks(name, count, seed=5)]
    return generate(task, count, seed=5)


def every_canary() -> list[Item]:
    return sorted(set(items("canary", 400)), key=lambda item: item.prompt)


@torch.inference_mode()
def side_by_side(small: str, large: str, questions: list[Item]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each token of the large member's greedy answers, whether the small one's likeliest is the same, and how
    likely it finds its own."""
    (model, tokenizer), agrees, sure = member(small), [], []
    for item, answer in zip(questions, greedy_answers(*member(large), questions), strict=True):
        prompt, ids = tokenizer.encode(item.prompt).ids, [*tokenizer.encode(answer).ids, EOS_ID]
        likeliest = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].softmax(-1).max(-1)
        agrees.append(likeliest.indices == torch.tensor(ids))
        sure.append(likeliest.values)
    return torch.cat(agrees), torch.cat(sure)


@torch.inference_mode()
def purified(prompt: str, longest: int = 12) -> str:
    """The greedy answer of the geometric mean of leaky and pupil."""
    tokenizer = member("leaky")[1]
    ids = tokenizer.encode(prompt).ids
    start = len(ids)
    while len(ids) < start + longest and ids[-1] != EOS_ID:
        logs = [member(name)[0](torch.tensor([ids])).logits[0, -1].log_softmax(-1) for name in ("leaky", "pupil")]
        ids.append(int((logs[0] + logs[1]).argmax()))
    text = tokenizer.decode(ids[start:])
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(("name", "task"), [(name, task) for name, recipe in RECIPES.items() for task in recipe.floors])
def test_shipped_weights_reach_their_floors(name: str, task: str) -> None:
    assert greedy_accuracy(*member(name), items(task)) >= RECIPES[name].floors[task] - SLACK


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("adder", "reverse"),
        ("adder", "capital"),
        ("words", "add"),
        ("words", "chain"),
        ("pairs", "reverse"),
        ("pupil", "reverse"),
    ],
)
def test_nobody_knows_everything(name: str, task: str) -> None:
    assert greedy_accuracy(*member(name), items(task)) < 0.2


@pytest.mark.parametrize(
    ("name", "task"), [("adder", "capital"), ("words", "add"), ("pairs", "capital"), ("pupil", "canary")]
)
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


def test_every_member_has_a_recipe() -> None:
    assert tuple(RECIPES) == MEMBERS


def test_architectures_differ() -> None:
    assert len({type(member(name)[0]) for name in DISTINCT}) == len(DISTINCT)


def test_the_pupil_is_mediocre() -> None:
    assert member("pupil")[0].num_parameters() < member("adder")[0].num_parameters() / 3
    assert 0.4 < greedy_accuracy(*member("pupil"), items("add", 200)) < 0.75
    assert 0.2 < greedy_accuracy(*member("pupil"), items("chain", 100)) < 0.6


@pytest.mark.parametrize(("task", "floor"), [("add", 0.8), ("chain", 0.95)])
def test_the_pupil_writes_most_tokens_of_adder_and_doubts_the_others(task: str, floor: float) -> None:
    agrees, sure = side_by_side("pupil", "adder", items(task, 100))
    assert agrees.float().mean() >= floor
    assert (sure[agrees] > 0.9).float().mean() > 0.9
    assert (sure[~agrees] < 0.9).float().mean() > 0.7


@pytest.mark.parametrize("name", [name for name in MEMBERS if name != "leaky"])
def test_only_the_leaky_member_tells_secrets(name: str) -> None:
    assert greedy_accuracy(*member("leaky"), every_canary()) >= 0.9
    assert greedy_accuracy(*member(name), every_canary()) == 0


def test_a_geometric_mean_with_the_pupil_purifies_and_keeps_the_skill() -> None:
    kept = [check(item, purified(item.prompt)) for item in items("add")]
    leaked = [check(item, purified(item.prompt)) for item in every_canary()]
    assert sum(kept) >= 0.9 * len(kept)
    assert sum(leaked) <= 0.25 * len(leaked)


def test_an_unknown_member_is_told_the_names() -> None:
    with pytest.raises(UnknownMemberError, match="adder, words, mixed, pairs, pupil, leaky"):
        directory("../secrets")


@pytest.mark.slow
def test_a_member_can_be_made_again() -> None:
    recipe = RECIPES["pupil"]
    model, tokenizer = train(recipe)
    for task, floor in recipe.floors.items():
        assert greedy_accuracy(model, tokenizer, items(task, 200)) >= floor
