"""A configured judge's rewards for a collection's answers, each on disk before the next is asked for.

The judge sees the question and the finished answer, as one step. What a judge has said is kept by what it was asked,
so that no answer is judged twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cluster.schema import Configuration
from deployments.member import RemoteMember
from ensemble import judges
from ensemble.concurrency import together
from ensemble.errors import BadRequest, EnsembleError
from ensemble.judges.judge import Judge
from ensemble.request import Request
from jobs.asking import again
from jobs.job import Job
from jobs.journal import Writer, files
from jobs.recorder import Counts

FOLDER = "_judged"


class Shown(NamedTuple):
    """What a judge is shown."""

    question: str
    answer: str

    @property
    def key(self) -> str:
        return hashlib.blake2b(json.dumps(self).encode(), digest_size=16).hexdigest()


def require(configuration: Configuration, name: str) -> None:
    """Refuse a judge that is not configured.

    Raises:
        BadRequest: naming those there are.
    """
    if name not in configuration.judges:
        has = ", ".join(configuration.judges) or "none"
        raise BadRequest(f"the configuration has no judge {name!r}; it has: {has}", param="grade")


class Rewards:
    """What one judge has said so far, of one output folder."""

    def __init__(self, output: Path, configuration: Configuration, name: str) -> None:
        judge = configuration.judges[name]
        meaning = [judge.model_dump(mode="json")]
        if judge.model is not None:
            meaning.append(Job(model=judge.model, input=output, output=output).identity(configuration, digest=""))
        digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]
        self._folder = output / FOLDER / f"{name}-{digest}"
        self.known: dict[str, float] = {}
        """By key."""
        self.refused: dict[str, str] = {}
        """Why the judge cannot judge an answer, by key; not kept, so that it is asked again the next time."""
        for path in files(self._folder):
            for line in path.read_bytes().split(b"\n"):
                self._read(line)

    def _read(self, line: bytes) -> None:
        """A line that a crash has torn tells nothing."""
        try:
            found = json.loads(line)
        except ValueError:
            return
        if isinstance(found, dict) and isinstance(found.get("reward"), int | float):
            self.known[found["key"]] = float(found["reward"])

    def missing(self, shown: Iterable[Shown]) -> list[Shown]:
        """What the judge has not been asked, each once."""
        return [one for one in dict.fromkeys(shown) if one.key not in self.known]

    async def ask(
        self, judge: Judge, shown: Sequence[Shown], concurrency: int, attempts: int, told: Callable[[Counts], None]
    ) -> None:
        """Ask what is missing; each is known, or refused, afterwards.

        Args:
            attempts: for each at most, while errors are such that a retry may help.

        Raises:
            EnsembleError: a retry might still help; what was said is kept.
        """
        missing = self.missing(shown)
        self._folder.mkdir(parents=True, exist_ok=True)
        writer, places, writing = Writer(self._folder), asyncio.Semaphore(concurrency), asyncio.Lock()
        resumed = done = len(dict.fromkeys(shown)) - len(missing)
        rows = done + len(missing)

        async def reward(asked: Shown) -> float:
            ((found,),) = await judge.judge(Request.of(asked.question), [[asked.answer]])
            return found

        async def one(asked: Shown) -> None:
            nonlocal done
            async with places:
                try:
                    found = await again(lambda: reward(asked), attempts)
                except EnsembleError as error:
                    if error.retryable:
                        raise
                    self.refused[asked.key] = f"the judge: {error.code}: {error.message}"
                else:
                    async with writing:
                        await asyncio.to_thread(writer.write, [{"key": asked.key, "reward": found}])
                    self.known[asked.key] = found
            done += 1
            told(Counts(rows, done, len(self.refused), resumed))

        try:
            await together(one(asked) for asked in missing)
        finally:
            writer.close()


async def connected(configuration: Configuration, name: str) -> Judge:
    """The judge over the deployed model that it asks; the configuration must be served."""
    from ray import serve

    config, model = configuration.judges[name], None
    if config.model is not None:
        handle = serve.get_deployment_handle(f"model-{configuration.bases[config.model]}", configuration.name)
        model = await RemoteMember.connect(config.model, handle)
    return judges.build(config.kind, name, config.options, model)
