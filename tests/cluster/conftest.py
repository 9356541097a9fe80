"""A validator for custom resources: the rules of the Kubernetes API server that matter for written manifests.

Defaults are filled in before required keys are looked for; objects are closed unless they are declared open, as the
API server drops unknown fields in silence.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

FOLDER = "ENSEMBLE_CRDS"
OPEN = "x-kubernetes-preserve-unknown-fields"


class Crds:
    """The definitions below a folder."""

    def __init__(self, folder: Path) -> None:
        self._definitions = {}
        for path in sorted(folder.rglob("*.yaml")):
            definition = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            for version in definition["spec"]["versions"]:
                key = (f"{definition['spec']['group']}/{version['name']}", definition["spec"]["names"]["kind"])
                self._definitions[key] = version["schema"]["openAPIV3Schema"]

    def errors(self, manifest: dict[str, Any]) -> list[str]:
        """What the API server would refuse or drop, each with its path."""
        schema = self._definitions[manifest["apiVersion"], manifest["kind"]]
        filled = copy.deepcopy(manifest)
        fill(filled, schema)
        metadata = {"type": "object"}
        closed = strict({**schema, "properties": {**schema["properties"], "metadata": metadata}})
        found = Draft202012Validator(closed).iter_errors(filled)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


@pytest.fixture(scope="session")
def crds() -> Crds:
    """Read once; the files are large."""
    if FOLDER not in os.environ:
        pytest.skip(f"{FOLDER} names no folder with KubeRay's resource definitions")
    return Crds(Path(os.environ[FOLDER]) / "kuberay")


def fill(value: Any, schema: dict[str, Any]) -> None:
    """Put declared defaults in, in place."""
    if isinstance(value, list):
        for item in value:
            fill(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for key, inner in schema.get("properties", {}).items():
        if key not in value and "default" in inner:
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            fill(value[key], inner)
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        for key in value.keys() - schema.get("properties", {}).keys():
            fill(value[key], extra)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema as JSON Schema: Kubernetes' own words translated, objects closed."""
    made = {k: v for k, v in schema.items() if not k.startswith("x-kubernetes") and k not in ("nullable", "default")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if "properties" in schema:
        made["properties"] = {key: strict(inner) for key, inner in schema["properties"].items()}
        if not schema.get(OPEN):
            made.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        made["items"] = strict(schema["items"])
    if schema.get("nullable") and "type" in made:
        made["type"] = [*([made["type"]] if isinstance(made["type"], str) else made["type"]), "null"]
    return made
