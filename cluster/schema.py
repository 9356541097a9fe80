"""The configuration file as types: what may stand in it, in which unit, and what holds where a key is left out.

Each value is checked by itself here; ``cluster.consistency`` checks what has to fit together. Nothing is loaded or
started.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from deployments.engines.settings import Pooling
from deployments.engines.sources import Source
from deployments.engines.vllm.options import check
from ensemble.ensemble import Caps
from ensemble.errors import ConfigurationError
from ensemble.failures.policy import OnLoss, Policy
from ensemble.member import Price
from ensemble.request import Budget, Exhausted

LABEL = r"^!?(in\([\w.-]+(, ?[\w.-]+)*\)|[\w.-]+)$"
"""Values of a label, as Ray takes them."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=63)]
"""Names of models, ensembles and judges: small letters, digits, dot, underscore, hyphen."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_AMOUNT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?\s*$")


def amount(value: object) -> object:
    """Bytes from ``"2GiB"``, ``"500MB"`` or a number; anything else is left for the type check to refuse.

    >>> amount("2GiB"), amount("1.5 kB")
    (2147483648, '1.5 kB')
    """
    found = _AMOUNT.match(value) if isinstance(value, str) else None
    return int(float(found[1]) * _UNITS[found[2] or ""]) if found else value


Bytes = Annotated[int, Field(gt=0), BeforeValidator(amount)]
"""A number of bytes, or text such as ``2GiB`` (powers of 1024) or ``500MB`` (powers of 1000)."""


class Part(BaseModel):
    """Base of every part of the file: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DriverResources(Part):
    """What one replica without a model reserves on its node."""

    cpus: float = Field(default=0.25, ge=0)
    """CPU cores. Omitted: a quarter of a core, as a driver mostly waits for its members."""
    memory: Bytes | None = None
    """Bytes of main memory, or text such as ``2GiB``. Omitted: none is reserved; the node's own limit holds."""
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Amounts of further Ray resources by name, which the nodes must offer. Omitted: none."""
    labels: dict[str, Annotated[str, Field(pattern=LABEL)]] = Field(default_factory=dict)
    """Labels that the node must have, by name, in Ray's words: ``value``, ``!value``, ``in(a, b)`` or ``!in(a, b)``.
    Omitted: any node; what reserves no GPU goes to nodes without GPUs where there are some with room."""


class Resources(DriverResources):
    """What one replica of a model reserves on its node."""

    cpus: float = Field(default=1.0, ge=0)
    """CPU cores. Omitted: 1."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs; a fraction shares one GPU with other replicas. Omitted: with ``tensor_parallel`` or ``pipeline_parallel``
    above 1, as many as they need; else 0, the model runs on the CPU."""
    accelerator_type: str | None = Field(default=None, min_length=1)
    """Ray's name for the kind of GPU, such as ``H100`` or ``A10G``. Omitted: any kind."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus is {self.gpus:g}; allowed: a fraction below 1, or a whole number")
        return self


class PriceConfig(Part):
    """Money per million tokens, in one unit for the whole file."""

    input: Decimal = Field(default=Decimal(0), ge=0)
    """Price of a million tokens read. Omitted: 0."""
    output: Decimal = Field(default=Decimal(0), ge=0)
    """Price of a million tokens written. Omitted: 0."""

    @property
    def value(self) -> Price:
        return Price(self.input, self.output)


PARALLEL = ("vllm",)
"""Engines that compute one model on several devices."""


_INSTEAD = {"prefill_chunk": "engine_options.max_num_batched_tokens", "run_ahead": "false"}
"""What to say to vLLM instead of keys that are nothing for it."""


class HeadConfig(Part):
    """A resident head: a small module that lives at a model and reads each of its positions."""

    kind: str
    """Which class of heads it is of; ``ensemble check`` lists them where it is wrong."""
    path: Path
    """Folder of its artifact, as ``ensemble fit`` has made it; a relative one is taken from the configuration file's
    folder."""


