"""What is packed is unpacked as it was; all other bytes are ``Malformed`` and nothing else."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.wire.codec import (
    Call,
    Cancel,
    Close,
    Malformed,
    Outcome,
    pack_calls,
    pack_outcomes,
    unpack_calls,
    unpack_outcomes,
)
from ensemble.errors import BadAnswer, MemberError, Overloaded
from ensemble.member import Append, Distribution, Exchange, Next, Reply, SyncText
from ensemble.request import Usage
from tests.deployments.wire.messages import CALLS, OUTCOMES, FromAPlugIn, same

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
"""Anything that msgpack can hold."""


@given(CALLS)
def test_calls_come_out_as_they_went_in(calls: list[Call]) -> None:
    assert same(unpack_calls(pack_calls(calls)), calls)


@given(OUTCOMES)
def test_outcomes_come_out_as_they_went_in(outcomes: list[tuple[int, Outcome]]) -> None:
    assert same(unpack_outcomes(pack_outcomes(outcomes)), outcomes)


def test_an_error_keeps_its_place_in_the_tree() -> None:
    sent = FromAPlugIn("no number", param="template", member="judge")
    ((number, received),) = unpack_outcomes(pack_outcomes([(7, sent)]))
    assert number == 7
    assert type(received) is FromAPlugIn
    assert received.body() == sent.body()


def test_an_error_says_what_it_is_counted_by_and_when_to_ask_again() -> None:
    (_, counted), (_, refused) = unpack_outcomes(pack_outcomes([(1, BadAnswer("no", reason="nan")), (2, later(1.5))]))
    assert isinstance(counted, BadAnswer) and counted.reason == "nan"
    assert isinstance(refused, Overloaded) and refused.retry_after == 1.5


def test_whole_seconds_are_seconds() -> None:
    ((_, refused),) = unpack_outcomes(pack_outcomes([(1, later(2))]))
    assert isinstance(refused, Overloaded) and refused.retry_after == 2


class Particular(MemberError):
    """A plug-in's error that is made of other things than a message."""

    def __init__(self, card: str, *, hand: int) -> None:
        super().__init__(f"{card} of {hand} cannot be played", member="m")


def test_an_error_that_is_made_otherwise_breaks_no_line() -> None:
    ((_, received),) = unpack_outcomes(pack_outcomes([(1, Particular("ace", hand=5))]))
    assert type(received) is MemberError
    assert (received.message, received.member) == ("ace of 5 cannot be played", "m")


def later(seconds: float) -> Overloaded:
    error = Overloaded("full")
    error.retry_after = seconds
    return error


def test_an_error_that_only_the_engine_knows_is_a_failure_of_the_member() -> None:
    message = msgspec.msgpack.encode([(7, "error", "OutOfCards", "none is left", None, "m", None, None)])
    ((_, received),) = unpack_outcomes(message)
    assert type(received) is MemberError
    assert (received.message, received.member) == ("none is left", "m")


def test_a_cost_is_exact() -> None:
    usage = Usage(1, 2, 3, Decimal("0.1") + Decimal("1E-25"))
    ((_, received),) = unpack_outcomes(pack_outcomes([(1, Reply(None, 0, usage))]))
    assert isinstance(received, Reply)
    assert received.usage.cost == Decimal("0.1000000000000000000000001")


def test_the_layout_of_an_array_in_memory_does_not_matter() -> None:
    table = np.arange(24, dtype=np.float32).reshape(4, 6)
    for view in (table.T, table[::2], table[:, 1:3], np.asfortranarray(table)):
        ((_, received),) = unpack_outcomes(pack_outcomes([(1, Reply(view, 0, Usage()))]))
        assert isinstance(received, Reply)
        assert same(received.payload, np.ascontiguousarray(view))


def test_numbers_of_numpy_are_numbers() -> None:
    call = Call(1, "m/1", Exchange(np.int64(3), Append((np.int32(5),)), Next(np.int16(2), np.bool_(True))))
    assert same(unpack_calls(pack_calls([call])), [Call(1, "m/1", Exchange(3, Append((5,)), Next(2, True)))])


def test_a_top_twenty_is_little_more_than_its_numbers() -> None:
    listed = Distribution(np.arange(20, dtype=np.int32), np.zeros(20, np.float32), 150_000)
    message = pack_outcomes([(i, Reply(listed, 100, Usage(0, 1, 1), 400, 0.01)) for i in range(32)])
    assert len(message) < 32 * (160 + 70)


@pytest.mark.parametrize(
    "payload",
    [object(), np.array([object()]), np.zeros((1, 1, 1)), np.zeros(3, ">f4"), np.zeros(3, np.complex64)],
    ids=["object", "objects", "three dimensions", "big endian", "complex"],
)
def test_what_has_no_form_on_the_wire_is_refused(payload: Any) -> None:
    with pytest.raises(TypeError):
        pack_outcomes([(1, Reply(payload, 0, Usage()))])


# Bytes that are no message.


@given(st.binary(max_size=200))
def test_random_bytes(message: bytes) -> None:
    for unpack in (unpack_calls, unpack_outcomes):
        understood_or_malformed(unpack, message)


@given(CALLS.filter(bool), OUTCOMES.filter(bool), st.data())
def test_a_message_cut_short(calls: list[Call], outcomes: list[tuple[int, Outcome]], data: st.DataObject) -> None:
    for unpack, message in ((unpack_calls, pack_calls(calls)), (unpack_outcomes, pack_outcomes(outcomes))):
        end = data.draw(st.integers(0, len(message) - 1))
        with pytest.raises(Malformed):
            unpack(message[:end])
        with pytest.raises(Malformed):
            unpack(message + b"\xc0")


