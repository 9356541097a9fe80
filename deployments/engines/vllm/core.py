"""One ``AsyncLLM`` and its places: requests that end by themselves, and open requests that sessions continue.

A resumable request takes its input in chunks. After each chunk vLLM keeps what it has computed and forgets the last
token that it drew; so a session is an open request that is given the committed ids and draws one token that nobody
wants. Knows vLLM's requests; knows nothing of edits, questions and answers.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, Literal

from vllm import SamplingParams
from vllm.engine.protocol import StreamingInput
from vllm.exceptions import VLLMError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from deployments.engines.vllm.bursts import Bursts, Gone
from deployments.engines.vllm.listings import Listing, listings
from deployments.engines.vllm.seats import Seats
from ensemble.errors import MemberError, MemberLost

Ending = Literal["stop", "length", "abort"]

WIDTH = 1024
"""Tokens that an open request can list without being opened anew. A list of 1,024 instead of 20 costs a step 0.5 ms
at most, and only the step that opens pays it."""


class Core:
    """What the engines of one model and its adapters share."""

    def __init__(self, llm: AsyncLLM, seats: Seats, size: int) -> None:
        """
        Args:
            size: width of the distributions.
        """
        self.llm, self.seats, self.size = llm, seats, size
        self.block = int(llm.vllm_config.cache_config.block_size)
        """Tokens that the prefix cache keeps or forgets together."""
        self.most_masked = 1024 if llm.vllm_config.use_v2_model_runner else size
        """Ids that vLLM can be told never to draw; its newer runner has room for this many."""
        self.whole_prompts = llm.vllm_config.lora_config is None
        """Whether prompts can be scored whole: with adapters, vLLM's logits of prompts are wrong or end the engine."""
        self.requests = 0
        """Requests and chunks given to vLLM so far."""
        self.tokens = 0
        """Tokens given to vLLM or drawn by it so far."""
        self.running = 0
        """Requests and chunks that vLLM works on."""
        self._names = itertools.count()
        self.bursts = Bursts(self._hold, self._let_go)
        self._closing: set[asyncio.Task[Any]] = set()

    @property
    def alive(self) -> bool:
        return not self.llm.errored

    def name(self) -> str:
        """A new request's name."""
        return f"ensemble-{next(self._names)}"

    async def run(self, ids: Sequence[int], params: SamplingParams, adapter: Any = None) -> AsyncIterator[Any]:
        """The outputs of one plain request, in a place of its own; closing the iterator ends the request."""
        async with self.seats.plain():
            with self.at_work(len(ids)):
                prompt = tokens_input(list(ids))
                outputs = self.llm.generate(prompt, params, self.name(), lora_request=adapter)
                async with aclosing(outputs):
                    async for output in outputs:
                        self.tokens += len(output.outputs[0].token_ids)
                        yield output

    async def once(self, ids: Sequence[int], adapter: Any, *, topk: int, forced: int | None = None) -> Listing:
        """The distribution after some ids.

        Args:
            topk: tokens to list; -1 lists all.
            forced: a token whose log-probability is wanted whether or not it is listed.
        """
        allowed = None if forced is None else [forced]
        params = chunk(logprobs=min(topk, self.size), allowed_token_ids=allowed)
        async with aclosing(self.run(ids, params, adapter)) as outputs:  # type: ignore[type-var]
            async for output in outputs:
                return listings(output.outputs[0].logprobs, self.size)[0]
        raise MemberError("vLLM gave no answer")

    @contextmanager
    def at_work(self, tokens: int) -> Iterator[None]:
        """Around what vLLM is asked, with its errors as ours."""
        self.requests += 1
        self.tokens += tokens
        self.running += 1
        try:
            yield
        except EngineDeadError as error:
            raise MemberLost("the vLLM engine has died") from error
        except (VLLMError, ValueError) as error:
            raise MemberError(f"vLLM failed: {type(error).__name__}: {error}") from error
        finally:
            self.running -= 1

    def _hold(self) -> None:
        # Nobody waits for the answer: vLLM takes its messages in order.
        self._begin(self.llm.engine_core.call_utility_async("pause_scheduler", "keep", False))

    def _let_go(self) -> None:
        self._begin(self.llm.engine_core.call_utility_async("resume_scheduler"))

    def close_soon(self, stream: Stream) -> None:
        """End an open request without waiting for it."""
        self._begin(stream.close())

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def settled(self) -> None:
        """Wait until everything that is being closed is closed."""
        await asyncio.gather(*self._closing, return_exceptions=True)


