"""``ensemble fit citer``: a router at the small member. A question's answer is a reference, with its reasoning."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.artifacts import Artifact, Manifest
from ensemble.errors import BadRequest
from ensemble.fitting.citer import Example, Labels, Open, labelled, relabelled, together_written
from ensemble.fitting.router import CiterFit, Network, fit
from jobs.evaluation.questions import Question
from jobs.fitting.fit import Task

options = CiterFit
members = "the small member, then the large one"
least, most = 2, 2
answer = "answer"
compares = False

_CHUNK = 32
"""Questions that are labelled at once, and kept together when a fit is stopped."""
Tensors = dict[str, npt.NDArray[Any]]


async def run(task: Task) -> Mapping[str, Artifact]:
    """
    Raises:
        BadRequest: the members' vocabularies differ, so that they cannot be held against one reference.
    """
    small, large = task.models
    if small.vocabulary.fingerprint != large.vocabulary.fingerprint:
        rule = f"{small.name} and {large.name} have different vocabularies; allowed: members of one"
        raise BadRequest(f"{rule}, or r2r, which needs no fit", param="members")
    chunks = [task.questions[begin : begin + _CHUNK] for begin in range(0, len(task.questions), _CHUNK)]
    parts = [await _labelled(task, number, chunk) for number, chunk in enumerate(chunks)]
    router, metrics = await _fitted(task, parts)
    for iteration in range(1, task.options.iterations):
        parts = [
            await _relabelled(task, iteration, number, chunk, part, router)
            for number, (chunk, part) in enumerate(zip(chunks, parts, strict=True))
        ]
        router, metrics = await _fitted(task, parts)
    return {task.models[0].name: _artifact(task, router, metrics)}


async def _fitted(task: Task, parts: Sequence[Labels]) -> tuple[Network, dict[str, float]]:
    states = np.concatenate([part.states for part in parts])
    good = np.concatenate([part.good for part in parts])
    told = partial(task.told, "epochs")
    return await asyncio.to_thread(fit, states, good, task.options, told)


async def _labelled(task: Task, number: int, chunk: Sequence[Question]) -> Labels:
    small, large = (model.member for model in task.models)

    async def make() -> Tensors:
        found = await labelled(small, large, _examples(chunk), _right(task, chunk), task.options, _nobody)
        return _packed(found)

    part = _unpacked(await task.stages.part(f"labels-{number}", make))
    task.told("questions labelled", number * _CHUNK + len(chunk), len(task.questions))
    return part


async def _relabelled(
    task: Task, iteration: int, number: int, chunk: Sequence[Question], part: Labels, router: Network
) -> Labels:
    small, large = (model.member for model in task.models)
    examples = _examples(chunk)

    async def make() -> Tensors:
        answers = [
            partial(together_written, small, large, examples[place.example], place, router, task.options)
            for place in part.open
        ]
        return _packed(await relabelled(part, answers, _right(task, chunk), task.options, _nobody))

    again = _unpacked(await task.stages.part(f"labels-{number}-{iteration}", make))
    task.told(f"questions labelled, iteration {iteration + 1}", number * _CHUNK + len(chunk), len(task.questions))
    return again


def _examples(chunk: Sequence[Question]) -> list[Example]:
    return [Example(question.text, question.answer) for question in chunk]


def _right(task: Task, chunk: Sequence[Question]) -> Any:
    return lambda example, text: chunk[example].right(task.grade, text)


def _nobody(done: int, of: int) -> None:
    return None


def _packed(labels: Labels) -> Tensors:
    """Open places as arrays: their rows and examples, and their ids one after the other with their counts."""
    ids = [place.ids for place in labels.open]
    return {
        "states": labels.states,
        "good": labels.good,
        "open": np.array([(place.row, place.example) for place in labels.open], np.int64).reshape(-1, 2),
        "counts": np.array([len(own) for own in ids], np.int64),
        "ids": np.array([i for own in ids for i in own], np.int64),
    }


def _unpacked(tensors: Tensors) -> Labels:
    ends = np.cumsum(tensors["counts"])
    ids = [tensors["ids"][end - count : end].tolist() for end, count in zip(ends, tensors["counts"], strict=True)]
    places = zip(tensors["open"].tolist(), ids, strict=True)
    open_ = tuple(Open(row, example, tuple(own)) for (row, example), own in places)
    return Labels(tensors["states"], tensors["good"], open_)


def _artifact(task: Task, router: Network, metrics: dict[str, float]) -> Artifact:
    small, large = task.models
    manifest = Manifest(
        method="citer",
        kind="router",
        member=small.name,
        vocabulary=small.vocabulary.fingerprint,
        space="stay or leave",
        others={large.name: large.vocabulary.fingerprint},
        data=task.data,
        settings=asdict(task.options),
        metrics=metrics,
        version=version("ray-ensemble"),
    )
    return Artifact(manifest, router.layers)
