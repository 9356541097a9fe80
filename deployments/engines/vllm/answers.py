"""What a session answers: the four questions in terms of its open request and of requests beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
from vllm import SamplingParams

from deployments.engines.heads import Heads, Read
from deployments.engines.vllm.core import WIDTH, Core, chunk
from deployments.engines.vllm.listings import Listing
from deployments.engines.vllm.scores import Scorer
from deployments.engines.vllm.session import Held
from ensemble.concurrency import together
from ensemble.distributions import likeliest
from ensemble.errors import BadAnswer, MissingCapability
from ensemble.member import (
    Distribution,
    Ending,
    Floats,
    LogprobsAt,
    Next,
    Payload,
    Proposal,
    Propose,
    Question,
    Score,
    Scored,
)
from ensemble.request import Sampling
from ensemble.sampling import seeded
from ensemble.vocabulary import Vocabulary

_LOOK_UP = 4096
"""Width of a vocabulary that is listed whole in the time of one request. A list of 4,096 takes 1.7 ms more than a
short one and grows with the width, for the neighbours in the step too; a request beside takes a part of a step."""


class Answers:
    """Answers for all sessions of one engine."""

    def __init__(self, core: Core, vocabulary: Vocabulary, context_length: int, heads: Heads) -> None:
        self._core, self._vocabulary, self._context_length = core, vocabulary, context_length
        self._heads = heads
        # Vocabularies have a few hundred; should one have more, drawing one of the rest is an error, not a text.
        unwritable = np.flatnonzero(~vocabulary.writable)[: core.most_masked]
        self._mask = {int(i): float("-inf") for i in unwritable}

    async def answer(self, held: Held, question: Question) -> Payload:
        """
        Raises:
            MissingCapability: hidden states or whole tables, which vLLM does not hand out.
            BadRequest: ids outside the vocabulary.
        """
        if isinstance(question, Next):
            read = self._heads.of_question(question)
            return await self._next(held, question) if read is None else await self._read(held, read, question.topk)
        if isinstance(question, LogprobsAt):
            return await self._logprobs_at(held, question)
        if question.full:
            raise MissingCapability("vLLM sends no whole tables; ask for lists (topk), or use the transformers engine")
        if isinstance(question, Score):
            return await self._score(held, question)
        return await self._propose(held, question)

    async def _next(self, held: Held, question: Next) -> Distribution:
        if question.hidden:
            raise MissingCapability("vLLM sends no hidden states; use the transformers engine")
        return (await self._listing(held, question.topk)).top(question.topk)

    async def _read(self, held: Held, read: Read, topk: int) -> Distribution:
        """What a head makes of the likeliest tokens, which are all it looks at."""
        wanted = min(self._heads.listed(read.head), self._core.size)
        seen = (await self._listing(held, wanted)).top(wanted)
        row = np.full(self._core.size, -np.inf, np.float32)
        row[seen.ids] = seen.logprobs
        (outcomes,) = await asyncio.to_thread(self._heads.look, [read], [row])
        return likeliest(outcomes, topk)

    async def _listing(self, held: Held, topk: int) -> Listing:
        """The distribution after the continuation, at least ``topk`` (0: all) tokens of it."""
        known = held.listing
        if known is not None and known.covers(topk):
            return known
        wanted = min(topk or self._core.size, self._core.size)
        if known is None and wanted <= WIDTH:
            return await held.advance(wanted)
        # The open request cannot be asked twice about one place, nor for more than it was opened with.
        ids = held.continuation.ids
        listing = await self._core.once(held.continuation.all_ids, held.adapter, topk=wanted)
        held.remember(ids, listing)
        return listing

    async def _logprobs_at(self, held: Held, question: LogprobsAt) -> Floats:
        held.continuation.known(question.ids)
        listing = held.listing or await self._listing(held, min(WIDTH, self._core.size))
        values = listing.of(question.ids)
        unknown = [i for i in dict.fromkeys(question.ids) if i not in values]
        if len(unknown) * _LOOK_UP >= self._core.size:
            values = (await self._listing(held, 0)).of(question.ids)
        else:
            values |= await self._looked_up(held, unknown)
        return np.array([values[i] for i in question.ids], np.float32)

    async def _looked_up(self, held: Held, ids: list[int]) -> dict[int, float]:
        # vLLM's own look-up (logprob_token_ids) takes the lists away from all neighbours in the step; a token that is
        # forced to be drawn comes with its log-probability, and disturbs nobody.
        prefix = held.continuation.all_ids
        found = await together(self._core.once(prefix, held.adapter, topk=0, forced=i) for i in ids)
        return {listing.token: listing.logprob for listing in found}

    async def _score(self, held: Held, question: Score) -> tuple[Scored, ...]:
        continuation = held.continuation
        wanted = [continuation.spelt(c) for c in question.continuations]
        scorer = Scorer(self._core, held.adapter, continuation.all_ids, question.topk, self._context_length)
        first = held.listing
        if first is None and not scorer.whole_prompts(wanted):
            # Requests that begin together cannot share what none of them has computed yet.
            first = await self._listing(held, max(1, question.topk))
        return await scorer.score(wanted, first)

    async def _propose(self, held: Held, question: Propose) -> Proposal:
        if question.until.gate is not None:
            raise MissingCapability("vLLM has no gates; use the transformers engine for the member that hands over")
        draft = _Draft(held, question, self._vocabulary)
        if question.sampling.greedy and held.listing is not None:
            # The open request has already computed the place where the draft begins; its first token is known.
            draft.begin(held.listing)
        if draft.finish is None:
            async with aclosing(self._drafted(held, draft)) as steps:  # type: ignore[type-var]
                async for listing in steps:
                    draft.add(listing)
                    if draft.finish is not None and not draft.whole:
                        break
        return draft.proposal()

    async def _drafted(self, held: Held, draft: _Draft) -> AsyncIterator[Listing]:
        sampling = draft.sampling
        position = len(held.continuation.ids)
        changes: dict[str, Any] = {"logprobs": min(draft.topk, self._core.size)}
        params = self.writing(sampling, position, draft.left, **changes)
        ids = held.continuation.ids
        async with aclosing(
            held.write([*held.continuation.all_ids, *draft.ids], params, anew=not sampling.greedy)
        ) as w:
            async for listed in w:
                for listing in listed:
                    if not draft.ids and draft.topk and held.listing is None:
                        held.remember(ids, listing)
                    yield listing

    def writing(self, sampling: Sampling, position: int, tokens: int, **changes: Any) -> SamplingParams:
        """Parameters for writing so many tokens.

        Args:
            sampling: with a seed.
            position: ids already in the answer; drawing goes on differently at each.
        """
        drawn: dict[str, Any] = {}
        if not sampling.greedy:
            seed = np.random.SeedSequence((sampling.seed or 0, position)).generate_state(1, np.uint64)[0]
            drawn = {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "seed": int(seed >> np.uint64(1)),
            }
        return chunk(
            max_tokens=tokens,
            stop_token_ids=sorted(self._vocabulary.stop_ids),
            logit_bias=self._mask or None,
            **{**drawn, **changes},
        )


class _Draft:
    """A proposal being written."""

    def __init__(self, held: Held, question: Propose, vocabulary: Vocabulary) -> None:
        self.ids: list[int] = []
        self.finish: Ending | None = None
        self.topk = question.topk
        self.sampling = seeded(question.sampling)
        self._until, self._vocabulary = question.until, vocabulary
        self._room = held.continuation.room
        self._asked = min(question.until.tokens, self._room)
        self._listings: list[Listing] = []
        self._logprobs: list[float] = []

    @property
    def left(self) -> int:
        """Tokens still to be written at most."""
        return self._asked - len(self.ids)

    @property
    def whole(self) -> bool:
        """Whether vLLM ended it: nothing more is being drawn."""
        return not self.left or self.finish == "stop"

    def begin(self, listing: Listing) -> None:
        """Take the first token, greedily, from a distribution that is known, if it lists enough."""
        token = listing.likeliest(self._vocabulary.writable)
        if token is not None and (not self.topk or listing.covers(self.topk)):
            self._take(token, listing.of((token,))[token], listing)

    def add(self, listing: Listing) -> None:
        """Take the token that vLLM drew."""
        if self.finish is None:
            self._take(listing.token, listing.logprob, listing)

    def _take(self, token: int, logprob: float, listing: Listing) -> None:
        if not self._vocabulary.writable[token]:
            raise BadAnswer(f"vLLM drew id {token}, which stands for no text", reason="wrong_ids")
        self.ids.append(token)
        self._logprobs.append(logprob)
        self._listings.append(listing)
        self.finish = self._until.reached(self.ids, self._vocabulary, self._room)

    def proposal(self) -> Proposal:
        assert self.finish is not None
        lists = tuple(listing.top(self.topk) for listing in self._listings) if self.topk else ()
        return Proposal(
            tuple(self.ids), self._vocabulary.text(self.ids), np.array(self._logprobs, np.float32), self.finish, lists
        )
