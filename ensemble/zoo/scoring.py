"""Accuracy of a member on the zoo's items: the quick teacher-forced figure and the greedy one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from ensemble.zoo.lessons import Encoder
from ensemble.zoo.tasks import Item, check
from ensemble.zoo.tokenisation import EOS_ID, PAD_ID

_LONGEST_ANSWER = 64


@torch.inference_mode()
def forced_accuracy(model: PreTrainedModel, tokenizer: Tokenizer, items: Sequence[Item]) -> float:
    """Share of items whose every answer token, end included, is the likeliest one given those before it.

    Equals greedy exact match except where decoding would spell a right answer with other tokens.
    """
    batch = Encoder(tokenizer).batch(items)
    guesses = model(input_ids=batch.ids).logits.argmax(-1)
    return float(((guesses == batch.labels) | (batch.weights == 0)).all(-1).float().mean())


@torch.inference_mode()
def greedy_answers(model: PreTrainedModel, tokenizer: Tokenizer, items: Sequence[Item]) -> list[str]:
    """The members' greedy answers, in the order of `items`."""
    answers = [""] * len(items)
    for places, prompts in _by_length(tokenizer, items):
        output = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=_LONGEST_ANSWER,
            do_sample=False,
            eos_token_id=EOS_ID,
            pad_token_id=PAD_ID,
        )
        for place, ids in zip(places, output[:, prompts.shape[1] :].tolist(), strict=True):
            answers[place] = tokenizer.decode(ids)
    return answers


def greedy_accuracy(model: PreTrainedModel, tokenizer: Tokenizer, items: Sequence[Item]) -> float:
    """Share of items answered rightly by greedy decoding."""
    answers = greedy_answers(model, tokenizer, items)
    return sum(check(item, answer) for item, answer in zip(items, answers, strict=True)) / len(items)


def _by_length(tokenizer: Tokenizer, items: Sequence[Item]) -> list[tuple[list[int], torch.Tensor]]:
    """Places and prompts grouped by token count, so that no prompt needs padding."""
    groups: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for place, item in enumerate(items):
        ids = tokenizer.encode(item.prompt).ids
        groups[len(ids)].append((place, ids))
    return [([place for place, _ in group], torch.tensor([ids for _, ids in group])) for group in groups.values()]
