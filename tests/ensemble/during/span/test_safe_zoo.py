"""Real models with different tokenizers: the zoo's members in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from span_toys import disputes, safe

from deployments.engines.engine import EngineMember
from deployments.engines.loading import start
from deployments.engines.settings import ModelSettings
from deployments.engines.sources import ZooSource
from ensemble.concurrency import together
from ensemble.ensemble import Ensemble
from ensemble.member import Exchange, Member, Reply, Session
from ensemble.request import Answer, Request
from ensemble.zoo.tasks import Item, check, generate

MESSAGES = {"adder": 0, "words": 0, "mixed": 0, "pairs": 0}


class Counted(EngineMember):
    """Counts the messages to its sessions."""

    async def start(self, request: Request) -> Session:
        session = await super().start(request)
        send, name = session._send, self.name

        async def counted(exchange: Exchange) -> Reply:
            MESSAGES[name] += exchange.question is not None
            return await send(exchange)

        session._send = counted  # type: ignore[method-assign]
        return session


@asynccontextmanager
async def loaded(*names: str) -> AsyncIterator[list[Member]]:
    engines = [(await start(ModelSettings(name=name, source=ZooSource(zoo=name))))[name] for name in names]
    MESSAGES.update(dict.fromkeys(MESSAGES, 0))
    try:
        yield [Counted(engine) for engine in engines]
    finally:
        for engine in engines:
            await engine.shut()


def items(count: int) -> list[Item]:
    return [item for task in ("add", "chain", "reverse", "capital") for item in generate(task, count, seed=4)]


async def answers(member: Member, asked: Sequence[Item]) -> list[Answer]:
    return await together(member.answer(Request.of(item.prompt, max_tokens=64)) for item in asked)


def right(asked: Sequence[Item], given: Sequence[Answer]) -> int:
    return sum(check(item, answer.text) for item, answer in zip(asked, given, strict=True))


@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
async def test_twins_write_what_the_one_writes(fidelity: str) -> None:
    """With ``reference`` the second tokenises text, and canonical ids are not always those that the first wrote."""
    asked = items(4)
    async with loaded("words") as (member,):
        alone = await answers(member, asked)
        twins = await answers(safe([member, member], fidelity=fidelity), asked)
    same = [one.text == other.text for one, other in zip(alone, twins, strict=True)]
    if fidelity == "fixed":
        assert all(same) and not any(map(disputes, twins))
    else:
        assert sum(same) >= 12


async def test_members_with_different_tokenizers_help_one_another() -> None:
    """Each alone is right in half of the tasks; at an unsure first token the other's answer wins."""
    asked = items(8)
    async with loaded("adder", "words") as members:
        alone = [right(asked, await answers(member, asked)) for member in members]
        both = await answers(safe(members), asked)
        assert right(asked, both) >= max(alone) + 4
        assert 0 < sum(len(disputes(answer)) for answer in both) < 3 * len(asked)


async def test_a_long_answer_takes_a_fraction_of_the_messages_of_lockstep() -> None:
    asked = generate("chain", 8, seed=4)
    async with loaded("adder", "words") as members:
        spans = await answers(safe(members), asked)
        drafting = dict(MESSAGES)
        MESSAGES.update(dict.fromkeys(MESSAGES, 0))
        tokens = await answers(Ensemble("e", "gac", members), asked)
        lockstep = dict(MESSAGES)
    assert right(asked, spans) >= right(asked, tokens) - 1
    assert 3 * sum(drafting.values()) < sum(lockstep.values())


@pytest.mark.parametrize("names", [("mixed", "words", "pairs"), ("pairs", "mixed"), ("words", "adder")])
@pytest.mark.parametrize("fuse", ["gac", "unite"])
async def test_any_members_in_any_order_write_whole_answers(names: Sequence[str], fuse: str) -> None:
    asked = items(3)
    async with loaded(*names) as members:
        for drafted in await answers(safe(members, fuse=fuse), asked):
            assert drafted.text and "�" not in drafted.text
            assert set(drafted.usage) == set(names)
            writers = {name for _, credits in drafted.choices[0].credits for name in credits}
            assert writers and writers <= set(names)


async def test_text_no_member_was_taught_is_read_all_the_same() -> None:
    async with loaded("words", "pairs", "mixed") as members:
        request = Request(
            prompt="naïve café 漢字 🙂", partial="ça va ", sampling=Request.of("?", max_tokens=24).sampling
        )
        answer = await safe(members, fuse="unite").answer(request)
    assert answer.choices[0].finish_reason in ("stop", "length") and answer.usage["words"].completion_tokens > 0
