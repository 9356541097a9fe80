"""The gateway: an OpenAI-compatible HTTP API over models and ensembles alike.

The way of a request is ``Gateway._answer``: read, parse, find, admit, run, tell. Whatever has the Member contract can
be served; the gateway knows neither Ray nor how a method works. Errors are raised where they are found and told in one
place, ``api/errors.py``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from deployments.answering import Whole, answered
from deployments.api import errors, metrics, replies
from deployments.api.connection import EventStream, json_object, while_connected
from deployments.api.door import Door
from deployments.api.feedback import FeedbackBody, feedback_object
from deployments.api.readiness import READY, readiness
from deployments.api.replies import Frame, server_sent
from deployments.api.requests import Body, ChatBody, CompletionBody
from deployments.api.shapes import ChatShape, Json, Shape, TextShape
from deployments.api.wire import parse
from deployments.given import Given, Kept
from deployments.tally import ANSWERING, Stat
from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest, OverCap, UnknownModel
from ensemble.member import Member
from ensemble.method import named
from ensemble.request import Answer, Event, Request, Spent, Trace, Usage, collect

Ready = Callable[[], Awaitable[Mapping[str, str]]]
"""By name, the state of each one's own deployment; ``"ready"`` is ready, anything else says what is missing."""
Stats = Callable[[], Awaitable[Mapping[str, Mapping[Stat, float]]]]
"""By model, value by metric."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one HTTP request may ask of the gateway; ensembles have caps of their own."""

    body_bytes: int = 4 * 2**20
    body_seconds: float = 60.0
    """Seconds that a request's body may take to come: until it is there, it holds one of the replica's calls."""
    choices: int = 64
    """Prompts times ``n``."""


@dataclass(frozen=True, slots=True)
class Served:
    """A member under its public name, with what the gateway tells of it."""

    member: Member
    method: str | None = None
    """Of an ensemble; ``None`` for a single model."""
    members: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """Names of the method's options."""
    least: int = 0
    """Members without which it does not work."""
    judge: str | None = None
    """The model that its judge asks."""
    feedback: Callable[[Given], Awaitable[Kept]] | None = None
    """Keeps what is said of its answers; ``None``: it learns nothing from that."""

    @classmethod
    def of(cls, member: Member) -> Served:
        """A member of this process; handles on other machines cannot be looked into."""
        if not isinstance(member, Ensemble):
            return cls(member)
        options = offered(member.method)
        members = tuple(m.name for m in member.members)
        return cls(member, member.method, members, options, len(members))


def offered(method: str) -> tuple[str, ...]:
    """Options of a method that requests may bring."""
    cls = named(method)
    return tuple(option for option in cls.Options.model_fields if option not in cls.fixed)


