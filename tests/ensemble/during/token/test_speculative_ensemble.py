"""Drafted decisions are those of the plain rules, whatever is drafted; limits, failures, costs and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_toys import MERGED, SINGLE, WORDS, Toy, deltas, vocabulary

from ensemble.distributions import log_softmax
from ensemble.during.token.drafting.pending import Pending
from ensemble.ensemble import Ensemble
from ensemble.errors import BadRequest, BudgetExceeded, ConfigurationError, ContextTooLong, MemberLost, UnknownOption
from ensemble.member import Capability, Card, Floats, LogprobsAt, Member, Propose, Score, Session
from ensemble.request import Budget, Completion, Finish, Request, Usage
from ensemble.testing import LocalMember, ScriptedMember, TinyMember
from ensemble.vocabulary import LongestMatch

Q = "ab"
SESSIONS_ONLY = frozenset({Capability.GENERATE, Capability.SESSIONS})
METHODS = ["gac", "speculative_ensemble", "unite"]
each = pytest.mark.parametrize("method", METHODS)
overlapping = pytest.mark.parametrize("overlap", [False, True], ids=["turns", "overlap"])


def drafted(method: str, members: Sequence[Member], draft: Mapping[str, object] | None = None, **options) -> Ensemble:
    return Ensemble("e", method, members, options={**options, "draft": dict(draft or {})})


def plain(members: Sequence[Member], method: str = "gac", **options) -> Ensemble:
    return Ensemble("e", "unite" if method == "unite" else "gac", members, options=options)


async def completed(ensemble: Ensemble, request: Request) -> Completion:
    return (await ensemble.answer(request)).choices[0]


def agreeing(text: bytes, count: int = 2, **options: object) -> list[ScriptedMember]:
    tokens = [bytes([b]) for b in sorted(set(text))] + [b""]
    script = [bytes([b]) for b in text]
    return [ScriptedMember(f"m{i}", tokens, script, **options) for i in range(count)]


def restricted(member: LocalMember) -> LocalMember:
    """The same member without full distributions."""
    card = member.card
    member.card = Card(card.name, SESSIONS_ONLY, card.context_length, card.vocabulary)
    return member


DRAFTS = st.fixed_dictionaries(
    {"adaptive": st.booleans(), "overlap": st.booleans(), "longest": st.integers(1, 6)},
    optional={"lengths": st.lists(st.integers(1, 6), min_size=3, max_size=3)},
)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.sampled_from([MERGED, SINGLE, WORDS]),
    seeds=st.lists(st.integers(0, 4), min_size=3, max_size=3),
    weights=st.lists(st.integers(0, 3), min_size=3, max_size=3).filter(any),
    draft=DRAFTS,
    topk=st.sampled_from([1, 2, 4, 20]),
    method=st.sampled_from(METHODS),
    limit=st.integers(1, 20),
)
async def test_greedy_answers_are_those_of_the_plain_rule(tokens, seeds, weights, draft, topk, method, limit) -> None:
    """Vocabularies with two ids for one string, several stop ids and control ids among them."""
    members = [Toy(f"m{i}", tokens, seed, stop=-1.0) for i, seed in enumerate(seeds)]
    request = Request.of(Q, max_tokens=limit)
    wanted = await completed(plain(members, method, weights=weights, topk=topk), request)
    found = await completed(drafted(method, members, draft, weights=weights, topk=topk), request)
    assert (found.text, found.finish_reason) == (wanted.text, wanted.finish_reason)
    assert [m.open_sessions for m in members] == [0, 0, 0]


def literal(name: str, seed: int) -> LocalMember:
    """A model that goes on otherwise after another id of the same bytes."""

    def row(prompt: Sequence[int], ids: Sequence[int]) -> Floats:
        return log_softmax(np.random.default_rng([seed, len(ids), *ids[-4:]]).normal(size=len(MERGED)) * 2)

    return LocalMember(name, LongestMatch(vocabulary(MERGED)), row)


@settings(max_examples=40, deadline=None)
@given(seeds=st.permutations(range(40)).map(lambda seeds: seeds[:2]), draft=DRAFTS, method=st.sampled_from(METHODS))
async def test_members_that_spell_one_string_differently(seeds: list[int], draft, method: str) -> None:
    members = [literal(f"m{i}", seed) for i, seed in enumerate(seeds)]
    draft = {key: value for key, value in draft.items() if key != "lengths"}
    request = Request.of(Q, max_tokens=16)
    wanted = await completed(plain(members, method, topk=20), request)
    found = await completed(drafted(method, members, draft, topk=20), request)
    assert (found.text, found.finish_reason) == (wanted.text, wanted.finish_reason)


@settings(max_examples=15, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 9), min_size=2, max_size=3),
    draft=DRAFTS.map(lambda d: {k: v for k, v in d.items() if k != "lengths"}),
    prompt=st.sampled_from(["hello", "x"]),
)
async def test_greedy_answers_of_larger_models(seeds: list[int], draft, prompt: str) -> None:
    members = [TinyMember(f"m{i}", seed) for i, seed in enumerate(seeds)]
    request = Request.of(prompt, max_tokens=30)
    wanted = await completed(plain(members), request)
    found = await completed(drafted("speculative_ensemble", members, draft), request)
    assert (found.text, found.finish_reason) == (wanted.text, wanted.finish_reason)


@settings(max_examples=20, deadline=None)
@given(
    seeds=st.permutations(range(8)).map(lambda seeds: seeds[:2]),
    alpha=st.sampled_from([0.1, 0.5, 1.0]),
    least=st.sampled_from([0.05, 0.1, 0.5, 1.0]),
    topk=st.sampled_from([1, 3, 20]),
    draft=DRAFTS.map(lambda d: {k: v for k, v in d.items() if k != "lengths"}),
)
async def test_greedy_contrasts_from_lists_are_those_of_whole_distributions(seeds, alpha, least, topk, draft) -> None:
    members = [Toy("amateur", SINGLE, seeds[0], stop=-1.0), Toy("expert", SINGLE, seeds[1], stop=-1.0)]
    options = {"target": "contrastive", "alpha": alpha, "plausibility": least, "topk": topk}
    found = await completed(drafted("speculative_ensemble", members, draft, **options), Request.of(Q, max_tokens=12))
    answer = b""
    while len(answer) < 12:
        weak, strong = (np.exp(m.after(Q.encode() + answer)) for m in members)
        scores = np.where(strong >= least * strong.max(), np.log(strong) - alpha * np.log(weak), -np.inf)
        # Ties aside, ids of one vocabulary stand for themselves here.
        token = SINGLE[int(np.argmax(scores))]
        if not token:
            break
        answer += token
    assert found.text == answer.decode(errors="replace")


@each
@overlapping
async def test_reports_are_those_of_the_plain_rule(method: str, overlap: bool) -> None:
    members = [Toy(f"m{i}", MERGED, i) for i in range(3)]
    request = Request.of(Q, max_tokens=12, logprobs=3)
    wanted = await completed(plain(members, method, weights=[1, 2, 3]), request)
    found = await completed(drafted(method, members, {"overlap": overlap}, weights=[1, 2, 3]), request)
    assert [t.token for t in found.tokens] == [t.token for t in wanted.tokens]
    for mine, theirs in zip(found.tokens, wanted.tokens, strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob)
        assert [s for s, _ in mine.top] == [s for s, _ in theirs.top]
    assert len(found.credits) == len(wanted.credits)
    for (text, mine), (same, theirs) in zip(found.credits, wanted.credits, strict=True):
        assert (text, dict(mine)) == (same, pytest.approx(dict(theirs)))


async def test_reports_without_whole_distributions() -> None:
    def members() -> list[LocalMember]:
        return [restricted(Toy(f"m{i}", SINGLE, i)) for i in range(2)]

    request = Request.of(Q, max_tokens=8, logprobs=2)
    wanted = await completed(plain(members(), topk=3), request)
    found = await completed(drafted("gac", members(), topk=3), request)
    assert found.tokens == wanted.tokens


@each
@overlapping
@pytest.mark.parametrize("limits", [{"max_tokens": n} for n in (1, 2, 5, 6, 7)] + [{"stop": ("cd",)}, {"stop": ("h",)}])
async def test_answers_end_where_they_should(method: str, overlap: bool, limits: dict[str, object]) -> None:
    members = agreeing(b"abcdefgh")
    request = Request.of("?", **limits)
    found = await completed(drafted(method, members, {"overlap": overlap}), request)
    wanted = await completed(plain(members, method), request)
    assert (found.text, found.finish_reason, found.credits) == (wanted.text, wanted.finish_reason, wanted.credits)
    assert [m.open_sessions for m in members] == [0, 0]


@overlapping
@pytest.mark.parametrize("contexts", [(12, 40), (40, 12), (9, 9), (4, 40)])
async def test_the_smallest_context_ends_the_answer(contexts: tuple[int, int], overlap: bool) -> None:
    members = [Toy(f"m{i}", SINGLE, i, stop=-50, context_length=size) for i, size in enumerate(contexts)]
    request = Request.of(Q)
    wanted = await completed(plain(members), request)
    found = await completed(drafted("speculative_ensemble", members, {"overlap": overlap}), request)
    assert (found.text, found.finish_reason) == (wanted.text, "length")
    assert len(found.text.encode()) > 0


@overlapping
@pytest.mark.parametrize("context", [3, 4, 5, 8])
async def test_a_drafter_whose_context_is_full_leaves_the_rest_to_the_others(context: int, overlap: bool) -> None:
    small = Toy("small", SINGLE, 0, stop=-50, context_length=context)
    large = Toy("large", SINGLE, 0, stop=-50)
    ensemble = drafted("gac", [small, large], {"lengths": [4, 1], "overlap": overlap}, weights=[0, 1])
    request = Request.of(Q, max_tokens=16)
    assert (await completed(ensemble, request)).text == (await completed(plain([large]), request)).text
    assert small.open_sessions == 0


async def test_a_prompt_that_does_not_fit_is_refused() -> None:
    members = [Toy("m0", SINGLE, 0, context_length=2), Toy("m1", SINGLE, 1)]
    with pytest.raises(ContextTooLong):
        await drafted("speculative_ensemble", members).answer(Request.of(Q))


@overlapping
async def test_answers_go_on_from_a_partial_one(overlap: bool) -> None:
    members = [Toy(f"m{i}", SINGLE, i) for i in range(2)]
    for temperature in (0, 1):
        request = Request(prompt=Q, partial="cab", sampling=Request.of("?", max_tokens=9, seed=2).sampling)
        if not temperature:
            wanted = await completed(plain(members), request)
            assert (await completed(drafted("gac", members, {"overlap": overlap}), request)).text == wanted.text
        else:
            drawn = Request(
                prompt=Q, partial="cab", sampling=Request.of("?", max_tokens=9, seed=2, temperature=1).sampling
            )
            assert (await completed(drafted("gac", members, {"overlap": overlap}), drawn)).text


# What it saves, and what it costs


@overlapping
async def test_agreeing_members_exchange_few_messages(overlap: bool) -> None:
    text = bytes(range(97, 97 + 26)) * 2
    members = agreeing(text)
    options = {"lengths": [8, 1], "adaptive": False, "overlap": overlap}
    assert (await completed(drafted("speculative_ensemble", members, options), Request.of("?"))).text == text.decode()
    exchanges = [member.exchanges for member in members]
    # One to begin with; then blocks of 8, one of them added by the second member unless the first runs ahead.
    blocks = -(-len(text) // 8)
    assert exchanges[1] <= blocks + 1
    assert exchanges[0] <= 2 * blocks + 1
    for member in members:
        member.exchanges = 0
    await completed(plain(members), Request.of("?"))
    assert [member.exchanges for member in members] == [53, 53]


@pytest.fixture
def rejected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Drafts that were in the queue whenever it was dropped, but for the stop that ends an answer."""
    found: list[int] = []
    clear = Pending.clear

    def counted(self: Pending) -> None:
        found.extend([len(self)] if len(self) and self.first.id else [])
        clear(self)

    monkeypatch.setattr(Pending, "clear", counted)
    return found


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("method", METHODS)
@overlapping
async def test_identical_members_are_never_rejected(method, temperature: float, overlap: bool, rejected) -> None:
    members = [TinyMember(f"m{i}", seed=5) for i in range(3)]
    ensemble = drafted(method, members, {"lengths": [4, 1, 1], "adaptive": False, "overlap": overlap})
    choice = await completed(ensemble, Request.of("hello", max_tokens=30, temperature=temperature, seed=6))
    # What unite draws from is cut to the union of lists, so that its drafts may be rejected.
    assert choice.text
    assert rejected == [] or (method, temperature) == ("unite", 1)


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("method", METHODS)
async def test_members_that_disagree_are_rejected(method: str, temperature: float, rejected) -> None:
    members = [TinyMember(f"m{i}", seed=i) for i in range(3)]
    await completed(drafted(method, members), Request.of("hello", max_tokens=30, temperature=temperature, seed=6))
    assert rejected


