"""Scoring continuations by requests beside the session: as many prompts as there are places, or whole prompts.

vLLM lists log-probabilities of prompt tokens only for prompts that it computes from the beginning, prefix cache or
not. The distribution at one place of a continuation is also that of a one-token request for the ids before it, which
the prefix cache shortens to what lies in its last block. Which way computes fewer tokens depends on the lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from deployments.engines.vllm.core import Core, chunk
from deployments.engines.vllm.listings import Listing, listings
from ensemble.concurrency import together
from ensemble.errors import ContextTooLong
from ensemble.member import Scored

_REQUEST = 8
"""Tokens that could be computed in the time that one more request takes besides its tokens. 28M parameters on one
core, 404 ids before a continuation of 1, 4 and 16: 15, 24 and 67 ms in one-token requests, 67 ms as a whole prompt;
behind 1,000 ids 20, 27 and 75 ms against 177."""

_LONGEST = 4096
"""Longest prompt that is scored whole: vLLM makes a row of the vocabulary's width for each of its tokens."""

Ids = tuple[int, ...]
Places = dict[Ids, set[int]]
"""Ids before a place, and the ids that a continuation has at it; none behind its end."""


class Scorer:
    """Scores the continuations of one prefix."""

    def __init__(self, core: Core, adapter: Any, prefix: Sequence[int], topk: int, context_length: int) -> None:
        self._core, self._adapter = core, adapter
        self._prefix = list(prefix)
        self._topk = max(1, topk)
        self._listed = topk
        self._context_length = context_length

    async def score(self, continuations: Sequence[Ids], first: Listing | None) -> tuple[Scored, ...]:
        """Every continuation under the model.

        Args:
            first: the distribution after the prefix, if it is known.

        Raises:
            ContextTooLong: the prefix with a continuation leaves no room for one more token.
        """
        longest = len(self._prefix) + max(map(len, continuations), default=0)
        if longest >= self._context_length:
            raise ContextTooLong(f"a continuation does not fit into the context of {self._context_length} tokens")
        places = _places(continuations)
        if self.whole_prompts(continuations):
            found = await self._by_prompts(continuations)
        else:
            found = await self._by_places(places, first)
        return tuple(self._scored(ids, found) for ids in continuations)

    def whole_prompts(self, continuations: Sequence[Ids]) -> bool:
        """Whether scoring whole prompts computes fewer tokens."""
        outer = _outermost(continuations)
        whole = sum(len(self._prefix) + len(ids) + _REQUEST for ids in outer)
        if not self._core.whole_prompts or any(len(self._prefix) + len(ids) > _LONGEST for ids in outer):
            return False
        requests = ((ids, max(1, len(tokens))) for ids, tokens in _places(continuations).items())
        return whole < sum(count * (self._tail(len(ids)) + _REQUEST) for ids, count in requests)

    def _tail(self, beyond: int) -> int:
        """Tokens of the prefix and ``beyond`` more that the prefix cache does not hold."""
        known = (len(self._prefix) - 1) // self._core.block * self._core.block
        return len(self._prefix) + beyond - known

    async def _by_places(self, places: Places, first: Listing | None) -> dict[Ids, list[Listing]]:
        asked: list[tuple[Ids, int | None]] = []
        for ids, tokens in places.items():
            asked += [(ids, token) for token in tokens] or [(ids, None)]
        known = {token for token in places.get((), ()) if first is not None and first.of((token,))}
        if first is not None and first.covers(self._topk):
            asked = [(ids, token) for ids, token in asked if ids or not (token is None or token in known)]
        found: dict[Ids, list[Listing]] = {ids: [] for ids in places}
        if first is not None:
            found[()].append(first)
        answers = await together(
            self._core.once([*self._prefix, *ids], self._adapter, topk=self._topk, forced=token) for ids, token in asked
        )
        for (ids, _), listing in zip(asked, answers, strict=True):
            found[ids].append(listing)
        return found

    async def _by_prompts(self, continuations: Sequence[Ids]) -> dict[Ids, list[Listing]]:
        outer = _outermost(continuations)
        found: dict[Ids, list[Listing]] = {}
        for ids, rows in zip(outer, await together(self._prompt(ids) for ids in outer), strict=True):
            for end, listing in enumerate(rows):
                found.setdefault(ids[:end], []).append(listing)
        return found

    async def _prompt(self, ids: Ids) -> list[Listing]:
        """Distributions at each place of a continuation and behind it."""
        params = chunk(logprobs=self._topk, prompt_logprobs=self._topk)
        rows: list[Listing] = []
        async with aclosing(self._core.run([*self._prefix, *ids], params, self._adapter)) as outputs:  # type: ignore[type-var]
            async for output in outputs:
                if ids and output.prompt_logprobs is not None:
                    rows += listings(output.prompt_logprobs[len(self._prefix) :], self._core.size)
                rows += listings(output.outputs[0].logprobs, self._core.size)
        return rows

    def _scored(self, ids: Ids, found: dict[Ids, list[Listing]]) -> Scored:
        best = [max(found[ids[:end]], key=lambda listing: len(listing.ids)) for end in range(len(ids) + 1)]
        own = (_logprob(found[ids[:place]], token) for place, token in enumerate(ids))
        return Scored(
            ids,
            np.fromiter(own, np.float32, len(ids)),
            np.array([listing.ids[0] for listing in best], np.int32),
            tuple(listing.top(self._listed) for listing in best) if self._listed else (),
        )


def _logprob(found: Iterable[Listing], token: int) -> float:
    return next(value for listing in found for value in listing.of((token,)).values())


def _outermost(continuations: Sequence[Ids]) -> list[Ids]:
    """Those that no other one begins with."""
    distinct = dict.fromkeys(continuations)
    return [ids for ids in distinct if not any(other != ids and other[: len(ids)] == ids for other in distinct)]


def _places(continuations: Sequence[Ids]) -> Places:
    places: Places = {}
    for ids in continuations:
        for end, token in enumerate(ids):
            places.setdefault(ids[:end], set()).add(token)
        places.setdefault(ids, set())
    return places
