"""Where models and ensembles are asked: a running service's API, or one that is brought up for a configuration.

Everything is asked over HTTP, so that budgets and options of a request are the API's own. ``HttpMember`` is a member,
so that whoever asks members can ask through it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from cluster import client
from cluster.config import Configuration, load
from ensemble import errors
from ensemble.errors import BadRequest, EnsembleError, MemberError, MemberLost, UnknownModel
from ensemble.member import Capability, Card, Member
from ensemble.request import Delta, Event, Finish, Request, Spent, TokenLogprob, Usage
from jobs.job import Job

if TYPE_CHECKING:
    from cluster.local import Progress

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listed:
    """One name that can be asked."""

    meaning: str
    """Equal where answers may be taken from an earlier run."""
    method: str | None = None
    """``None`` for a model."""
    members: tuple[str, ...] = ()
    """Of an ensemble, in its order."""


@dataclass(frozen=True, slots=True)
class Known:
    """What can be asked, before anything is started."""

    names: Mapping[str, Listed]
    configuration: Configuration | None = None
    """``None`` where a running service was named by its address."""
    url: str | None = None

    def require(self, names: tuple[str, ...]) -> None:
        """Refuse a name that cannot be asked.

        Raises:
            UnknownModel: the message lists those there are.
        """
        for name in names:
            if name not in self.names:
                has = ", ".join(self.names)
                raise UnknownModel(f"no model or ensemble is named {name!r}; there are: {has}", param=name)

    def models(self, name: str) -> tuple[str, ...]:
        """Itself, or the models that an ensemble asks, through all ensembles within it."""
        listed = self.names[name]
        if listed.method is None:
            return (name,)
        return tuple(dict.fromkeys(model for member in listed.members for model in self.models(member)))


def known(where: str) -> Known:
    """What a configuration file, or the service at an ``http://`` or ``https://`` address, has to ask.

    Raises:
        ConfigurationError: the file cannot be used.
        MemberLost: nothing answers at the address.
    """
    if not where.startswith(("http://", "https://")):
        return of_configuration(load(Path(where)))
    try:
        listed = client.models(where)
    except client.Unanswered as error:
        raise MemberLost(str(error)) from error
    return Known({found["id"]: _listed(where, found) for found in listed}, url=where)


def of_configuration(configuration: Configuration) -> Known:
    """What a configuration has to ask."""

    def meaning(name: str) -> str:
        identity = Job(model=name, input=Path(), output=Path()).identity(configuration, digest="")
        return str(identity["configuration"])

    ensembles = {n: Listed(meaning(n), e.method, e.members) for n, e in configuration.ensembles.items()}
    return Known({name: Listed(meaning(name)) for name in configuration.bases} | ensembles, configuration)


def _listed(url: str, found: Json) -> Listed:
    told = {key: found[key] for key in ("id", "method", "members", "options") if key in found}
    meaning = json.dumps([url, told], sort_keys=True)
    return Listed(meaning, found.get("method"), tuple(found.get("members", ())))


@contextmanager
def serving(
    known: Known, names: tuple[str, ...], address: str | None, progress: Progress | None = None
) -> Iterator[str]:
    """The URL of the API that serves these names; what was not there before is gone afterwards.

    Args:
        address: of a running Ray cluster, as for a batch job.

    Raises:
        ConfigurationError: the cluster serves something else, or the configuration could not be brought up.
    """
    if known.url is not None:
        yield known.url
        return
    # Ray takes seconds to import; what is asked by URL needs none of it.
    from cluster import local
    from jobs import application

    assert known.configuration is not None, "what has no address has a configuration"
    with application.serving(known.configuration, names, address, progress):
        yield local.url()


class HttpMember(Member):
    """A model or an ensemble behind ``/v1/chat/completions``. Answers come whole."""

    def __init__(self, name: str, connection: httpx.AsyncClient) -> None:
        self.card = Card(name, frozenset({Capability.GENERATE}), context_length=2**31)
        self._connection = connection

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """One question, one answer, and what it cost; a failure's cost is told before it is raised."""
        try:
            reply = await self._connection.post("/v1/chat/completions", json=self._body(request))
            told: Any = reply.json()
        except httpx.HTTPError as error:
            raise MemberLost(f"the connection failed: {type(error).__name__}", member=self.name) from error
        except ValueError as error:
            raise MemberError(f"status {reply.status_code}, and no JSON", member=self.name) from error
        for spent in _spent(told.get("usage") or {}, self.name):
            yield spent
        if reply.is_error:
            raise refusal(told.get("error") or {}, reply.status_code)
        (choice,) = told["choices"]
        yield Delta(choice["message"]["content"] or "", {self.name: 1.0}, _tokens(choice))
        yield Finish("length" if choice["finish_reason"] == "length" else "stop")

    def _body(self, request: Request) -> Json:
        sampling, budget = request.sampling, request.budget
        body: Json = {
            "model": self.name,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        if sampling.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        if budget.tokens is not None:
            body["budget"] = {"tokens": budget.tokens, "exhausted": budget.exhausted}
        return body | ({"ensemble": dict(request.options)} if request.options else {})


def refusal(error: Json, status: int) -> EnsembleError:
    """The error that the API told, as the one it was."""
    message, code = str(error.get("message", f"status {status}")), str(error.get("code"))
    for kind in _kinds(EnsembleError):
        if kind.code == code and kind.status == status:
            return kind(message, param=error.get("param"), member=error.get("member"))
    if status in (502, 503, 504):
        return MemberLost(message)
    return BadRequest(message) if status < 500 else MemberError(message)


def _kinds(root: type[EnsembleError]) -> Iterator[type[EnsembleError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
        yield from _kinds(kind)


def _spent(usage: Json, name: str) -> Iterator[Spent]:
    """By member as the service tells it; by others' services in one sum, which is one call."""
    own = {name: {**usage, "calls": 1, "cost": 0}} if usage else {}
    for member, used in (usage.get("members") or own).items():
        calls, read, written = (int(used.get(key) or 0) for key in ("calls", "prompt_tokens", "completion_tokens"))
        yield Spent(member, Usage(calls, read, written, Decimal(str(used.get("cost") or 0))))


def _tokens(choice: Json) -> tuple[TokenLogprob, ...]:
    content = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(
        TokenLogprob(bytes(token.get("bytes") or token["token"].encode()), token["logprob"]) for token in content
    )
