"""LE-MCTS behind the face of a model: what it finds, streams, repeats, counts and refuses."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from ensemble.ensemble import Caps, Ensemble
from ensemble.errors import BadRequest, BudgetExceeded, ConfigurationError, MemberLost, MissingCapability, OverCap
from ensemble.judges.equalities import EqualityJudge
from ensemble.judges.judge import Judge, Solution
from ensemble.judges.verdict import VerdictJudge
from ensemble.member import Member
from ensemble.request import Answer, Budget, Delta, Request, Trace
from ensemble.testing import ScriptedMember, TinyMember

CHARACTERS = [*(bytes([b]) for b in range(1, 256)), b""]
QUESTION = Request.of("sum 2+3+4:", seed=1)


def asked(seed: int) -> Request:
    return Request.of("sum 2+3+4:", seed=seed)


def adder(name: str, right: float, **options: Any) -> ScriptedMember:
    """Adds 2, 3 and 4 in steps, each right with this probability; what it reads it believes."""
    lines = [f"{a}+{b}={a + b + off}\n".encode() for a, b in _SUMS for off in (0, 1)]
    answers = [f"answer {total}".encode() for total in range(20)]
    return ScriptedMember(name, [*lines, *answers, *CHARACTERS], _adding(right), **options)


_SUMS = [(2, 3), *((total, 4) for total in (5, 6))]


def _adding(right: float) -> Callable[[bytes], Mapping[bytes, float]]:
    def step(text: bytes) -> Mapping[bytes, float]:
        totals = [int(total) for total in re.findall(rb"=(\d+)\n", text)]
        if b"answer" in text:
            return {b"": 1.0}
        if len(totals) == 2:
            return {b"answer %d" % totals[-1]: 1.0}
        a, b = (totals[0], 4) if totals else (2, 3)
        return {b"%d+%d=%d\n" % (a, b, a + b): right, b"%d+%d=%d\n" % (a, b, a + b + 1): 1 - right}

    return step


class Noting(Judge):
    """Gives every step the same reward, or one that follows from its text; notes what it was shown."""

    name = "noting"

    def __init__(self, reward: Callable[[str], float] = lambda step: 0.5) -> None:
        self._reward = reward
        self.calls: list[list[list[str]]] = []

    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        self.calls.append([list(solution) for solution in solutions])
        return [[self._reward(step) for step in solution] for solution in solutions]


def hashed(step: str) -> float:
    return random.Random(step).random()


def search(members: Sequence[Member], judge: Judge | None = None, caps: Caps | None = None, **options: Any) -> Ensemble:
    judge = judge or EqualityJudge("sums")
    return Ensemble("search", "le_mcts", members, options=options, judge=judge, caps=caps)


def grown(answer: Answer, kind: str = "node") -> list[dict[str, Any]]:
    return [dict(trace.data) for trace in answer.choices[0].traces if trace.kind == kind]


MODES = pytest.mark.parametrize("commit", ["step", "end"])


@MODES
@pytest.mark.parametrize("iterations", [1, 3, 40])
async def test_one_model_without_choice_writes_its_greedy_answer(commit: str, iterations: int) -> None:
    for seed in range(3):
        member = TinyMember("tiny", seed)
        request = Request.of("?", max_tokens=30)
        options = {"temperature": 0, "children": 1, "step_tokens": 4, "depth": 40, "iterations": iterations}
        answer = await search([member], Noting(), commit=commit, **options).answer(request)
        alone = await member.answer(request)
        assert answer.text == alone.text
        assert answer.choices[0].finish_reason == alone.choices[0].finish_reason


@MODES
@pytest.mark.parametrize("seed", range(4))
async def test_the_right_answer_is_found_among_wrong_steps(commit: str, seed: int) -> None:
    members = [adder("a", 0.4), adder("b", 0.4)]
    ensemble = search(members, iterations=24, temperature=1, commit=commit)
    answer = await ensemble.answer(asked(seed))
    assert answer.text == "2+3=5\n5+4=9\nanswer 9" and answer.choices[0].finish_reason == "stop"


@MODES
async def test_steps_are_credited_to_their_writers(commit: str) -> None:
    members = [adder("a", 0.5), adder("b", 0.5)]
    answer = await search(members, commit=commit).answer(QUESTION)
    writer = {node["id"]: node["member"] for node in grown(answer)}
    text = {node["id"]: node["text"] for node in grown(answer)}
    committed = [step["node"] for step in grown(answer, "commit")]
    assert "".join(text[node] for node in committed) == answer.text
    credited = [(name, part) for span, names in answer.choices[0].credits for name, part in [(*names, span)]]
    assert [name for name, _ in credited] == _runs([writer[node] for node in committed])


def _runs(names: list[str]) -> list[str]:
    return [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]


@MODES
async def test_the_root_is_visited_once_for_each_new_step(commit: str) -> None:
    options = {"iterations": 17, "temperature": 1, "step_tokens": 3, "depth": 5, "commit": commit}
    answer = await search([TinyMember("a"), TinyMember("b", 1)], Noting(hashed), **options).answer(
        Request.of("?", seed=1)
    )
    nodes = grown(answer)
    assert [node["above"][-1] for node in nodes] == [
        {"id": 0, "visits": count, "value": node["above"][-1]["value"]} for count, node in enumerate(nodes, 1)
    ]
    assert len(nodes) == 17, "none repeats a sibling"


async def test_the_tree_can_be_drawn_from_its_traces() -> None:
    answer = await search([adder("a", 0.5)], iterations=12, temperature=1, commit="end").answer(QUESTION)
    nodes = {node["id"]: node for node in grown(answer)}
    assert sorted(nodes) == list(range(1, len(nodes) + 1))
    for node in nodes.values():
        assert node["parent"] == node["above"][0]["id"] < node["id"]
        assert (node["visits"], node["value"]) == (1, node["reward"])
        assert node["end"] in (None, "stop") and (node["end"] == "stop") == node["text"].startswith("answer")


async def test_the_judge_sees_each_step_after_those_before_it() -> None:
    judge = Noting()
    request = replace(QUESTION, partial="so:\n")
    answer = await search([adder("a", 1.0)], judge, children=1, temperature=0).answer(request)
    assert judge.calls == [
        [["so:\n2+3=5\n"]],
        [["so:\n2+3=5\n", "5+4=9\n"]],
        [["so:\n2+3=5\n", "5+4=9\n", "answer 9"]],
    ]
    assert answer.text == "2+3=5\n5+4=9\nanswer 9"


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_seed_grows_one_tree_however_slow_members_are(workers: int) -> None:
    async def tree(seed: int, *delays: float) -> list[dict[str, Any]]:
        members = [TinyMember(name, i, delay=delay) for i, (name, delay) in enumerate(zip("ab", delays, strict=True))]
        options = {"step_tokens": 1, "temperature": 1, "workers": workers, "commit": "end"}
        request = Request.of("?", seed=seed, max_tokens=9)
        return grown(await search(members, Noting(hashed), **options).answer(request))

    assert await tree(1, 0, 0) == await tree(1, 0.002, 0) == await tree(1, 0, 0.002)
    assert await tree(1, 0, 0) != await tree(2, 0, 0)


async def test_the_order_of_the_pool_does_not_matter_to_the_tree() -> None:
    async def tree(*names: str) -> list[dict[str, Any]]:
        members = [TinyMember(name, ord(name)) for name in names]
        answer = await search(members, Noting(hashed), step_tokens=1).answer(Request.of("?", seed=3, max_tokens=9))
        return grown(answer)

    assert await tree("a", "b", "c") == await tree("c", "a", "b")
    assert {node["member"] for node in await tree("a", "b", "c")} == {"a", "b", "c"}


async def test_steps_are_streamed_as_they_are_settled() -> None:
    async def kinds(commit: str) -> list[str]:
        ensemble = search([adder("a", 0.5)], iterations=12, temperature=1, depth=3, commit=commit)
        events = [event async for event in ensemble.generate(QUESTION)]
        told = [
            event.kind if isinstance(event, Trace) else "text" for event in events if isinstance(event, Delta | Trace)
        ]
        return _runs(told)

    assert await kinds("end") == ["node", "commit", "text", "commit", "text", "commit", "text"]
    by_step = await kinds("step")
    assert by_step[:4] == ["node", "commit", "text", "node"] and by_step[-1] == "text"


async def test_iterations_are_shared_out_over_the_steps() -> None:
    options = {"iterations": 12, "temperature": 1, "depth": 4, "step_tokens": 3}
    answer = await search([TinyMember("a")], Noting(hashed), **options).answer(QUESTION)
    kinds = [trace.kind for trace in answer.choices[0].traces]
    assert kinds.index("commit") == 3, "12 iterations over 4 steps"
    assert kinds.count("node") <= 12


async def test_unfinished_answers_are_finished_by_the_first_member() -> None:
    members = [adder("strong", 1.0), adder("weak", 0.0)]
    answer = await search(members, iterations=1, temperature=0).answer(asked(3))
    assert len(grown(answer)) == 1
    assert answer.choices[0].credits[-1][1] == {"strong": 1.0}
    assert answer.text.endswith("answer 9" if answer.text.startswith("2+3=5") else "answer 10")


async def test_repeated_steps_cost_their_iteration_and_fill_the_node() -> None:
    member = adder("a", 1.0)
    answer = await search([member], iterations=6, temperature=0, children=3, commit="end").answer(QUESTION)
    # At the root one new step and two expansions of three tries in vain, the same below it; then it is written on.
    assert [node["text"] for node in grown(answer)] == ["2+3=5\n", "5+4=9\n"]
    assert member.exchanges == 2 * (1 + 2 * 3) + 1 and answer.text == "2+3=5\n5+4=9\nanswer 9"


async def test_several_workers_share_sessions_and_judge_calls() -> None:
    judge, members = Noting(hashed), [TinyMember("a"), TinyMember("b", 1)]
    options = {"workers": 4, "iterations": 16, "children": 8, "step_tokens": 2, "commit": "end"}
    answer = await search(members, judge, **options).answer(Request.of("?", seed=1, max_tokens=9))
    assert max(map(len, judge.calls)) == 4 and sum(map(len, judge.calls)) == len(grown(answer))
    assert all(usage.calls <= 4 for usage in answer.usage.values())
    assert [member.open_sessions for member in members] == [0, 0]


async def test_workers_write_at_once() -> None:
    members = [TinyMember("a", delay=0.05)]
    options = {"workers": 4, "iterations": 8, "children": 8, "step_tokens": 3, "commit": "end", "depth": 1}
    began = asyncio.get_running_loop().time()
    answer = await search(members, Noting(hashed), **options).answer(QUESTION)
    assert asyncio.get_running_loop().time() - began < 0.05 * 8 and len(grown(answer)) == 8


@pytest.mark.parametrize(("stop_at", "fewer"), [(1.0, True), (None, False)])
async def test_a_good_enough_answer_ends_the_search(stop_at: float | None, fewer: bool) -> None:
    judge = EqualityJudge("sums", neutral=1.0)
    options = {"iterations": 30, "temperature": 1, "commit": "end", "stop_at": stop_at}
    answer = await search([adder("a", 0.5)], judge, **options).answer(QUESTION)
    ends = [node["id"] for node in grown(answer) if node["end"]]
    assert (len(ends) == 1) == fewer and len(grown(answer)) <= 30


@pytest.mark.parametrize(("returns", "last"), [("last", "9"), ("min", "8")])
async def test_finished_answers_are_compared_by_their_reduced_rewards(returns: str, last: str) -> None:
    rewards = {"a\n": 0.1, "b\n": 0.6, "9": 0.9, "8": 0.7}
    script = {b"": {b"a\n": 0.5, b"b\n": 0.5}, b"a\n": {b"9": 1.0}, b"b\n": {b"8": 1.0}}
    member = ScriptedMember("m", [b"a\n", b"b\n", b"8", b"9", b""], lambda text: script.get(text, {b"": 1.0}))
    options = {"temperature": 1, "commit": "end", "returns": returns, "iterations": 30}
    answer = await search([member], Noting(lambda step: rewards[step]), **options).answer(Request.of("?", seed=1))
    assert len([node for node in grown(answer) if node["end"]]) == 2 and answer.text[-1] == last


@MODES
async def test_stop_strings_and_limits_are_kept(commit: str) -> None:
    member = adder("a", 1.0)
    for step_tokens in (1, 64):
        ensemble = search([member], temperature=0, commit=commit, step_tokens=step_tokens)
        stopped = await ensemble.answer(Request.of("?", stop=("\n5",)))
        assert (stopped.text, stopped.choices[0].finish_reason) == ("2+3=5", "stop")
    limited = await search([member], temperature=0, commit=commit).answer(Request.of("?", max_tokens=2))
    assert (limited.text, limited.choices[0].finish_reason) == ("2+3=5\n5+4=9\n", "length")
    cut = await search([member], temperature=0, commit=commit, depth=1).answer(Request.of("?"))
    assert (cut.text, cut.choices[0].finish_reason) == ("2+3=5\n", "length")


async def test_a_marker_ends_the_answer() -> None:
    answer = await search([adder("a", 1.0)], temperature=0, terminal=r"5\+4=\d+\n").answer(QUESTION)
    assert (answer.text, answer.choices[0].finish_reason) == ("2+3=5\n5+4=9\n", "stop")


@MODES
async def test_characters_may_be_split_over_steps(commit: str) -> None:
    script = [bytes([byte]) for byte in "né漢\n🙂".encode()]
    member = ScriptedMember("m", CHARACTERS, script)
    judge = Noting()
    options = {"temperature": 0, "step_tokens": 1, "depth": 40, "iterations": 60, "commit": commit}
    answer = await search([member], judge, **options).answer(Request.of("?"))
    assert answer.text == "né漢\n🙂"
    assert all("�" not in step for call in judge.calls for solution in call for step in solution)


async def test_a_member_whose_context_is_full_leaves_it_to_the_others() -> None:
    small = ScriptedMember("a", CHARACTERS, [b"x"] * 99, context_length=3)
    large = ScriptedMember("b", CHARACTERS, [b"y"] * 12)
    options = {"temperature": 0, "step_tokens": 1, "depth": 9, "children": 1, "iterations": 40}
    answer = await search([large, small], Noting(), **options).answer(Request.of("?", seed=2))
    assert len(answer.text) > 3 and set(answer.text[3:]) == {"y"}


async def test_the_requests_temperature_goes_first() -> None:
    async def first_steps(request: Request) -> set[str]:
        options = {"children": 4, "iterations": 4, "depth": 1, "temperature": 0, "commit": "end"}
        return {node["text"] for node in grown(await search([adder("a", 0.5)], **options).answer(request))}

    assert len(await first_steps(Request.of("?", seed=1))) == 1
    assert len(await first_steps(Request.of("?", seed=1, temperature=1))) == 2


async def test_usage_is_metered_for_members_and_judge() -> None:
    model, member = TinyMember("judge"), adder("a", 1.0)
    answer = await search([member], VerdictJudge("v", model), temperature=0, children=1).answer(QUESTION)
    assert answer.usage["a"].calls == 1 and answer.usage["a"].completion_tokens == 4
    assert answer.usage["judge"].calls == 6, "each step is judged with those before it: 1 + 2 + 3"
    assert member.open_sessions == model.open_sessions == 0


class Broken(Judge):
    name = "broken"

    async def judge(self, request: Request, solutions: Sequence[Solution]) -> list[list[float]]:
        raise MemberLost("the judge was lost", member="judge")


async def test_failures_leave_no_session_open() -> None:
    lost, other = adder("a", 0.5, fail_at=2), adder("b", 0.5, delay=0.005)
    with pytest.raises(MemberLost, match="a was lost"):
        await search([lost, other], workers=3, temperature=1).answer(QUESTION)
    with pytest.raises(MemberLost, match="the judge was lost"):
        await search([other], Broken(), workers=3).answer(QUESTION)
    assert (lost.open_sessions, other.open_sessions) == (0, 0)


async def test_a_cancelled_request_leaves_no_session_open() -> None:
    member = adder("a", 0.5, delay=0.03)
    task = asyncio.create_task(search([member], workers=3, temperature=1).answer(QUESTION))
    await asyncio.sleep(0.05)
    assert member.open_sessions > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert member.open_sessions == 0


async def test_a_client_that_leaves_early_leaves_no_session_open() -> None:
    member = adder("a", 0.5)
    events = search([member], temperature=1).generate(QUESTION)
    async for event in events:
        if isinstance(event, Delta):
            break
    assert member.open_sessions == 1
    await events.aclose()
    assert member.open_sessions == 0


async def test_the_budget_stops_the_search() -> None:
    member = adder("a", 0.5)
    with pytest.raises(BudgetExceeded):
        await search([member], temperature=1).answer(replace(QUESTION, budget=Budget(tokens=5)))
    assert member.open_sessions == 0


async def test_choices_are_searched_apart() -> None:
    request = replace(Request.of("?", seed=1, max_tokens=4), n=2)
    answer = await search([TinyMember("a")], Noting(hashed), step_tokens=1, temperature=1.5).answer(request)
    assert len({choice.text for choice in answer.choices}) == 2


async def test_what_is_over_its_cap_is_refused_before_any_call() -> None:
    member = adder("a", 1.0)
    for option, value in [("iterations", 201), ("workers", 17), ("depth", 65), ("children", 17), ("step_tokens", 1025)]:
        with pytest.raises(OverCap, match=f"{option} is {value}"):
            await search([member]).answer(replace(QUESTION, options={option: value}))
    with pytest.raises(OverCap, match="iterations is 5; at most 4"):
        ensemble = search([member], caps=Caps(options={"iterations": 4}), iterations=4)
        await ensemble.answer(replace(QUESTION, options={"iterations": 5}))
    assert member.exchanges == 0


async def test_log_probabilities_are_refused_before_any_call() -> None:
    member = adder("a", 1.0)
    with pytest.raises(BadRequest, match="leave logprobs out"):
        await search([member]).answer(Request.of("?", logprobs=0))
    assert member.exchanges == 0


def test_it_needs_sessions_and_a_judge() -> None:
    with pytest.raises(MissingCapability, match="le_mcts needs members with sessions"):
        search([ScriptedMember.answering("talker", ["1"])])
    with pytest.raises(ConfigurationError, match="needs a judge"):
        Ensemble("search", "le_mcts", [adder("a", 1.0)])


@pytest.mark.parametrize(
    "options",
    [{"iterations": 0}, {"delimiter": ""}, {"terminal": "("}, {"stop_at": 2}, {"backup": "max"}, {"rollouts": 3}],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        search([adder("a", 1.0)], **options)
