"""The short half of the scenarios, on the service that all tests share."""

from __future__ import annotations

import pytest

from tests.conftest import Service
from tests.faults.cluster import Stage
from tests.faults.conftest import Player
from tests.faults.scenarios import Scenario
from tests.faults.test_faults import SCENARIOS


@pytest.fixture(scope="module")
def stage(service: Service) -> Stage:
    return Stage(service.url, service.configuration.name, service.file)


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.quick], ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario, stage: Stage, played: Player) -> None:
    row = played(scenario, stage)
    assert row.outcome == "passed", row
