"""The official client gets what it expects: replies parse into its own types, whatever it asks for."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.completion_choice import Logprobs

USER = [{"role": "user", "content": "What is 40 + 2?"}]


def chat(gateway: Any, model: str = "scripted", **options: Any) -> ChatCompletion:
    return gateway.client().chat.completions.create(model=model, messages=options.pop("messages", USER), **options)


def strict(reply: Any) -> Any:
    """The reply again, every field checked against the client's own types."""
    return type(reply).model_validate(reply.model_dump(), strict=True)


def test_a_chat_completion(gateway: Any) -> None:
    reply = strict(chat(gateway))
    assert reply.object == "chat.completion" and reply.id.startswith("chatcmpl-") and reply.created == 1_700_000_000
    assert reply.model == "scripted"
    (choice,) = reply.choices
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "aé")
    assert choice.finish_reason == "stop" and choice.logprobs is None
    assert not hasattr(reply, "ensemble")


def test_usage_is_exact_and_costs_are_decimal(gateway: Any) -> None:
    usage = chat(gateway).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (0, 4, 4)
    expected = {"calls": 1, "prompt_tokens": 0, "completion_tokens": 4, "cost": "0.008"}
    assert usage.members == {"scripted": expected} and usage.cost == "0.008"


def test_usage_of_an_ensemble_sums_over_its_members(gateway: Any) -> None:
    usage = chat(gateway, "pair").usage
    assert set(usage.members) == {"scripted", "two"}
    assert usage.members["two"] == {"calls": 1, "prompt_tokens": 5, "completion_tokens": 2, "cost": "0.009"}
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cost) == (5, 6, "0.017")


def test_an_ensemble_tells_who_wrote_what(gateway: Any) -> None:
    reply = strict(chat(gateway, "pair"))
    assert reply.choices[0].message.content == "aé2 €😀"
    assert reply.ensemble == {
        "method": "relay",
        "members": ["scripted", "two"],
        "credits": [
            [{"start": 0, "end": 2, "members": {"scripted": 1.0}}, {"start": 2, "end": 6, "members": {"two": 1.0}}]
        ],
    }


def test_an_ensemble_takes_options_of_its_method(gateway: Any) -> None:
    reply = chat(gateway, "pair", extra_body={"ensemble": {"times": 2}})
    assert reply.choices[0].message.content == "aé2 €😀" * 2


def test_traces_come_when_asked_for(gateway: Any) -> None:
    reply = chat(gateway, "pair", n=2, extra_body={"trace": True})
    assert reply.ensemble["traces"] == [[{"kind": "order", "data": {"members": ["scripted", "two"]}}]] * 2


async def test_the_asynchronous_client(gateway: Any) -> None:
    async with gateway.async_client() as client:
        reply = await client.chat.completions.create(model="scripted", messages=USER)
        stream = await client.chat.completions.create(model="scripted", messages=USER, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert reply.choices[0].message.content == text == "aé"


def test_choices_are_independent_and_numbered(gateway: Any) -> None:
    reply = chat(gateway, "tiny", n=3, temperature=1, seed=5, max_tokens=12)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) == 3


def test_a_seed_makes_answers_repeatable(gateway: Any) -> None:
    def text(seed: int | None) -> str:
        return chat(gateway, "tiny", temperature=1, seed=seed, max_tokens=16).choices[0].message.content

    assert text(1) == text(1) != text(2)
    assert text(None) != text(None)


def test_the_default_temperature_is_greedy(gateway: Any) -> None:
    def text(**options: Any) -> str:
        return chat(gateway, "tiny", max_tokens=16, **options).choices[0].message.content

    assert text() == text(temperature=0) != text(temperature=2, seed=1)


@pytest.mark.parametrize("stop", ["é", ["x", "é"]])
def test_stop_ends_the_text_before_it(gateway: Any, stop: Any) -> None:
    choice = chat(gateway, stop=stop).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("a", "stop")


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_ends_with_length(gateway: Any, limit: str) -> None:
    choice = chat(gateway, **{limit: 1}).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("a", "length")


def test_top_k_is_honoured(gateway: Any) -> None:
    def texts(**extra: Any) -> set[str]:
        reply = chat(gateway, n=16, seed=3, temperature=2, max_tokens=1, extra_body=extra)
        return {choice.message.content for choice in reply.choices}

    assert texts() == {"a", "b"} and texts(top_k=1) == {"a"} and texts(top_p=0.5) == {"a"}


def test_log_probabilities_of_a_chat(gateway: Any) -> None:
    first, second, third = strict(chat(gateway, logprobs=True, top_logprobs=2)).choices[0].logprobs.content
    assert (first.token, first.bytes) == ("a", [97]) and first.logprob == pytest.approx(-0.2877, abs=1e-4)
    assert [(t.token, t.logprob) for t in first.top_logprobs] == [
        ("a", pytest.approx(-0.2877, abs=1e-4)),
        ("b", pytest.approx(-1.3863, abs=1e-4)),
    ]
    assert (second.token, second.bytes, third.bytes) == ("�", [0xC3], [0xA9])
    assert second.top_logprobs[1].logprob == -9999.0


