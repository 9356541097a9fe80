"""Drafting and verifying over HTTP: two models with different tokenizers, streams, credits, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ensemble.zoo import tasks

if TYPE_CHECKING:
    from tests.serving.conftest import Door


def test_the_verifier_corrects_the_drafter(door: Door) -> None:
    """The adder drafts sums that stand, and capitals that the other corrects where the adder is unsure."""
    sums, capitals = (tasks.generate(task, 8, seed=11) for task in ("add", "capital"))
    assert sum(tasks.check(item, door.text("safe", item.prompt)) for item in sums) >= 7
    alone = sum(tasks.check(item, door.text("adder", item.prompt)) for item in capitals)
    assert sum(tasks.check(item, door.text("safe", item.prompt)) for item in capitals) >= alone + 3


def test_a_fused_token_is_credited_to_all_and_a_drafted_one_to_its_writer(door: Door) -> None:
    replies = [door.ask("safe", item.prompt) for item in tasks.generate("capital", 8, seed=11)]
    spans = [set(span["members"]) for reply in replies for span in reply["ensemble"]["credits"][0]]
    assert {"adder"} in spans and {"adder", "words"} in spans
    assert all(set(reply["usage"]["members"]) == {"adder", "words"} for reply in replies)


def test_options_of_the_request_choose_the_drafter(door: Door) -> None:
    item = tasks.generate("chain", 1, seed=5)[0]
    reply = door.ask("safe", item.prompt, ensemble={"drafter": "words", "threshold": 0})
    assert reply["choices"][0]["message"]["content"] == door.text("words", item.prompt)
    assert set(reply["usage"]["members"]) == {"words"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_temperature_is_refused(door: Door, stream: bool) -> None:
    body = {"model": "safe", "messages": [{"role": "user", "content": "1+1="}], "temperature": 0.5, "stream": stream}
    reply = door.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "temperature" and "gac" in reply.json()["error"]["message"]


def test_nothing_is_held_after_an_answer(door: Door, free: None) -> None:
    assert door.text("safe", "sum 12+30+45:\n", max_tokens=9)
    assert door.is_free()
