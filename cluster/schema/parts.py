"""What parts of the file are made of: names, amounts, paths, and what a replica reserves."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from ensemble.member import Price

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


def _absolute(value: Any, info: ValidationInfo) -> Any:
    folder = (info.context or {}).get("folder")
    if folder is None or not isinstance(value, str):
        return value
    return str(Path(folder, Path(value).expanduser()))


def located(value: Any, info: ValidationInfo) -> Any:
    """A part with its ``path``, if it has one, taken from the configuration file's folder."""
    if not isinstance(value, dict) or not isinstance(value.get("path"), str):
        return value
    return {**value, "path": _absolute(value["path"], info)}


FilePath = Annotated[Path, BeforeValidator(_absolute)]
"""A file or folder; a relative one is taken from the configuration file's folder."""


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
