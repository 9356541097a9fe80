"""What a fitted router is made of, so that it can be saved and loaded whole: parts are dataclasses of arrays, JSON
values and further parts.

A part declares its kind; nothing else is needed for it to be kept in an artifact. Never pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from ensemble.artifacts import Tensors
from ensemble.errors import BadRequest, ConfigurationError

P = TypeVar("P", bound="Part")


class NeedsFit(BadRequest):
    """A part takes no member that it was not fitted to.

    Args:
        instead: what to do; omitted: fit again with the member in the table.
    """

    def __init__(self, message: str, *, param: str | None = None, instead: str | None = None) -> None:
        super().__init__(message, param=param)
        self.instead = instead


class Part:
    """Base of parts: subclasses are dataclasses and name their kind, ``class Ridge(Head, kind="ridge")``."""

    kind: ClassVar[str] = ""
    _kinds: ClassVar[dict[str, type[Part]]] = {}

    def __init_subclass__(cls, kind: str | None = None, **given: Any) -> None:
        super().__init_subclass__(**given)
        if kind is None:
            return
        # A dataclass with slots is made anew under the same name; it takes the place of the first.
        known = Part._kinds.get(kind)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConfigurationError(f"two parts of routers are of kind {kind}: {known} and {cls}")
        cls.kind = kind
        Part._kinds[kind] = cls

    def packed(self, prefix: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
        """What is kept: JSON values, and tensors by name."""
        values: dict[str, Any] = {"kind": self.kind}
        tensors: dict[str, Any] = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                tensors[prefix + field.name] = value
            elif isinstance(value, Part):
                values[field.name], inner = value.packed(f"{prefix}{field.name}.")
                tensors |= inner
            else:
                values[field.name] = value
        return values, tensors

    @classmethod
    def unpacked(cls, values: Mapping[str, Any], tensors: Tensors, prefix: str = "") -> Self:
        """The part that was packed.

        Raises:
            ConfigurationError: it is of a kind that is not known here, or of another class than expected.
        """
        kind = values.get("kind")
        found = Part._kinds.get(str(kind))
        if found is None or not issubclass(found, cls):
            known = ", ".join(sorted(k for k, part in Part._kinds.items() if issubclass(part, cls)))
            raise ConfigurationError(f"a router's part is of kind {kind!r}; known here: {known}")
        given: dict[str, Any] = {}
        for field in fields(found):  # type: ignore[arg-type]
            name = prefix + field.name
            value = values.get(field.name)
            if name in tensors:
                given[field.name] = tensors[name].copy()
            elif isinstance(value, Mapping) and "kind" in value:
                given[field.name] = Part.unpacked(value, tensors, f"{name}.")
            elif field.name in values:
                given[field.name] = tuple(value) if isinstance(value, list) else value
        try:
            return found(**given)
        except TypeError as error:
            raise ConfigurationError(f"a router's part of kind {kind} cannot be read: {error}") from error
