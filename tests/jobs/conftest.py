"""What the batch command changes in its process, undone after each test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command quietens Ray for the processes it starts; other tests start processes of their own."""
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