@given(CALLS.filter(bool), OUTCOMES.filter(bool), st.data())
def test_a_message_with_one_byte_changed(
    calls: list[Call], outcomes: list[tuple[int, Outcome]], data: st.DataObject
) -> None:
    for unpack, message in ((unpack_calls, pack_calls(calls)), (unpack_outcomes, pack_outcomes(outcomes))):
        at, byte = data.draw(st.integers(0, len(message) - 1)), data.draw(st.integers(0, 255))
        understood_or_malformed(unpack, message[:at] + bytes([byte]) + message[at + 1 :])


@given(CALLS.filter(bool), OUTCOMES.filter(bool), JUNK, st.data())
def test_a_message_with_one_part_replaced(
    calls: list[Call], outcomes: list[tuple[int, Outcome]], junk: Any, data: st.DataObject
) -> None:
    for unpack, message in ((unpack_calls, pack_calls(calls)), (unpack_outcomes, pack_outcomes(outcomes))):
        parts = msgspec.msgpack.decode(message)
        understood_or_malformed(unpack, msgspec.msgpack.encode(replaced(parts, junk, data)))


def replaced(parts: Any, junk: Any, data: st.DataObject) -> Any:
    """The structure with something else in one place of it."""
    if not isinstance(parts, list) or not parts or data.draw(st.integers(0, 5)) == 0:
        return junk
    at = data.draw(st.integers(0, len(parts) - 1))
    return [*parts[:at], replaced(parts[at], junk, data), *parts[at + 1 :]]


def understood_or_malformed(unpack: Any, message: bytes) -> None:
    """What is taken in is a message of this form in every part: it can be packed again, and says the same."""
    try:
        understood = unpack(message)
    except Malformed:
        return
    pack: Any = pack_calls if unpack is unpack_calls else pack_outcomes
    assert same(unpack(pack(understood)), understood)


GOOD = [1, "m/1", "exchange", 1, None, None]


def test_the_call_that_the_following_ones_differ_from_is_good() -> None:
    assert unpack_calls(msgspec.msgpack.encode([GOOD])) == [Call(1, "m/1", Exchange(1))]


@pytest.mark.parametrize(
    "call",
    [
        ["1", *GOOD[1:]],
        [1.0, *GOOD[1:]],
        [True, *GOOD[1:]],
        [1, b"m/1", *GOOD[2:]],
        [1, "m/1", "open"],
        [1, "m/1", "close", 1],
        [1, "m/1", ["close"]],
        [1, "m/1", "fork"],
        [1, "m/1", "fork", 5],
        [1, "m/1"],
        [1, "m/1", "exchange", 1],
        [1, "m/1", "exchange", "1", None, None],
        [1, "m/1", "exchange", 1, ["append", ["a"]], None],
        [1, "m/1", "exchange", 1, ["append", 5], None],
        [1, "m/1", "exchange", 1, ["append"], None],
        [1, "m/1", "exchange", 1, ["text", "no bytes"], None],
        [1, "m/1", "exchange", 1, ["prepend", 1, [2]], None],
        [1, "m/1", "exchange", 1, [], None],
        [1, "m/1", "exchange", 1, None, ["next", 5]],
        [1, "m/1", "exchange", 1, None, ["next", 5, 1]],
        [1, "m/1", "exchange", 1, None, ["guess", 5, True]],
        [1, "m/1", "exchange", 1, None, ["score", ["text"], 0, False]],
        [1, "m/1", "exchange", 1, None, ["propose", 5, [], [3.0, 1.0, 0, None], 0, False]],
        [1, "m/1", "exchange", 1, None, ["propose", 5, [], [0.0, 1.0, 0, 2**63], 0, False]],
        {"1": GOOD},
        5,
        None,
    ],
    ids=str,
)
def test_a_call_of_another_form(call: Any) -> None:
    with pytest.raises(Malformed):
        unpack_calls(msgspec.msgpack.encode([call]))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\x09\x00\x00\x00\x00\x00", b"\x01\x00\x00\x00\x00\x00abc", b"\x01\x01\x00\x00\x00\x00" + 8 * b"a"],
    ids=["nothing", "no head", "unknown type", "half a number", "no columns"],
)
def test_an_array_of_another_form(data: bytes) -> None:
    message = [[1, "reply", msgspec.msgpack.Ext(1, data), 0, [0, 0, 0, ""], 0, 0.0]]
    with pytest.raises(Malformed):
        unpack_outcomes(msgspec.msgpack.encode(message))


def test_an_unknown_extension_and_a_cost_that_is_no_number() -> None:
    for payload, cost in ((msgspec.msgpack.Ext(2, b""), ""), (None, "a lot"), (None, 3)):
        with pytest.raises(Malformed):
            unpack_outcomes(msgspec.msgpack.encode([[1, "reply", payload, 0, [0, 0, 0, cost], 0, 0.0]]))


@pytest.mark.parametrize("message", [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc1", b""])
def test_a_message_that_claims_more_than_there_is(message: bytes) -> None:
    for unpack in (unpack_calls, unpack_outcomes):
        with pytest.raises(Malformed):
            unpack(message)


def test_bytes_that_are_no_text_pass() -> None:
    call = Call(1, "m/1", Exchange(1, SyncText(b"\xff\x00\xfe")))
    assert unpack_calls(pack_calls([call, Call(2, "m/1", Close()), Call(3, "m/1", Cancel())]))[0] == call
