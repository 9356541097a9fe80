"""Only a model's replica imports torch: drivers, the gateway and the command start in a fraction of the time."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["deployments.driver", "deployments.ingress", "deployments.model", "cluster.local"])
def test_nothing_but_an_engine_needs_torch(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_engine_does() -> None:
    """Otherwise the test above could not fail."""
    code = "import sys, deployments.engines.loading; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