def build_app(
    models: Mapping[str, Served],
    *,
    limits: Limits | None = None,
    ready: Ready | None = None,
    stats: Stats | None = None,
    clock: Callable[[], float] = time.time,
    tell_ids: bool = True,
    door: Door | None = None,
) -> FastAPI:
    """The API over these models, by public name.

    Args:
        ready: asked by /ready; omitted: all models are ready.
        stats: asked by /metrics; omitted: there are none.
        clock: seconds since 1970.
        tell_ids: give each response an ``x-request-id``; false where the server around the app does so.
        door: closed before the server is taken down; omitted: it stays open.
    """
    door = door or Door()
    gateway = Gateway(models, limits or Limits(), ready, stats, clock, door)
    app = FastAPI(title="ray-ensemble", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_route("/v1/chat/completions", gateway.chat, methods=["POST"])
    app.add_route("/v1/completions", gateway.completions, methods=["POST"])
    app.add_route("/v1/feedback", gateway.feedback, methods=["POST"])
    app.add_route("/v1/models", gateway.list_models)
    app.add_route("/v1/models/{name:path}", gateway.show_model)
    app.add_route("/health", gateway.health)
    app.add_route("/ready", gateway.ready)
    app.add_route("/metrics", gateway.metrics)
    app.add_middleware(door.guard)
    errors.install(app, tell_ids=tell_ids)
    return app


class Gateway:
    """The endpoints."""

    def __init__(
        self,
        models: Mapping[str, Served],
        limits: Limits,
        ready: Ready | None,
        stats: Stats | None,
        clock: Callable[[], float],
        door: Door,
    ) -> None:
        self._models = models
        self._limits = limits
        self._ready = ready
        self._stats = stats
        self._clock = clock
        self._since = int(clock())
        self._door = door

    async def chat(self, http: HttpRequest) -> Response:
        return await self._answer(http, ChatBody, ChatShape())

    async def completions(self, http: HttpRequest) -> Response:
        return await self._answer(http, CompletionBody, TextShape())

    async def _answer(self, http: HttpRequest, kind: type[Body], shape: Shape) -> Response:
        body = parse(kind, await self._body(http))
        served = self._find(body.model)
        requests = self._admitted(body, served)
        frame = self._frame(body, served, requests[0].id, shape)
        member = served.member if body.stream else Whole(served.member)
        events = _noted(answered(member, requests, keeps=served.method is not None), frame, errors.spending(http))
        if body.stream:
            begun = await while_connected(http.receive, replies.begun(events, frame))
            told = partial(errors.told, request_id=errors.request_id(http))
            return EventStream(server_sent(begun.events, frame, told), begun.marks.headers)
        answer = await while_connected(http.receive, _collected(events))
        return _json(replies.whole(answer, frame), headers=replies.marks(answer).headers)

    async def _body(self, http: HttpRequest) -> Json:
        return await json_object(http, self._limits.body_bytes, self._limits.body_seconds)

    def _find(self, name: str) -> Served:
        if name not in self._models:
            raise UnknownModel(f"there is no such model; there are: {', '.join(self._models)}", param="model")
        return self._models[name]

    def _admitted(self, body: Body, served: Served) -> list[Request]:
        if served.method is None and body.ensemble:
            raise BadRequest(f"{body.model} is a single model and has no options of a method", param="ensemble")
        if served.method is None and body.trace:
            raise BadRequest(f"{body.model} is a single model and has no traces", param="trace")
        if body.choices > self._limits.choices:
            rule = f"{body.choices} choices are asked for; at most {self._limits.choices} are allowed"
            raise OverCap(rule, param="n")
        return body.requests()

    def _frame(self, body: Body, served: Served, id: str, shape: Shape) -> Frame:
        return Frame(
            id=id,
            created=int(self._clock()),
            model=body.model,
            shape=shape,
            choices=body.choices,
            method=served.method,
            members=served.members,
            trace=bool(body.trace),
            usage=body.usage_wanted,
        )

    async def feedback(self, http: HttpRequest) -> Response:
        body = parse(FeedbackBody, await self._body(http))
        served = self._find(body.model)
        if served.feedback is None:
            rule = f"{body.model} keeps no feedback; that is for ensembles that route, where feedback is configured"
            raise BadRequest(rule, param="model")
        return _json(feedback_object(await served.feedback(body.given())))

    async def list_models(self, http: HttpRequest) -> Response:
        return _json({"object": "list", "data": [self._listing(name) for name in self._models]})

    async def show_model(self, http: HttpRequest) -> Response:
        name = http.path_params["name"]
        self._find(name)
        return _json(self._listing(name))

    def _listing(self, name: str) -> Json:
        served = self._models[name]
        listing = {"id": name, "object": "model", "created": self._since, "owned_by": "ray-ensemble"}
        listing |= {"context_length": served.member.card.context_length}
        if served.method is None:
            return listing | {"kind": "model"}
        return listing | {
            "kind": "ensemble",
            "method": served.method,
            "members": served.members,
            "options": served.options,
        }

    async def health(self, http: HttpRequest) -> Response:
        return _json({"status": "ok"})

    async def ready(self, http: HttpRequest) -> Response:
        if not self._door.open:
            return _json({"ready": False, "draining": True}, 503)
        own = await self._ready() if self._ready else dict.fromkeys(self._models, READY)
        found = readiness(self._models, own)
        return _json(found.body(), 200 if found.ready else 503)

    async def metrics(self, http: HttpRequest) -> Response:
        stats = await self._stats() if self._stats else {}
        return Response(metrics.exposition(stats), media_type=metrics.CONTENT_TYPE)


async def _noted(
    events: AsyncGenerator[Event, None], frame: Frame, usage: dict[str, Usage]
) -> AsyncGenerator[Event, None]:
    """The answers' events; what is spent is added up in ``usage``, and who answers is put into the frame."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Trace) and event.kind == ANSWERING:
                frame.method, frame.members = event.data["method"], event.data["members"]
                continue
            if isinstance(event, Spent):
                usage[event.member] = usage.get(event.member, Usage()) + event.usage
            yield event


async def _collected(events: AsyncGenerator[Event, None]) -> Answer:
    async with aclosing(events):
        return collect([event async for event in events])


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(replies.body(value), status, headers, media_type="application/json")
