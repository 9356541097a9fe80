"""Every scenario on a cluster of several nodes: ``make test-faults``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.faults import faults, limits, losses, overload, soak, work
from tests.faults.cluster import Stage, several_nodes
from tests.faults.conftest import Player
from tests.faults.scenarios import Scenario

SCENARIOS = [
    *losses.SCENARIOS,
    *limits.SCENARIOS,
    *work.SCENARIOS,
    *overload.SCENARIOS,
    *soak.SCENARIOS,
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """``service.yaml`` on three nodes."""
    assert not ray.is_initialized(), "these tests bring up a cluster of their own"
    folder = tmp_path_factory.mktemp("faults")
    faults.sick_model(folder / "sick")
    file = Path(shutil.copy(Path(__file__).with_name("service.yaml"), folder))
    with several_nodes(file) as stage:
        yield stage


@pytest.mark.faults
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario, stage: Stage, played: Player) -> None:
    row = played(scenario, stage)
    assert row.outcome == "passed", row
