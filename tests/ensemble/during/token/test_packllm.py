"""PackLLM: its worked example, its invariants, what is read of a prompt, and who is asked for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_speculative_exact import courses, plain
from test_speculative_exact import member as three_tokens
from token_toys import MERGED, SINGLE, WORDS, Toy, shown, trio, vocabulary

from ensemble.distributions import log_softmax
from ensemble.during.token.prompting.reading import read
from ensemble.during.token.prompting.weighing import Positions, fitted_weights, positions, softmax_weights
from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest, ConfigurationError, MissingCapability
from ensemble.member import Capability, Floats
from ensemble.request import Answer, Message, Request
from ensemble.testing import LocalMember, ScriptedMember, TinyMember
from ensemble.vocabulary import LongestMatch

SESSIONS_ONLY = frozenset({Capability.GENERATE, Capability.SESSIONS})
TEXT = "ab c a b cab é b"
L1, L2 = [[3.0, 0.0], [0.0, 1.0], [0.0, 2.0]], [[0.0, 1.0], [3.0, 0.0], [0.0, 1.0]]
Z1, Z2 = [1.0, 0.2], [-0.5, 1.5]
LOSSES = {0: 0.558370, 0.25: 0.357335, 0.5: 0.275979, 0.55: 0.275620, 0.6: 0.280602, 0.75: 0.326766, 1: 0.496259}


def packllm(members: Sequence[LocalMember], **options: Any) -> Ensemble:
    return Ensemble("e", "packllm", members, options=options)


def told(answer: Answer) -> Mapping[str, Any]:
    [trace] = answer.choices[0].traces
    assert trace.kind == "weights"
    return trace.data


def weights(answer: Answer) -> list[float]:
    return list(told(answer)["weights"].values())


def example() -> list[LocalMember]:
    """Two tokens, the prompt xxxy; logits by the number of tokens read."""

    def of(name: str, rows: list[list[float]]) -> LocalMember:
        def model(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
            return log_softmax(np.array(rows[len(prompt) + len(ids) - 1]))

        return LocalMember(name, LongestMatch(vocabulary((b"x", b"y"))), model)

    return [of("one", [*L1, Z1, Z1]), of("two", [*L2, Z2, Z2])]


PROMPT = Request.of("xxxy", max_tokens=1, logprobs=2)


@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
async def test_worked_example_of_sim(fidelity: str) -> None:
    answer = await packllm(example(), fidelity=fidelity).answer(PROMPT)
    assert list(told(answer)["losses"].values()) == pytest.approx([0.496259, 0.558370], abs=1e-6)
    assert weights(answer) == pytest.approx([0.515523, 0.484477], abs=1e-6)


@pytest.mark.parametrize(("combine", "expected"), [("logits", 0.613014), ("probabilities", 0.566873)])
async def test_worked_example_of_opt(combine: str, expected: float) -> None:
    answer = await packllm(example(), weights="opt", combine=combine).answer(PROMPT)
    assert weights(answer) == pytest.approx([0.55, 0.45], abs=1e-9)
    assert told(answer)["positions"] == 3
    [token] = answer.choices[0].tokens
    assert token.token == b"y" and np.exp(token.logprob) == pytest.approx(expected, abs=1e-6)


async def test_worked_example_of_the_grid() -> None:
    where = positions(await read(example(), "xxxy", 2))
    assert where is not None
    found = {share: where.loss(np.array([share, 1 - share])) for share in LOSSES}
    assert found == pytest.approx(LOSSES, abs=1e-6)
    sim = softmax_weights([LOSSES[1], LOSSES[0]], 1.0)
    assert where.loss(sim) == pytest.approx(0.275294, abs=1e-6)


# Reading a prompt


@pytest.mark.parametrize("text", [TEXT, "ab", "aaa", "é é", "cabcab", "b ca"])
async def test_losses_are_those_of_the_members_own_tokenisation(text: str) -> None:
    members = trio()
    for member, reading in zip(members, await read(members, text), strict=True):
        ids = member.tokeniser.encode(text.encode())
        scored = reading.scored.ids
        native = tuple(ids[len(ids) - len(scored) :]) == scored
        begun = len(text.encode()) - reading.bytes
        assert begun > 0 and reading.ends[0] == begun
        spelt = member.tokeniser.vocabulary.text(scored)
        assert spelt == text.encode()[begun:]
        if text == TEXT:
            assert native
        head, total = text.encode()[:begun], 0.0
        for token in scored:
            total -= float(member.after(head)[token])
            head += member.tokeniser.vocabulary.tokens[token]
        assert reading.nats == pytest.approx(total, abs=1e-9)
        assert reading.loss() == pytest.approx(total / reading.bytes)
        assert reading.loss(by_token=True) == pytest.approx(total / len(scored))
        assert member.open_sessions == 0


async def test_scoring_begins_where_it_can_for_all() -> None:
    readings = await read(trio(), TEXT)
    assert len({int(reading.ends[0]) for reading in readings}) == 1


async def test_all_members_read_at_once() -> None:
    under_way: list[int] = [0]

    class Watched(TinyMember):
        async def work(self) -> None:
            under_way.append(under_way[-1] + 1)
            await asyncio.sleep(0.01)
            under_way.append(under_way[-1] - 1)

    await read([Watched(name, seed) for seed, name in enumerate("abcdef")], "hello world")
    assert max(under_way) == 6


@given(st.integers(0, 2**16), st.integers(1, 13))
@settings(max_examples=20, deadline=None)
async def test_short_lists_keep_the_members_own_losses(seed: int, topk: int) -> None:
    members = [Toy("m", MERGED, seed), Toy("s", SINGLE, seed + 1), Toy("w", WORDS, seed + 2)]
    short, whole = [positions(await read(members, TEXT, k)) for k in (topk, 20)]
    assert short is not None and whole is not None
    for seat in range(3):
        one = np.eye(3)[seat]
        assert short.loss(one) == pytest.approx(whole.loss(one), abs=1e-9)
    if topk >= len(MERGED):
        assert short.loss(np.full(3, 1 / 3)) == pytest.approx(whole.loss(np.full(3, 1 / 3)), abs=1e-9)


async def test_positions_are_the_tokens_that_all_have_next() -> None:
    members = trio()
    readings = await read(members, TEXT, 20)
    where = positions(readings)
    assert where is not None
    spans = [set(zip(r.ends[:-1].tolist(), r.ends[1:].tolist(), strict=True)) for r in readings]
    assert len(where.starts) == len(set.intersection(*spans)) > 2
    # Members of one vocabulary meet everywhere.
    alike = positions(await read([Toy("a", MERGED, 1), Toy("b", MERGED, 2)], TEXT, 20))
    assert alike is not None and len(alike.starts) == len(readings[0].scored.ids)


def random_positions(rng: np.random.Generator, members: int) -> Positions:
    lengths = rng.integers(2, 6, size=7)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    rows = [[log_softmax(rng.normal(size=n) * 2) for n in lengths] for _ in range(members)]
    tokens = [int(rng.integers(n)) for n in lengths]
    labels = np.array([[row[t] for row, t in zip(own, tokens, strict=True)] for own in rows])
    return Positions(np.array([np.concatenate(own) for own in rows]), starts, labels)


@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0.05, 0.1, 0.5]))
@settings(max_examples=40, deadline=None)
def test_fitted_weights_are_no_worse_than_the_best_member(seed: int, members: int, step: float) -> None:
    where = random_positions(np.random.default_rng(seed), members)
    alone = [where.loss(row) for row in np.eye(members)]
    found = fitted_weights(where, alone, step)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    assert where.loss(found) <= min(alone) + 1e-12
    for seat, row in enumerate(np.eye(members)):
        assert alone[seat] == pytest.approx(-where.labels[seat].mean()), row


def test_of_equal_members_the_later_gets_the_weight() -> None:
    one = random_positions(np.random.default_rng(1), 1)
    both = Positions(np.repeat(one.logprobs, 2, axis=0), one.starts, np.repeat(one.labels, 2, axis=0))
    grid = [both.loss(np.array([share, 1 - share])) for share in (0.0, 0.5, 1.0)]
    assert grid == pytest.approx([grid[0]] * 3, abs=1e-12)
    assert fitted_weights(both, [1.0, 1.0], 0.5).sum() == 1


@given(st.lists(st.floats(0, 5), min_size=1, max_size=5), st.floats(0.05, 3), st.randoms(use_true_random=False))
def test_similar_weights_follow_losses(losses: list[float], tau: float, random: Any) -> None:
    found = softmax_weights(losses, tau)
    order = random.sample(range(len(losses)), len(losses))
    assert softmax_weights([losses[i] for i in order], tau).tolist() == pytest.approx(found[order].tolist())
    assert np.argmax(found) == np.argmin(losses) or found.max() == pytest.approx(found[np.argmin(losses)])
    assert softmax_weights([losses[0]] * 3, tau).tolist() == pytest.approx([1 / 3] * 3)


# Answers


@pytest.mark.parametrize("how", ["sim", "opt", "top1"])
@pytest.mark.parametrize("combine", ["logits", "probabilities"])
async def test_copies_of_a_member_write_its_greedy_text(how: str, combine: str) -> None:
    request = Request.of("hello", max_tokens=20)
    alone = await TinyMember("a", 5).answer(request)
    copies = [TinyMember(name, 5) for name in "abc"]
    answer = await packllm(copies, weights=how, combine=combine, listed=3).answer(request)
    assert (answer.text, answer.choices[0].finish_reason) == (alone.text, alone.choices[0].finish_reason)
    if how == "sim":
        assert weights(answer) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("members", [[TinyMember("a", 1), TinyMember("b", 2), TinyMember("c", 3)], trio()])
async def test_all_weight_on_one_member_gives_its_text_and_leaves_the_others_alone(members: list[LocalMember]) -> None:
    request = Request.of(TEXT, max_tokens=12)
    answer = await packllm(members, weights="top1").answer(request)
    seat = weights(answer).index(1.0)
    assert seat == int(np.argmin(list(told(answer)["losses"].values())))
    # The prompt is one exchange; the answer is asked of one member alone.
    assert [m.exchanges for i, m in enumerate(members) if i != seat] == [1, 1]
    assert members[seat].exchanges > 1 and [m.open_sessions for m in members] == [0, 0, 0]
    alone = await Ensemble("x", "gac", [members[seat]]).answer(request)
    assert answer.text == alone.text
    assert {name: use.calls for name, use in answer.usage.items()} == {
        m.name: 2 if i == seat else 1 for i, m in enumerate(members)
    }


@pytest.mark.parametrize("temperature", [0, 0.9])
async def test_members_with_little_weight_are_released(temperature: float) -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2), TinyMember("c", 3)]
    request = Request.of("hello", max_tokens=8, temperature=temperature, seed=4)
    answer = await packllm(members, tau=0.2).answer(request)
    low = [i for i, weight in enumerate(weights(answer)) if weight < 0.01]
    assert 0 < len(low) < 3
    assert [members[i].exchanges for i in low] == [1] * len(low)
    kept = [TinyMember(m.name, "abc".index(m.name) + 1) for i, m in enumerate(members) if i not in low]
    assert answer.text == (await packllm(kept, tau=0.2).answer(request)).text
    everyone = [TinyMember("a", 1), TinyMember("b", 2), TinyMember("c", 3)]
    await packllm(everyone, tau=0.2, release=0).answer(request)
    assert all(member.exchanges > 1 for member in everyone)


@pytest.mark.parametrize("how", ["sim", "opt", "top1"])
async def test_order_of_members_does_not_matter(how: str) -> None:
    request = Request.of(TEXT, max_tokens=15)
    found = set()
    for order in permutations(trio()):
        answer = await packllm(list(order), weights=how).answer(request)
        found.add((answer.text, tuple(sorted((n, round(w, 9)) for n, w in told(answer)["weights"].items()))))
    assert len(found) == 1 and next(iter(found))[0]


@given(st.integers(0, 2**16), st.sampled_from(["sim", "opt"]), st.sampled_from([1, 3, 20]))
@settings(max_examples=15, deadline=None)
async def test_one_vocabulary_gives_the_plain_mixture(seed: int, how: str, listed: int) -> None:
    members = [Toy("a", MERGED, seed), Toy("b", MERGED, seed + 1)]
    answer = await packllm(members, weights=how, listed=listed, release=0).answer(Request.of(TEXT, max_tokens=8))
    shares, text = weights(answer), b""
    union = vocabulary(MERGED)
    for _ in range(8):
        rows = [member.after(TEXT.encode() + text) for member in members]
        by = {}
        for token in sorted({union.tokens[i] for i in np.flatnonzero(union.writable)}):
            ids = [i for i in np.flatnonzero(union.writable) if union.tokens[i] == token]
            by[token] = sum(w * np.log(np.exp(row[ids]).sum()) for w, row in zip(shares, rows, strict=True) if w)
        best = max(by, key=lambda token: by[token])
        if not best:
            break
        text += best
    assert answer.text == shown(text)


@pytest.mark.parametrize("how", ["sim", "opt"])
async def test_answers_across_vocabularies_follow_the_weights(how: str) -> None:
    request = Request.of(TEXT, max_tokens=15)
    answers = {c: await packllm(trio(), weights=how, combine=c).answer(request) for c in ("logits", "probabilities")}
    assert all(a.text and a.choices[0].finish_reason for a in answers.values())
    shares = weights(answers["probabilities"])
    union = Ensemble("u", "unite", trio(), options={"weights": shares})
    assert answers["probabilities"].text == (await union.answer(request)).text


async def test_a_prompt_of_one_character_has_no_losses() -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2)]
    for how, expected in (("sim", [0.5, 0.5]), ("opt", [0.5, 0.5]), ("top1", [1, 0])):
        assert weights(await packllm(members, weights=how).answer(Request.of("?", max_tokens=2))) == expected


async def test_without_a_common_place_opt_is_sim() -> None:
    members = [Toy("a", (b"ab", b"a", b"b", b""), 1), Toy("b", (b"ba", b"a", b"b", b""), 2)]
    request = Request.of("abababab", max_tokens=2)
    assert positions(await read(members, "abababab", 4)) is None
    found = await packllm(members, weights="opt").answer(request)
    assert told(found)["positions"] == 0
    assert weights(found) == weights(await packllm(members).answer(request))


async def test_only_the_last_user_message_is_scored() -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2)]
    turns = (Message("system", "s"), Message("user", "other"), Message("assistant", "x"), Message("user", "hello"))
    long = await packllm(members).answer(Request(messages=turns, sampling=Request.of("?", max_tokens=2).sampling))
    short = await packllm(members).answer(Request.of("hello", max_tokens=2))
    raw = await packllm(members).answer(Request(prompt="hello", sampling=Request.of("?", max_tokens=2).sampling))
    assert told(long) == told(short) == told(raw)


async def test_fidelity_reference_favours_coarse_vocabularies_less_per_byte() -> None:
    coarse, fine = Toy("coarse", (b"cab", b" ", *(bytes([c]) for c in b"abc"), b""), 1), Toy("fine", SINGLE, 2)
    request = Request.of("cab cab cab cab", max_tokens=1)
    fixed = told(await packllm([coarse, fine]).answer(request))["losses"]
    reference = told(await packllm([coarse, fine], fidelity="reference").answer(request))["losses"]
    assert fixed["fine"] == pytest.approx(reference["fine"]) and fixed["coarse"] < reference["coarse"]


@pytest.mark.parametrize("how", ["sim", "top1"])
async def test_drafts_change_nothing(how: str) -> None:
    members = [Toy("a", MERGED, 21, stop=-9), Toy("b", MERGED, 22, stop=-9)]
    request = Request.of(TEXT, max_tokens=20)
    slow = await packllm(members, weights=how, listed=5).answer(request)
    fast = await packllm(members, weights=how, listed=5, draft={}).answer(request)
    assert fast.text == slow.text and len(slow.text) > 5 and told(fast) == told(slow)


@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize("combine", ["logits", "probabilities"])
async def test_answers_are_drawn_from_the_mixture(monkeypatch: pytest.MonkeyPatch, combine: str, drafted: bool) -> None:
    def target(rows: Sequence[Floats]) -> Floats:
        mixed = np.exp(sum(rows) / 2) if combine == "logits" else sum(np.exp(row) for row in rows) / 2
        tempered = np.asarray(mixed) ** (1 / 0.7)
        return np.asarray(tempered / tempered.sum())

    members = [three_tokens("a", 1), three_tokens("b", 2)]
    options: dict[str, Any] = {"combine": combine}
    if drafted:
        options["draft"] = {"lengths": [2, 1], "adaptive": False}
    found, _ = await courses(monkeypatch, members, options, "packllm", temperature=0.7)
    expected = plain(members, target)
    assert found.keys() == expected.keys()
    assert max(abs(found[answer] - expected[answer]) for answer in expected) < 1e-12


async def test_drawing_in_one_vocabulary_needs_full_distributions() -> None:
    members = [TinyMember("a"), TinyMember("b", capabilities=SESSIONS_ONLY)]
    with pytest.raises(BadRequest, match="b does not") as refused:
        await packllm(members).answer(Request.of("hello", temperature=1))
    assert (refused.value.param, members[0].exchanges) == ("temperature", 0)
    with pytest.raises(BadRequest, match="b does not"):
        await packllm(members).answer(Request.of("hello", logprobs=1))
    assert (await packllm(members, combine="probabilities").answer(Request.of("hello", logprobs=1, max_tokens=2))).text
    bare = [Toy("a", MERGED, 1, capabilities=SESSIONS_ONLY), Toy("b", SINGLE, 2, capabilities=SESSIONS_ONLY)]
    answer = await packllm(bare).answer(Request.of(TEXT, temperature=1, seed=1, max_tokens=5))
    assert answer.choices[0].text


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"weights": "mean"}, "weights", "'sim', 'opt' or 'top1'"),
        ({"weights": "opt", "tau": 1}, "tau", "weights: sim"),
        ({"step": 0.1}, "step", "weights: opt"),
        ({"tau": 0}, "tau", "greater than 0"),
        ({"release": 1}, "release", "less than 1"),
        ({"combine": "votes"}, "combine", "'logits'"),
        ({"prompt_topk": 5000}, "prompt_topk", "1024"),
        ({"draft": {}}, "members", "vocabular"),
        ({"topk": 0}, "topk", "greater than or equal to 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        packllm(trio(), **options)
    assert refused.value.param == param


def test_members_without_sessions_are_refused() -> None:
    with pytest.raises(MissingCapability, match="sessions"):
        packllm([TinyMember("a"), ScriptedMember.answering("b", ["x"])])  # type: ignore[list-item]


async def test_offsets_are_taken_off_the_losses_before_they_are_compared() -> None:
    members = trio()[:2]
    plain = await packllm(members).answer(Request.of("abca", max_tokens=4))
    losses = next(t for t in plain.choices[0].traces if t.kind == "weights").data["losses"]
    even = await packllm(members, offsets=list(losses.values())).answer(Request.of("abca", max_tokens=4))
    told = next(t for t in even.choices[0].traces if t.kind == "weights").data
    assert list(told["weights"].values()) == pytest.approx([0.5, 0.5])
    assert list(told["losses"].values()) == pytest.approx([0.0, 0.0])


def test_as_many_offsets_as_members() -> None:
    with pytest.raises(ConfigurationError, match="offsets needs one number for each of the 2 members"):
        packllm(trio()[:2], offsets=[0.1])
