"""Members writing an answer step by step, from whatever partial answer they are given.

A step ends with the delimiter, where its writer stops, or at a number of tokens. Knows no tree and no judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ensemble.concurrency import together
from ensemble.errors import ContextTooLong, MemberError
from ensemble.member import Ending, Session, SyncText, Until
from ensemble.method import Members
from ensemble.request import FinishReason, Request, Sampling


@dataclass(frozen=True, slots=True)
class Step:
    """What a member wrote from some point on."""

    text: bytes
    """Exact bytes, the delimiter included; not what follows a stop string of the request."""
    writer: int
    """Position of the member; -1 where nobody wrote."""
    tokens: int = 0
    """Ids it took, a stop id not counted."""
    end: FinishReason | None = None
    """Why the answer ends with this step; ``None`` if it goes on."""


class StepWriters:
    """One request's members, with one session for each (member, worker) that is ever used."""

    def __init__(
        self,
        request: Request,
        members: Members,
        *,
        step_tokens: int,
        delimiter: str,
        terminal: re.Pattern[str] | None = None,
    ) -> None:
        """
        Args:
            terminal: an answer whose text matches is finished, once the step ends with its delimiter.
        """
        self._request = request
        self._members = members
        self._step_tokens = step_tokens
        self._delimiter = delimiter.encode()
        self._terminal = terminal
        self._partial = request.partial.encode()
        self._stops = [stop.encode() for stop in request.sampling.stop]
        self._sessions: dict[tuple[int, int], Session] = {}

    async def write(self, member: int, worker: int, text: bytes, tokens: int, sampling: Sampling) -> Step | None:
        """The next step of one member, in one message; ``None`` if ``text`` does not fit into its context, or if the
        member is lost and may be spared.

        Args:
            worker: no two steps of the same member and worker may be under way at once.
            text: the answer so far, after the request's partial text.
            tokens: ids it took to write.
        """
        until = Until(min(self._step_tokens, self._left(tokens)), (self._delimiter,))
        try:
            session = await self._session(member, worker)
            proposal = await session.propose(until, sampling, edit=SyncText(self._partial + text))
        except ContextTooLong:
            return None
        except MemberError as error:
            if not self._members.spare(error):
                raise
            return None
        written = len(proposal.ids) - (proposal.finish == "stop")
        end = self._end(text + proposal.text, proposal.finish, tokens + written)
        return Step(self._cut(text, proposal.text), member, written, end)

    @property
    def present(self) -> list[int]:
        """Positions of the members that can write."""
        return self._members.present

    async def close(self) -> None:
        """Close every session."""
        await together(session.close() for session in self._sessions.values())

    async def _session(self, member: int, worker: int) -> Session:
        if (member, worker) not in self._sessions:
            self._sessions[member, worker] = await self._members[member].start(self._request)
        return self._sessions[member, worker]

    def _left(self, tokens: int) -> int:
        limit = self._request.sampling.max_tokens
        return self._step_tokens if limit is None else limit - tokens

    def _cut(self, text: bytes, new: bytes) -> bytes:
        """The new step up to a stop string; up to its end, if it began in the text before."""
        whole = text + new
        met = [(at, at + len(stop)) for stop in self._stops if (at := whole.find(stop)) >= 0]
        if not met:
            return new
        start, end = min(met)
        return whole[len(text) : start if start >= len(text) else end]

    def _end(self, text: bytes, finish: Ending, tokens: int) -> FinishReason | None:
        if finish == "stop" or any(stop in text for stop in self._stops):
            return "stop"
        if finish == "boundary" and self._terminal and self._terminal.search(text.decode(errors="replace")):
            return "stop"
        return "length" if finish == "context" or self._left(tokens) <= 0 else None
