"""Everything that can be said on the wire, as hypothesis strategies, and when two such things are the same."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from deployments.wire.codec import Call, Cancel, Close, Fork, Hold, Operation, Outcome
from ensemble import errors
from ensemble.errors import EnsembleError
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
from ensemble.vocabulary import Unspellable


class FromAPlugIn(errors.BadAnswer):
    """An error that the wire's own code has never heard of."""


COUNTS = st.integers(0, 2**31 - 1)
TOKENS = st.integers(0, 300_000)
TEXTS = st.binary(max_size=40)
TEN = st.lists(TOKENS, max_size=10).map(tuple)
KEYS = st.text(max_size=40)
FLAGS = st.booleans()
REALS = st.floats(0, 1e6)
_OF_ERRORS = ("message", "param", "member", "reason", "retry_after")
ERRORS: tuple[type[EnsembleError], ...] = (
    EnsembleError,
    errors.ContextTooLong,
    errors.Overloaded,
    errors.MemberLost,
    errors.MissingCapability,
    Unspellable,
    FromAPlugIn,
)


def arrays(*dtypes: str, columns: bool = False) -> st.SearchStrategy[Any]:
    """Of any length, empty ones too, with whatever values the type has; a vocabulary is never empty."""
    shapes = st.tuples(st.integers(0, 5), *([st.integers(1, 5)] if columns else []))
    return st.sampled_from(dtypes).flatmap(lambda dtype: npst.arrays(dtype, shapes))


FLOATS = arrays("f4", "f8", "f2")
IDS = arrays("i4", "i8")
TABLES = arrays("f4", "f8", "f2", columns=True)

EDITS: st.SearchStrategy[Edit] = st.one_of(
    st.builds(Append, TEN), st.builds(Rewind, COUNTS), st.builds(Replace, COUNTS, TEN), st.builds(SyncText, TEXTS)
)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0, 2) | st.sampled_from([0, 1, 2]),
    top_p=st.floats(0.01, 1),
    top_k=COUNTS,
    seed=st.none() | st.integers(0, 2**63 - 1),
)
GATES = st.builds(Gate, KEYS, st.none() | st.floats(0, 2), st.none() | st.floats(0, 20))
UNTIL = st.builds(Until, COUNTS, st.lists(TEXTS, max_size=3).map(tuple), st.none() | GATES)
QUESTIONS: st.SearchStrategy[Question] = st.one_of(
    st.builds(Next, COUNTS, FLAGS, KEYS, st.none() | FLOATS),
    st.builds(LogprobsAt, TEN),
    st.builds(Score, st.lists(TEN | TEXTS, max_size=4).map(tuple), COUNTS, FLAGS),
    st.builds(Propose, UNTIL, SAMPLINGS, COUNTS, FLAGS),
)
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Exchange, COUNTS, st.none() | EDITS, st.none() | QUESTIONS),
    st.builds(Fork, KEYS),
    st.just(Hold()),
    st.just(Close()),
    st.just(Cancel()),
)
CALLS = st.lists(st.builds(Call, COUNTS, KEYS, OPERATIONS), max_size=5)

DISTRIBUTIONS = st.builds(Distribution, IDS, FLOATS, COUNTS, st.none() | FLOATS)
LISTED = st.lists(DISTRIBUTIONS, max_size=3).map(tuple)
SCORED = st.builds(Scored, TEN, FLOATS, IDS, LISTED, st.none() | TABLES)
ENDINGS = st.sampled_from(["stop", "boundary", "length", "context", "gate"])
PROPOSALS = st.builds(Proposal, TEN, TEXTS, FLOATS, ENDINGS, LISTED, st.none() | TABLES, st.none() | DISTRIBUTIONS)
PAYLOADS: st.SearchStrategy[Payload] = st.one_of(
    st.none(), FLOATS, DISTRIBUTIONS, st.lists(SCORED, max_size=3).map(tuple), PROPOSALS
)
COSTS = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COSTS | st.just(Decimal("1E-30")))
REPLIES = st.builds(Reply, PAYLOADS, COUNTS, USAGES, COUNTS, REALS | st.just(0))
FAILURES = st.builds(
    lambda cls, message, param, member: cls(message, param=param, member=member),
    st.sampled_from(ERRORS),
    st.text(max_size=40),
    st.none() | KEYS,
    st.none() | KEYS,
)
ANY_OUTCOME: st.SearchStrategy[Outcome] = st.none() | REPLIES | FAILURES
OUTCOMES = st.lists(st.tuples(COUNTS, ANY_OUTCOME), max_size=5)


def same(one: Any, other: Any) -> bool:
    """Equal in type and value, arrays in element type, shape and every bit that counts."""
    if type(one) is not type(other):
        return {type(one), type(other)} == {int, float} and one == other
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, EnsembleError):
        return all(getattr(one, name, None) == getattr(other, name, None) for name in _OF_ERRORS)
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