class ModelConfig(Part):
    """One language model: one deployment, on its own machines."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs the model. Omitted: ``transformers``."""
    engine_options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's ``AsyncEngineArgs``, such as ``kv_cache_memory_bytes``. Omitted: vLLM's own defaults,
    but on a CPU 1 GiB of cache in blocks of 32 tokens and no compilation. Refused for other engines."""
    adapters: dict[Name, Path] = Field(default_factory=dict)
    """Folders of LoRA adapters by the name that each is served under, from the same deployment; a relative one is taken
    from the configuration file's folder. Omitted: none. Refused for engines other than ``vllm``."""
    heads: dict[Name, HeadConfig] = Field(default_factory=dict)
    """Resident heads by the name that methods ask for. Omitted: none. For ``vllm`` only kinds that read the likeliest
    tokens alone."""
    source: Source
    """Where the weights come from. A relative ``path`` is taken from the configuration file's folder."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights. Omitted: ``auto``, the one they were saved in on a GPU, float32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs. Omitted: ``auto``, the GPU where ``resources.gpus`` reserves one, else the CPU."""
    context_length: int | None = Field(default=None, ge=2)
    """Tokens of prompt and answer together. Omitted: what the model was trained for."""
    sessions: int = Field(default=16, ge=1)
    """Answers that one replica decodes at once: cache slots, or vLLM's ``max_num_seqs``. Omitted: 16."""
    queue: int = Field(default=256, ge=0)
    """Requests that wait for their turn at one replica; further ones are refused at once, with status 429 and the time
    after which to come again. Omitted: 256."""
    threads: int = Field(default=1, ge=1)
    """Threads of one forward pass on the CPU. Omitted: 1."""
    prefill_chunk: int = Field(default=256, ge=1)
    """Prompt tokens read in one forward pass, so that a long prompt does not hold up others. Omitted: 256. Refused for
    ``vllm``, which has ``max_num_batched_tokens`` among its options."""
    run_ahead: bool | None = None
    """Compute on guesses of what ensembles decide, as long as nobody waits. Omitted: on a GPU, which is idle otherwise;
    on a CPU guesses take cores that others need. Refused for ``vllm``, whose sessions cannot take a guess back."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the model. Omitted: 1."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that compute each layer together; always on one node. Omitted: 1."""
    pipeline_parallel: int = Field(default=1, ge=1)
    """Stages of consecutive layers; each on ``tensor_parallel`` GPUs of one node, if need be another than the others'.
    Omitted: 1."""
    resources: Resources = Resources()
    """What one replica reserves, all its stages together. Omitted: one CPU core, and no GPU but those that
    ``tensor_parallel`` and ``pipeline_parallel`` need."""
    price: PriceConfig = PriceConfig()
    """Money per million tokens, for budgets and usage. Omitted: free."""
    chat_template: str | None = Field(default=None, min_length=1)
    """Jinja template around a conversation: the text itself, or ``{path: FILE}`` taken from the configuration file's
    folder, whose text is then put in its place. Omitted: the template that comes with the tokenizer."""
    idle_seconds: float = Field(default=60.0, gt=0)
    """Lease of a session: seconds without a message after which it is closed. Omitted: 60."""

    @field_validator("source", mode="before")
    @classmethod
    def _absolute(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        if folder is None or not isinstance(value, dict) or not isinstance(value.get("path"), str):
            return value
        return {**value, "path": str(Path(folder, Path(value["path"]).expanduser()))}

    @field_validator("adapters", mode="before")
    @classmethod
    def _all_absolute(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        if folder is None or not isinstance(value, dict):
            return value
        return {k: str(Path(folder, Path(v).expanduser())) if isinstance(v, str) else v for k, v in value.items()}

    @field_validator("heads", mode="before")
    @classmethod
    def _heads_absolute(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        if folder is None or not isinstance(value, dict):
            return value
        return {name: _at(folder, head) for name, head in value.items()}

    @field_validator("engine_options")
    @classmethod
    def _known_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            check(value)
        except ConfigurationError as error:
            raise ValueError(error.message) from error
        return value

    @model_validator(mode="after")
    def _of_the_engine(self) -> Self:
        refused = ("prefill_chunk", "run_ahead") if self.engine == "vllm" else ("engine_options", "adapters")
        for key in refused:
            if key in self.model_fields_set and getattr(self, key):
                instead = "the engine vllm" if self.engine != "vllm" else _INSTEAD[key]
                raise ValueError(f"{key} is nothing for the engine {self.engine}; allowed: leave it out, or {instead}")
        return self

    @field_validator("chat_template", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, dict):
            return value
        if set(value) != {"path"} or not isinstance(value["path"], str):
            raise ValueError("the template is either its text or {path: FILE}")
        path = Path((info.context or {}).get("folder") or ".", Path(value["path"]).expanduser())
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ValueError(
                f"the template {path} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from error

    @property
    def reserved(self) -> Resources:
        """What one replica reserves, with the GPUs that the parallel parts of the model need."""
        parts = self.tensor_parallel * self.pipeline_parallel
        if parts == 1 or self.device == "cpu" or self.resources.gpus:
            return self.resources
        return self.resources.model_copy(update={"gpus": float(parts)})

    @model_validator(mode="after")
    def _parallel(self) -> Self:
        parts = self.tensor_parallel * self.pipeline_parallel
        key = "tensor_parallel" if self.tensor_parallel > 1 else "pipeline_parallel"
        if parts > 1 and self.engine not in PARALLEL:
            raise ValueError(
                f"{key} is {getattr(self, key)}, but the engine {self.engine} computes on one device; "
                f"allowed: 1, or another engine ({', '.join(PARALLEL)})"
            )
        if self.pipeline_parallel > 1 and self.device == "cpu":
            raise ValueError("pipeline_parallel is for GPUs, but device is cpu; leave one of them out")
        if parts > 1 and self.resources.gpus not in (0, parts):
            raise ValueError(
                f"resources.gpus is {self.resources.gpus:g}, but tensor_parallel × pipeline_parallel is {parts}; "
                f"allowed: {parts}, or leave gpus out"
            )
        return self

    @model_validator(mode="after")
    def _accelerated(self) -> Self:
        if self.resources.accelerator_type is not None and not self.reserved.gpus:
            raise ValueError("resources.accelerator_type is given without GPUs; set gpus above 0, or leave it out")
        return self

    @model_validator(mode="after")
    def _device_fits(self) -> Self:
        if self.device == "cuda" and not self.reserved.gpus:
            raise ValueError("device is cuda, but no GPU is reserved; set resources.gpus above 0")
        if self.device == "cpu" and self.resources.gpus:
            raise ValueError(
                f"device is cpu, but resources.gpus reserves {self.resources.gpus:g}; leave one of them out"
            )
        return self


def _among(section: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name in names}


def _at(folder: Path, part: Any) -> Any:
    """A part whose path is taken from the folder."""
    if not isinstance(part, dict) or not isinstance(part.get("path"), str):
        return part
    return {**part, "path": str(Path(folder, Path(part["path"]).expanduser()))}


class EncoderConfig(Part):
    """A sentence encoder: one deployment, whose embeddings routers read."""

    source: Source
    """Where the weights come from, as of models: a transformer in safetensors, of which the last states are read. A
    relative ``path`` is taken from the configuration file's folder."""
    pooling: Pooling = "mean"
    """What becomes of the states: ``mean``, their mean over the text; ``cls``, the first one alone. Omitted: ``mean``.
    Wrong for the encoder, routers are worse and nothing else tells."""
    max_tokens: int = Field(default=256, ge=1)
    """Of a text; the rest is not read. Omitted: 256."""
    batch: int = Field(default=32, ge=1)
    """Texts that are read in one forward pass at most. Omitted: 32."""
    remembered: int = Field(default=10_000, ge=0)
    """Texts whose embeddings one replica keeps at hand. Omitted: 10,000."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs. Omitted: ``auto``, the GPU where ``resources.gpus`` reserves one, else the CPU."""
    threads: int = Field(default=1, ge=1)
    """Threads of one forward pass on the CPU. Omitted: 1."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the encoder. Omitted: 1."""
    resources: Resources = Resources()
    """What one copy reserves. Omitted: one CPU core."""

    @field_validator("source", mode="before")
    @classmethod
    def _absolute(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        return value if folder is None else _at(folder, value)

    @model_validator(mode="after")
    def _device_fits(self) -> Self:
        if self.device == "cuda" and not self.resources.gpus:
            raise ValueError("device is cuda, but no GPU is reserved; set resources.gpus above 0")
        return self


class FeedbackConfig(Part):
    """Where it is kept what is said of answers, so that routers go on learning."""

    path: Path
    """The journal: a file that grows by a line for each answer of a router and for each piece of feedback, with the
    questions' texts. On the disk of the machine that ``resources.labels`` select, or where all machines see it. A
    relative one is taken from the configuration file's folder."""
    resources: DriverResources = DriverResources()
    """What its keeper reserves. Omitted: a quarter of a core."""


class JudgeConfig(Part):
    """What rewards candidates and their steps."""

    kind: str
    """Which judge; ``ensemble check`` lists the kinds where it is wrong."""
    model: Name | None = None
    """The model that is asked, for kinds that ask one. Omitted: none; refused where the kind needs one."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the kind. Omitted: its defaults."""


class BudgetConfig(Part):
    """What one request may spend over all members; a request can ask for less, never for more."""

    calls: int | None = Field(default=None, gt=0)
    """Member calls: one generation, one opened session or one judged list each. Omitted: no limit."""
    tokens: int | None = Field(default=None, gt=0)
    """Prompt and completion tokens of all members. Omitted: no limit."""
    cost: Decimal | None = Field(default=None, gt=0)
    """Money, in the unit of the models' prices. Omitted: no limit."""
    seconds: float | None = Field(default=None, gt=0)
    """Wall time of one request. Omitted: no limit."""
    exhausted: Exhausted = "error"
    """What becomes of a request that has used its budget up, unless it says so itself: ``error``, a typed error;
    ``partial``, what was written until then is the answer, marked as such. Omitted: ``error``."""

    @property
    def value(self) -> Budget:
        return Budget(**self.model_dump())


class CapsConfig(Part):
    """What one request may ask for at most; more is refused before any call is made."""

    n: int = Field(default=Caps().n, ge=1)
    """Choices. Omitted: 8."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one choice. Omitted: the members' context."""
    fan_out: int = Field(default=Caps().fan_out, ge=1)
    """Answers and sessions that one request may begin at models, over all choices and all ensembles within this one.
    Omitted: 512."""
    depth: int = Field(default=Caps().depth, ge=1)
    """Ensembles within one another, this one counted. Omitted: 4."""
    members: int = Field(default=Caps().members, ge=1)
    """Members of the ensemble. Omitted: 16."""
    options: dict[str, float] = Field(default_factory=dict)
    """Largest value by option of the method. Omitted: the method's own caps."""

    @property
    def value(self) -> Caps:
        return Caps(**self.model_dump())


class BreakerConfig(Part):
    """When a member is left alone for a while."""

    failures: int = Field(default=Policy().breaker_failures, ge=1)
    """Failures in a row after which it is not asked. What a client did wrong is no failure. Omitted: 5."""
    seconds: float = Field(default=Policy().breaker_seconds, gt=0)
    """Seconds that it is not asked; then one request tries it. Omitted: 5."""


class PolicyConfig(Part):
    """What happens when a member fails; the word of ``on_loss`` alone is enough."""

    on_loss: OnLoss = "fail"
    """``fail``: the request ends with a typed error. ``recover``: the member's work is taken up by another replica.
    ``degrade``: the answer goes on without the member, and says so. Omitted: ``fail``."""
    quorum: int | None = Field(default=None, ge=1)
    """Members that are enough; below, the request fails. Omitted: with ``degrade`` more than half, with ``recover``
    all. Refused with ``fail``."""
    patience: float | None = Field(default=None, gt=0)
    """Seconds that ``recover`` looks for another replica. Omitted: 30. Refused without ``recover``."""
    step_seconds: float | None = Field(default=None, gt=0)
    """Seconds that a member has for one message, in which it may have to read the prompt; then it counts as lost.
    Omitted: no limit."""
    hedge_seconds: float | None = Field(default=None, gt=0)
    """Seconds after which a message is also sent to another replica of the member; the first reply counts. Omitted:
    never."""
    breaker: BreakerConfig = BreakerConfig()
    """When a member is left alone. Omitted: for 5 seconds after 5 failures in a row."""

    @model_validator(mode="after")
    def _applicable(self) -> Self:
        if self.on_loss == "fail" and self.quorum is not None:
            raise ValueError("quorum is nothing for on_loss: fail; allowed: leave it out, or degrade or recover")
        if self.on_loss != "recover" and self.patience is not None:
            raise ValueError(f"patience is nothing for on_loss: {self.on_loss}; allowed: leave it out, or recover")
        if None not in (self.step_seconds, self.hedge_seconds) and self.hedge_seconds >= self.step_seconds:  # type: ignore[operator]
            raise ValueError("hedge_seconds must be below step_seconds: what is given up is not asked elsewhere")
        return self

    @property
    def value(self) -> Policy:
        return Policy(
            on_loss=self.on_loss,
            quorum=self.quorum,
            patience=self.patience or Policy().patience,
            step_seconds=self.step_seconds,
            hedge_seconds=self.hedge_seconds,
            breaker_failures=self.breaker.failures,
            breaker_seconds=self.breaker.seconds,
        )


def _policy(value: object) -> object:
    return {"on_loss": value} if isinstance(value, str) else value


class EnsembleConfig(Part):
    """A method over members, served under its own name like a model."""

    method: str
    """Name of the method; ``ensemble methods`` lists them."""
    members: tuple[Name, ...] = Field(min_length=1)
    """Names of models or of other ensembles, in the order the method takes them."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the method. Omitted: its defaults."""
    judge: Name | None = None
    """Name of the judge. Omitted: none; refused where the method needs one."""
    encoder: Name | None = None
    """Name of the encoder whose embeddings the method's router reads. Omitted: the one that it was fitted on. Refused
    for methods that read none, and for routers that have their own."""
    policy: Annotated[PolicyConfig, BeforeValidator(_policy)] = PolicyConfig()
    """What happens when a member fails. Omitted: ``fail``, the request ends with a typed error."""
    budget: BudgetConfig = BudgetConfig()
    """Limits of each request. Omitted: none."""
    caps: CapsConfig = CapsConfig()
    """What a request may ask for. Omitted: 8 choices and the method's own caps."""
    queue: int = Field(default=64, ge=0)
    """Requests that wait for their turn at one driver; further ones are refused at once, with status 429 and the time
    after which to come again. Omitted: 64."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the driver. Omitted: 1."""
    resources: DriverResources = DriverResources()
    """What one driver reserves. Omitted: a quarter of a core."""

    @field_validator("options", mode="before")
    @classmethod
    def _path_absolute(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        return value if folder is None else _at(folder, value)


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

    @field_validator("feedback", mode="before")
    @classmethod
    def _journal_absolute(cls, value: Any, info: ValidationInfo) -> Any:
        folder = (info.context or {}).get("folder")
        return value if folder is None else _at(folder, value)

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
