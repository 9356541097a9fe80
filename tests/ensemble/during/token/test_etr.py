"""Expert token routing: who writes, from where, and the worked example of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from ensemble import Ensemble
from ensemble.artifacts import Artifact, Manifest
from ensemble.errors import ConfigurationError, MissingCapability
from ensemble.fitting.etr import EtrFit, accuracies, fit, loss_of, routed
from ensemble.heads import build
from ensemble.heads.experts import Experts
from ensemble.member import Floats, Member
from ensemble.request import Answer, Request
from ensemble.testing import ScriptedMember, TinyMember

ASK = Request.of("go", max_tokens=20)
NEVER, ALWAYS = -1e9, 1e9
WIDTH = TinyMember.WIDTH


def meta(*biases: float, names: Sequence[str] = ("law", "code"), rows: Floats | None = None) -> TinyMember:
    """A generalist whose experts have these biases, and random rows unless they are given."""
    own = np.random.default_rng(3).normal(size=(len(biases), WIDTH)) if rows is None else rows
    head = Experts(torch.tensor(own).float(), torch.tensor(biases).float(), names)
    return TinyMember("meta", 0, heads={"etr": head})


def law() -> TinyMember:
    return TinyMember("law", 1)


def code() -> TinyMember:
    return TinyMember("code", 2)


def etr(members: Sequence[Member], **options: object) -> Ensemble:
    return Ensemble("ensemble", "etr", members, options=options)


def told(answer: Answer) -> list[str]:
    return [str(trace.data["to"]) for trace in answer.choices[0].traces if trace.kind == "handover"]


async def test_rows_that_never_win_leave_the_generalist_alone() -> None:
    one, other = law(), code()
    answer = await etr([meta(NEVER, NEVER), one, other]).answer(ASK)
    assert answer.text == (await meta(NEVER, NEVER).answer(ASK)).text
    assert one.exchanges == other.exchanges == 0 and not told(answer)


@pytest.mark.parametrize(("biases", "expert"), [((ALWAYS, 0), "law"), ((0, ALWAYS), "code")])
async def test_a_row_that_always_wins_gives_the_experts_own_answer(biases: tuple[float, float], expert: str) -> None:
    members = {"law": law(), "code": code()}
    answer = await etr([meta(*biases), *members.values()]).answer(ASK)
    assert answer.text == (await members[expert].answer(ASK)).text
    assert told(answer) == [expert]
    assert {name for _, credits in answer.choices[0].credits for name in credits} == {expert}


@pytest.mark.parametrize("segment", [1, 2, 16])
async def test_an_expert_that_is_wanted_inside_a_character_waits_for_its_end(segment: int) -> None:
    head = Experts(torch.tensor([[1.0]]), torch.tensor([NEVER]), ["law"])
    script = [*("a😀".encode()[i : i + 1] for i in range(5)), b"a", b"a"]
    first = ScriptedMember(
        "meta",
        [*sorted(set(script)), b""],
        script,
        heads={"etr": head},
        states=lambda prompt, ids: np.array([2 * ALWAYS if len(ids) > 1 else 0.0]),
    )
    expert = ScriptedMember("law", ["a😀".encode(), b"!", b""], [b"!", b"!"])
    answer = await etr([first, expert], segment=segment).answer(ASK)
    assert answer.text.startswith("a😀!") and told(answer) == ["law"]


async def test_what_the_generalist_wrote_before_stays() -> None:
    first = meta(-4.0, -4.0)
    stay = (await etr([meta(NEVER, NEVER), law(), code()]).answer(ASK)).text
    answer = await etr([first, law(), code()]).answer(ASK)
    assert len(told(answer)) == 1, "the rows are such that an expert is called in the middle"
    begun = "".join(text for text, credits in answer.choices[0].credits if "meta" in credits)
    assert begun and stay.startswith(begun) and answer.text.startswith(begun)
    expert = {"law": law(), "code": code()}[told(answer)[0]]
    written = next(trace.data["after"] for trace in answer.choices[0].traces if trace.kind == "handover")
    rest = await expert.answer(replace(Request.of("go", max_tokens=20 - written), partial=begun))
    assert answer.text == begun + rest.text
    assert first.open_sessions == 0


async def test_an_expert_that_never_wins_changes_nothing() -> None:
    rows = np.random.default_rng(3).normal(size=(1, WIDTH))
    one = await etr([meta(0.0, names=["law"], rows=rows), law()]).answer(ASK)
    added = np.concatenate([rows, np.zeros((1, WIDTH))])
    two = await etr([meta(0.0, NEVER, rows=added), law(), code()]).answer(ASK)
    assert (two.text, told(two)) == (one.text, told(one))


async def test_the_order_of_experts_changes_only_labels() -> None:
    rows = np.random.default_rng(3).normal(size=(2, WIDTH))
    one = await etr([meta(0.0, 0.0, rows=rows), law(), code()]).answer(ASK)
    turned = meta(0.0, 0.0, names=["code", "law"], rows=rows[::-1].copy())
    two = await etr([turned, law(), code()]).answer(ASK)
    assert (two.text, told(two)) == (one.text, told(one))


async def test_an_ensemble_may_be_an_expert_and_labels_may_be_renamed() -> None:
    pair = Ensemble("pair", "gac", [law(), TinyMember("law2", 1)])
    members = [meta(ALWAYS, NEVER), pair, code()]
    answer = await etr(members, experts={"law": "pair"}).answer(ASK)
    assert answer.text == (await law().answer(ASK)).text
    assert told(answer) == ["pair"]


async def test_limits_stop_strings_and_logprobs_hold_across_the_handover() -> None:
    members = [meta(-4.0, -4.0), law(), code()]
    whole = await etr(members).answer(Request.of("go", max_tokens=20, logprobs=1))
    written = [told.token for told in whole.choices[0].tokens]
    for tokens in (1, 4, 9):
        cut = await etr(members).answer(Request.of("go", max_tokens=tokens, logprobs=1))
        assert [told.token for told in cut.choices[0].tokens] == written[:tokens]
    stop = whole.text[-3:-1]
    stopped = await etr(members).answer(Request.of("go", max_tokens=20, stop=(stop,)))
    assert stopped.text == whole.text[: whole.text.index(stop)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"meta": "nobody"}, "no member; members: meta, law, code"),
        ({"meta": "law"}, "needs a head 'etr' of kind experts at law; its heads: none"),
        ({"head": "rows"}, "its heads: etr \\(experts\\)"),
        ({"experts": {"law": "nobody"}}, "allowed: law, code"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises((ConfigurationError, MissingCapability), match=says):
        etr([meta(0, 0), law(), code()], **options)


def test_an_expert_that_is_no_member_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expert 'code', which is no member"):
        etr([meta(0, 0), law()])


def test_experts_need_only_generate() -> None:
    made = etr([meta(0.0, names=["law"], rows=np.zeros((1, WIDTH))), ScriptedMember.answering("law", ["yes"])])
    assert [member.name for member in made.members] == ["meta", "law"]


STATE = np.array([[1.0, 2.0]])
OWN = np.array([[0.5, 0.5], [1.0, -0.5], [0.0, 0.2]])
ROWS = np.array([[0.2, 0.9], [0.6, 0.3]])


def test_worked_example() -> None:
    artifact = Artifact(
        Manifest(method="etr", kind="experts", member="m", vocabulary="v", settings={"experts": ["a", "b"]}),
        {"rows": ROWS.astype(np.float32), "bias": np.zeros(2, np.float32)},
    )
    logits = torch.tensor(STATE @ OWN.T)
    assert np.round(torch.cat([logits, torch.tensor(STATE @ ROWS.T)], 1)[0].numpy(), 6).tolist() == [
        1.5, 0.0, 0.4, 2.0, 1.2,
    ]  # fmt: skip
    outcomes = build(artifact).read(logits.float(), torch.tensor(STATE).float(), None)[0].exp().numpy()
    # Beside the likeliest token alone, in the proportions of the whole softmax.
    whole = np.array([0.253451, 0.417870, 0.187761])
    np.testing.assert_allclose(outcomes, whole / whole.sum(), atol=1e-6)
    assert outcomes.argmax() == 1


def test_worked_example_of_the_gradient() -> None:
    rows = torch.tensor(ROWS, requires_grad=True)
    mass = torch.logsumexp(torch.tensor(STATE @ OWN.T), 1)
    loss_of(rows, torch.zeros(2), torch.tensor(STATE), mass, torch.tensor([1])).backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    expected = [[-0.582130, -1.164261], [0.187761, 0.375522]]
    np.testing.assert_allclose(rows.grad.numpy(), expected, atol=1e-6)


def test_worked_example_of_the_beginning() -> None:
    start = OWN.mean(axis=0)
    np.testing.assert_allclose(start, [0.5, 0.066667], atol=1e-6)
    logits = np.concatenate([STATE @ OWN.T, np.repeat(STATE @ start, 2)[None]], axis=1)[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(shares, [0.417240, 0.093099, 0.138887, 0.175387, 0.175387], atol=1e-6)


def test_fitted_rows_send_queries_where_they_belong() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(3, 8)) * 2
    labels = random.integers(0, 3, size=600)
    states = centres[labels] + random.normal(size=(600, 8))
    own = random.normal(size=(5, 8)) / 4
    logits = states @ own.T
    mass = np.log(np.exp(logits).sum(1))
    start, before = own.mean(axis=0), own.copy()
    fitted, options, losses = slice(400), EtrFit(epochs=100), list[float]()
    rows = fit(states[fitted], mass[fitted], labels[fitted], start, 2, options, lambda i, n, loss: losses.append(loss))
    found = routed(rows, states[400:], logits[400:].max(1))
    told = accuracies(found, labels[400:], ["law", "code"])
    assert told["accuracy"] > 0.9 and set(told) == {"accuracy", "accuracy.stay", "accuracy.law", "accuracy.code"}
    assert len(losses) == 100 and losses[-1] < losses[0] / 2
    assert np.array_equal(own, before) and np.array_equal(start, before.mean(axis=0)), "only the new rows are fitted"
