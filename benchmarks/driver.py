"""The driver's own work: what one token of one request costs the process that decides, its end of the wire included.

    python benchmarks/driver.py --concurrency 1 8 32

Two processes stand in for engines: they answer at once, over the real wire, with distributions made beforehand, so
that what is left is the driver. Its work is the CPU time of this process. Distributions are peaked as those of trained
models are, over two vocabularies of 50,000 tokens of which 30,000 are the same bytes. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from deployments.wire.line import Line
from deployments.wire.server import Address, Server
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.member import Capability, Card, Distribution, Exchange, LogprobsAt, Member, Next, Payload, Reply, Session
from ensemble.request import Event, Request, Usage
from ensemble.vocabulary import Vocabulary

SIZE, SHARED, DISTINCT = 50_000, 30_000, 256
METHODS = ("gac", "unite")


def vocabulary(seat: int) -> Vocabulary:
    """Of one member: the first tokens are those of every member, in another order."""
    own = [f"{seat}:{i}".encode() for i in range(SIZE - SHARED - 1)]
    tokens = [f"t{i}".encode() for i in range(SHARED)] + own
    random.Random(seat).shuffle(tokens)
    return Vocabulary((*tokens, b""), frozenset({SIZE - 1}))


def distributions(seat: int, topk: int) -> list[Distribution]:
    """Peaked lists of shared tokens; members often agree on the first."""
    tokens = {token: i for i, token in enumerate(vocabulary(seat).tokens)}
    made = []
    for number in range(DISTINCT):
        common, own = np.random.default_rng(number), np.random.default_rng((number, seat))
        words = common.choice(SHARED, 4 * topk, replace=False)
        ids = np.array([tokens[f"t{w}".encode()] for w in words[own.permutation(4 * topk)[:topk]]], np.int32)
        ids[0] = tokens[f"t{words[int(own.random() < 0.3)]}".encode()]
        ids = np.array(list(dict.fromkeys(ids.tolist())), np.int32)
        masses = own.uniform(0.3, 0.8) ** np.arange(1, len(ids) + 1)
        made.append(Distribution(ids, np.log(0.99 * masses / masses.sum()).astype(np.float32), SIZE))
    return made


class Canned:
    """Sessions that answer at once, whatever has been committed."""

    def __init__(self, seat: int) -> None:
        self._made = distributions(seat, 64)

    async def exchange(self, session: str, exchange: Exchange) -> Reply:
        distribution = self._made[(exchange.version * 7 + int(session)) % DISTINCT]
        return Reply(self._payload(distribution, exchange), exchange.version, Usage(completion_tokens=1), 10**6, 0.0)

    @staticmethod
    def _payload(distribution: Distribution, exchange: Exchange) -> Payload:
        if isinstance(exchange.question, Next):
            k = exchange.question.topk
            return Distribution(distribution.ids[:k], distribution.logprobs[:k], SIZE)
        assert isinstance(exchange.question, LogprobsAt)
        return np.full(len(exchange.question.ids), -16, np.float32)

    async def fork(self, session: str, fork: str) -> None: ...

    async def close(self, session: str) -> None: ...


class Stand(Member):
    """A member whose engine is one of the processes."""

    def __init__(self, seat: int, line: Line) -> None:
        self.vocabulary = vocabulary(seat)
        sessions = frozenset({Capability.GENERATE, Capability.SESSIONS})
        self.card = Card(f"m{seat}", sessions, 10**6, self.vocabulary.fingerprint)
        self._line, self._opened = line, 0
        self._known = {token: i for i, token in enumerate(self.vocabulary.tokens)}

    def generate(self, request: Request) -> AsyncIterator[Event]:
        raise AssertionError("not asked here")

    async def start(self, request: Request) -> Session:
        self._opened += 1
        return _Session(self, str(self._opened), self._line)

    async def tokenise(self, texts: Sequence[bytes]) -> list[list[int]]:
        return [[self._known.get(text, 0)] for text in texts]


class _Session(Session):
    def __init__(self, member: Stand, key: str, line: Line) -> None:
        self.member, self.vocabulary = member.name, member.vocabulary
        self._key, self._line = key, line

    def _send(self, exchange: Exchange) -> asyncio.Future[Reply]:
        return self._line.exchange(self._key, exchange)

    async def fork(self) -> Session:
        raise AssertionError("not asked here")

    async def close(self) -> None:
        self._line.close(self._key)


def engine(seat: int, told: Connection) -> None:
    """One of the processes."""

    async def serve() -> None:
        server = await Server.listen("127.0.0.1", Canned(seat))
        told.send(server.address)
        await asyncio.Event().wait()

    asyncio.run(serve())


@contextmanager
def engines(count: int) -> Iterator[list[Address]]:
    """Addresses of engine-like processes."""
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        addresses = []
        for seat in range(count):
            here, there = spawn.Pipe()
            process = spawn.Process(target=engine, args=(seat, there), daemon=True)
            process.start()
            stack.callback(process.terminate)
            addresses.append(here.recv())
        yield addresses


async def work(ensemble: Ensemble, concurrency: int, tokens: int) -> tuple[float, float]:
    """Milliseconds of CPU and of wall time for one token of one request."""
    cpu, wall = time.process_time(), time.perf_counter()
    await together(ensemble.answer(Request.of(f"{i}", max_tokens=tokens)) for i in range(concurrency))
    scale = 1e3 / (concurrency * tokens)
    return scale * (time.process_time() - cpu), scale * (time.perf_counter() - wall)


async def measure(addresses: list[Address], args: argparse.Namespace) -> dict[str, Any]:
    """Medians by method and concurrency."""
    members = [Stand(seat, await Line.to(f"m{seat}", address)) for seat, address in enumerate(addresses)]
    figures: dict[str, Any] = {}
    for method in args.methods:
        ensemble = Ensemble("pair", method, members)
        await work(ensemble, 2, 16)
        for concurrency in args.concurrency:
            rounds = [await work(ensemble, concurrency, args.tokens) for _ in range(args.rounds)]
            cpu, wall = (round(median(column), 4) for column in zip(*rounds, strict=True))
            figures.setdefault(method, {})[str(concurrency)] = {"cpu_ms": cpu, "wall_ms": wall}
    return figures


def show(figures: dict[str, Any]) -> None:
    table = Table("method", "concurrent", "CPU", "wall", title="milliseconds for one token of one request")
    for method, rows in figures.items():
        for concurrency, row in rows.items():
            table.add_row(method, concurrency, *(f"{value:.3f}" for value in row.values()))
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions; medians are reported")
    parser.add_argument("--profile", help="write a profile of the driver to this file")
    args = parser.parse_args()
    with engines(2) as addresses:
        if args.profile:
            import cProfile

            cProfile.runctx("asyncio.run(measure(addresses, args))", globals(), locals(), args.profile)
            return
        figures = asyncio.run(measure(addresses, args))
    show(figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
