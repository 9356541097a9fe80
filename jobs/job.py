"""What a batch job is: which rows are put to which model and how, and what makes two jobs the same one.

Everything that can be refused is refused here, from the configuration alone; nothing is read or started.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cluster.schema import Configuration, Part
from ensemble.ensemble import problems
from ensemble.errors import BadRequest, OverCap, UnknownModel, UnknownOption
from ensemble.request import Sampling

Kind = Literal["question", "messages", "prompt"]

RESULTS = ("text", "finish_reason", "usage", "totals", "error", "seconds")
"""Columns that every job adds."""
_ABOUT_MACHINES = {"replicas", "resources", "sessions", "threads", "prefill_chunk", "idle_seconds"}


@dataclass(frozen=True, slots=True)
class Subject:
    """Where a row says what is asked."""

    kind: Kind = "question"
    """``question``: one user message; ``messages``: a conversation, as a list or as JSON; ``prompt``: raw text."""
    column: str = "question"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One question for each row of a file, to one model or ensemble.

    >>> Job(model="pair", input=Path("in.parquet"), output=Path("out")).columns
    ('text', 'finish_reason', 'usage', 'totals', 'error', 'seconds')
    """

    model: str
    """Name of a model or an ensemble of the configuration."""
    input: Path
    """``.parquet``, ``.jsonl`` or ``.jsonl.gz``."""
    output: Path
    """Folder; made if it is not there."""
    subject: Subject = field(default_factory=Subject)
    id_column: str | None = None
    """Column that names each row; refused where values are missing or repeated. ``None``: position is identity."""
    sampling: Sampling = field(default_factory=Sampling)
    """The same for all rows, the seed included."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the ensemble's method; refused where the model is not an ensemble."""
    prefix: str = ""
    """Goes before the names of the columns that are added."""
    credits: bool = False
    """Add a column that says which members wrote which part of the text."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are added, prefix included."""
        return tuple(self.prefix + name for name in (*RESULTS, *(["credits"] if self.credits else [])))

    def check(self, configuration: Configuration) -> None:
        """Refuse what the configuration does not allow.

        Raises:
            UnknownModel: no model or ensemble has the name; the message lists those there are.
            UnknownOption, BadRequest: options that the method does not have, or values that it does not take.
            OverCap: more than the ensemble's caps allow.
        """
        ensemble = configuration.ensembles.get(self.model)
        if ensemble is None:
            self._check_plain(configuration)
            return
        most = ensemble.caps.max_tokens
        if most is not None and (self.sampling.max_tokens or 0) > most:
            raise OverCap(f"max_tokens is {self.sampling.max_tokens}; at most {most} is allowed here")
        options = {**ensemble.options, **self.options}
        judged = ensemble.judge is not None
        for problem in problems(ensemble.method, options, [], judge=judged, caps=ensemble.caps.value, whole=False):
            raise BadRequest(problem.message, param=problem.param)

    def _check_plain(self, configuration: Configuration) -> None:
        if self.model not in configuration.bases:
            names = ", ".join((*configuration.ensembles, *configuration.bases))
            raise UnknownModel(f"no model or ensemble is named {self.model!r}; there are: {names}")
        if self.options:
            raise UnknownOption(f"{self.model} is a model; only ensembles take options", param=next(iter(self.options)))

    def identity(self, configuration: Configuration, digest: str) -> dict[str, Any]:
        """JSON values that are equal for jobs whose rows may be mixed.

        Args:
            digest: of the input file.
        """
        meaning = json.dumps(dict(_meaning(configuration, self.model)), sort_keys=True).encode()
        return {
            "input": digest,
            "model": self.model,
            "configuration": hashlib.sha256(meaning).hexdigest(),
            "subject": asdict(self.subject),
            "id_column": self.id_column,
            "sampling": {**asdict(self.sampling), "stop": list(self.sampling.stop)},
            "options": json.loads(json.dumps(dict(self.options), sort_keys=True)),
            "columns": list(self.columns),
        }


def _meaning(configuration: Configuration, name: str) -> Iterator[tuple[str, Any]]:
    """What the configuration says of a model or an ensemble and all that it contains, machines left out."""
    bases = configuration.bases
    if name in bases:
        yield name, _plain(configuration.models[bases[name]])
        return
    ensemble = configuration.ensembles[name]
    yield name, _plain(ensemble)
    for member in ensemble.members:
        yield from _meaning(configuration, member)
    if ensemble.judge is not None:
        judge = configuration.judges[ensemble.judge]
        yield f"judge {ensemble.judge}", _plain(judge)
        if judge.model is not None:
            yield from _meaning(configuration, judge.model)


def _plain(part: Part) -> dict[str, Any]:
    return part.model_dump(mode="json", exclude=_ABOUT_MACHINES)
