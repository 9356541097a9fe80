"""Every model and every ensemble answers over HTTP, whole and streamed alike."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from cluster.config import load
from ensemble.zoo import tasks

if TYPE_CHECKING:
    from tests.serving.conftest import Door

CONFIGURATION = load(Path(__file__).parents[1] / "service.yaml")
ENSEMBLES = tuple(CONFIGURATION.ensembles)
SERVED = (*CONFIGURATION.models, *ENSEMBLES)
LOTTERY = {"temperature": 0.8, "seed": 7, "max_tokens": 40}
GREEDY = {"safe"}
"""Ensembles that refuse a temperature."""
SUMS = [item.prompt for item in tasks.generate("add", 20, seed=3)]
CHAIN = tasks.generate("chain", 1, seed=5)[0]


@pytest.mark.parametrize("model", ["adder", "gac", "gac-twins", "unite-twins", "forest"])
def test_sums_come_out_right(door: Door, model: str) -> None:
    """Wherever the adder has a say its answer wins: the others are unsure, and it is nearly always right."""
    items = tasks.generate("add", 8, seed=11)
    right = [tasks.check(item, door.text(model, item.prompt, seed=1)) for item in items]
    assert sum(right) >= 6


def test_the_search_writes_equalities_that_hold(door: Door) -> None:
    """That is what its judge sees to; whether they are the ones asked for, it cannot tell."""
    texts = [door.text("search", item.prompt, seed=1) for item in tasks.generate("chain", 8, seed=11)]
    equalities = [found for text in texts for found in re.findall(r"(\d+)\+(\d+)=(\d+)", text)]
    right = [int(left) + int(other) == int(total) for left, other, total in equalities]
    assert len(right) >= 8 and sum(right) >= 0.9 * len(right)


@pytest.mark.parametrize("model", SERVED)
def test_a_stream_tells_what_the_whole_reply_tells(door: Door, model: str) -> None:
    fields = LOTTERY | ({"temperature": 0} if model in GREEDY else {})
    whole = door.ask(model, CHAIN.prompt, **fields)
    chunks = streamed(door, model, CHAIN.prompt, **fields)
    choice = whole["choices"][0]
    assert "".join(told(chunk) for chunk in chunks) == choice["message"]["content"] != ""
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == choice["finish_reason"]
    assert {c.id for c in chunks} == {chunks[0].id} and {c.model for c in chunks} == {model}
    usage = chunks[-1].usage
    assert usage is not None and members_called(usage.to_dict()) == members_called(whole["usage"])


@pytest.mark.parametrize("model", SERVED)
def test_replies_are_openai_objects_with_usage_that_adds_up(door: Door, model: str) -> None:
    whole = door.ask(model, CHAIN.prompt, max_tokens=20)
    reply = ChatCompletion.model_validate(whole, strict=True)
    assert reply.usage is not None
    members = whole["usage"]["members"]
    for count in ("prompt_tokens", "completion_tokens"):
        assert getattr(reply.usage, count) == sum(used[count] for used in members.values()) > 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert all(used["calls"] >= 1 for used in members.values())


@pytest.mark.parametrize("model", SERVED)
def test_every_member_is_charged_and_credited(door: Door, model: str) -> None:
    reply = door.ask(model, CHAIN.prompt, max_tokens=20)
    leaves = set(leaves_of(model))
    if model != "search":  # which draws its members by lot
        assert set(reply["usage"]["members"]) == leaves
    if model in CONFIGURATION.models:
        assert "ensemble" not in reply
        return
    (credits,) = reply["ensemble"]["credits"]
    edges = [0, *(span["end"] for span in credits)]
    assert [span["start"] for span in credits] == edges[:-1]
    assert edges[-1] == len(reply["choices"][0]["message"]["content"])
    for span in credits:
        assert set(span["members"]) <= leaves | set(CONFIGURATION.ensembles[model].members)
        assert sum(span["members"].values()) == pytest.approx(1)


@pytest.mark.parametrize("twins", ["gac-twins", "unite-twins"])
def test_twins_write_what_the_one_writes(door: Door, twins: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda prompt: door.text("adder", prompt), SUMS))
        together = list(pool.map(lambda prompt: door.text(twins, prompt), SUMS))
    assert together == alone and len(set(alone)) > 10


def test_neighbours_do_not_change_an_answer(door: Door) -> None:
    alone = [door.text("gac", prompt) for prompt in SUMS[:8]]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda prompt: door.text("gac", prompt), SUMS[:8])) == alone


def test_all_ensembles_at_once(door: Door) -> None:
    with ThreadPoolExecutor(len(ENSEMBLES)) as pool:
        texts = list(pool.map(lambda model: door.text(model, CHAIN.prompt, max_tokens=24), ENSEMBLES))
    assert all(texts)
    assert door.is_free()


def test_text_streams_as_it_is_agreed(door: Door) -> None:
    began = time.monotonic()
    arrivals: list[float] = []
    with door.openai.chat.completions.create(
        model="ramble", messages=[{"role": "user", "content": "go"}], max_tokens=120, stream=True
    ) as stream:
        for chunk in stream:
            if told(chunk):
                arrivals.append(time.monotonic() - began)
    ended = time.monotonic() - began
    assert len(arrivals) > 20
    assert arrivals[0] < ended / 3
    middle = [at for at in arrivals if ended / 4 < at < 3 * ended / 4]
    assert len(middle) > len(arrivals) / 4


def test_a_search_streams_its_steps(door: Door) -> None:
    """A step is a line: each is told when it is settled, not when the search is over."""
    chunks = streamed(door, "search", CHAIN.prompt)
    texts = [told(chunk) for chunk in chunks if told(chunk)]
    assert len(texts) >= 2
    assert "".join(texts).count("\n") >= 2
    assert all(text.count("\n") <= 1 for text in texts)


@pytest.mark.parametrize("model", ["rambler", "ramble", "forest", "crowd"])
def test_a_seed_repeats_and_another_does_not(door: Door, model: str) -> None:
    def text(seed: int) -> str:
        return door.text(model, "go", seed=seed, temperature=1, max_tokens=12)

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("model", ["rambler", "ramble"])
def test_logprobs_are_those_of_the_text(door: Door, model: str) -> None:
    reply = door.ask(model, "go", max_tokens=6, logprobs=True, top_logprobs=3)
    tokens = reply["choices"][0]["logprobs"]["content"]
    assert len(tokens) == 6
    spelt = b"".join(bytes(token["bytes"]) for token in tokens)
    assert spelt.decode(errors="replace") == reply["choices"][0]["message"]["content"]
    for token in tokens:
        assert len(token["top_logprobs"]) == 3 and token["logprob"] <= 0
        assert token["top_logprobs"][0]["logprob"] >= token["top_logprobs"][-1]["logprob"]


@pytest.mark.parametrize("model", ["adder", "gac", "forest", "search", "nested"])
def test_the_text_ends_before_a_stop_string(door: Door, model: str) -> None:
    fields = {"seed": 5}
    whole = door.text(model, CHAIN.prompt, **fields)
    stop = whole[3:5]
    reply = door.ask(model, CHAIN.prompt, stop=[stop], **fields)
    text = reply["choices"][0]["message"]["content"]
    assert stop not in text and reply["choices"][0]["finish_reason"] == "stop"
    if model in ("adder", "gac"):  # the others elect among what was cut
        assert text == whole[: whole.index(stop)]


@pytest.mark.parametrize("model", ["mixed", "ramble", "forest", "nested"])
def test_choices_are_the_answers_of_consecutive_seeds(door: Door, model: str) -> None:
    fields = {"temperature": 1, "max_tokens": 8}
    reply = door.ask(model, "47+38=", n=2, seed=3, **fields)
    texts = [choice["message"]["content"] for choice in reply["choices"]]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    if model in ("mixed", "ramble"):
        assert texts == [door.text(model, "47+38=", seed=seed, **fields) for seed in (3, 4)]
    if model != "mixed":
        assert len(reply["ensemble"]["credits"]) == 2


def test_usage_ends_a_stream_only_if_it_is_wanted(door: Door) -> None:
    wanted = streamed(door, "gac", SUMS[0])
    assert wanted[-1].usage is not None and not wanted[-1].choices
    assert all(chunk.usage is None for chunk in wanted[:-1])
    plain = streamed(door, "gac", SUMS[0], stream_options=None)
    assert all(chunk.usage is None for chunk in plain)


def test_a_completion_goes_on_after_its_prompt(door: Door) -> None:
    item = tasks.generate("add", 1, seed=2)[0]
    reply = door.openai.completions.create(model="gac", prompt=[item.prompt, SUMS[1]], max_tokens=8)
    assert [choice.text for choice in reply.choices] == [door.text("gac", item.prompt), door.text("gac", SUMS[1])]


def test_an_answer_goes_on_after_what_it_begins_with(door: Door) -> None:
    whole = door.text("gac", CHAIN.prompt)
    messages = [{"role": "user", "content": CHAIN.prompt}, {"role": "assistant", "content": whole[:5]}]
    reply = door.http.post("/v1/chat/completions", json={"model": "gac", "messages": messages}).json()
    assert whole[:5] + reply["choices"][0]["message"]["content"] == whole


def streamed(door: Door, model: str, question: str, **fields: Any) -> list[ChatCompletionChunk]:
    fields = {"stream_options": {"include_usage": True}, **fields}
    messages: Any = [{"role": "user", "content": question}]
    with door.openai.chat.completions.create(model=model, messages=messages, stream=True, **fields) as stream:
        return list(stream)


def told(chunk: ChatCompletionChunk) -> str:
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def members_called(usage: dict[str, Any]) -> dict[str, int]:
    return {name: used["calls"] for name, used in usage["members"].items()}


def leaves_of(name: str) -> list[str]:
    """Models below a name, its judge's included."""
    if name in CONFIGURATION.models:
        return [name]
    ensemble = CONFIGURATION.ensembles[name]
    judge = CONFIGURATION.judges[ensemble.judge].model if ensemble.judge else None
    asked = [*ensemble.members, *([judge] if judge else [])]
    return [leaf for member in asked for leaf in leaves_of(member)]
