"""Scenarios that need clusters of their own: ``make test-faults``."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from tests.faults import apart
from tests.faults.cluster import Stage
from tests.faults.conftest import Player
from tests.faults.scenarios import Scenario

NOWHERE = Stage("", "", Path())


@pytest.mark.faults
@pytest.mark.parametrize("scenario", apart.SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario, played: Player) -> None:
    assert not ray.is_initialized()
    row = played(scenario, NOWHERE)
    assert row.outcome == "passed", row
