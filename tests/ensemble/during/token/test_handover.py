"""Token routing, ``citer`` and ``r2r``: at their extremes the two members alone, between them what the gate says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_toys import Toy, trio

from ensemble import Ensemble
from ensemble.artifacts import Artifact
from ensemble.distributions import entropy
from ensemble.errors import ConfigurationError, MissingCapability
from ensemble.heads import Head
from ensemble.member import Append, Capability, Edit, Exchange, Floats, Member, Session, SyncText
from ensemble.method import Members
from ensemble.request import Answer, Request, Trace
from ensemble.testing import LocalMember, TinyMember
from ensemble.vocabulary import LongestMatch, Vocabulary

ASK = Request.of("go", max_tokens=24)


class Scripted(Head):
    """A router that gives a token the probability that a function of the last state has for it."""

    kind = "router"
    reads_states = True
    width = TinyMember.WIDTH

    def __init__(self, score: Callable[[Floats], float]) -> None:
        super().__init__("stay or leave", ("stay", "leave"))
        self._score = score

    @classmethod
    def of(cls, artifact: Artifact) -> Scripted:
        raise NotImplementedError

    def to(self, device: torch.device) -> Scripted:
        return self

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def read(self, logits: torch.Tensor, states: torch.Tensor | None, given: torch.Tensor | None) -> torch.Tensor:
        assert states is not None
        stay = torch.tensor([[self._score(state.numpy())] for state in states])
        return torch.log(torch.cat([stay, 1 - stay], dim=1))


def swinging(state: Floats) -> float:
    """Good enough about every other time."""
    return float(0.5 + 0.49 * np.tanh(4 * state[0]))


def small(score: Callable[[Floats], float] = swinging, *, seed: int = 0, name: str = "small") -> TinyMember:
    return TinyMember(name, seed, heads={"citer": Scripted(score)})


def large(seed: int = 1) -> TinyMember:
    return TinyMember("large", seed)


def citer(members: Sequence[Member], **options: object) -> Ensemble:
    return Ensemble("ensemble", "citer", members, options=options)


def r2r(members: Sequence[Member], **options: object) -> Ensemble:
    return Ensemble("ensemble", "r2r", members, options=options)


def by_hand(one: LocalMember, other: LocalMember, leaves: Callable[[list[int]], bool], tokens: int) -> bytes:
    """The answer token by token, for members of one vocabulary; ``leaves``: of ids so far, to the other."""
    prompt, ids = one.prompt_ids(ASK), list[int]()
    vocabulary = one.tokeniser.vocabulary
    for _ in range(tokens):
        writer = other if leaves(ids) else one
        row = np.where(vocabulary.writable, writer.model(prompt, ids), -np.inf)
        token = int(row.argmax())
        if token in vocabulary.stop_ids:
            break
        ids.append(token)
    return vocabulary.text(ids)


def shown(text: bytes) -> str:
    return text.decode(errors="replace")


def share(answer: Answer) -> dict[str, float]:
    [trace] = [trace for trace in answer.choices[0].traces if trace.kind == "share"]
    return dict(trace.data)


@pytest.mark.parametrize("segment", [1, 3, 16])
async def test_below_the_threshold_the_large_member_writes(segment: int) -> None:
    one, other = small(), large()
    prompt = one.prompt_ids(ASK)

    def leaves(ids: list[int]) -> bool:
        return swinging(one.states(prompt, ids)) < 0.6  # type: ignore[misc]

    answer = await citer([one, other], threshold=0.6, segment=segment).answer(ASK)
    assert answer.text == shown(by_hand(one, other, leaves, 24))
    assert 0 < share(answer)["small"] < 1
    assert sum(share(answer).values()) == pytest.approx(1)


async def test_at_threshold_0_the_small_member_writes_alone_and_the_large_one_is_not_called() -> None:
    one, other = small(), large()
    answer = await citer([one, other], threshold=0).answer(ASK)
    assert answer.text == (await one.answer(ASK)).text
    assert other.exchanges == 0 and share(answer) == {"small": 1.0}


async def test_above_threshold_1_the_large_member_writes_everything() -> None:
    one, other = small(), large()
    answer = await citer([one, other], threshold=1.1).answer(ASK)
    assert answer.text == (await other.answer(ASK)).text
    assert share(answer) == {"large": 1.0}


@given(st.floats(0, 1.2), st.integers(1, 5), st.integers(1, 4), st.integers(0, 9))
async def test_one_model_in_both_roles_writes_its_own_text(
    threshold: float, segment: int, turn: int, seed: int
) -> None:
    members = [small(seed=seed, name="a"), TinyMember("b", seed)]
    answer = await citer(members, threshold=threshold, segment=segment, turn=turn).answer(ASK)
    assert answer.text == (await members[0].answer(ASK)).text


@given(st.floats(0, 6), st.integers(1, 5), st.integers(0, 9), st.floats(0, 2), st.integers(0, 5))
async def test_messages_do_not_change_what_is_written(
    limit: float, segment: int, seed: int, temperature: float, drawn: int
) -> None:
    """Neither how long segments are, nor what is drawn, depends on how the session is spoken to."""
    request = Request.of("go", max_tokens=16, temperature=temperature, seed=drawn)
    members = [TinyMember("a", seed), TinyMember("b", seed + 1)]
    expected = await r2r(members, entropy=limit, segment=16).answer(request)
    assert (await r2r(members, entropy=limit, segment=segment).answer(request)).text == expected.text


async def test_scores_of_the_worked_example_are_routed_by_their_threshold() -> None:
    scores = (0.97, 0.40, 0.99, 0.93)
    for threshold, expected in ((0.9, "SLSS"), (0.95, "SLSL")):
        one, other = _spelling("s", b"S", scores), _spelling("l", b"L")
        answer = await citer([one, other], threshold=threshold).answer(Request.of("go", max_tokens=4))
        assert answer.text == expected
        assert share(answer)["l"] == expected.count("L") / 4


def _spelling(name: str, letter: bytes, scores: Sequence[float] = ()) -> LocalMember:
    """Writes one letter for ever; a router over it has these scores, by position."""
    vocabulary = Vocabulary((b"S", b"L", b""), frozenset({2}))
    row = np.log(np.where([token == letter for token in vocabulary.tokens], 1 - 2e-9, 1e-9))
    heads = {"citer": Scripted(lambda state: scores[int(state[0])])} if scores else {}
    member = LocalMember(
        name,
        LongestMatch(vocabulary),
        lambda prompt, ids: row,
        heads=heads,
        states=lambda prompt, ids: np.array([float(len(ids))]),
    )
    member.prompt_ids = lambda request: []  # type: ignore[method-assign]
    return member


async def test_the_share_of_the_large_member_grows_with_the_threshold_for_given_scores() -> None:
    scores = tuple(np.random.default_rng(0).uniform(size=24).tolist())
    shares = []
    for threshold in (0.0, 0.3, 0.6, 0.9, 1.1):
        answer = await citer([_spelling("s", b"S", scores), _spelling("l", b"L")], threshold=threshold).answer(ASK)
        shares.append(share(answer).get("l", 0.0))
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


async def test_the_large_member_reads_only_what_it_has_missed() -> None:
    one, other = small(), large()
    edits = _edits(other)
    answer = await citer([one, other], threshold=0.6).answer(ASK)
    assert 0 < share(answer)["small"] < 1
    assert all(isinstance(edit, Append) for edit in edits if edit is not None)
    read = sum(len(edit.ids) for edit in edits if isinstance(edit, Append))
    assert read <= 24


async def test_the_large_member_of_another_vocabulary_goes_on_from_the_same_text() -> None:
    one, other, _ = trio()
    edits = _edits(other)
    request = Request.of("ab", max_tokens=30)
    answer = await r2r([one, other], entropy=0.9).answer(request)
    assert 0 < share(answer)["merged"] < 1
    assert any(isinstance(edit, SyncText) for edit in edits)
    assert answer.text == _mixed(one, other, 0.9, b"ab", 30)


def _mixed(one: Toy, other: Toy, limit: float, prompt: bytes, tokens: int) -> str:
    text = b""
    for _ in range(tokens):
        writer = one if entropy(one.after(prompt + text)) <= limit else other
        vocabulary = writer.tokeniser.vocabulary
        token = int(np.where(vocabulary.writable, writer.after(prompt + text), -np.inf).argmax())
        if token in vocabulary.stop_ids:
            break
        text += vocabulary.tokens[token]
    return shown(text)


def _edits(member: LocalMember) -> list[Edit | None]:
    """What the member's sessions are told, as it comes."""
    told: list[Edit | None] = []
    start = member.start

    async def started(request: Request) -> Session:
        session = await start(request)
        send = session._send

        async def sent(exchange: Exchange) -> object:
            told.append(exchange.edit)
            return await send(exchange)

        session._send = sent  # type: ignore[assignment, method-assign]
        return session

    member.start = started  # type: ignore[method-assign]
    return told