def test_log_probabilities_without_alternatives(gateway: Any) -> None:
    content = chat(gateway, logprobs=True).choices[0].logprobs.content
    assert [token.top_logprobs for token in content] == [[], [], []]


def test_a_last_assistant_message_is_continued(gateway: Any) -> None:
    def text(*turns: tuple[str, str]) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        return chat(gateway, "tiny", messages=messages, max_tokens=8).choices[0].message.content

    whole = text(("user", "hello"))
    assert whole[:2].isascii() and len(whole) > 4
    assert text(("user", "hello"), ("assistant", whole[:2])).startswith(whole[2:])
    assert not text(("user", "hello")).startswith(whole[2:])


def test_content_may_come_in_parts(gateway: Any) -> None:
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "40 + 2?"}]

    def text(content: Any) -> str:
        messages = [{"role": "developer", "content": "Be short."}, {"role": "user", "content": content}]
        return chat(gateway, "tiny", messages=messages, max_tokens=8).choices[0].message.content

    assert text(parts) == text("What is 40 + 2?") != text("What is 40 + 3?")


def test_an_answer_can_be_sent_back_as_it_came(gateway: Any) -> None:
    answer = chat(gateway).choices[0].message.model_dump()
    again = chat(gateway, messages=[*USER, answer, {"role": "user", "content": "Sure?"}])
    assert again.choices[0].message.content == "aé"


def test_neutral_values_of_fields_not_offered_are_accepted(gateway: Any) -> None:
    reply = chat(
        gateway,
        presence_penalty=0,
        frequency_penalty=0.0,
        logit_bias={},
        tools=[],
        tool_choice="auto",
        response_format={"type": "text"},
        user="someone",
        extra_body={"functions": None, "audio": None, "store": False, "parallel_tool_calls": True},
    )
    assert reply.choices[0].message.content == "aé"


def test_null_is_the_same_as_nothing(gateway: Any) -> None:
    fields = "max_tokens temperature top_p top_k n stop seed stream stream_options logprobs top_logprobs user"
    nothing = dict.fromkeys([*fields.split(), "ensemble", "budget", "trace", "max_completion_tokens"])
    reply = gateway.post({"model": "scripted", "messages": USER, **nothing})
    assert reply.json()["choices"][0]["message"]["content"] == "aé"


def complete(gateway: Any, model: str = "scripted", **options: Any) -> Completion:
    return gateway.client().completions.create(model=model, **options)


def test_a_text_completion(gateway: Any) -> None:
    reply = strict(complete(gateway, prompt="40 + 2 ="))
    assert reply.object == "text_completion" and reply.id.startswith("cmpl-")
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == ("aé", "stop")
    assert reply.usage.completion_tokens == 4


def test_several_prompts_give_choices_in_their_order(gateway: Any) -> None:
    options: dict[str, Any] = {"model": "tiny", "max_tokens": 8, "temperature": 1, "seed": 4}
    alone = [complete(gateway, prompt=prompt, n=2, **options).choices for prompt in ("one", "two")]
    reply = complete(gateway, prompt=["one", "two"], n=2, **options)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert [c.text for c in reply.choices] == [c.text for choices in alone for c in choices]
    assert reply.usage.members["tiny"]["calls"] == 2


def test_text_completions_default_to_sixteen_tokens(gateway: Any) -> None:
    assert complete(gateway, model="tiny", prompt="x").usage.completion_tokens == 16


def test_log_probabilities_of_a_text_completion(gateway: Any) -> None:
    logprobs: Logprobs = complete(gateway, prompt="x", logprobs=2).choices[0].logprobs
    assert logprobs.tokens == ["a", "�", "�"]
    assert logprobs.token_logprobs == [pytest.approx(-0.2877, abs=1e-4), 0, 0]
    assert logprobs.top_logprobs[0] == {"a": pytest.approx(-0.2877, abs=1e-4), "b": pytest.approx(-1.3863, abs=1e-4)}
    assert logprobs.text_offset == [0, 1, 1]


def test_a_budget_that_suffices_changes_nothing(gateway: Any) -> None:
    budget = {"calls": 1, "tokens": 100, "cost": "0.5", "seconds": 20}
    assert chat(gateway, extra_body={"budget": budget}).choices[0].message.content == "aé"
    assert chat(gateway, extra_body={"budget": budget}).usage == chat(gateway).usage
    pair = chat(gateway, "pair", extra_body={"budget": budget | {"calls": 2, "cost": 0.5}})
    assert pair.choices[0].message.content == "aé2 €😀"


def test_models_are_listed_and_shown(gateway: Any) -> None:
    client = gateway.client()
    listed = {model.id: model for model in client.models.list()}
    assert list(listed) == list(gateway.members)
    assert listed["org/two"].object == "model" and listed["org/two"].kind == "model"
    assert client.models.retrieve("org/two") == listed["org/two"]
    pair = client.models.retrieve("pair")
    assert (pair.kind, pair.method, pair.members) == ("ensemble", "relay", ["scripted", "two"])
    assert pair.options == ["times"] and pair.context_length == 4096
