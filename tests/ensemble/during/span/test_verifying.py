"""Verifiers hold the canonical tokenisation of the answer, whatever the drafter's tokens were, and read no more of it
than they must."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from deployments.engines.tokenisation import HuggingFaceTokeniser
from ensemble.distributions import likeliest
from ensemble.during.span.alignment import whole
from ensemble.during.span.drafting import Drafted
from ensemble.during.span.seats import Seat
from ensemble.during.span.verifying import Reader, Reading
from ensemble.member import Floats, Member
from ensemble.request import Request
from ensemble.testing import LocalMember
from ensemble.vocabulary import LongestMatch, Tokeniser, Vocabulary
from ensemble.zoo import MEMBERS, directory

LISTED = likeliest(np.log([0.5, 0.5]), 0)
TEXTS = (
    "The answer is 5, not 1234567; naïve café 漢字かな 🙂🙂.\n\n  So it   goes on: " * 6,
    "12+30=42\n42+45=87\nreverse stone=enots capital of Italy=Rome " * 5,
    "漢字" * 120,
    "aaaaaaaaab" * 30,
    "x" * 300 + " end",
)


@cache
def tokeniser(name: str) -> Tokeniser:
    loaded = AutoTokenizer.from_pretrained(directory(name))
    return HuggingFaceTokeniser(loaded, len(loaded), {loaded.eos_token_id})


def flat(name: str, tokeniser: Tokeniser) -> LocalMember:
    size = tokeniser.vocabulary.size

    def row(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        return np.full(size, -np.log(size))

    return LocalMember(name, tokeniser, row, context_length=10_000)


async def reader_of(member: Member, partial: str = "") -> Reader:
    request = Request(prompt="", partial=partial)
    seat = Seat(0, member)
    reader = Reader(seat, 1, request, stops=True)
    await seat.open(request)
    return reader


def drafted(data: bytes) -> list[Drafted]:
    return [Drafted(0, bytes([byte]), -1.0, LISTED) for byte in data]


def spelt(reading: Reading) -> list[int]:
    return [*reading.ids, *reading.scored.ids]


async def read_through(member: LocalMember, text: bytes, ends: Sequence[int], partial: int = 0) -> list[int]:
    """Read a text in drafts that end there; how many ids each reading scored."""
    reader = await reader_of(member, text[:partial].decode())
    counts, start = [], partial
    for end in ends:
        reading = await reader.read(text[:start], drafted(text[start:end]))
        assert spelt(reading) == member.tokeniser.encode(text[:end])
        counts.append(len(reading.scored.ids))
        start = end
    await reader.seat.close()
    return counts


def cuts(text: str, every: int) -> list[int]:
    """Ends of drafts of about so many bytes, at whole characters."""
    ends = list(accumulate(len(character.encode()) for character in text))
    return sorted(
        {next(end for end in ends if end >= min(at, ends[-1])) for at in range(every, ends[-1] + every, every)}
    )


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_every_reading_is_canonical(name: str, text: str) -> None:
    for every in (5, 23):
        await read_through(flat(name, tokeniser(name)), text.encode(), cuts(text, every))


@settings(max_examples=40, deadline=None)
@given(text=st.text(min_size=1, max_size=120), name=st.sampled_from(MEMBERS), every=st.integers(1, 30))
async def test_every_reading_of_any_text_is_canonical(text: str, name: str, every: int) -> None:
    await read_through(flat(name, tokeniser(name)), text.encode(), cuts(text, every))


@settings(max_examples=60, deadline=None)
@given(text=st.text("ab cd\n", min_size=1, max_size=150), every=st.integers(1, 30), partial=st.integers(0, 60))
async def test_longest_matches_are_canonical_after_a_partial_answer(text: str, every: int, partial: int) -> None:
    words = LongestMatch(Vocabulary((*(bytes([b]) for b in b"abcd \n"), b"ab", b"abc", b" a", b"\n\n", b"cd cd", b"")))
    start = min(partial, len(text))
    ends = [end for end in cuts(text, every) if end > start]
    await read_through(flat("m", words), text.encode(), ends, start)


@pytest.mark.parametrize("name", MEMBERS)
async def test_a_reading_scores_a_few_words_before_the_draft(name: str) -> None:
    text = TEXTS[0]
    counts = await read_through(flat(name, tokeniser(name)), text.encode(), cuts(text, 10))
    assert np.mean(counts) < 45 and max(counts) < 80


async def test_a_replaced_token_is_forgotten() -> None:
    member = flat("words", tokeniser("words"))
    reader = await reader_of(member)
    committed = b"capital of Italy=Rome and capital of France=Paris"
    await reader.read(committed, drafted(b" and capital"))
    for other in (b" and so on it goes", b"!", b" and capital of"):
        reading = await reader.read(committed, drafted(other))
        assert spelt(reading) == member.tokeniser.encode(committed + other)


class Contextual(LongestMatch):
    """Spells everything after a colon in single bytes: no place behind one can be tokenised by itself."""

    def encode(self, text: bytes) -> list[int]:
        head, colon, rest = text.partition(b":")
        single = {token: i for i, token in enumerate(self.vocabulary.tokens) if len(token) == 1}
        return [*super().encode(head), *(single[bytes([byte])] for byte in colon + rest)]


async def test_a_tokeniser_that_looks_far_back_is_given_all_of_the_text() -> None:
    letters = [bytes([b]) for b in sorted(set(b"one two:"))]
    member = flat("m", Contextual(Vocabulary((*letters, b"one", b" two", b""))))
    text = b"one two:" + b" one two" * 6
    reader = await reader_of(member)
    right = []
    for end in range(9, len(text)):
        reading = await reader.read(text[: end - 1], drafted(text[end - 1 : end]))
        right.append(spelt(reading) == member.tokeniser.encode(text[:end]))
    assert all(right)


async def test_a_member_is_left_on_no_forced_token() -> None:
    """The draft is spelt in bytes; what the session is asked to hold is spelt in words."""
    member = flat("words", tokeniser("words"))
    reader = await reader_of(member)
    text = b"capital of Italy=Rome and capital of France=Paris and on and on"
    for end in range(5, len(text), 5):
        reading = await reader.read(text[: end - 5], drafted(text[end - 5 : end]))
    held = member.tokeniser.vocabulary.text(reading.ids)
    assert len(held) > 20 and list(reading.ids) == member.tokeniser.encode(held)


async def test_a_draft_is_read_up_to_its_last_whole_character() -> None:
    member = flat("words", tokeniser("words"))
    reader = await reader_of(member)
    broken = "né".encode()[:-1]
    reading = await reader.read(b"", drafted(broken))
    assert member.tokeniser.vocabulary.text(reading.scored.ids) == b"n" == broken[: whole(broken)]
    assert set(reading.opinions) == {0}
