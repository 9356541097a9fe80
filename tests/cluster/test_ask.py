from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from click.testing import CliRunner, Result

from cluster.cli import main
from deployments.gateway import Served, build_app
from ensemble.ensemble import Ensemble
from ensemble.member import Member
from ensemble.testing import ScriptedMember, TinyMember

TOKENS = [b"4", b"2", b" ", b""]
SLOW = TinyMember("slow", seed=3, delay=0.05)
LOST = ScriptedMember("lost", TOKENS, [b"4", b"2", b" ", b"4"], fail_at=2)


def served() -> dict[str, Member]:
    first = ScriptedMember("first", TOKENS, [b"4", b"2"])
    second = ScriptedMember("second", TOKENS, [b"4", b"2"])
    return {
        "first": first,
        "pair": Ensemble("pair", "gac", [first, second]),
        "forest": Ensemble("forest", "agent_forest", [first, second], options={"samples": 2}),
        "slow": SLOW,
        "lost": LOST,
    }


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A real gateway on a free port."""
    app = build_app({name: Served.of(member) for name, member in served().items()})
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def wait_for(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["ask", *arguments])


@pytest.mark.parametrize("more", [(), ("--no-stream",)])
@pytest.mark.parametrize("model", ["first", "pair", "forest"])
def test_the_answer_is_printed(url, model, more):
    result = ask(model, "what?", "--url", url, *more)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "42\n", "")


@pytest.mark.parametrize("more", [(), ("--no-stream",)])
def test_credits_and_usage_are_told_on_demand(url, more):
    lines = [line.split() for line in ask("pair", "?", "--url", url, "--credits", *more).stdout.split("\n")]
    assert lines[0] == ["42"]
    assert ["'42'", "first", "0.5,", "second", "0.5"] in lines
    used = {line[0]: line[1:] for line in lines if line[:1] in (["first"], ["second"])}
    assert set(used) == {"first", "second"} and used["first"][0] == "1"


def test_several_answers_are_numbered(url):
    assert ask("first", "?", "--url", url, "--n", "2").stdout == "[1] 42\n[2] 42\n"


def test_sampling_options_reach_the_model(url):
    assert ask("first", "?", "--url", url, "--max-tokens", "1").stdout == "4\n"
    assert ask("first", "?", "--url", url, "--stop", "2").stdout == "4\n"
    hot = ["slow", "?", "--url", url, "--max-tokens", "5", "--temperature", "1.5", "--seed"]
    assert ask(*hot, "1").stdout_bytes == ask(*hot, "1").stdout_bytes != ask(*hot, "2").stdout_bytes


@pytest.mark.parametrize("more", [(), ("--no-stream",)])
def test_options_of_the_method_reach_it_and_unknown_ones_are_refused(url, more):
    assert (
        ask("forest", "?", "--url", url, "--option", "samples=4", "--option", "early_stop=false", *more).stdout
        == "42\n"
    )
    result = ask("forest", "?", "--url", url, "--option", "sample=4", *more)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "agent_forest has no option 'sample'; it has:" in result.stderr
    assert "single model" in ask("first", "?", "--url", url, "--option", "samples=4", *more).stderr


@pytest.mark.parametrize("more", [(), ("--no-stream",)])
def test_an_unknown_model_is_told_with_those_there_are(url, more):
    result = ask("furst", "?", "--url", url, *more)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: there is no such model; there are: first, pair, forest, slow, lost\n"


def test_a_failure_amid_the_answer_is_told_after_what_was_written(url):
    result = ask("lost", "?", "--url", url)
    assert (result.exit_code, result.stdout) == (1, "42\n")
    assert "lost was lost" in result.stderr


def test_text_comes_as_it_is_written(url):
    command = [str(Path(sys.executable).with_name("ensemble")), "ask", "slow", "?", "--url", url, "--max-tokens", "40"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        first = running.stdout.read(1)
        assert first and running.poll() is None and SLOW.open_sessions == 1
        running.stdout.read()
    assert running.returncode == 0


def test_ctrl_c_closes_the_connection_and_frees_the_model(url):
    command = [
        str(Path(sys.executable).with_name("ensemble")),
        "ask",
        "slow",
        "?",
        "--url",
        url,
        "--max-tokens",
        "2000",
    ]

    def as_at_a_terminal() -> None:
        # A shell starts background jobs with Ctrl-C ignored, and these tests may run in one.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=as_at_a_terminal
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.read(1)
        wait_for(lambda: SLOW.open_sessions == 1)
        running.send_signal(signal.SIGINT)
        told = running.stderr.read()
    assert (running.returncode, told) == (1, b"\nAborted!\n")
    wait_for(lambda: SLOW.open_sessions == 0, seconds=2.0)


def test_models_lists_what_is_served(url):
    lines = [line.split() for line in CliRunner().invoke(main, ["models", "--url", url]).stdout.split("\n")]
    assert ["first", "model", "-", "-", "4096"] in lines
    assert ["pair", "ensemble", "gac", "first,", "second", "4096"] in lines


@contextmanager
def saying(reply: bytes) -> Iterator[str]:
    """A server that answers one request with these bytes and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)
                connection.shutdown(socket.SHUT_WR)
                # Closing on unread bytes would reset the connection, and the reply would be lost.
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=once, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)


EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
PIECE = b'data: {"choices": [{"delta": {"content": "so far"}}]}\n\n'


@pytest.mark.parametrize(
    ("reply", "printed", "message"),
    [
        (EVENTS + PIECE, "so far\n", "the connection ended before the answer did"),
        (
            EVENTS.replace(b"close", b"close\r\ncontent-length: 999") + PIECE,
            "so far\n",
            "failed: peer closed connection",
        ),
        (EVENTS + PIECE + b"data: {oops\n\n", "so far\n", "not JSON"),
        (EVENTS + b"data: [1]\n\n", "", "of another kind"),
        (EVENTS + PIECE + b'data: {"error": {"message": "gone"}}\n\n', "so far\n", "gone"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops", "", "status 502"),
        (b"nonsense\r\n\r\n", "", "failed"),
    ],
)
def test_what_is_no_whole_answer_ends_with_status_one(reply, printed, message):
    with saying(reply) as address:
        result = ask("m", "?", "--url", address)
    assert (result.exit_code, result.stdout) == (1, printed)
    assert message in result.stderr and result.stderr.startswith("Error: ")


@pytest.mark.parametrize("command", [["ask", "m", "?"], ["models"]])
def test_nobody_there(command):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    result = CliRunner().invoke(main, [*command, "--url", address])
    assert result.exit_code == 1
    assert result.stderr == f"Error: nothing answers at {address}; start it with `ensemble serve`, or give --url\n"


@pytest.mark.parametrize("address", ["localhost:1", "ftp://x", "http://[", "http://h:99999", ""])
def test_what_is_no_address(address):
    result = ask("m", "?", "--url", address)
    assert result.exit_code == 1
    assert "is no address; allowed: http://HOST:PORT" in result.stderr
