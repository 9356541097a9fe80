"""One served configuration for all tests that need a cluster: bringing it up takes longer than most of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from cluster.config import load
from cluster.schema import Configuration

# How long an example takes says how busy the machine is, and nothing about the law under test. By default the examples
# are the same in each run, so that a commit passes or fails for good; ``--hypothesis-profile=explore`` draws new ones.
settings.register_profile("explore", deadline=None)
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    configuration: Configuration
    file: Path


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """``tests/service.yaml`` on a Ray cluster of its own, until the last test has ended."""
    from cluster.local import running

    file = Path(__file__).parent / "service.yaml"
    configuration = load(file)
    with running(configuration, port=free_port()) as url:
        yield Service(url, configuration, file)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
