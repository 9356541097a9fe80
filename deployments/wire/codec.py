"""Messages between a driver and an engine as bytes: msgpack for what is small, raw memory for arrays, never pickle.

Anything that is no message of this form raises ``Malformed``. Knows the session contract of ``ensemble.member`` and
nothing of sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from ensemble.errors import BadAnswer, EnsembleError, MemberError
from ensemble.member import (
    Append,
    Distribution,
    Edit,
    Exchange,
    Gate,
    LogprobsAt,
    Next,
    Payload,
    Proposal,
    Propose,
    Question,
    Replace,
    Reply,
    Rewind,
    Score,
    Scored,
    SyncText,
    Until,
)
from ensemble.request import Sampling, Usage

T = TypeVar("T")


class Malformed(Exception):
    """Bytes that are no message."""


@dataclass(frozen=True, slots=True)
class Hold:
    """This connection has the session: it ends with it, even if nothing else is ever said about it. Has no outcome."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Begin another session under this key that goes on from the same ids."""

    key: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the session."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up the call of this number, which then has no outcome."""


Operation = Exchange | Hold | Fork | Close | Cancel


@dataclass(frozen=True, slots=True)
class Call:
    """One operation on one session."""

    number: int
    """Counts up on a connection; the answer bears it."""
    key: str
    """Of the session: whoever does not know it can do nothing to the session."""
    operation: Operation


Outcome = Reply | EnsembleError | None
"""What a call came to; ``None``: done, with nothing to tell."""


def pack_calls(calls: Sequence[Call]) -> bytes:
    """Calls as one message."""
    return _pack([(c.number, c.key, *_operation(c.operation)) for c in calls])


def unpack_calls(message: bytes) -> list[Call]:
    """
    Raises:
        Malformed: it holds no calls.
    """
    return _unpacked(
        message, lambda items: [Call(_int(n), _str(key), _operated(kind, f)) for n, key, kind, *f in items]
    )


def pack_outcomes(outcomes: Sequence[tuple[int, Outcome]]) -> bytes:
    """Outcomes by number of call, as one message."""
    return _pack([(number, *_outcome(outcome)) for number, outcome in outcomes])


def unpack_outcomes(message: bytes) -> list[tuple[int, Outcome]]:
    """
    Raises:
        Malformed: it holds no outcomes.
    """
    return _unpacked(message, lambda items: [(_int(number), _came_out(kind, f)) for number, kind, *f in items])


# Calls.

_BARE: dict[str, type[Hold | Close | Cancel]] = {"hold": Hold, "close": Close, "cancel": Cancel}
_BARE_NAMES: dict[type[Operation], str] = {operation: name for name, operation in _BARE.items()}


def _operation(operation: Operation) -> tuple[Any, ...]:
    if isinstance(operation, Exchange):
        return ("exchange", operation.version, _edit(operation.edit), _question(operation.question))
    if isinstance(operation, Fork):
        return ("fork", operation.key)
    return (_BARE_NAMES[type(operation)],)


def _operated(kind: str, fields: Sequence[Any]) -> Operation:
    if kind == "exchange":
        version, edit, question = fields
        return Exchange(_int(version), _edited(edit), _questioned(question))
    if kind == "fork":
        (key,) = fields
        return Fork(_str(key))
    return _BARE[kind](*fields)


def _edit(edit: Edit | None) -> tuple[Any, ...] | None:
    if edit is None:
        return None
    if isinstance(edit, Append):
        return ("append", edit.ids)
    if isinstance(edit, SyncText):
        return ("text", edit.text)
    return ("rewind", edit.count) if isinstance(edit, Rewind) else ("replace", edit.count, edit.ids)


def _edited(fields: list[Any] | None) -> Edit | None:
    if fields is None:
        return None
    kind, *values = fields
    if kind == "append":
        return Append(*map(_ints, values))
    if kind == "text":
        return SyncText(*map(_bytes, values))
    if kind == "rewind":
        return Rewind(*map(_int, values))
    count, ids = _of("replace", kind, values)
    return Replace(_int(count), _ints(ids))