async def test_sessions_are_closed_and_stop_strings_and_limits_hold() -> None:
    one, other = small(), large()
    whole = (await citer([one, other], threshold=0.6).answer(ASK)).text
    stop = whole[5:7]
    cut = await citer([one, other], threshold=0.6).answer(Request.of("go", max_tokens=24, stop=(stop,)))
    assert cut.text == whole[: whole.index(stop)] and cut.choices[0].finish_reason == "stop"
    short = await citer([one, other], threshold=0.6).answer(Request.of("go", max_tokens=5))
    assert whole.startswith(short.text.rstrip("\ufffd")) and short.choices[0].finish_reason == "length"
    assert one.open_sessions == other.open_sessions == 0


async def test_a_full_context_ends_the_answer_with_length() -> None:
    one = TinyMember("a", 0, context_length=12)
    answer = await r2r([one, TinyMember("b", 1)], entropy=4.0).answer(Request.of("go"))
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert one.open_sessions == 0


async def test_logprobs_are_the_writers_own() -> None:
    one, other = small(), large()
    answer = await citer([one, other], threshold=0.6).answer(Request.of("go", max_tokens=6, logprobs=2))
    prompt, ids = one.prompt_ids(ASK), list[int]()
    for told in answer.choices[0].tokens:
        writer = one if swinging(one.states(prompt, ids)) >= 0.6 else other  # type: ignore[misc]
        row = writer.model(prompt, ids)
        assert told.logprob == pytest.approx(float(row.max()), abs=1e-6)
        assert len(told.top) == 2 and told.top[0][1] == pytest.approx(told.logprob, abs=1e-6)
        ids.append(int(row.argmax()))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"head": "router"}, "needs a head 'router' of kind router at small; its heads: citer"),
        ({"small": "nobody"}, "no member"),
        ({"small": "large"}, "needs a head"),
        ({"small": "small", "large": "small"}, "same member"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises((ConfigurationError, MissingCapability), match=says):
        citer([small(), large()], **options)


def test_three_members_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="takes two members; there are 3"):
        citer([small(), large(), TinyMember("third", 2)])


def test_r2r_needs_an_engine_that_sees_whole_distributions() -> None:
    lists = frozenset({Capability.GENERATE, Capability.SESSIONS})
    members = [Toy("a", (b"a", b""), 0, capabilities=lists), Toy("b", (b"a", b""), 1)]
    with pytest.raises(MissingCapability, match="full_distribution"):
        r2r(members)
    r2r(members, small="b")


async def test_what_is_left_of_two_members_writes_alone() -> None:
    one = small()
    method = citer([one, large()])._method.among(["small", "large"], [0])
    events = [event async for event in method.run(ASK, Members([one]))]
    assert isinstance(events[-2], Trace) and events[-2].data == {"small": 1.0}