class Recorded:
    """Members whose edits and questions are kept."""

    def __init__(self, members: Sequence[LocalMember]) -> None:
        self.questions: list[tuple[str, object]] = []
        self.usage: dict[str, Usage] = {}
        self.members = list(members)
        for member in members:
            self._watch(member)

    def _watch(self, member: LocalMember) -> None:
        start = member.start

        async def started(request: Request) -> Session:
            session = await start(request)
            self._spend(member.name, Usage(calls=1))
            send = session._send

            async def sent(exchange):
                self.questions.append((member.name, exchange.question))
                reply = await send(exchange)
                self._spend(member.name, reply.usage)
                return reply

            session._send = sent  # type: ignore[method-assign]
            return session

        member.start = started  # type: ignore[method-assign]

    def _spend(self, name: str, usage: Usage) -> None:
        self.usage[name] = self.usage.get(name, Usage()) + usage


@overlapping
@pytest.mark.parametrize("temperature", [0, 1])
async def test_usage_is_exact(temperature: float, overlap: bool) -> None:
    recorded = Recorded([TinyMember("a", 1), TinyMember("b", 2), TinyMember("c", 3)])
    ensemble = drafted("speculative_ensemble", recorded.members, {"overlap": overlap, "adaptive": False})
    answer = await ensemble.answer(Request.of("hi", max_tokens=1, temperature=temperature, seed=1))
    assert answer.usage == recorded.usage == dict.fromkeys("abc", Usage(1, prompt_tokens=2, completion_tokens=1))
    recorded.usage.clear()
    answer = await ensemble.answer(Request.of("hi", max_tokens=20, temperature=temperature, seed=1))
    assert answer.usage == recorded.usage
    assert recorded.usage["a"].completion_tokens > 20 - 20 // 5


