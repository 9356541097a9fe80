"""``ensemble fit packllm``: options with which the prompt's losses weigh members by who should answer.

A question's answer is the name of the member that should answer it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from ensemble.artifacts import Artifact, Manifest
from ensemble.during.token.prompting.reading import read
from ensemble.errors import BadRequest
from ensemble.fitting.options import require
from ensemble.fitting.packllm import Calibration, fit, weights
from ensemble.member import Floats
from jobs.evaluation.questions import Question
from jobs.fitting.fit import Task

members = "all members"
least, most = 2, None
answer = "expert"
compares = True

_CHUNK = 32
"""Questions that are read at once, and kept together when a fit is stopped."""
_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class PackllmFit:
    """How weights are calibrated."""

    rounds: int = 200
    """Of the optimiser, at most."""

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", "must be at least 1")


options = PackllmFit


async def run(task: Task) -> Mapping[str, Artifact]:
    names = [model.name for model in task.models]
    labels = np.array([_label(question, names) for question in task.questions])
    losses = await _losses(task)
    fitting = np.array([question.split == "development" for question in task.questions])
    found = fit(losses[fitting], labels[fitting], rounds=task.options.rounds)
    metrics = {
        "weight": _right(weights(losses[~fitting], found), labels[~fitting]),
        "weight_uncalibrated": _right(
            weights(losses[~fitting], Calibration(1.0, (0.0,) * len(names))), labels[~fitting]
        ),
    }
    return {"options": _artifact(task, names, found, metrics)}


def _label(question: Question, names: Sequence[str]) -> int:
    if question.answer not in names:
        rule = f"row {question.row}: {question.answer!r} is none of the members; allowed: {', '.join(names)}"
        raise BadRequest(rule, param="answer")
    return names.index(question.answer)


async def _losses(task: Task) -> Floats:
    """Nats for each byte of each question at each member, shape [n, M]."""
    members, count, parts = [model.member for model in task.models], len(task.questions), []
    for begin in range(0, count, _CHUNK):
        chunk = task.questions[begin : begin + _CHUNK]

        async def told(chunk: Sequence[Question] = chunk) -> dict[str, npt.NDArray[np.floating]]:
            rows = [[reading.loss() for reading in await read(members, question.text)] for question in chunk]
            return {"losses": np.array(rows)}

        parts.append((await task.stages.part(f"losses-{begin}", told))["losses"])
        task.told("questions read", begin + len(chunk), count)
    return np.concatenate(parts)


def _right(found: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Mean weight of whoever should answer."""
    return float(found[np.arange(len(labels)), labels].mean()) if len(labels) else float("nan")


def _artifact(task: Task, names: Sequence[str], found: Calibration, metrics: dict[str, float]) -> Artifact:
    offsets = [round(offset, _DIGITS) for offset in found.offsets]
    manifest = Manifest(
        method="packllm",
        kind="options",
        member="",
        vocabulary="",
        others=dict(task.others),
        data=task.data,
        settings={"members": list(names), "options": {"tau": round(found.tau, _DIGITS), "offsets": offsets}},
        metrics=metrics,
        version=version("ray-ensemble"),
    )
    return Artifact(manifest, {})