def _question(question: Question | None) -> tuple[Any, ...] | None:
    if question is None:
        return None
    if isinstance(question, Next):
        return ("next", question.topk, question.hidden, question.head, question.given)
    if isinstance(question, LogprobsAt):
        return ("logprobs", question.ids)
    if isinstance(question, Score):
        return ("score", question.continuations, question.topk, question.full)
    until, drawn = question.until, question.sampling
    sampling = (float(drawn.temperature), float(drawn.top_p), drawn.top_k, drawn.seed)
    gate = None if until.gate is None else (until.gate.head, until.gate.stay, until.gate.entropy)
    return ("propose", until.tokens, until.text, gate, sampling, question.topk, question.full)


def _questioned(fields: list[Any] | None) -> Question | None:
    if fields is None:
        return None
    kind, *values = fields
    if kind == "next":
        topk, hidden, head, given = values
        return Next(_int(topk), _bool(hidden), _str(head), _maybe(given))
    if kind == "logprobs":
        return LogprobsAt(*map(_ints, values))
    if kind == "score":
        continuations, topk, full = values
        return Score(tuple(c if isinstance(c, bytes) else _ints(c) for c in continuations), _int(topk), _bool(full))
    tokens, text, gate, drawn, topk, full = _of("propose", kind, values)
    until = Until(_int(tokens), tuple(map(_bytes, text)), None if gate is None else _gated(*gate))
    return Propose(until, _drawn(*drawn), _int(topk), _bool(full))


def _gated(head: Any, stay: Any, entropy: Any) -> Gate:
    return Gate(_str(head), None if stay is None else float(stay), None if entropy is None else float(entropy))


def _drawn(temperature: Any, top_p: Any, top_k: Any, seed: Any) -> Sampling:
    seed = None if seed is None else _int(seed)
    return Sampling(temperature=_float(temperature), top_p=_float(top_p), top_k=_int(top_k), seed=seed)


# Outcomes.


def _outcome(outcome: Outcome) -> tuple[Any, ...]:
    if isinstance(outcome, Reply):
        usage = outcome.usage
        spent = (usage.calls, usage.prompt_tokens, usage.completion_tokens, str(usage.cost) if usage.cost else "")
        return ("reply", _payload(outcome.payload), outcome.length, spent, outcome.room, float(outcome.seconds))
    if isinstance(outcome, EnsembleError):
        reason = outcome.reason if isinstance(outcome, BadAnswer) else None
        later = None if outcome.retry_after is None else float(outcome.retry_after)
        return ("error", type(outcome).__name__, outcome.message, outcome.param, outcome.member, reason, later)
    return ("done",)


def _came_out(kind: str, fields: list[Any]) -> Outcome:
    if kind == "reply":
        payload, length, (calls, read, written, cost), room, seconds = fields
        usage = Usage(_int(calls), _int(read), _int(written), Decimal(_str(cost)) if cost else _FREE)
        return Reply(_payload_of(payload), _int(length), usage, _int(room), _float(seconds))
    if kind == "error":
        return _failure(*fields)
    _of("done", kind, fields)
    return None


def _failure(name: Any, message: Any, param: Any, member: Any, reason: Any, later: Any) -> EnsembleError:
    # What a newer or extended engine raises is at least a failure of the member.
    kind = _errors().get(name, MemberError)
    try:
        error = kind(_str(message), param=param, member=member)
    except TypeError:  # a plug-in's, which is made of other things
        error = MemberError(_str(message), param=param, member=member)
    if isinstance(error, BadAnswer):
        error.reason = _str(reason)
    error.retry_after = None if later is None else _float(later)
    return error


def _payload(payload: Payload) -> Any:
    if payload is None or isinstance(payload, np.ndarray):
        return payload
    if isinstance(payload, Distribution):
        return ("next", *_distribution(payload))
    if isinstance(payload, Proposal):
        lists = [_distribution(d) for d in payload.distributions]
        read = None if payload.outcomes is None else _distribution(payload.outcomes)
        return ("propose", payload.ids, payload.text, payload.logprobs, payload.finish, lists, payload.table, read)
    return ("score", [_scored(scored) for scored in payload])


