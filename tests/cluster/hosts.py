"""Machines in a network of their own, made of network namespaces: what they share is this machine's disk and cores."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

INNER = "198.19.0"
"""Network between the hosts; nobody outside the namespaces sees it. Both nets are reserved for tests (RFC 2544)."""


def unavailable() -> str | None:
    """Why there can be no such hosts here; ``None`` if there can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("ss") is None:
        return "network namespaces need iproute2"
    name = f"probe-{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "no network namespace can be made here"
    run("ip", "netns", "del", name)
    return None


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class Host:
    """One namespace with an interface to the other host."""

    namespace: str
    address: str
    environment: Mapping[str, str]
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def begin(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process on this host; it ends with the host. What it says is in ``said``."""
        with (self.folder / f"said-{len(self.processes)}").open("wb") as said:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *command],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def begun(self, sign: str, seconds: float, *command: str) -> bool:
        """Start a process and wait until it gives a sign; whether it did so in time and before it ended."""
        process = self.begin(*command)
        end = time.monotonic() + seconds
        while sign not in self.said and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        return sign in self.said

    @property
    def said(self) -> str:
        """What all processes have said so far."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("said-*")))

    def link(self, state: str) -> None:
        """Turn the interface to the other host ``up`` or ``down``."""
        run("ip", "-n", self.namespace, "link", "set", "inner", state)

    def sockets(self, *options: str) -> list[list[str]]:
        """Lines of ``ss`` on this host, as words."""
        return [
            line.split() for line in run("ip", "netns", "exec", self.namespace, "ss", "-Htn", *options).splitlines()
        ]

    def kill(self) -> None:
        """Kill whatever runs here, and nothing else."""
        while pids := run("ip", "netns", "pids", self.namespace).split():
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)
        for process in self.processes:
            process.wait()

    def end(self) -> None:
        """Kill whatever runs here, and remove the namespace."""
        self.kill()
        run("ip", "netns", "del", self.namespace)
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Pair:
    """Two hosts with one link between them; the first has a door to this machine."""

    front: Host
    back: Host
    door: str
    """Address of the first host as this machine sees it."""


@contextmanager
def pair(environment: Mapping[str, str]) -> Iterator[Pair]:
    """Two hosts, gone in the end with all that runs on them."""
    run_id = secrets.token_hex(3)
    outer = f"198.18.{secrets.randbelow(256)}"
    with ExitStack() as stack:
        hosts = []
        for number, name in enumerate(("front", "back"), start=1):
            namespace = f"{name}-{run_id}"
            run("ip", "netns", "add", namespace)
            # Short: sockets in the file system have names of at most 107 bytes.
            folder = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))
            hosts.append(Host(namespace, f"{INNER}.{number}", environment, folder))
            stack.callback(hosts[-1].end)
        front, back = hosts
        run(
            "ip",
            "link",
            "add",
            "inner",
            "netns",
            front.namespace,
            "type",
            "veth",
            "peer",
            "inner",
            "netns",
            back.namespace,
        )
        run("ip", "link", "add", f"door{run_id}", "type", "veth", "peer", "door", "netns", front.namespace)
        # It would go with the namespace, but not before all that the kernel has to do for that.
        stack.callback(run, "ip", "link", "del", f"door{run_id}")
        for host in hosts:
            run("ip", "-n", host.namespace, "address", "add", f"{host.address}/30", "dev", "inner")
            run("ip", "-n", host.namespace, "link", "set", "lo", "up")
            host.link("up")
            # A host finds out its own address by looking at its default route.
            run("ip", "-n", host.namespace, "route", "add", "default", "dev", "inner")
        run("ip", "-n", front.namespace, "address", "add", f"{outer}.2/30", "dev", "door")
        run("ip", "-n", front.namespace, "link", "set", "door", "up")
        run("ip", "address", "add", f"{outer}.1/30", "dev", f"door{run_id}")
        run("ip", "link", "set", f"door{run_id}", "up")
        yield Pair(front, back, f"{outer}.2")
