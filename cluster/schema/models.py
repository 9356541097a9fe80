"""Models and encoders in the file: where their weights come from, what runs them, and on what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from cluster.schema.parts import FilePath, Name, Part, PriceConfig, Resources, located
from deployments.engines.settings import Pooling
from deployments.engines.sources import Source
from deployments.engines.vllm.options import check
from ensemble.errors import ConfigurationError

PARALLEL = ("vllm",)
"""Engines that compute one model on several devices."""


_INSTEAD = {"prefill_chunk": "engine_options.max_num_batched_tokens", "run_ahead": "false"}
"""What to say to vLLM instead of keys that are nothing for it."""


class HeadConfig(Part):
    """A resident head: a small module that lives at a model and reads each of its positions."""

    kind: str
    """Which class of heads it is of; ``ensemble check`` lists them where it is wrong."""
    path: FilePath
    """Folder of its artifact, as ``ensemble fit`` has made it; a relative one is taken from the configuration file's
    folder."""


class Hosted(Part):
    """What everything with weights has: a source, a device, and copies."""

    source: Annotated[Source, BeforeValidator(located)]
    """Where the weights come from. A relative ``path`` is taken from the configuration file's folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs. Omitted: ``auto``, the GPU where ``resources.gpus`` reserves one, else the CPU."""
    threads: int = Field(default=1, ge=1)
    """Threads of one forward pass on the CPU. Omitted: 1."""
    replicas: int = Field(default=1, ge=1)
    """Copies. Omitted: 1."""
    resources: Resources = Resources()
    """What one copy reserves. Omitted: one CPU core."""

    @property
    def reserved(self) -> Resources:
        """What one copy reserves, with the GPUs that follow from other keys."""
        return self.resources

    @model_validator(mode="after")
    def _device_fits(self) -> Self:
        if self.resources.accelerator_type is not None and not self.reserved.gpus:
            raise ValueError("resources.accelerator_type is given without GPUs; set gpus above 0, or leave it out")
        if self.device == "cuda" and not self.reserved.gpus:
            raise ValueError("device is cuda, but no GPU is reserved; set resources.gpus above 0")
        if self.device == "cpu" and self.resources.gpus:
            raise ValueError(
                f"device is cpu, but resources.gpus reserves {self.resources.gpus:g}; leave one of them out"
            )
        return self


class ModelConfig(Hosted):
    """One language model: one deployment, on its own machines."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """What runs the model. Omitted: ``transformers``."""
    engine_options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's ``AsyncEngineArgs``, such as ``kv_cache_memory_bytes``. Omitted: vLLM's own defaults,
    but on a CPU 1 GiB of cache in blocks of 32 tokens and no compilation. Refused for other engines."""
    adapters: dict[Name, FilePath] = Field(default_factory=dict)
    """Folders of LoRA adapters by the name that each is served under, from the same deployment; a relative one is taken
    from the configuration file's folder. Omitted: none. Refused for engines other than ``vllm``."""
    heads: dict[Name, HeadConfig] = Field(default_factory=dict)
    """Resident heads by the name that methods ask for. Omitted: none. For ``vllm`` only kinds that read the likeliest
    tokens alone."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights. Omitted: ``auto``, the one they were saved in on a GPU, float32 on a CPU."""
    context_length: int | None = Field(default=None, ge=2)
    """Tokens of prompt and answer together. Omitted: what the model was trained for."""
    sessions: int = Field(default=16, ge=1)
    """Answers that one replica decodes at once: cache slots, or vLLM's ``max_num_seqs``. Omitted: 16."""
    queue: int = Field(default=256, ge=0)
    """Requests that wait for their turn at one replica; further ones are refused at once, with status 429 and the time
    after which to come again. Omitted: 256."""
    prefill_chunk: int = Field(default=256, ge=1)
    """Prompt tokens read in one forward pass, so that a long prompt does not hold up others. Omitted: 256. Refused for
    ``vllm``, which has ``max_num_batched_tokens`` among its options."""
    run_ahead: bool | None = None
    """Compute on guesses of what ensembles decide, as long as nobody waits. Omitted: on a GPU, which is idle otherwise;
    on a CPU guesses take cores that others need. Refused for ``vllm``, whose sessions cannot take a guess back."""
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
    """Lease of a session that no connected driver has: seconds without a message after which it is closed.
    Omitted: 60."""

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
        if self.parts == 1 or self.device == "cpu" or self.resources.gpus:
            return self.resources
        return self.resources.model_copy(update={"gpus": float(self.parts)})

    @property
    def parts(self) -> int:
        """GPUs that compute one copy of the model together."""
        return self.tensor_parallel * self.pipeline_parallel

    @model_validator(mode="after")
    def _parallel(self) -> Self:
        key = "tensor_parallel" if self.tensor_parallel > 1 else "pipeline_parallel"
        if self.parts > 1 and self.engine not in PARALLEL:
            raise ValueError(
                f"{key} is {getattr(self, key)}, but the engine {self.engine} computes on one device; "
                f"allowed: 1, or another engine ({', '.join(PARALLEL)})"
            )
        if self.pipeline_parallel > 1 and self.device == "cpu":
            raise ValueError("pipeline_parallel is for GPUs, but device is cpu; leave one of them out")
        if self.parts > 1 and self.resources.gpus not in (0, self.parts):
            raise ValueError(
                f"resources.gpus is {self.resources.gpus:g}, but tensor_parallel × pipeline_parallel is {self.parts}; "
                f"allowed: {self.parts}, or leave gpus out"
            )
        return self


class EncoderConfig(Hosted):
    """A sentence encoder: one deployment, whose embeddings routers read. Its source holds a transformer in safetensors,
    of which the last states are read."""

    pooling: Pooling = "mean"
    """What becomes of the states: ``mean``, their mean over the text; ``cls``, the first one alone. Omitted: ``mean``.
    Wrong for the encoder, routers are worse and nothing else tells."""
    max_tokens: int = Field(default=256, ge=1)
    """Of a text; the rest is not read. Omitted: 256."""
    batch: int = Field(default=32, ge=1)
    """Texts that are read in one forward pass at most. Omitted: 32."""
    remembered: int = Field(default=10_000, ge=0)
    """Texts whose embeddings one replica keeps at hand. Omitted: 10,000."""
