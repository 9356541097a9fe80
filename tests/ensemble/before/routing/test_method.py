"""Routing: who is asked, who answers in whose place, and that nothing of it is silent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ensemble.before.encoders.served import Encoders, ServedEncoder
from ensemble.errors import BadRequest, ConfigurationError, ContextTooLong, MemberError, MemberLost, QueueFull
from ensemble.failures.policy import Policy
from ensemble.member import Member
from ensemble.outcomes.dense import Floats
from ensemble.request import Incident, Request
from tests.ensemble.before.routing.desks import Far, FirstWord, Says, artifact, ensemble, router, trace

LOST = MemberLost("gone", member="b")
LOST.through = None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return artifact(tmp_path / "router")


async def test_who_is_best_on_the_question_answers(path: Path) -> None:
    routed = ensemble(path)
    assert (await routed.answer(Request.of("sum 1"))).text == "a"
    assert (await routed.answer(Request.of("word 1"))).text == "b"


async def test_the_trace_says_why(path: Path) -> None:
    answer = await ensemble(path).answer(Request.of("word 1"))
    told = trace(answer)
    assert {name: round(score, 6) for name, score in told["scores"].items()} == {"a": 0.2, "b": 0.8, "c": 0.4}
    assert told["cost"] == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert (told["chosen"], told["answers"], told["why"], told["propensity"]) == ("b", ["b"], "policy", 1.0)
    assert (told["policy"], told["doubt"], told["ensemble"]) == ("utility", False, "routed")
    assert len(told["artifact"]) == 16


async def test_what_the_answer_has_cost_is_told_before_its_end(path: Path) -> None:
    told = trace(await ensemble(path).answer(Request.of("word 1", seed=3)), "answered")
    assert told["latency"] >= 0
    expected = {"member": "b", "cost": 0.0, "input_tokens": 3, "output_tokens": 2, "propensity": 1.0}
    assert {name: told[name] for name in expected} == expected


async def test_each_choice_knows_its_own_cost(path: Path) -> None:
    answer = await ensemble(path).answer(Request(messages=Request.of("word 1").messages, n=3))
    costs = [dict(t.data) for choice in answer.choices for t in choice.traces if t.kind == "answered"]
    assert [(told["input_tokens"], told["output_tokens"]) for told in costs] == [(3, 2)] * 3


async def test_a_request_may_bring_a_policy(path: Path) -> None:
    dear = {"policy": {"kind": "utility", "price": 1.0}}
    assert (await ensemble(path).answer(Request(messages=Request.of("word 1").messages, options=dear))).text == "a"


@pytest.mark.parametrize("option", ["path", "strategies", "arms", "shadow", "answer"])
async def test_a_request_may_not_bring_what_the_configuration_sets(path: Path, option: str) -> None:
    with pytest.raises(BadRequest, match="configuration alone") as refused:
        await ensemble(path).answer(Request(messages=Request.of("sum").messages, options={option: "/etc"}))
    assert refused.value.param == option


@pytest.mark.parametrize("error", [MemberLost("gone"), MemberError("odd"), QueueFull("busy"), ContextTooLong("long")])
async def test_the_next_by_score_answers_where_the_chosen_one_fails(path: Path, error: Exception) -> None:
    answer = await ensemble(path, [Says("a"), Says("b", error=error), Says("c")]).answer(Request.of("word 1"))
    assert answer.text == "c"
    (incident,) = answer.choices[0].incidents
    assert incident == Incident("dropped", error.code, "b")  # type: ignore[attr-defined]
    assert trace(answer, "answered")["propensity"] is None


async def test_then_the_fallback(path: Path) -> None:
    broken = [Says("a"), Says("b", error=MemberLost("gone")), Says("c", error=MemberLost("gone"))]
    routed = ensemble(path, broken, fallback="a")
    answer = await routed.answer(Request.of("word 1"))
    assert answer.text == "a" and [incident.member for incident in answer.choices[0].incidents] == ["b", "c"]
    assert routed.prepared.stats()["route_passed_over", (("member", "b"), ("reason", "member_lost"))] == 1


async def test_where_all_fail_the_last_failure_is_told(path: Path) -> None:
    broken: list[Member] = [Says(name, error=MemberLost(f"{name} is gone", member=name)) for name in "abc"]
    with pytest.raises(MemberLost, match="a is gone"):
        await ensemble(path, broken, fallback="a").answer(Request.of("word 1"))


async def test_who_fails_in_the_middle_is_not_replaced_unless_the_policy_says_so(path: Path) -> None:
    members: list[Member] = [Says("a"), Says("b", "beg", error=MemberLost("gone"), late=True), Says("c")]
    with pytest.raises(MemberLost):
        await ensemble(path, members).answer(Request.of("word 1"))
    going_on = ensemble(path, members, policy_of_losses=Policy(on_loss="degrade"))
    answer = await going_on.answer(Request.of("word 1"))
    assert answer.text == "begc"


async def test_a_member_that_is_left_alone_for_a_while_is_not_in_the_way(path: Path) -> None:
    members: list[Member] = [Says("a"), Says("b", error=MemberLost("gone")), Says("c")]
    routed = ensemble(path, members)
    for _ in range(3):
        assert (await routed.answer(Request.of("word 1"))).text == "c"
    assert len(members[1].asked) == 1  # type: ignore[attr-defined]


async def test_in_doubt_the_fallback_answers(tmp_path: Path) -> None:
    routed = ensemble(artifact(tmp_path / "r", router(guard=Far())), fallback="c")
    answer = await routed.answer(Request.of("far away"))
    told = trace(answer)
    assert (answer.text, told["chosen"], told["answers"], told["why"], told["doubt"]) == (
        "c",
        "a",
        ["c"],
        "doubt",
        True,
    )
    assert (await routed.answer(Request.of("word"))).text == "b"
    assert routed.prepared.stats()["routed", (("member", "c"), ("why", "doubt"))] == 1


async def test_shadow_only_tells(path: Path) -> None:
    routed = ensemble(path, shadow=True)
    answer = await routed.answer(Request.of("word 1"))
    assert (answer.text, trace(answer)["chosen"], trace(answer)["why"]) == ("a", "b", "shadow")
    await routed.answer(Request.of("sum 1"))
    stats = routed.prepared.stats()
    assert [stats["route_shadow", (("agrees", agrees),)] for agrees in ("no", "yes")] == [1, 1]


async def test_who_cannot_hold_the_prompt_is_not_chosen(path: Path) -> None:
    members = [Says("a"), Says("b", context=50), Says("c")]
    answer = await ensemble(path, members).answer(Request.of("word " + "x" * 600))
    assert answer.text == "c" and trace(answer)["scores"]["b"] is None
    assert not members[1].asked


async def test_where_nobody_can_hold_it_the_fallback_is_asked(path: Path) -> None:
    answer = await ensemble(path, [Says(n, context=50) for n in "abc"]).answer(Request.of("word " + "x" * 600))
    assert (answer.text, trace(answer)["why"]) == ("a", "filtered")


def test_the_context_is_the_longest_of_its_members(path: Path) -> None:
    assert ensemble(path, [Says("a", context=10), Says("b", context=99), Says("c")]).card.context_length == 1000


async def test_members_may_be_a_part_of_those_that_the_router_knows(path: Path) -> None:
    routed = ensemble(path, [Says("c"), Says("a")])
    assert (await routed.answer(Request.of("word 1"))).text == "c"


async def test_strategies(tmp_path: Path) -> None:
    known = {"a|plain": (0.9, 0.1, 0.1), "a|steps": (0.2, 0.8, 0.1), "b": (0.1, 0.1, 0.1)}
    member = Says("a")
    strategies = {"plain": "", "steps": "Step by step. "}
    routed = ensemble(artifact(tmp_path / "r", router(known)), [member, Says("b")], strategies=strategies)
    answer = await routed.answer(Request.of("word 1"))
    assert trace(answer)["chosen"] == "a|steps" and member.asked[0].question == "Step by step. word 1"
    await routed.answer(Request(prompt="sum 1"))
    assert member.asked[1].prompt == "sum 1"


async def test_a_member_by_another_name(tmp_path: Path) -> None:
    known = {"a": (0.9, 0.1, 0.1), "a@4": (0.2, 0.8, 0.1)}
    routed = ensemble(artifact(tmp_path / "r", router(known)), [Says("a"), Says("four")], arms={"a@4": "four"})
    assert (await routed.answer(Request.of("word 1"))).text == "four"


async def test_n_answers_of_a_member_vote(tmp_path: Path) -> None:
    known = {"a": (0.9, 0.1, 0.1), "b@3": (0.2, 0.8, 0.1)}
    member = Says("b", "answer 7")
    options: dict[str, Any] = {"vote": "numeric", "answer": r"answer (\d+)"}
    routed = ensemble(artifact(tmp_path / "r", router(known)), [Says("a"), member], **options)
    answer = await routed.answer(Request.of("word 1"))
    assert answer.text == "answer 7" and member.asked[0].n == 3 and member.asked[0].sampling.temperature > 0
    assert trace(answer, "vote")["tally"] == [{"answer": "7", "weight": 1.0, "members": {"b@3": 3}}]


SUBSET = {"kind": "subset", "size": 3}


async def test_a_subset_votes_with_weights(path: Path) -> None:
    members = [Says("a", "7"), Says("b", "8"), Says("c", "7")]
    routed = ensemble(path, members, policy=SUBSET)
    answer = await routed.answer(Request.of("word 1"))
    # 0.2 + 0.4 for 7 against 0.8 for 8.
    assert answer.text == "8" and dict(answer.choices[0].credits[0][1]) == {"b": 1.0}
    assert (await routed.answer(Request.of("sum 1"))).text == "7"


async def test_of_a_subset_only_who_is_asked_is_called(path: Path) -> None:
    members = [Says("a", "7"), Says("b", "8"), Says("c", "7")]
    await ensemble(path, members, policy={"kind": "subset", "size": 2}).answer(Request.of("word 1"))
    assert [len(member.asked) for member in members] == [0, 1, 1]


async def test_a_subset_goes_on_without_who_fails(path: Path) -> None:
    members: list[Member] = [Says("a", "7"), Says("b", error=MemberLost("gone")), Says("c", "9")]
    answer = await ensemble(path, members, policy=SUBSET).answer(Request.of("word 1"))
    assert answer.text == "9" and [i.member for i in answer.choices[0].incidents] == ["b"]


async def test_a_subset_that_fails_as_a_whole_leaves_the_rest(path: Path) -> None:
    members: list[Member] = [Says("a"), Says("b", error=MemberLost("gone")), Says("c", error=MemberLost("gone"))]
    answer = await ensemble(path, members, policy={"kind": "subset", "size": 2}).answer(Request.of("word 1"))
    assert answer.text == "a"


async def test_equal_seeds_draw_equally_and_tell_the_propensity(path: Path) -> None:
    routed = ensemble(path, policy={"kind": "sample", "temperature": 1.0})
    texts = [(await routed.answer(Request.of("word 1", seed=seed))).text for seed in range(30)]
    again = [(await routed.answer(Request.of("word 1", seed=seed))).text for seed in range(30)]
    assert texts == again and set(texts) == {"a", "b", "c"}
    assert 0 < trace(await routed.answer(Request.of("word 1", seed=1)))["propensity"] < 1


class Elsewhere(ServedEncoder):
    def __init__(self, fingerprint: str, size: int = 3) -> None:
        self.name, self.fingerprint, self.size = "mini", fingerprint, size

    error: Exception | None = None

    async def embed(self, texts: Any) -> Floats:
        if self.error is not None:
            raise self.error
        return FirstWord().embed(texts)


async def test_a_served_encoder(tmp_path: Path) -> None:
    path = artifact(tmp_path / "r", router(encoder=None), encoder="mini f1")
    routed = ensemble(path, encoders=Encoders({"mini": Elsewhere("f1")}))
    assert (await routed.answer(Request.of("word 1"))).text == "b"


async def test_where_the_encoder_is_away_the_fallback_answers(tmp_path: Path) -> None:
    away = Elsewhere("f1")
    path = artifact(tmp_path / "r", router(encoder=None), encoder="mini f1")
    routed = ensemble(path, encoders=Encoders({"mini": away}))
    away.error = MemberLost("mini is away", member="mini")
    answer = await routed.answer(Request.of("word 1"))
    assert (answer.text, trace(answer)["why"]) == ("a", "unread")
    assert answer.choices[0].incidents == (Incident("dropped", "member_lost", "mini"),)


REFUSED = {
    "no encoder": ("mini f1", Encoders(), "not served"),
    "another fingerprint": ("mini f1", Encoders({"mini": Elsewhere("f2")}), "fitted on embeddings of mini f1"),
    "no name": ("", Encoders({"mini": Elsewhere("f1")}), "came with the table"),
    "another length": ("mini f1", Encoders({"mini": Elsewhere("f1", size=5)}), "another length than 5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_encoder_that_does_not_match_is_refused(tmp_path: Path, name: str) -> None:
    identity, encoders, message = REFUSED[name]
    path = artifact(tmp_path / "r", router(encoder=None), encoder=identity)
    with pytest.raises(ConfigurationError, match=message) as refused:
        ensemble(path, encoders=encoders)
    assert refused.value.param == "encoder"


def test_an_encoder_for_a_router_that_has_its_own_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="leave encoder out"):
        ensemble(path, encoders=Encoders({"mini": Elsewhere("f1")}, "mini"))


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a stranger": ({"members": [Says("a"), Says("z")]}, "members", "knows nothing of z"),
    "a fallback": ({"fallback": "z"}, "fallback", "allowed: a, b, c"),
    "no best": ({"members": [Says("b"), Says("c")]}, "fallback", "name a fallback: b, c"),
    "a policy's member": ({"policy": {"kind": "threshold", "strong": "z"}}, "policy", "allowed: a, b, c"),
    "spread": ({"policy": {"kind": "sample", "by": "thompson"}}, "policy", "needs the spread"),
    "a vote of one": ({"vote": "numeric"}, "vote", "where several answer"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_when_it_is_loaded(path: Path, name: str) -> None:
    given, param, message = WRONG[name]
    with pytest.raises(ConfigurationError, match=message) as refused:
        ensemble(path, **given)
    assert refused.value.param == param


def test_an_unknown_strategy_is_refused(tmp_path: Path) -> None:
    path = artifact(tmp_path / "r", router({"a|deep": (1.0, 1.0, 1.0), "b": (0.0, 0.0, 0.0)}))
    with pytest.raises(ConfigurationError, match="'deep' of a; strategies has: none"):
        ensemble(path, [Says("a"), Says("b")])


def test_without_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no artifact"):
        ensemble(tmp_path / "nowhere")