async def test_greedy_requests_move_no_whole_distributions() -> None:
    recorded = Recorded([TinyMember("a", 1), TinyMember("b", 2)])
    await completed(drafted("speculative_ensemble", recorded.members, topk=12), Request.of("hi", max_tokens=20))
    asked = [question for _, question in recorded.questions]
    assert any(isinstance(q, Score) for q in asked) and any(isinstance(q, Propose) for q in asked)
    wide = [q for q in asked if not isinstance(q, LogprobsAt) and (q.topk == 0 or getattr(q, "full", False))]
    assert wide == []


async def test_a_member_without_weight_or_drafts_is_never_called() -> None:
    members = [TinyMember(f"m{i}", i) for i in range(3)]
    for method in METHODS:
        ensemble = drafted(method, members, {"lengths": [3, 1, 2]}, weights=[1, 0, 1])
        await completed(ensemble, Request.of("x", max_tokens=6))
    assert members[1].exchanges == 0
    assert members[0].exchanges > 0 and members[2].exchanges > 0


async def test_drafting_that_does_not_pay_is_given_up() -> None:
    """Opposite members: the drafts of the one without weight are always rejected."""
    tokens = [b"x", b"y", b""]
    wrong = ScriptedMember("wrong", tokens, lambda text: {b"x": 1.0})
    right = ScriptedMember("right", tokens, lambda text: {b"y": 1.0})
    ensemble = drafted("speculative_ensemble", [wrong, right], {"lengths": [4, 1]}, weights=[0, 1])
    assert (await completed(ensemble, Request.of("?", max_tokens=120))).text == "y" * 120
    assert 0 < wrong.exchanges < 40


