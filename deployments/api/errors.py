"""Errors on the wire: every exception becomes an OpenAI error object with its status and a request id.

Known errors tell what is wrong. Anything else is logged with its stack trace and told in one fixed sentence.
"""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.shapes import error_object
from ensemble.errors import BadRequest, Draining, EnsembleError
from ensemble.request import Usage

log = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLIENT_LEFT = 499
"""Status for the log of requests whose client left; nobody receives it."""


class UnknownRoute(BadRequest):
    status = 404
    code = "unknown_route"


class WrongVerb(BadRequest):
    status = 405
    code = "method_not_allowed"


def install(app: FastAPI, *, tell_ids: bool = True) -> None:
    """Make the app answer every error in OpenAI's shape and give each response an ``x-request-id``.

    Args:
        tell_ids: put the id into the response; false where the server around the app does so.
    """
    app.add_exception_handler(EnsembleError, _known)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(ClientDisconnect, _departed)
    app.add_middleware(RequestIds, tell=tell_ids)


def told(error: Exception, request_id: str) -> EnsembleError:
    """What the client may know of an error; failures on our side are logged with the request's id."""
    if not isinstance(error, EnsembleError):
        log.error("request %s failed", request_id, exc_info=error)
        return EnsembleError(f"an internal error occurred; the log has more under request id {request_id}")
    if error.status >= 500:
        log.warning("request %s: %s", request_id, error.message, exc_info=error)
    return error


def request_id(http: Request) -> str:
    """The id given to this request by ``RequestIds``."""
    return str(http.state.request_id)


class RequestIds:
    """Middleware: names each request by the client's ``x-request-id`` if that is sane, otherwise anew.

    Also the last resort for exceptions that no one expected.
    """

    def __init__(self, app: ASGIApp, *, tell: bool) -> None:
        self._app = app
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        name = _named(scope)
        scope.setdefault("state", {})["request_id"] = name
        started = False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._tell:
                    message["headers"] = [*message.get("headers", []), (b"x-request-id", name.encode())]
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        except Exception as error:
            if started:
                raise
            await response(told(error, name), spending(Request(scope)))(scope, receive, tagged)


def _named(scope: Scope) -> str:
    given = Request(scope).headers.get("x-request-id", "")
    return given if SANE_ID.fullmatch(given) else uuid.uuid4().hex


def response(error: EnsembleError, usage: Mapping[str, Usage] | None = None) -> Response:
    """The reply that tells an error: its body, its status, when to come again, and what was spent by model."""
    # OpenAI's clients try again whatever is 409, 429 or 5xx, unless this header says otherwise.
    headers = {"x-should-retry": str(error.retryable).lower()}
    if error.retryable:
        headers["retry-after"] = str(math.ceil(error.retry_after or 1))
    if isinstance(error, Draining):
        headers["connection"] = "close"
    return JSONResponse(error_object(error, usage or {}), error.status, headers)


def spending(http: Request) -> dict[str, Usage]:
    """What this request has spent, by model; whoever carries it out writes it here, so that errors can tell it."""
    usage: dict[str, Usage] = http.scope["state"].setdefault("usage", {})
    return usage


async def _known(http: Request, error: Exception) -> Response:
    return response(told(error, request_id(http)), spending(http))


async def _routing(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow", "")
    if error.status_code == WrongVerb.status:
        refusal = response(WrongVerb(f"this route takes only {allowed}"))
        refusal.headers["allow"] = allowed
        return refusal
    routes = ", ".join(sorted(route.path for route in http.app.routes))
    return response(UnknownRoute(f"there is no such route; there are: {routes}"))


async def _departed(http: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)
