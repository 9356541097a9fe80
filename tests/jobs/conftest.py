"""What commands change in their process, undone after each test; and ``evaluation_doubles`` for the tests beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command quietens Ray for the processes it starts; other tests start processes of their own."""
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
