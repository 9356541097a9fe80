"""What may be asked: the bodies of /v1/chat/completions and /v1/completions.

Every field is either honoured or refused. Fields of OpenAI's that this server does not offer are accepted only at the
value at which they mean nothing. Values that are refused are never repeated in the message. Knows no models.
"""

from __future__ import annotations

import uuid
from abc import abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, FiniteFloat
from pydantic_core import PydanticCustomError

from deployments.api.wire import Wire
from deployments.given import prompt_id
from ensemble.errors import BadRequest
from ensemble.request import Budget, Exhausted, Message, Request, Role, Sampling

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
_MOST_TURNS = 4096
"""Messages of a conversation, and parts of a message. Whoever sends more holds up all others while it is read."""

NEVER_OFFERED: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "metadata": ({},),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
"""Fields of both endpoints that are known and not offered, each with the values, beside null, that mean nothing."""


class TextPart(Wire):
    """One part of a message's content; other parts than text are not offered."""

    type: Literal["text"]
    text: str


def _as_parts(content: Any) -> Any:
    if not isinstance(content, str | list):
        raise PydanticCustomError("content", "must be a string or a list of text parts")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Turn(Wire):
    """One message. ``developer`` is another word for ``system``."""

    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "name": (),
        "refusal": (),
        "annotations": ([],),
        "audio": (),
        "function_call": (),
        "tool_calls": ([],),
    }
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[TextPart], Field(max_length=_MOST_TURNS, fail_fast=True), BeforeValidator(_as_parts)]
    """A string or text parts, which are joined as they are."""

    def message(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        return Message(role, "".join(part.text for part in self.content))


class StreamOptions(Wire):
    """How a stream is sent."""

    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {"include_obfuscation": (False,)}
    include_usage: bool | None = None
    """Send usage in one more chunk at the end."""


class Spending(Wire):
    """Limits on what the request may spend over all members; an omitted one is no limit."""

    calls: Count | None = None
    tokens: Count | None = None
    cost: Annotated[Decimal, Field(strict=False)] | None = None
    """A number, or a string where a float's rounding matters."""
    seconds: FiniteFloat | None = None
    exhausted: Exhausted | None = None
    """``error`` or ``partial``: what becomes of a request that uses its budget up. Omitted: as the ensemble says; for
    a single model ``error``."""

    def budget(self) -> Budget:
        return Budget(**self.model_dump())


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class Body(Wire):
    """Fields of both endpoints. ``null`` is the same as leaving a field out."""

    model: str
    """Name of a model or an ensemble, as /v1/models lists them."""
    max_tokens: Count | None = None
    """Tokens of each choice. Omitted: until the context is full in a chat, 16 in a completion."""
    temperature: FiniteFloat | None = None
    """Omitted: 0, that is greedy; OpenAI's default is 1."""
    top_p: FiniteFloat | None = None
    """Omitted: 1."""
    top_k: Annotated[int, Field(le=2**31 - 1)] | None = None
    """Not of OpenAI's. Omitted: 0, that is off."""
    n: Count | None = None
    """Choices; for each prompt, where there are several. Omitted: 1."""
    stop: Annotated[list[str], BeforeValidator(_as_list)] | None = None
    """A string or up to four."""
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    """Only with ``stream``."""
    user: str | None = None
    """Whom the request is for; has no effect."""
    ensemble: dict[str, Any] | None = None
    """Not of OpenAI's. Options of the ensemble's method, for this request; refused where the model is no ensemble."""
    budget: Spending | None = None
    """Not of OpenAI's. Only for one prompt at a time."""
    trace: bool | None = None
    """Not of OpenAI's. Report votes, scores and tree nodes; refused where the model is no ensemble."""

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def choices(self) -> int:
        """How many answers are asked for, over all prompts."""
        return self._prompts * (self.n or 1)

    def requests(self) -> list[Request]:
        """What is asked of the model: one request, or one for each prompt.

        Raises:
            BadRequest: fields that do not go together, or a value out of range.
        """
        if self.stream_options and not self.stream:
            raise BadRequest("stream_options needs stream", param="stream_options")
        shared: dict[str, Any] = {"n": self.n or 1, "options": self.ensemble or {}, "sampling": self._sampling()}
        if self.budget is not None:
            shared["budget"] = self.budget.budget()
        id, n = uuid.uuid4().hex, self.n or 1
        subjects = enumerate(self._subjects())
        return [Request(id=prompt_id(id, place * n), **shared, **subject) for place, subject in subjects]

    def _sampling(self) -> Sampling:
        given = {name: getattr(self, name) for name in ("temperature", "top_p", "top_k", "seed")}
        return Sampling(
            max_tokens=self._longest(),
            stop=tuple(self.stop or ()),
            logprobs=self._alternatives(),
            **{name: value for name, value in given.items() if value is not None},
        )

    @property
    @abstractmethod
    def _prompts(self) -> int: ...

    @abstractmethod
    def _longest(self) -> int | None: ...

    @abstractmethod
    def _alternatives(self) -> int | None: ...

    @abstractmethod
    def _subjects(self) -> list[dict[str, Any]]: ...


class ChatBody(Body):
    """Body of /v1/chat/completions."""

    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **NEVER_OFFERED,
        "audio": (),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "modalities": (["text"],),
        "parallel_tool_calls": (True, False),
        "prediction": (),
        "prompt_cache_key": (),
        "reasoning_effort": (),
        "response_format": ({}, {"type": "text"}),
        "safety_identifier": (),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "verbosity": (),
        "web_search_options": (),
    }
    messages: Annotated[list[Turn], Field(max_length=_MOST_TURNS, fail_fast=True)]
    """The conversation. If the last message is the assistant's, the answer goes on after it."""
    max_completion_tokens: Count | None = None
    """OpenAI's newer name for ``max_tokens``."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Only with ``logprobs``."""

    @property
    def _prompts(self) -> int:
        return 1

    def _longest(self) -> int | None:
        given = {limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None}
        if len(given) > 1:
            raise BadRequest(
                "max_completion_tokens and max_tokens are one limit; give one of them", param="max_completion_tokens"
            )
        return next(iter(given), None)

    def _alternatives(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise BadRequest("top_logprobs needs logprobs", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def _subjects(self) -> list[dict[str, Any]]:
        messages = [turn.message() for turn in self.messages]
        if not any(message.role == "user" for message in messages):
            raise BadRequest("messages must hold at least one user message", param="messages")
        partial = messages.pop().content if messages[-1].role == "assistant" else ""
        return [{"messages": tuple(messages), "partial": partial}]


def _as_texts(prompt: Any) -> Any:
    prompts = _as_list(prompt)
    if not isinstance(prompts, list) or not prompts:
        raise PydanticCustomError("prompt", "must be a string or a list of strings")
    if any(isinstance(part, int | list) for part in prompts):
        raise PydanticCustomError("token_ids", "must be text: members have different vocabularies, so no token ids")
    return prompts


class CompletionBody(Body):
    """Body of /v1/completions."""

    not_offered: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **NEVER_OFFERED,
        "best_of": (1,),
        "echo": (False,),
        "suffix": ("",),
    }
    prompt: Annotated[list[str], BeforeValidator(_as_texts)]
    """A string or several; the choices of the first come first."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """Report log-probabilities, with this many alternatives for each token."""

    @property
    def _prompts(self) -> int:
        return len(self.prompt)

    def _longest(self) -> int | None:
        return 16 if self.max_tokens is None else self.max_tokens

    def _alternatives(self) -> int | None:
        return self.logprobs

    def _subjects(self) -> list[dict[str, Any]]:
        if self.budget is not None and len(self.prompt) > 1:
            raise BadRequest("budget goes with one prompt, not several", param="budget")
        return [{"prompt": prompt} for prompt in self.prompt]
