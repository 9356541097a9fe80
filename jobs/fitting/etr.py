"""``ensemble fit etr``: an output row at the generalist for each expert.

A question's answer is the name of the member that should answer it: an expert's, or the generalist's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from ensemble.artifacts import Artifact, Manifest
from ensemble.concurrency import together
from ensemble.errors import BadRequest
from ensemble.fitting.etr import STAY, EtrFit, accuracies, fit, routed
from ensemble.member import Distribution, Floats, Next
from ensemble.request import Request
from jobs.evaluation.questions import Question
from jobs.fitting.fit import Task
from jobs.fitting.models import Opened

options = EtrFit
members = "the generalist, then its experts"
least, most = 2, None
answer = "expert"
compares = True

_CHUNK = 64
"""Questions that are read at once, and kept together when a fit is stopped."""


async def run(task: Task) -> Mapping[str, Artifact]:
    meta, *experts = task.models
    names = [expert.name for expert in experts]
    labels = np.array([_label(question, meta.name, names) for question in task.questions])
    states = await _states(task, meta)
    own = states @ meta.arrays.output_embeddings[: meta.vocabulary.size].T
    best = own.max(axis=1)
    mass = best + np.log(np.exp(own - best[:, None]).sum(axis=1))
    fitting = np.array([question.split == "development" for question in task.questions])
    start = meta.arrays.output_embeddings[: meta.vocabulary.size].mean(axis=0)
    rows = await asyncio.to_thread(
        fit,
        states[fitting],
        mass[fitting],
        labels[fitting],
        start,
        len(names),
        task.options,
        lambda done, of, _: task.told("epochs", done, of),
    )
    held = ~fitting
    metrics = accuracies(routed(rows, states[held], best[held]), labels[held], names)
    return {meta.name: _artifact(task, meta, names, {"rows": rows.rows, "bias": rows.bias}, metrics)}


def _label(question: Question, meta: str, experts: Sequence[str]) -> int:
    if question.answer == meta:
        return STAY
    if question.answer not in experts:
        allowed = ", ".join([meta, *experts])
        rule = f"row {question.row}: {question.answer!r} is none of the members; allowed: {allowed}"
        raise BadRequest(rule, param="answer")
    return 1 + experts.index(question.answer)


async def _states(task: Task, meta: Opened) -> Floats:
    """The hidden state before each question's answer, shape [n, d]."""
    count, parts = len(task.questions), []
    for begin in range(0, count, _CHUNK):
        chunk = task.questions[begin : begin + _CHUNK]

        async def read(chunk: Sequence[Question] = chunk) -> dict[str, npt.NDArray[np.floating]]:
            return {"states": np.stack(await together(_state(meta, question.text) for question in chunk))}

        parts.append((await task.stages.part(f"states-{begin}", read))["states"])
        task.told("questions read", begin + len(chunk), count)
    return np.concatenate(parts)


async def _state(meta: Opened, question: str) -> Floats:
    async with await meta.member.start(Request.of(question)) as session:
        payload = (await session.exchange(Next(1, hidden=True))).payload
    assert isinstance(payload, Distribution) and payload.hidden is not None
    return payload.hidden


def _artifact(
    task: Task,
    meta: Opened,
    experts: Sequence[str],
    tensors: dict[str, Floats],
    metrics: dict[str, float],
) -> Artifact:
    manifest = Manifest(
        method="etr",
        kind="experts",
        member=meta.name,
        vocabulary=meta.vocabulary.fingerprint,
        space=" ".join(experts),
        others={name: own for name, own in task.others.items() if name != meta.name},
        data=task.data,
        settings={**asdict(task.options), "experts": list(experts)},
        metrics=metrics,
        version=version("ray-ensemble"),
    )
    return Artifact(manifest, {name: values.astype(np.float32) for name, values in tensors.items()})
