"""The door for new requests: counts those that are inside, and lets nobody in once it is closed.

Knows HTTP (as ASGI), nothing of what is asked. Questions about the service itself, all but POST, always pass.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.api.errors import response
from ensemble.errors import Draining


class Door:
    """Open until it is closed for good."""

    def __init__(self) -> None:
        self.open = True
        self.inside = 0
        """Requests that are not completely answered yet."""

    def guard(self, app: ASGIApp) -> ASGIApp:
        """The app behind this door; a middleware."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["method"] != "POST":
                await app(scope, receive, send)
            elif self.open:
                await self._counted(app, scope, receive, send)
            else:
                refusal = response(Draining("the server is being taken down and takes no new requests"))
                await refusal(scope, receive, send)

        return guarded

    async def _counted(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        async def last(message: Message) -> None:
            # Whoever keeps the connection would send the next request to a server that is gone.
            if message["type"] == "http.response.start" and not self.open:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        self.inside += 1
        try:
            await app(scope, receive, last)
        finally:
            self.inside -= 1
