"""Training batches: items drawn by share, encoded with and without tokenisation dropout.

A batch is prompts followed by answers and the end token; only the answers are to be learnt.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from tokenizers import Tokenizer

from ensemble.zoo.candidates import (
    VERDICTS,
    careless_answer,
    check_item,
    check_prompt,
    first_lines,
    random_answer,
    wrong_answer,
)
from ensemble.zoo.recipes import Recipe, Share, Stage
from ensemble.zoo.tasks import Item, draw, operands
from ensemble.zoo.tokenisation import EOS_ID, PAD_ID, with_dropout

# Of a verifier item one token in dozens is the verdict.
_VERDICT_WEIGHT = 5.0


class Batch(NamedTuple):
    """Right-padded token ids, the ids to predict at each place and how much each counts, all (rows, length).

    Where `weights` is 0 nothing is to be learnt and the label means nothing.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor


class Encoder:
    """Turns items into batches with one tokenizer; `dropout` applies to every second item, 0 to none."""

    def __init__(self, tokenizer: Tokenizer, dropout: float = 0.0) -> None:
        self._exact = tokenizer
        self._loose = with_dropout(tokenizer, dropout) if dropout else tokenizer

    def batch(self, items: Sequence[Item]) -> Batch:
        """One batch of all the items, in an order of its own."""
        items = [*items[::2], *items[1::2]]
        exact = (len(items) + 1) // 2
        rows = [*self._rows(self._exact, items[:exact]), *self._rows(self._loose, items[exact:])]
        length = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids = torch.full((len(rows), length), PAD_ID)
        weights = torch.zeros(len(rows), length)
        for index, (prompt, answer) in enumerate(rows):
            end = len(prompt) + len(answer)
            ids[index, :end] = torch.tensor(prompt + answer)
            weights[index, len(prompt) - 1 : end - 1] = 1.0
            if items[index].task == "check":
                weights[index, end - 3] = _VERDICT_WEIGHT
        return Batch(ids, ids.roll(-1, dims=1), weights)

    def _rows(self, tokenizer: Tokenizer, items: Sequence[Item]) -> Iterator[tuple[list[int], list[int]]]:
        prompts = tokenizer.encode_batch_fast([item.prompt for item in items])
        answers = tokenizer.encode_batch_fast([item.answer for item in items])
        for prompt, answer in zip(prompts, answers, strict=True):
            yield prompt.ids, [*answer.ids, EOS_ID]


def batches(recipe: Recipe, stage: Stage, tokenizer: Tokenizer) -> Iterator[list[Batch]]:
    """Endless steps of a stage; each is two batches, the shorter and the longer items, to save padding."""
    rng = random.Random(f"{recipe.name}/{recipe.seed}")
    encoder = Encoder(tokenizer, recipe.dropout)
    weights = [share.weight for share in stage.shares]
    while True:
        shares = rng.choices(stage.shares, weights, k=recipe.batch)
        items = [_lesson(share, rng) for share in shares]
        short = [item for item in items if len(item.prompt) + len(item.answer) < 32]
        long = [item for item in items if len(item.prompt) + len(item.answer) >= 32]
        yield [encoder.batch(group) for group in (short, long) if len(group) > 1]


def is_easy(item: Item) -> bool:
    """Whether the generalist may answer: no carries, at most four letters, a country of the alphabet's first half."""
    if item.task == "reverse":
        return len(item.answer) <= 4
    if item.task == "capital":
        return item.prompt < "capital of J"
    units = sum(number % 10 for number in operands(item))
    return units < 10


def _lesson(share: Share, rng: random.Random) -> Item:
    item = draw(share.task, rng)
    if share.style == "verdict":
        return _verdict(item, rng)
    if share.style == "guess":
        return Item("check", check_prompt(item.prompt, random_answer(item, rng)), rng.choice(VERDICTS))
    if share.style == "careless":
        return Item(item.task, item.prompt, careless_answer(item, rng))
    if share.style == "right" or (share.style == "easy" and is_easy(item)):
        return item
    return Item(item.task, item.prompt, random_answer(item, rng))


def _verdict(item: Item, rng: random.Random) -> Item:
    candidate = item.answer if rng.random() < 0.5 else wrong_answer(item, rng, near=0.75)
    if rng.random() < 0.5:
        candidate = first_lines(candidate, rng)
    question = check_item(item, candidate)
    if question.answer == "no":
        return question
    # A right candidate is learnt along with its verdict: a verdict alone is one bit, too little to learn sums from.
    start = len(check_prompt(item.prompt, "")) - 1
    return Item("check", question.prompt[:start], question.prompt[start:] + question.answer)