@pytest.mark.parametrize("temperature", [0, 1])
@overlapping
async def test_same_seed_same_answer_whatever_runs_beside_it(temperature: float, overlap: bool) -> None:
    def ensemble(delay: float) -> Ensemble:
        members = [TinyMember("a", 1, delay=delay), TinyMember("b", 2)]
        return drafted("speculative_ensemble", members, {"overlap": overlap})

    request = Request.of("hello", max_tokens=16, temperature=temperature, seed=11)
    alone = await completed(ensemble(0), request)
    slow = ensemble(0.002)
    beside = await asyncio.gather(*(completed(slow, request) for _ in range(3)))
    assert {choice.text for choice in beside} == {alone.text}
    other = await completed(ensemble(0), Request.of("hello", max_tokens=16, temperature=1, seed=12))
    assert other.text != alone.text


async def test_choices_are_drawn_independently() -> None:
    members = [TinyMember("a", 1), TinyMember("b", 2)]
    request = Request.of("hello", max_tokens=8, temperature=1, seed=3)
    answer = await drafted("speculative_ensemble", members).answer(
        Request(messages=request.messages, sampling=request.sampling, n=3)
    )
    assert len({choice.text for choice in answer.choices}) == 3


# Failure


@overlapping
@pytest.mark.parametrize("fail_at", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("failing", [0, 1])
async def test_a_lost_member_ends_the_answer(overlap: bool, fail_at: int, failing: int) -> None:
    members = [TinyMember(f"m{i}", i, fail_at=fail_at if i == failing else None) for i in range(2)]
    with pytest.raises(MemberLost) as lost:
        await drafted("speculative_ensemble", members, {"overlap": overlap}).answer(Request.of("hello", max_tokens=30))
    assert lost.value.member == f"m{failing}"
    assert [m.open_sessions for m in members] == [0, 0]
    assert len(asyncio.all_tasks()) == 1


@overlapping
async def test_closing_early_frees_everything(overlap: bool) -> None:
    members = [TinyMember("a", 1, delay=0.001), TinyMember("b", 1, delay=0.01)]
    ensemble = drafted("speculative_ensemble", members, {"overlap": overlap})
    async with aclosing(ensemble.generate(Request.of("hello", max_tokens=60))) as events:
        async for event in events:
            if deltas([event]) and members[1].exchanges >= 2:
                break
    assert [m.open_sessions for m in members] == [0, 0]
    assert len(asyncio.all_tasks()) == 1


@overlapping
async def test_a_cancelled_answer_frees_everything(overlap: bool) -> None:
    members = [TinyMember("a", 1, delay=0.001), TinyMember("b", 1, delay=0.02)]
    ensemble = drafted("speculative_ensemble", members, {"overlap": overlap})
    task = asyncio.create_task(ensemble.answer(Request.of("hello", max_tokens=60)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [m.open_sessions for m in members] == [0, 0]
    assert len(asyncio.all_tasks()) == 1


@overlapping
async def test_a_budget_stops_within_one_block(overlap: bool) -> None:
    members = agreeing(b"abcdefgh" * 20)
    draft = {"lengths": [4, 1], "adaptive": False, "overlap": overlap}
    ensemble = drafted("speculative_ensemble", members, draft)
    request = Request.of("?")
    spent: list[Usage] = []
    with pytest.raises(BudgetExceeded):
        limited = Request(messages=request.messages, budget=Budget(tokens=50))
        async with aclosing(ensemble.generate(limited)) as events:
            async for event in events:
                spent.extend([event.usage] if hasattr(event, "usage") else [])
    assert 50 <= sum(usage.total_tokens for usage in spent) <= 50 + 4 * 4


async def test_an_answer_of_nothing() -> None:
    members = agreeing(b"")
    events = [event async for event in drafted("speculative_ensemble", members).generate(Request.of("?"))]
    assert [event for event in events if isinstance(event, Finish)] == [Finish("stop")]
    assert deltas(events) == []


# Refusals


@each
def test_different_vocabularies_are_refused_when_loaded(method: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"one vocabulary; those of m0 and m1 differ; gac and unite"
    ) as refused:
        drafted(method, [Toy("m0", SINGLE, 0), Toy("m1", WORDS, 1)])
    assert refused.value.param == "members"


@each
async def test_vocabularies_that_cards_do_not_know_are_refused_when_asked(method: str) -> None:
    members = [Toy("m0", SINGLE, 0), Toy("m1", WORDS, 1)]
    for member in members:
        member.card = Card(member.name, member.card.capabilities, 4096)
    with pytest.raises(BadRequest, match="one vocabulary; those of m"):
        await drafted(method, members).answer(Request.of(Q))
    assert [m.open_sessions for m in members] == [0, 0]


@each
async def test_drawing_needs_whole_distributions(method: str) -> None:
    members = [Toy("m0", SINGLE, 0), restricted(Toy("m1", SINGLE, 1))]
    ensemble = drafted(method, members)
    with pytest.raises(BadRequest, match=r"temperature must be 0: .* m1 does not give them"):
        await ensemble.answer(Request.of(Q, temperature=0.5))
    assert (await ensemble.answer(Request.of(Q, max_tokens=3))).choices


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"alpha": 0.2}, "alpha", "only with target: contrastive"),
        ({"amateur": "m0"}, "amateur", "only with target: contrastive"),
        ({"plausibility": 0.2}, "plausibility", "only with target: contrastive"),
        ({"target": "contrastive", "weights": [1, 1]}, "weights", "only with target: weights"),
        ({"target": "contrastive", "amateur": "m7"}, "amateur", "members: m0, m1"),
        ({"weights": [1]}, "weights", "one number for each of the 2 members"),
        ({"draft": {"lengths": [3]}}, "draft", r"draft.lengths needs one number for each of the 2 members \(m0, m1\)"),
        ({"draft": {"lengths": [0, 1]}}, "draft.lengths.0", "greater than or equal to 1"),
        ({"draft": {"length": 3}}, "draft.length", "has no option 'draft.length'"),
        ({"target": "best"}, "target", "'weights' or 'contrastive'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], param: str, message: str) -> None:
    with pytest.raises((ConfigurationError, UnknownOption), match=message) as refused:
        Ensemble("e", "speculative_ensemble", [Toy("m0", SINGLE, 0), Toy("m1", SINGLE, 1)], options=options)
    assert refused.value.param == param


def test_a_contrast_is_between_two() -> None:
    members = [Toy(f"m{i}", SINGLE, i) for i in range(3)]
    with pytest.raises(ConfigurationError, match="takes two members, an expert and an amateur; there are 3"):
        Ensemble("e", "speculative_ensemble", members, options={"target": "contrastive"})


def test_a_contrast_of_everything_needs_whole_distributions() -> None:
    members = [Toy("m0", SINGLE, 0), restricted(Toy("m1", SINGLE, 1))]
    options = {"target": "contrastive", "plausibility": 0}
    with pytest.raises(ConfigurationError, match="plausibility must be above 0: without it m1"):
        Ensemble("e", "speculative_ensemble", members, options=options)


def test_drafts_are_of_whole_strings() -> None:
    with pytest.raises(ConfigurationError, match="takes fidelity: fixed"):
        drafted("unite", [Toy("m0", SINGLE, 0), Toy("m1", SINGLE, 1)], fidelity="reference")


def test_drafts_and_a_threshold_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match="takes no threshold"):
        drafted("gac", [Toy("m0", SINGLE, 0), Toy("m1", SINGLE, 1)], threshold=0.5)


async def test_the_amateur_is_who_is_named() -> None:
    members = [Toy("weak", SINGLE, 0), Toy("strong", SINGLE, 1)]
    texts = {
        name: (
            await completed(drafted("speculative_ensemble", members, **options), Request.of(Q, max_tokens=12))
        ).credits
        for name, options in {
            "weak": {"target": "contrastive"},
            "strong": {"target": "contrastive", "amateur": "strong"},
        }.items()
    }
    assert [dict(credit) for _, credit in texts["weak"]] == [{"strong": 1.0}]
    assert [dict(credit) for _, credit in texts["strong"]] == [{"weak": 1.0}]
