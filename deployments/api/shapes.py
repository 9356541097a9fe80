"""How replies look: the JSON of chat and text completions, whole and in chunks.

A shape serves one reply; ``Report`` holds what whole replies and streams tell alike: usage, credits, method. Pure
functions of values; knows no HTTP.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ensemble.errors import EnsembleError
from ensemble.request import Completion, TokenLogprob, Trace, Usage, total

Json = dict[str, Any]
Credits = Sequence[tuple[str, Mapping[str, float]]]

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not have; OpenAI's value."""


class Shape(ABC):
    """One endpoint's JSON. Choices must be given in the order of their text, as offsets are counted here."""

    prefix: str
    """Of the reply's id."""
    whole: str
    """``object`` of a whole reply."""
    part: str
    """``object`` of a chunk."""

    @abstractmethod
    def choice(self, index: int, completion: Completion) -> Json:
        """A whole choice."""

    @abstractmethod
    def opening(self, index: int) -> Json | None:
        """What a choice's first chunk holds, if it has one before its text."""

    @abstractmethod
    def delta(self, index: int, text: str, tokens: Sequence[TokenLogprob], finish: str | None = None) -> Json:
        """A choice's next piece."""


class ChatShape(Shape):
    """/v1/chat/completions."""

    prefix, whole, part = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, completion: Completion) -> Json:
        return {
            "index": index,
            "message": {"role": "assistant", "content": completion.text},
            "logprobs": self._logprobs(completion.tokens),
            "finish_reason": completion.finish_reason,
        }

    def opening(self, index: int) -> Json:
        return self._chunk(index, {"role": "assistant", "content": ""})

    def delta(self, index: int, text: str, tokens: Sequence[TokenLogprob], finish: str | None = None) -> Json:
        written = {"content": text} if text or tokens else {}
        return {**self._chunk(index, written, finish), "logprobs": self._logprobs(tokens)}

    @staticmethod
    def _chunk(index: int, delta: Json, finish: str | None = None) -> Json:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}

    @staticmethod
    def _logprobs(tokens: Sequence[TokenLogprob]) -> Json | None:
        if not tokens:
            return None
        return {
            "content": [
                {**_token(token.token, token.logprob), "top_logprobs": [_token(*other) for other in token.top]}
                for token in tokens
            ]
        }


class TextShape(Shape):
    """/v1/completions."""

    prefix, whole, part = "cmpl-", "text_completion", "text_completion"

    def __init__(self) -> None:
        self._offsets: defaultdict[int, _Offset] = defaultdict(_Offset)

    def choice(self, index: int, completion: Completion) -> Json:
        return self.delta(index, completion.text, completion.tokens, completion.finish_reason)

    def opening(self, index: int) -> None:
        return None

    def delta(self, index: int, text: str, tokens: Sequence[TokenLogprob], finish: str | None = None) -> Json:
        return {"index": index, "text": text, "logprobs": self._logprobs(index, tokens), "finish_reason": finish}

    def _logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> Json | None:
        if not tokens:
            return None
        return {
            "tokens": [_shown(token.token) for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [_likeliest_by_text(token.top) for token in tokens],
            "text_offset": [self._offsets[index].past(token.token) for token in tokens],
        }


class _Offset:
    """Characters of a choice so far, counted over its tokens' bytes."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def past(self, token: bytes) -> int:
        """Where the token begins."""
        start = self._characters
        self._characters += len(self._decoder.decode(token))
        return start


def _token(token: bytes, logprob: float) -> Json:
    return {"token": _shown(token), "logprob": _finite(logprob), "bytes": list(token)}


def _shown(token: bytes) -> str:
    return token.decode(errors="replace")


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def _likeliest_by_text(top: Iterable[tuple[bytes, float]]) -> dict[str, float]:
    """Tokens that look the same once decoded are told by the likeliest of them."""
    return {_shown(token): _finite(logprob) for token, logprob in reversed(tuple(top))}


def usage_object(usage: Mapping[str, Usage]) -> Json:
    """Usage as OpenAI tells it, summed over the members, with each member's own and the cost as decimal strings."""
    members = {
        name: {
            "calls": spent.calls,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
            "cost": str(spent.cost),
        }
        for name, spent in usage.items()
    }
    whole = total(usage.values())
    return {
        "prompt_tokens": whole.prompt_tokens,
        "completion_tokens": whole.completion_tokens,
        "total_tokens": whole.total_tokens,
        "cost": str(whole.cost),
        "members": members,
    }


def error_object(error: EnsembleError, usage: Mapping[str, Usage]) -> Json:
    """An error as OpenAI tells it, with the usage where anything was spent."""
    spent = any(own != Usage() for own in usage.values())
    return error.body() | ({"usage": usage_object(usage)} if spent else {})


def ensemble_object(method: str, members: Sequence[str], credits: Iterable[Credits]) -> Json:
    """Who wrote what.

    Args:
        credits: for each choice, its spans with the members' weights, in order.

    Returns:
        ``{method, members, credits}``; credits hold for each choice ``[{start, end, members}]``, with offsets in
        Unicode characters of the choice's text.
    """
    return {"method": method, "members": list(members), "credits": [_spans(choice) for choice in credits]}


def _spans(credits: Credits) -> list[Json]:
    spans, start = [], 0
    for text, weights in credits:
        spans.append({"start": start, "end": start + len(text), "members": dict(weights)})
        start += len(text)
    return spans


def trace_object(trace: Trace) -> Json:
    """One record of why."""
    return {"kind": trace.kind, "data": dict(trace.data)}
