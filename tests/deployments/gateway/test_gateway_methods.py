"""Real methods behind the API, asked with the official client."""

from __future__ import annotations

from typing import Any

import pytest

from ensemble.ensemble import Ensemble
from ensemble.testing import ScriptedMember, TinyMember

USER = [{"role": "user", "content": "What is 40 + 2?"}]


def test_a_vote_elects_the_majority(serve: Any) -> None:
    members = [ScriptedMember.answering(name, [said]) for name, said in (("a", "42"), ("b", "41"), ("c", "42"))]
    with serve({"forest": Ensemble("forest", "agent_forest", members, options={"samples": 3})}) as gateway:
        client = gateway.client()
        reply = client.chat.completions.create(model="forest", messages=USER, extra_body={"trace": True})
        listed = client.models.retrieve("forest")
        with pytest.raises(Exception, match="samples") as caught:
            client.chat.completions.create(model="forest", messages=USER, extra_body={"ensemble": {"smaples": 5}})
    assert reply.choices[0].message.content == "42"
    assert set(reply.ensemble["credits"][0][0]["members"]) <= {"a", "c"} and reply.ensemble["traces"][0]
    assert {name: usage["calls"] for name, usage in reply.usage.members.items()} == {"a": 1, "b": 1, "c": 1}
    assert listed.method == "agent_forest" and "samples" in listed.options
    assert caught.value.status_code == 400 and caught.value.code == "unknown_option"


async def test_lockstep_streams_and_sums_up_alike(serve: Any) -> None:
    members = [TinyMember("a", seed=1), TinyMember("b", seed=2)]
    asked: dict[str, Any] = {"model": "pair", "messages": USER, "max_tokens": 12, "n": 2, "temperature": 1, "seed": 3}
    with serve({"pair": Ensemble("pair", "gac", members)}) as gateway:
        async with gateway.async_client() as client:
            whole = await client.chat.completions.create(**asked)
            stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
            chunks = [chunk async for chunk in stream]
    texts = ["", ""]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices] and texts[0] != texts[1]
    assert chunks[-1].usage.members == whole.usage.members and set(whole.usage.members) == {"a", "b"}
    assert chunks[-2].ensemble == whole.ensemble
    assert [member.open_sessions for member in members] == [0, 0]