def _payload_of(fields: Any) -> Payload:
    if fields is None or isinstance(fields, np.ndarray):
        return fields
    kind, *values = fields
    if kind == "next":
        return _distributed(*values)
    if kind == "score":
        (continuations,) = values
        return tuple(_scored_of(*fields) for fields in continuations)
    ids, text, logprobs, finish, lists, table, read = _of("propose", kind, values)
    listed = tuple(_distributed(*fields) for fields in lists)
    outcomes = None if read is None else _distributed(*read)
    return Proposal(_ints(ids), _bytes(text), _values(logprobs), finish, listed, _maybe(table), outcomes)


def _scored_of(ids: Any, logprobs: Any, greedy: Any, lists: Any, table: Any) -> Scored:
    listed = tuple(_distributed(*fields) for fields in lists)
    return Scored(_ints(ids), _values(logprobs), _values(greedy), listed, _maybe(table))


def _distributed(ids: Any, logprobs: Any, size: Any, hidden: Any) -> Distribution:
    return Distribution(_values(ids), _values(logprobs), _int(size), _maybe(hidden))


def _scored(scored: Scored) -> tuple[Any, ...]:
    lists = [_distribution(d) for d in scored.distributions]
    return (scored.ids, scored.logprobs, scored.greedy, lists, scored.table)


def _distribution(distribution: Distribution) -> tuple[Any, ...]:
    return (distribution.ids, distribution.logprobs, distribution.size, distribution.hidden)


def _errors() -> dict[str, type[EnsembleError]]:
    """The tree by name, with what plug-ins have added to it."""

    def below(cls: type[EnsembleError]) -> list[type[EnsembleError]]:
        return [cls, *(deeper for sub in cls.__subclasses__() for deeper in below(sub))]

    return {cls.__name__: cls for cls in below(EnsembleError)}


_FREE = Decimal(0)

# Bytes.

_ARRAY = 1
_HEAD = struct.Struct("<BBI")
"""Number of the element type; whether it is a table; its columns."""
_TYPES = (np.dtype("<i4"), np.dtype("<f4"), np.dtype("<f8"), np.dtype("<f2"), np.dtype("<i8"))
_NUMBERS = {dtype: number for number, dtype in enumerate(_TYPES)}


def _array(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, np.ndarray) or value.ndim not in (1, 2) or value.dtype not in _NUMBERS:
        raise TypeError(f"{type(value).__name__} is nothing that can be sent")
    columns = value.shape[-1] if value.ndim == 2 else 0
    head = _HEAD.pack(_NUMBERS[value.dtype], value.ndim == 2, columns)
    return msgspec.msgpack.Ext(_ARRAY, head + value.tobytes())


def _array_of(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension {code}")
    number, table, columns = _HEAD.unpack_from(data)
    values = np.frombuffer(data, _TYPES[number], offset=_HEAD.size)
    return values.reshape(-1, columns) if table else values


_encoder = msgspec.msgpack.Encoder(enc_hook=_array)
_decoder = msgspec.msgpack.Decoder(ext_hook=_array_of)
_pack = _encoder.encode
_NO_MESSAGE = (EnsembleError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError, struct.error)
"""What reading arbitrary bytes ends in; msgspec's own errors are ``ValueError``."""


def _is(kind: type[T]) -> Callable[[Any], T]:
    """What is of this type and no other."""

    def checked(value: Any) -> T:
        if type(value) is not kind:
            raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
        return value

    return checked


_int, _float, _bool, _str, _bytes = _is(int), _is(float), _is(bool), _is(str), _is(bytes)
_values: Callable[[Any], npt.NDArray[Any]] = _is(np.ndarray)


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(map(_int, values))


def _maybe(value: Any) -> npt.NDArray[Any] | None:
    return None if value is None else _values(value)


def _of(wanted: str, kind: Any, fields: list[Any]) -> list[Any]:
    """The fields of the one kind that is left."""
    if kind != wanted:
        raise ValueError("unknown kind")
    return fields


def _unpacked(message: bytes, read: Callable[[Any], list[T]]) -> list[T]:
    try:
        return read(_decoder.decode(message))
    except _NO_MESSAGE as error:
        raise Malformed(f"no message of this form: {type(error).__name__}") from error
