"""A version changes with what a replica is told, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import pytest

from deployments.driver import EnsembleSettings, deploy
from deployments.engines.settings import Limits, ModelSettings
from deployments.engines.sources import PathSource, ZooSource
from deployments.model import deploy as deploy_model
from deployments.versions import require_version, version_of, versions_in
from ensemble.ensemble import Caps
from ensemble.errors import OtherVersion
from ensemble.member import Price

MODEL = ModelSettings(name="a", source=ZooSource(zoo="adder"), engine_options={"x": 1, "y": (2, 3)})
ENSEMBLE = EnsembleSettings(name="e", method="gac", members=("a", "a"))
PRINT = "from tests.deployments.test_versions import *; print(version_of(MODEL, ENSEMBLE))"


@pytest.mark.parametrize(
    "other",
    [
        replace(MODEL, source=ZooSource(zoo="words")),
        replace(MODEL, source=PathSource(path=Path("adder"))),
        replace(MODEL, price=Price(Decimal(1))),
        replace(MODEL, limits=Limits(prefill_chunk=1)),
        replace(MODEL, engine_options={"x": 1, "y": (3, 2)}),
        replace(MODEL, engine_options={"x": "1", "y": (2, 3)}),
        replace(MODEL, adapters={"b": Path("b")}),
    ],
    ids=str,
)
def test_of_other_settings(other: ModelSettings) -> None:
    assert version_of(other) != version_of(MODEL)


def test_of_the_same_settings_in_another_order_and_process() -> None:
    assert version_of(replace(MODEL, engine_options={"y": (2, 3), "x": 1})) == version_of(MODEL)
    caps = Caps(options=MappingProxyType({"b": 1, "a": 2}))
    assert version_of(caps) == version_of(Caps(options={"a": 2, "b": 1}))
    elsewhere = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, check=True, text=True)
    assert elsewhere.stdout.strip() == version_of(MODEL, ENSEMBLE)


def test_a_changed_member_makes_another_ensemble() -> None:
    one, other = (deploy_model(model) for model in (MODEL, replace(MODEL, threads=2)))
    drivers = {name: deploy(ENSEMBLE, {"a": model}) for name, model in {"1": one, "2": other, "3": one}.items()}
    versions = versions_in(drivers)
    assert versions["1"] == versions["3"] != versions["2"]


def test_whoever_asks_for_no_version_is_answered_by_any() -> None:
    require_version("a", None, "1")
    require_version("a", "1", "1")
    with pytest.raises(OtherVersion):
        require_version("a", "1", "2")
    with pytest.raises(OtherVersion):
        require_version("a", "1", None)
