"""What a message costs, over each way there is to carry it from a driver to its engines and back.

    python benchmarks/wire.py --concurrency 1 8 32 --steps 300

One driver, this process, and two engines that answer at once, each a Serve replica. A step asks both engines, for each
of so many concurrent ensembles, one session's next distribution, and ends when all replies are there: top-20, ids and
log-probabilities. The shapes:

    each      a Serve handle call for each session, by value
    all       a Serve handle call for all sessions of an engine, by value
    stream    one Serve stream from each engine for all replies; what is asked is pushed by handle calls
    graph     a compiled graph over two plain actors, messages packed as on the wire
    zmq       ZeroMQ, DEALER to ROUTER, pyzmq's asyncio sockets, messages packed as on the wire
    zmq-bare  the same, with plain sockets and callbacks of the event loop
    tcp       the wire: ``deployments.wire``

They take turns over the rounds of one run, so that what else the machine does meets all of them. Told are milliseconds
of a step, and microseconds of CPU that the driver's process spends on it, all its threads together: the least of the
rounds, since what Ray does besides can only add to it. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import ray
import uvloop
import zmq
import zmq.asyncio
from ray import serve
from ray.dag import InputNode, MultiOutputNode
from rich.console import Console
from rich.table import Table

from deployments.calls import CONCURRENT_CALLS, LOGGING
from deployments.member import pinned
from deployments.wire.codec import Call, Outcome, pack_calls, pack_outcomes, unpack_calls, unpack_outcomes
from deployments.wire.line import Line
from deployments.wire.server import Server
from ensemble.member import Append, Distribution, Exchange, Next, Reply
from ensemble.request import Usage

Asked = list[tuple[str, Exchange]]
"""Messages by session."""
TOPK = 20
ENGINES = ("left", "right")
HOST = "127.0.0.1"


class Echo:
    """An engine without a model: every distribution is the same."""

    def __init__(self) -> None:
        self._listed = Distribution(np.arange(TOPK, dtype=np.int32), np.zeros(TOPK, np.float32), 150_000)

    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        return Reply(self._listed, exchange.version, Usage(completion_tokens=1), 100, 0.001)

    async def exchange_all(self, asked: Asked) -> list[Reply]:
        return list(await asyncio.gather(*(self.exchange(*one) for one in asked)))

    async def fork(self, session: str, fork: str) -> None:
        """Nothing to do."""

    async def close(self, session: str) -> None:
        """Nothing to do."""

    async def answered(self, message: bytes) -> bytes:
        """What is packed in, what is packed out."""
        calls = unpack_calls(message)
        replies = await self.exchange_all([(c.key, c.operation) for c in calls if isinstance(c.operation, Exchange)])
        return pack_outcomes([(call.number, reply) for call, reply in zip(calls, replies, strict=True)])


class EchoReplica(Echo):
    """The same engine behind every door."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Serve awaits it
        super().__init__()
        self._replies: asyncio.Queue[list[Reply]] = asyncio.Queue()
        self._server = await Server.listen(HOST, self)
        self._zmq = zmq.asyncio.Context().socket(zmq.ROUTER)
        self._bare = zmq.Context().socket(zmq.ROUTER)
        self._ports = [socket.bind_to_random_port(f"tcp://{HOST}") for socket in (self._zmq, self._bare)]
        self._tasks = {asyncio.create_task(self._serve_zmq())}
        asyncio.get_running_loop().add_reader(int(self._bare.FD), self._readable)

    async def places(self) -> tuple[Any, list[int]]:
        return self._server.address, self._ports

    async def push(self, asked: Asked) -> None:
        self._replies.put_nowait(await self.exchange_all(asked))

    async def stream(self) -> AsyncIterator[list[Reply]]:
        while True:
            yield await self._replies.get()

    async def _serve_zmq(self) -> None:
        while True:
            peer, message = await self._zmq.recv_multipart()
            await self._zmq.send_multipart([peer, await self.answered(message)])

    def _readable(self) -> None:
        while int(self._bare.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            task = asyncio.create_task(self._answer_bare(*self._bare.recv_multipart(zmq.NOBLOCK)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_bare(self, peer: bytes, message: bytes) -> None:
        self._bare.send_multipart([peer, await self.answered(message)])
        # ZeroMQ tells of new messages once; one that has come meanwhile would wait.
        self._readable()


@ray.remote
class EchoActor:
    """For the graph, which is made of actors' methods."""

    def __init__(self) -> None:
        self._echo = Echo()

    def answered(self, messages: tuple[bytes, ...], engine: int) -> bytes:
        return asyncio.run(self._echo.answered(messages[engine]))


class Shape(ABC):
    """One way to ask all engines."""

    @abstractmethod
    async def ask(self, asked: Asked) -> Sequence[Sequence[Reply]]:
        """Every engine's replies."""


class Engines(Shape):
    """Shapes that ask each engine by itself."""

    async def ask(self, asked: Asked) -> Sequence[Sequence[Reply]]:
        return await asyncio.gather(*(self.one(engine, asked) for engine in range(len(ENGINES))))

    @abstractmethod
    async def one(self, engine: int, asked: Asked) -> Sequence[Reply]: ...


class Each(Engines):
    def __init__(self, handles: Sequence[Any]) -> None:
        self._handles = handles

    async def one(self, engine: int, asked: Asked) -> Sequence[Reply]:
        replies: list[Reply] = await asyncio.gather(*(self._handles[engine].exchange.remote(*one) for one in asked))
        return replies


class All(Each):
    async def one(self, engine: int, asked: Asked) -> Sequence[Reply]:
        replies: list[Reply] = await self._handles[engine].exchange_all.remote(asked)
        return replies


class Stream(Each):
    def __init__(self, handles: Sequence[Any]) -> None:
        super().__init__(handles)
        self._streams = [handle.options(stream=True).stream.remote() for handle in handles]

    async def one(self, engine: int, asked: Asked) -> Sequence[Reply]:
        pushed = self._handles[engine].push.remote(asked)
        replies: list[Reply] = await anext(self._streams[engine])
        await pushed
        return replies


class Tcp(Engines):
    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    async def one(self, engine: int, asked: Asked) -> Sequence[Reply]:
        return await asyncio.gather(*(self._lines[engine].exchange(*one) for one in asked))


class Packed(Engines):
    """Numbered calls and their futures, as a line has them, over whatever carries bytes."""

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}

    async def one(self, engine: int, asked: Asked) -> Sequence[Reply]:
        calls = [Call(next(self._numbers), key, exchange) for key, exchange in asked]
        loop = asyncio.get_running_loop()
        futures = [self._waiting.setdefault(call.number, loop.create_future()) for call in calls]
        await self.send(engine, pack_calls(calls))
        return [reply for reply in await asyncio.gather(*futures) if isinstance(reply, Reply)]

    @abstractmethod
    async def send(self, engine: int, message: bytes) -> None: ...

    def understand(self, message: bytes) -> None:
        for number, outcome in unpack_outcomes(message):
            self._waiting.pop(number).set_result(outcome)


class Zmq(Packed):
    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._sockets = [dealer(zmq.asyncio.Context.instance(), port) for port in ports]
        self._tasks = [asyncio.create_task(self._read(socket)) for socket in self._sockets]

    async def send(self, engine: int, message: bytes) -> None:
        await self._sockets[engine].send(message)

    async def _read(self, socket: Any) -> None:
        while True:
            self.understand(await socket.recv())


class ZmqBare(Packed):
    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__()
        self._sockets = [dealer(zmq.Context.instance(), port) for port in ports]
        for socket in self._sockets:
            asyncio.get_running_loop().add_reader(socket.FD, self._readable, socket)

    async def send(self, engine: int, message: bytes) -> None:
        self._sockets[engine].send(message, zmq.NOBLOCK)
        self._readable(self._sockets[engine])

    def _readable(self, socket: Any) -> None:
        while socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self.understand(socket.recv(zmq.NOBLOCK))


def dealer(context: Any, port: int) -> Any:
    socket = context.socket(zmq.DEALER)
    socket.connect(f"tcp://{HOST}:{port}")
    return socket


class Graph(Shape):
    def __init__(self) -> None:
        Actor: Any = EchoActor
        with InputNode() as messages:
            actors = [Actor.remote() for _ in ENGINES]
            outputs = [actor.answered.bind(messages, engine) for engine, actor in enumerate(actors)]
            self._graph = MultiOutputNode(outputs).experimental_compile(enable_asyncio=True)

    async def ask(self, asked: Asked) -> Sequence[Sequence[Reply]]:
        calls = [Call(number, key, exchange) for number, (key, exchange) in enumerate(asked)]
        futures = await self._graph.execute_async((pack_calls(calls),) * len(ENGINES))
        answers = await asyncio.gather(*futures)
        return [[reply for _, reply in unpack_outcomes(m) if isinstance(reply, Reply)] for m in answers]


async def shapes(wanted: Sequence[str]) -> dict[str, Shape]:
    """Those that are wanted, connected."""
    handles = [pinned(serve.get_app_handle(name)) for name in ENGINES]
    places = [await handle.places.remote() for handle in handles]
    makers: dict[str, Any] = {
        "each": lambda: Each(handles),
        "all": lambda: All(handles),
        "stream": lambda: Stream(handles),
        "graph": Graph,
        "zmq": lambda: Zmq([ports[0] for _, ports in places]),
        "zmq-bare": lambda: ZmqBare([ports[1] for _, ports in places]),
    }
    lines = [await Line.to(name, address) for name, (address, _) in zip(ENGINES, places, strict=True)]
    return {name: Tcp(lines) if name == "tcp" else makers[name]() for name in wanted}


async def measured(shape: Shape, concurrency: int, steps: int) -> tuple[list[float], float]:
    """Seconds of each step, and seconds of this process's CPU for one."""
    seconds = []
    # What the shape before has left to do, above all in Ray's threads, is not this one's.
    await asyncio.sleep(0.3)
    cpu = time.process_time()
    for version in range(1, steps + 1):
        asked = [(f"session-{i:032}", Exchange(version, Append((version,)), Next(TOPK))) for i in range(concurrency)]
        began = time.perf_counter()
        answers = await shape.ask(asked)
        seconds.append(time.perf_counter() - began)
        assert [[reply.length for reply in replies] for replies in answers] == [[version] * concurrency] * len(ENGINES)
    return seconds, (time.process_time() - cpu) / steps


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    ready = await shapes(args.shapes)
    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    cpu: dict[tuple[str, int], list[float]] = defaultdict(list)
    for shape in ready.values():
        await measured(shape, max(args.concurrency), 20)
    for _ in range(args.rounds):
        for concurrency in args.concurrency:
            for name, shape in ready.items():
                steps, spent = await measured(shape, concurrency, args.steps // args.rounds)
                seconds[name, concurrency] += steps
                cpu[name, concurrency].append(spent)
    figures: dict[str, Any] = {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    for name in ready:
        figures[name] = {str(c): _figures(seconds[name, c], cpu[name, c]) for c in args.concurrency}
    return figures


def _figures(seconds: list[float], cpu: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, [50, 99])
    return {
        "p50_ms": round(1e3 * float(p50), 3),
        "p99_ms": round(1e3 * float(p99), 3),
        "cpu_us": round(1e6 * min(cpu)),
    }


def show(figures: dict[str, Any], args: argparse.Namespace) -> None:
    """The figures as a table."""
    columns = [f"{what} at {c}" for c in args.concurrency for what in ("p50 / p99 ms", "CPU µs")]
    table = Table("shape", *columns, title="one step: one driver, two engines, top-20 of each session")
    for name in args.shapes:
        of = [figures[name][str(c)] for c in args.concurrency]
        table.add_row(name, *(text for f in of for text in (f"{f['p50_ms']} / {f['p99_ms']}", str(f["cpu_us"]))))
    Console(width=140).print(table)


SHAPES = ("each", "all", "stream", "graph", "zmq", "zmq-bare", "tcp")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32], help="ensembles at a time")
    parser.add_argument("--steps", type=int, default=300, help="of each shape at each concurrency, over all rounds")
    parser.add_argument("--rounds", type=int, default=5, help="the shapes take turns so many times")
    args = parser.parse_args()
    ray.init(address="local", num_cpus=8, include_dashboard=False, logging_level="warning", log_to_driver=False)
    serve.start(proxy_location="Disabled", logging_config=LOGGING)
    options = {
        "max_ongoing_requests": CONCURRENT_CALLS,
        "logging_config": LOGGING,
        "ray_actor_options": {"num_cpus": 1},
    }
    for name in ENGINES:
        serve.run(serve.deployment(EchoReplica, **options).bind(), name=name, route_prefix=None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(args))
    ray.shutdown()
    show(figures, args)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
