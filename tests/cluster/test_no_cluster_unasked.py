"""A process that has served does not start a cluster of Ray's own accord."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import ray
from cluster.config import parse
from cluster.local import attach

attach(parse({"models": {"adder": {"source": {"zoo": "adder"}}}}), None)


@ray.remote(num_cpus=0)
def one():
    return 1


assert ray.get(one.remote()) == 1
ray.shutdown()
try:
    one.remote()
except Exception:
    print("refused")
print(ray.is_initialized())
"""


def test_a_call_after_the_end_starts_no_cluster() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["refused", "False"], done.stderr
