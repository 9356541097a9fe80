"""Best-of-N behind the face of a model: what is elected, in which light it is judged, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.after.selection.best_of_n import expected_best, lines
from ensemble.ensemble import Ensemble
from ensemble.errors import BadAnswer, BadRequest, ConfigurationError, MemberLost, OverCap
from ensemble.judges.equalities import EqualityJudge
from ensemble.judges.judge import Judge, Solution
from ensemble.judges.verdict import VerdictJudge
from ensemble.member import Member
from ensemble.request import Request
from ensemble.testing import ScriptedMember, TinyMember


class Table(Judge):
    """Rewards by the text of the step, remembering what it was shown."""

    name = "table"

    def __init__(self, rewards: Mapping[str, float], delay: float = 0.0) -> None:
        self._rewards = rewards
        self._delay = delay
        self.seen: list[list[str]] = []
        self.most = 0
        self._busy = 0

    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        self.seen += [list(solution) for solution in solutions]
        self._busy += 1
        self.most = max(self.most, self._busy)
        await asyncio.sleep(self._delay)
        self._busy -= 1
        return [[self._rewards[step] for step in solution] for solution in solutions]


class Broken(Judge):
    name = "broken"

    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        raise MemberLost("the judge was lost", member="judge")


def answering(name: str, *answers: str, **options: Any) -> Any:
    return ScriptedMember.answering(name, answers, **options)


def best(members: Sequence[Member], judge: Judge, **options: Any) -> Ensemble:
    return Ensemble("best", "best_of_n", members, options=options, judge=judge)


THREE = {"A": 0.6, "B": 0.9, "A ": 0.55}


async def test_the_highest_reward_is_elected() -> None:
    members = [answering("a", "A"), answering("b", "B"), answering("c", "A ")]
    answer = await best(members, Table(THREE), samples=3).answer(Request.of("?"))
    assert answer.text == "B" and answer.choices[0].credits == (("B", {"b": 1.0}),)
    scores = [trace.data for trace in answer.choices[0].traces]
    assert [(s["member"], s["reward"], s["elected"]) for s in scores] == [
        ("a", 0.6, False),
        ("b", 0.9, True),
        ("c", 0.55, False),
    ]


async def test_weighted_candidates_vote_with_their_rewards() -> None:
    members = [answering("c", "A "), answering("b", "B"), answering("a", "A")]
    answer = await best(members, Table(THREE), samples=3, weighted=True).answer(Request.of("?"))
    assert answer.text == "A" and answer.choices[0].credits == (("A", {"a": 1.0}),)


async def test_weighted_answers_may_be_numbers_in_a_text() -> None:
    rewards = {"answer 1,000": 0.3, "answer 7": 0.5, "so answer 1000": 0.4, "hm": 1.0}
    member = answering("a", *rewards)
    options = {"weighted": True, "vote": "numeric", "answer": r"answer (\S+)"}
    answer = await best([member], Table(rewards), samples=4, **options).answer(Request.of("?"))
    assert answer.text == "so answer 1000"


async def test_weighted_without_any_answer_abstains() -> None:
    with pytest.raises(BadAnswer, match="none of the 2 samples"):
        ensemble = best([answering("a", "A")], Table(THREE), samples=2, weighted=True, answer="answer (.)")
        await ensemble.answer(Request.of("?"))


async def test_the_first_of_equals_is_elected_however_late() -> None:
    members = [answering("a", "A", delay=0.02), answering("b", "B")]
    assert (await best(members, Table({"A": 0.5, "B": 0.5}), samples=2).answer(Request.of("?"))).text == "A"


async def test_a_candidate_of_lower_reward_never_changes_the_pick() -> None:
    rewards = {"A": 0.6, "B": 0.9, "C": 0.1}
    for samples, text in [(1, "A"), (2, "B"), (3, "B")]:
        answer = await best([answering("a", *"ABC")], Table(rewards), samples=samples).answer(Request.of("?"))
        assert answer.text == text


@pytest.mark.parametrize(("reduce", "text"), [("last", "x\ny"), ("mean", "y\nz"), ("min", "y\nz"), ("product", "y\nz")])
async def test_lines_are_steps(reduce: str, text: str) -> None:
    judge = Table({"x\n": 0.1, "y": 0.9, "y\n": 0.8, "z": 0.7})
    ensemble = best([answering("a", "x\ny", "y\nz")], judge, samples=2, steps="lines", reduce=reduce)
    assert (await ensemble.answer(Request.of("?"))).text == text
    assert judge.seen == [["x\n", "y"], ["y\n", "z"]]


async def test_the_judge_sees_what_the_request_began() -> None:
    judge = Table({"x\n": 0.5, "yA": 0.5})
    request = replace(Request.of("?"), partial="x\ny")
    answer = await best([answering("a", "A")], judge, samples=1, steps="lines").answer(request)
    assert answer.text == "A" and judge.seen == [["x\n", "yA"]]


async def test_candidates_are_judged_as_they_arrive() -> None:
    judge = Table({"A": 0.1, "B": 0.9})
    slow = answering("b", "B", delay=0.05)
    task = asyncio.create_task(best([answering("a", "A"), slow], judge, samples=2).answer(Request.of("?")))
    await asyncio.sleep(0.02)
    assert judge.seen == [["A"]]
    assert (await task).text == "B"


async def test_judgements_overlap() -> None:
    judge = Table({"A": 0.1}, delay=0.01)
    await best([answering("a", "A")], judge, samples=4).answer(Request.of("?"))
    assert judge.most == 4


async def test_a_failing_judge_ends_everything() -> None:
    slow = answering("b", "B", delay=60)
    with pytest.raises(MemberLost, match="the judge was lost"):
        await asyncio.wait_for(best([answering("a", "A"), slow], Broken(), samples=2).answer(Request.of("?")), 5)
    assert slow.cancelled == 1


async def test_a_failing_member_ends_everything() -> None:
    judge = Table({"A": 0.1}, delay=60)
    with pytest.raises(MemberLost, match="b was lost"):
        members = [answering("a", "A"), answering("b", "B", delay=0.01, fail=True)]
        await asyncio.wait_for(best(members, judge, samples=2).answer(Request.of("?")), 5)


async def test_a_cancelled_request_frees_members_and_judge() -> None:
    model, slow = TinyMember("judge", delay=0.05), answering("b", "B", delay=60)
    members = [answering("a", "A"), slow]
    task = asyncio.create_task(best(members, VerdictJudge("v", model), samples=2).answer(Request.of("?")))
    async with asyncio.timeout(10):
        while not model.open_sessions:  # noqa: ASYNC110  # nobody tells when a session is opened
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.open_sessions == 0 and slow.cancelled == 1


async def test_the_judges_model_is_metered() -> None:
    model = TinyMember("judge")
    answer = await best([answering("a", "A", "B")], VerdictJudge("v", model), samples=4).answer(Request.of("?"))
    assert answer.usage["a"].calls == 1 and answer.usage["judge"].calls == 4
    assert answer.usage["judge"].prompt_tokens > 0 and model.open_sessions == 0


async def test_seeds_are_reproducible() -> None:
    members = [TinyMember("a"), TinyMember("b", 1)]
    ensemble = best(members, VerdictJudge("v", TinyMember("judge", 2)), samples=4)

    async def text(seed: int) -> str:
        return (await ensemble.answer(Request.of("?", seed=seed, max_tokens=4))).text

    assert await text(1) == await text(1)
    assert len({await text(seed) for seed in range(4)}) > 1


async def test_token_reports_and_credits_are_those_of_the_elected() -> None:
    member = ScriptedMember("a", [b"x", b"y", b""], [b"x", b"y", b""])
    answer = await best([member], Table({"xy": 1.0}), samples=2).answer(Request.of("?", logprobs=0))
    assert [token.token for token in answer.choices[0].tokens][:2] == [b"x", b"y"]
    inner = Ensemble("inner", "best_of_n", [member], options={"samples": 1}, judge=Table({"xy": 1.0}))
    nested = await best([inner], Table({"xy": 1.0}), samples=1).answer(Request.of("?"))
    assert nested.choices[0].credits == (("xy", {"a": 1.0}),)


async def test_right_sums_win_under_the_arithmetic_judge() -> None:
    chain = ["2+3=6\n6+4=10\nanswer 10", "2+3=5\n5+4=9\nanswer 9", "2+3=5\n5+4=8\nanswer 8"]
    ensemble = best([answering("a", *chain)], EqualityJudge("sums"), samples=3, steps="lines", reduce="mean")
    assert (await ensemble.answer(Request.of("sum 2+3+4:"))).text == chain[1]


async def test_more_samples_than_the_cap_are_refused_before_any_call() -> None:
    member, judge = answering("a", "A"), Table(THREE)
    with pytest.raises(OverCap, match="samples is 65"):
        await best([member], judge).answer(replace(Request.of("?"), options={"samples": 65}))
    assert member.calls == 0 and judge.seen == []


@pytest.mark.parametrize(
    "options", [{"samples": 1}, {"vote": "numeric"}, {"answer": "(.)"}, {"reduce": "max"}, {"steps": "words"}]
)
def test_options_that_cannot_apply_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        best([answering("a", "A"), answering("b", "B")], Table(THREE), **options)


async def test_a_request_may_not_bring_them_either() -> None:
    ensemble = best([answering("a", "A")], Table(THREE))
    with pytest.raises(BadRequest, match="vote applies only where weighted is true"):
        await ensemble.answer(replace(Request.of("?"), options={"vote": "numeric"}))


def test_a_judge_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="needs a judge"):
        Ensemble("best", "best_of_n", [answering("a", "A")])


@given(st.text("a\n\r\x0b ", max_size=12))
def test_lines_join_exactly(text: str) -> None:
    cut = lines(text)
    assert "".join(cut) == text and all("\n" not in line[:-1] for line in cut) and len(cut) >= 1


def test_the_expected_best_of_two() -> None:
    assert expected_best([0.2, 0.4, 0.5, 0.9], k=2) == pytest.approx(0.6833, abs=5e-5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_the_estimate_is_the_mean_over_all_subsets_and_grows(rewards: list[float]) -> None:
    estimates = [expected_best(rewards, k) for k in range(1, len(rewards) + 1)]
    for k, estimate in enumerate(estimates, 1):
        subsets = [max(subset) for subset in combinations(rewards, k)]
        assert estimate == pytest.approx(sum(subsets) / len(subsets))
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(estimates))
