"""The conformance suite through Ray Serve: a member three processes away keeps the same contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ray import serve

from deployments.member import RemoteMember
from ensemble.testing.conformance import EngineConformance

if TYPE_CHECKING:
    from tests.conftest import Service


class TestServedModel(EngineConformance):
    """``mixed`` runs in two replicas, so sessions must find back to theirs."""

    @pytest.fixture(params=["adder", "mixed"])
    async def member(self, request: pytest.FixtureRequest, service: Service) -> RemoteMember:
        handle = serve.get_deployment_handle(f"model-{request.param}", service.configuration.name)
        return await RemoteMember.connect(request.param, handle)
