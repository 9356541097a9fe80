"""``ensemble serve`` as people run it: a process that brings a service up, tells where it is, and takes it down."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import free_port

COMMAND = [sys.executable, "-m", "cluster.cli"]
SMALL = """
name: small
models:
  adder: {source: {zoo: adder}, resources: {cpus: 0.1}}
"""
TWINS = """
ensembles:
  twins: {method: gac, members: [adder, adder], resources: {cpus: 0.1}}
"""


def test_from_start_to_end(tmp_path: Path) -> None:
    small, larger, other = (tmp_path / f"{name}.yaml" for name in ("small", "larger", "other"))
    small.write_text(SMALL)
    larger.write_text(SMALL + TWINS)
    with serving(small) as (process, url):
        assert ran("ask", "adder", "47+38=", "--url", url) == "85\n"
        listed = ran("models", "--url", url)
        assert "adder" in listed and "twins" not in listed

        processes = psutil.Process(process.pid).children(recursive=True)
        # The port in the file is not the one the service has: what is told is where it really is.
        there, mode = ["--address", address(processes), "--detach"], authentication(processes)
        told = ran("serve", str(larger), *there, **mode)
        assert told == f"serving at {url}\n"
        assert ran("ask", "twins", "47+38=", "--url", url) == "85\n"

        other.write_text((SMALL + TWINS).replace("small", "other"))
        refused = failed("serve", str(other), *there, **mode)
        assert "other cannot be served there" in refused and "Traceback" not in refused

        processes += psutil.Process(process.pid).children(recursive=True)
        assert any(found.name().startswith("ray::ServeReplica") for found in processes if found.is_running())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        _, left = psutil.wait_procs(processes, timeout=5)
        assert not left


@contextmanager
def serving(file: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the URL that it tells; what it says on the way is its progress and nothing else."""
    command = [*COMMAND, "serve", str(file), "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        told: list[str] = []
        reader = threading.Thread(target=told.extend, args=(process.stderr,))
        reader.start()
        try:
            found = re.fullmatch(r"serving at (\S+)\n", process.stdout.readline())
            assert found, told
            yield process, found[1]
            assert process.stdout.read() == "stopped\n"
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            reader.join(30)
    noise = [
        line for line in told if not re.match(r"(model-adder|gateway): \w+$", line) and "authentication" not in line
    ]
    assert not noise


def ran(*arguments: str, **environment: str) -> str:
    """What another command of ours prints."""
    done = completed(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def failed(*arguments: str, **environment: str) -> str:
    """What another command of ours complains about."""
    done = completed(*arguments, **environment)
    assert done.returncode in (1, 2), done.stdout
    return done.stderr


def completed(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env={**os.environ, **environment})


def address(processes: list[psutil.Process]) -> str:
    """Where the cluster that these processes are can be reached."""
    for process in processes:
        if found := re.search(r"--gcs-address=(\S+)", " ".join(process.cmdline())):
            return found[1]
    pytest.fail("there is no Ray cluster below the command")


def authentication(processes: list[psutil.Process]) -> dict[str, str]:
    """Ray's mode of authentication; Ray turns it on by itself where it can, and clients have to be told."""
    (raylet,) = (process for process in processes if process.name() == "raylet")
    mode = raylet.environ().get("RAY_AUTH_MODE")
    return {"RAY_AUTH_MODE": mode} if mode else {}
