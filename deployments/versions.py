"""Which configuration a replica was made from: a digest of everything that it is told.

A deployment whose version and reservations stay the same keeps its replicas when the application is deployed again.
Drivers ask only replicas of the version that they were made with, so that no answer is of two configurations. Does not
notice what changes under the same name: another model in the same folder is a new version only with another source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from importlib.metadata import version as installed
from typing import Any

from pydantic import BaseModel
from ray import serve

from ensemble.errors import OtherVersion


def version_of(*parts: Any) -> str:
    """The digest of plain values, dataclasses and pydantic models. Equal parts have equal digests in every process.

    >>> version_of({"a": 1, "b": 2}) == version_of({"b": 2, "a": 1}) != version_of({"a": 1})
    True
    """
    told = json.dumps([installed("ray-ensemble"), *map(_plain, parts)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def versioned(deployment: serve.Deployment, version: str) -> serve.Deployment:
    """The deployment under this version. Serve gives each one a new version at random otherwise."""
    return deployment.options(version=version, _internal=True)


def versions_in(served: Mapping[str, serve.Application]) -> dict[str, str]:
    """The versions of deployments by the names that they serve."""
    return {name: str(application._bound_deployment.version) for name, application in served.items()}


def require_version(name: str, wanted: str | None, here: str | None) -> None:
    """
    Raises:
        OtherVersion: this replica is not of the version that is asked for.
    """
    if wanted is not None and wanted != here:
        raise OtherVersion(f"a replica of {name} runs another configuration", member=name)


def _plain(value: Any) -> Any:
    """As JSON, with the types that JSON cannot tell apart."""
    if isinstance(value, BaseModel):
        return [type(value).__name__, _plain(value.model_dump())]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, {field.name: _plain(getattr(value, field.name)) for field in fields(value)}]
    if isinstance(value, Mapping):
        return {str(key): _plain(of) for key, of in value.items()}
    if isinstance(value, Set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