def chunk(**changes: Any) -> SamplingParams:
    """One token, drawn greedily; no text is made and nothing but the number of tokens ends it."""
    fixed = {"detokenize": False, "ignore_eos": True, "flat_logprobs": True, "skip_clone": True}
    given: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1, **fixed, **changes}
    return SamplingParams(output_kind=RequestOutputKind.DELTA, **given)


class Stream:
    """An open request of one session."""

    def __init__(self, core: Core, adapter: Any, opening: SamplingParams) -> None:
        """
        Args:
            opening: parameters of the first chunk. How many tokens it lists is how many any chunk can list, and its
                seed is that of all chunks.
        """
        self._opening: SamplingParams | None = opening
        self.ids: list[int] = []
        """What vLLM has computed and keeps."""
        self.width = int(opening.logprobs or 0)
        self._core = core
        self._name = core.name()
        self._chunks: asyncio.Queue[StreamingInput] = asyncio.Queue()
        self._sent = asyncio.Event()
        self._outputs = core.llm.generate(self._given(), opening, self._name, lora_request=adapter)
        self._read = False
        """Whether its outputs are being waited for."""

    def leads_to(self, ids: Sequence[int]) -> bool:
        """Whether giving it more ids, at least one, makes it these."""
        return len(ids) > len(self.ids) and list(ids[: len(self.ids)]) == self.ids

    async def steps(self, ids: Sequence[int], params: SamplingParams) -> AsyncGenerator[list[Listing], None]:
        """Give it what is missing up to ``ids`` and read on: lists for each token that it draws.

        Whatever breaks this off ends the open request.

        Raises:
            MemberLost: the open request was closed meanwhile, or vLLM has died.
        """
        missing = list(ids[len(self.ids) :])
        drawn: list[int] = []
        try:
            with self._core.at_work(len(missing)):
                first, self._opening = self._opening, None
                given = StreamingInput(tokens_input(missing), first or params)
                if first is None:
                    await self._core.bursts.give(self._name, partial(self._send, given), brief=params.max_tokens == 1)
                else:
                    # vLLM begins to read when it is first asked for outputs.
                    self._chunks.put_nowait(given)
                self._read = True
                began = time.perf_counter()
                ending: Ending | None = None
                while ending is None:
                    output = (await anext(self._outputs)).outputs[0]
                    ending = _ending(output.finish_reason)
                    drawn += output.token_ids
                    if ending is not None:
                        self._core.bursts.answered(self._name, (time.perf_counter() - began) / max(1, len(drawn)))
                    self._core.tokens += len(output.token_ids)
                    yield listings(output.logprobs, self._core.size) if output.token_ids else []
            self.ids = [*ids, *drawn[:-1]]
        except (StopAsyncIteration, Gone) as error:
            raise MemberLost("the session was closed") from error
        finally:
            self._read = False

    async def _send(self, given: StreamingInput) -> None:
        self._sent.clear()
        self._chunks.put_nowait(given)
        await self._sent.wait()

    async def _given(self) -> AsyncGenerator[StreamingInput, None]:
        try:
            while True:
                yield await self._chunks.get()
                # vLLM comes back for more when it has sent what it was given.
                self._sent.set()
        finally:
            self._sent.set()

    async def close(self) -> None:
        """End the request within one step, whatever it is doing."""
        self._core.bursts.gone(self._name)
        if self._read:
            await self._core.llm.abort(self._name)
        else:
            # Aborted, it would stay with vLLM for whoever reads the end.
            await self._outputs.aclose()


def _ending(reason: str | None) -> Ending | None:
    if reason is None:
        return None
    if reason == "abort":
        raise MemberLost("the session was closed")
    return "stop" if reason == "stop" else "length"
