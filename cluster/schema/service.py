"""The whole file, with its door and the place where feedback is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

from pydantic import Field

from cluster.schema.ensembles import EnsembleConfig, JudgeConfig
from cluster.schema.models import EncoderConfig, ModelConfig
from cluster.schema.parts import Bytes, DriverResources, FilePath, Name, Part


class FeedbackConfig(Part):
    """Where it is kept what is said of answers, so that routers go on learning."""

    path: FilePath
    """The journal: a file that grows by a line for each piece of feedback, with the questions' texts; further ones
    beside it are begun when it is full, and hold the latest answers. On the disk of the machine that
    ``resources.labels`` select, or where all machines see it. A relative one is taken from the configuration file's
    folder."""
    resources: DriverResources = DriverResources()
    """What its keeper reserves. Omitted: a quarter of a core."""


class GatewayConfig(Part):
    """The HTTP door."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on. Omitted: ``127.0.0.1``, this machine only; ``0.0.0.0`` is everyone."""
    port: int = Field(default=8000, ge=1, le=65535)
    """TCP port. Omitted: 8000."""
    max_body_bytes: Bytes = 4 * 2**20
    """Largest request body, in bytes or as ``4MiB``; more is refused with status 413. Omitted: 4 MiB."""
    max_choices: int = Field(default=64, ge=1)
    """Prompts of one HTTP request times its ``n``; more is refused with status 400. Omitted: 64."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the gateway. Omitted: 1."""
    grace_seconds: float = Field(default=30.0, gt=0)
    """Seconds that requests under way have to end when replicas are stopped or the service is taken down. Omitted:
    30."""
    resources: DriverResources = DriverResources()
    """What one copy reserves. Omitted: a quarter of a core."""


class Configuration(Part):
    """The whole file: models, judges, ensembles over them, and the door."""

    name: Name = "ensemble"
    """Name of the application. Omitted: ``ensemble``."""
    models: dict[Name, ModelConfig] = Field(min_length=1)
    """Models by the name clients ask for."""
    judges: dict[Name, JudgeConfig] = Field(default_factory=dict)
    """Judges by the name ensembles refer to. Omitted: none."""
    encoders: dict[Name, EncoderConfig] = Field(default_factory=dict)
    """Sentence encoders by the name ensembles refer to. Omitted: none; routers have their own, or need none."""
    feedback: FeedbackConfig | None = None
    """Where it is kept what is said of answers. Omitted: nowhere, and /v1/feedback is refused."""
    ensembles: dict[Name, EnsembleConfig] = Field(default_factory=dict)
    """Ensembles by the name clients ask for. Omitted: none, only the models are served."""
    gateway: GatewayConfig = GatewayConfig()
    """The HTTP door. Omitted: port 8000 on this machine only."""

    SECTIONS: ClassVar[tuple[str, ...]] = ("models", "judges", "encoders", "ensembles")

    @property
    def bases(self) -> dict[str, str]:
        """Models and adapters by name, each with the model whose deployment serves it."""
        own = {name: name for name in self.models}
        return own | {adapter: name for name, model in self.models.items() for adapter in model.adapters}

    def only(self, names: Iterable[str]) -> Self:
        """These models and ensembles with all that they need, and nothing else."""
        models, ensembles, judges, encoders = set[str](), set[str](), set[str](), set[str]()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self.bases:
                models.add(self.bases[name])
            elif name not in ensembles:
                ensemble = self.ensembles[name]
                ensembles.add(name)
                # Which encoder a router needs its artifact says.
                encoders.update([ensemble.encoder] if ensemble.encoder else self.encoders)
                waiting.extend(ensemble.members)
                if ensemble.judge is not None:
                    judges.add(ensemble.judge)
                    waiting.extend([model] if (model := self.judges[ensemble.judge].model) is not None else [])
        kept = {"models": models, "ensembles": ensembles, "judges": judges, "encoders": encoders}
        return self.model_copy(update={key: _among(getattr(self, key), own) for key, own in kept.items()})

    def as_dict(self) -> dict[str, Any]:
        """What was written, as JSON values: ``parse`` of it gives an equal configuration, on any machine."""
        return self.model_dump(mode="json", exclude_unset=True)


def _among(section: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name in names}
