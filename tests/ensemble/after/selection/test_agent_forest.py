"""Agent-Forest behind the face of a model: what is elected, when it stops, what it costs, and what it refuses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from ensemble.ensemble import Ensemble
from ensemble.errors import BadAnswer, BadRequest, BudgetExceeded, ConfigurationError, MemberLost, OverCap
from ensemble.member import Member, Price
from ensemble.request import Budget, Request, Trace
from ensemble.testing import ScriptedMember, TinyMember

WORDS = [b"yes", b"no", b"maybe", b""]


def answering(name: str, *answers: str, **options: Any) -> Any:
    return ScriptedMember.answering(name, answers, **options)


def forest(members: Sequence[Member], **options: Any) -> Ensemble:
    return Ensemble("forest", "agent_forest", members, options=options)


def vote_of(traces: Sequence[Trace]) -> dict[str, Any]:
    (vote,) = [trace for trace in traces if trace.kind == "vote"]
    return dict(vote.data)


async def test_the_answer_of_most_samples_is_elected() -> None:
    members = [answering("a", "42", "41"), answering("b", "42", "40", "42")]
    answer = await forest(members, samples=5, early_stop=False).answer(Request.of("?"))
    assert answer.text == "42"
    assert answer.choices[0].credits == (("42", {"a": 2 / 3, "b": 1 / 3}),)
    vote = vote_of(answer.choices[0].traces)
    assert vote["tally"][0] == {"answer": "42", "votes": 3, "members": {"a": 2, "b": 1}}
    assert vote["elected"] == {"member": "a", "sample": 0} and vote["outstanding"] == 0


async def test_samples_are_split_in_declared_order_and_asked_for_in_one_call() -> None:
    members = [answering(name, "1", "2", "3", "4", "5") for name in "abc"]
    answer = await forest(members, samples=8, early_stop=False).answer(Request.of("a question"))
    assert [member.calls for member in members] == [1, 1, 1]
    assert {name: usage.completion_tokens for name, usage in answer.usage.items()} == {"a": 3, "b": 3, "c": 2}
    assert {usage.prompt_tokens for usage in answer.usage.values()} == {2}


async def test_the_whole_text_of_the_elected_sample_is_returned() -> None:
    members = [answering("a", "first, answer 7", "then answer 8", "it is answer 7")]
    answer = await forest(members, samples=3, answer=r"answer (\S+)").answer(Request.of("?"))
    assert answer.text == "first, answer 7"


async def test_samples_without_an_answer_do_not_vote() -> None:
    members = [answering("a", "hm", "hm", "hm", "answer 8")]
    answer = await forest(members, samples=4, answer=r"answer (\S+)").answer(Request.of("?"))
    assert answer.text == "answer 8" and vote_of(answer.choices[0].traces)["without_answer"] == 3


async def test_without_any_answer_it_abstains() -> None:
    with pytest.raises(BadAnswer, match="none of the 4 samples holds an answer"):
        await forest([answering("a", "hm")], samples=4, answer=r"answer (\S+)").answer(Request.of("?"))


async def test_equal_numbers_agree_in_a_numeric_vote() -> None:
    answers = ("7", "1,000", "1000.0", "$1000")
    numeric = await forest([answering("a", *answers)], samples=4, vote="numeric").answer(Request.of("?"))
    exact = await forest([answering("a", *answers)], samples=4).answer(Request.of("?"))
    assert (numeric.text, exact.text) == ("1,000", "7")


@pytest.mark.parametrize(("similarity", "support"), [("f1", [1.05, 1.00, 0.45]), ("bleu", [0.7663, 0.5893, 0.2566])])
async def test_the_text_likest_all_others_is_elected(similarity: str, support: list[float]) -> None:
    members = [answering("a", "return a + b"), answering("b", "return a + b + 0"), answering("c", "print ( a )")]
    answer = await forest(members, samples=3, vote="text", similarity=similarity).answer(Request.of("?"))
    shown = vote_of(answer.choices[0].traces)["support"]
    assert answer.text == "return a + b" and answer.choices[0].credits == (("return a + b", {"a": 1.0}),)
    assert [one["support"] for one in shown] == pytest.approx(support, abs=5e-5)


async def test_one_sample_is_returned_as_it_is() -> None:
    for vote in ("exact", "text"):
        assert (await forest([answering("a", " 4 ")], samples=1, vote=vote).answer(Request.of("?"))).text == " 4 "


async def test_ties_go_to_the_first_member_however_late_it_is() -> None:
    members = [answering("a", "1", delay=0.02), answering("b", "2")]
    assert (await forest(members, samples=2).answer(Request.of("?"))).text == "1"


async def test_a_decided_vote_cancels_what_is_outstanding() -> None:
    members = [answering("a", "7"), answering("b", "7"), answering("c", "8", delay=60)]
    answer = await asyncio.wait_for(forest(members, samples=5).answer(Request.of("?")), 5)
    assert answer.text == "7" and members[2].cancelled == 1
    assert vote_of(answer.choices[0].traces)["outstanding"] == 2, "three of five agree"


async def test_it_waits_while_the_vote_can_still_turn() -> None:
    members = [answering("a", "7"), answering("b", "8"), answering("c", "8", delay=0.02)]
    answer = await forest(members, samples=3).answer(Request.of("?"))
    assert answer.text == "8" and vote_of(answer.choices[0].traces)["outstanding"] == 0


async def test_it_waits_for_the_sample_that_stands_for_the_answer() -> None:
    slow_first = [answering("a", "so: answer 7", delay=0.02), answering("b", "answer 7"), answering("c", "answer 7")]
    answer = await forest(slow_first, samples=3, answer=r"answer (\S+)").answer(Request.of("?"))
    assert answer.text == "so: answer 7"


def flip(name: str, **options: Any) -> Member:
    weights = {b"yes": 0.5, b"no": 0.3, b"maybe": 0.2}
    return ScriptedMember(name, WORDS, [weights, b""], **options)


@pytest.mark.parametrize("seed", range(12))
async def test_arrival_order_and_early_stopping_never_change_the_text(seed: int) -> None:
    async def elected(delays: Sequence[float], **options: Any) -> str:
        members = [flip(name, delay=delay) for name, delay in zip("abc", delays, strict=True)]
        return (await forest(members, samples=9, **options).answer(Request.of("?", seed=seed))).text

    texts = [await elected(delays) for delays in [(0, 0, 0), (0.004, 0, 0), (0, 0.004, 0.001), (0.001, 0, 0.004)]]
    assert set(texts) == {await elected((0, 0, 0), early_stop=False)}


async def test_seeds_are_reproducible_and_matter() -> None:
    members = [TinyMember("a"), TinyMember("b", 1)]

    async def text(seed: int) -> str:
        return (await forest(members, samples=4).answer(Request.of("?", seed=seed, max_tokens=4))).text

    assert await text(1) == await text(1)
    assert len({await text(seed) for seed in range(4)}) > 1


async def test_choices_draw_their_own_samples() -> None:
    request = replace(Request.of("?", seed=3, max_tokens=4), n=3)
    answer = await forest([TinyMember("a")], samples=4).answer(request)
    assert len({choice.text for choice in answer.choices}) == 3


async def test_candidates_are_hot_unless_the_request_says_how_hot() -> None:
    async def tally(temperature: float) -> Counter[str]:
        ensemble = forest([flip("a")], samples=40, early_stop=False)
        answer = await ensemble.answer(Request.of("?", seed=1, temperature=temperature))
        return Counter({t["answer"]: t["votes"] for t in vote_of(answer.choices[0].traces)["tally"]})

    assert len(await tally(0)) == 3
    assert await tally(0.01) == Counter(yes=40)


async def test_the_requests_limits_reach_the_candidates() -> None:
    member = ScriptedMember("a", [b"x", b"E", b"N", b""], [b"x", b"E", b"N", b"x", b""])
    ensemble = forest([member], samples=3)
    assert (await ensemble.answer(Request.of("?", stop=("EN",)))).text == "x"
    short = await ensemble.answer(Request.of("?", max_tokens=2, logprobs=1))
    assert short.text == "xE" and short.choices[0].finish_reason == "length"
    assert [token.token for token in short.choices[0].tokens] == [b"x", b"E"]


async def test_text_that_the_request_began_counts_for_the_answer() -> None:
    request = replace(Request.of("?"), partial="answer ")
    answer = await forest([answering("a", "8", "7", "7")], samples=3, answer=r"answer (\S+)").answer(request)
    assert answer.text == "7"


async def test_an_ensemble_may_be_a_member() -> None:
    inner = Ensemble("pair", "agent_forest", [answering("x", "7"), answering("y", "7")], options={"samples": 2})
    answer = await forest([inner, answering("b", "8")], samples=3).answer(Request.of("?"))
    assert answer.text == "7" and answer.choices[0].credits == (("7", {"pair": 1.0}),)
    assert {name: usage.calls for name, usage in answer.usage.items()} == {"x": 2, "y": 2, "b": 1}
    assert [trace.kind for trace in answer.choices[0].traces] == ["vote", "vote"]


async def test_usage_is_metered_with_prices() -> None:
    member = answering("a", "7", price=Price(input=Decimal(1_000_000), output=Decimal(2_000_000)))
    answer = await forest([member], samples=3, early_stop=False).answer(Request.of("how many"))
    assert answer.usage["a"].cost == 2 + 3 * 2


async def test_a_lost_member_fails_the_request() -> None:
    slow = answering("b", "1", delay=60)
    with pytest.raises(MemberLost):
        await asyncio.wait_for(forest([answering("a", "1", fail=True), slow], samples=2).answer(Request.of("?")), 5)
    assert slow.cancelled == 1


async def test_a_cancelled_request_frees_every_member() -> None:
    members = [answering("a", "1", delay=60), answering("b", "1", delay=60)]
    task = asyncio.create_task(forest(members, samples=2).answer(Request.of("?")))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [member.cancelled for member in members] == [1, 1]


async def test_sessions_of_cancelled_samples_are_closed() -> None:
    slow = flip("b", delay=0.05)
    await forest([flip("a"), flip("c"), slow], samples=7).answer(Request.of("?", temperature=0.01))
    assert isinstance(slow, ScriptedMember) and slow.open_sessions == 0


async def test_time_runs_out_as_budgeted() -> None:
    members = [answering("a", "1", delay=60)]
    with pytest.raises(BudgetExceeded):
        await forest(members, samples=1).answer(replace(Request.of("?"), budget=Budget(seconds=0.02)))
    assert members[0].cancelled == 1


async def test_more_samples_than_the_cap_are_refused_before_any_call() -> None:
    member = answering("a", "1")
    with pytest.raises(OverCap, match="samples is 65; at most 64"):
        await forest([member]).answer(replace(Request.of("?"), options={"samples": 65}))
    assert member.calls == 0


async def test_a_request_may_bring_options_that_fit() -> None:
    members = [answering("a", "1"), answering("b", "2"), answering("c", "2")]
    request = Request.of("?")
    assert (await forest(members, samples=3).answer(replace(request, options={"vote": "text"}))).text == "2"
    with pytest.raises(BadRequest, match="at least 3, one for each member"):
        await forest(members).answer(replace(request, options={"samples": 2}))
    assert [member.calls for member in members] == [1, 1, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"samples": 1},
        {"temperature": 0},
        {"vote": "approval"},
        {"answer": r"answer \d+"},
        {"answer": "("},
        {"vote": "text", "early_stop": True},
        {"similarity": "f1"},
        {"votes": 3},
    ],
)
def test_options_that_cannot_apply_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        forest([answering("a", "1"), answering("b", "1")], **options)
