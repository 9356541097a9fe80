"""Passes that do not come to their end: what they leave in the cache counts for nothing, and a dead device is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from random_models import engine_of

from deployments.engines.engine import EngineMember
from deployments.engines.forward import Abandoned
from deployments.engines.transformers import TransformersEngine, row_for
from deployments.engines.writing import AheadWork
from ensemble.errors import MemberError, MemberLost
from ensemble.member import Append, Next, Session, Until
from ensemble.request import Request
from ensemble.testing.conformance import by_id


async def drafted(engine: TransformersEngine) -> tuple[Session, list[int]]:
    """A session with a draft of its own in the cache behind its continuation."""
    session = await EngineMember(engine).start(Request.of("hello"))
    return session, list((await session.propose(Until(tokens=4))).ids)


def failing(engine: TransformersEngine, error: Exception) -> Any:
    """Let passes fail in the second layer, when the first has written its keys."""

    def fail(*_: Any) -> None:
        raise error

    return engine._forward._model.model.layers[1].register_forward_pre_hook(fail)


@pytest.mark.parametrize("error", [RuntimeError("no memory"), Abandoned()])
async def test_what_a_broken_off_pass_wrote_over_is_not_taken_for_what_was_there(error: Exception) -> None:
    engine, fresh = engine_of("llama"), engine_of("llama")
    session, draft = await drafted(engine)
    (slot,) = [slot for slot in engine._table._slots if slot.owner is not None]
    hook = failing(engine, error)
    other = next(i for i in range(70, 90) if i not in draft)
    if isinstance(error, Abandoned):
        # As a pass on a guess is given up: at once, and nobody is told.
        work = AheadWork(next(iter(engine._sessions.values())), other)
        row = row_for(work, work.stem(), slot, 0)
        assert row is not None
        engine._compute([(work, slot, row)])
    else:
        with pytest.raises(MemberError, match="RuntimeError"):
            await session.exchange(Next(3), edit=Append((other,)))
    hook.remove()
    found = by_id((await session.exchange(Next(0), edit=Append(tuple(draft[:2])))).payload)  # type: ignore[arg-type]
    async with await EngineMember(fresh).start(Request.of("hello")) as clean:
        wanted = by_id((await clean.exchange(Next(0), edit=Append(tuple(draft[:2])))).payload)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    await engine.shut()
    await fresh.shut()


async def test_an_engine_whose_device_has_failed_is_dead_and_says_so() -> None:
    engine = engine_of("llama")
    member = EngineMember(engine)
    session, waiting = await member.start(Request.of("hello")), await member.start(Request.of("another"))
    failing(engine, torch.AcceleratorError("device-side assert"))
    with pytest.raises(MemberLost):
        await session.next(3)
    assert not engine.alive
    with pytest.raises(MemberLost):
        await waiting.next(3)
    with pytest.raises(MemberLost):
        await member.answer(Request.of("hello"))
    await engine.shut()


async def test_running_out_of_memory_ends_what_was_computed_and_not_the_engine() -> None:
    engine = engine_of("llama")
    session = await EngineMember(engine).start(Request.of("hello"))
    hook = failing(engine, torch.OutOfMemoryError("no memory"))
    with pytest.raises(MemberError, match="OutOfMemoryError"):
        await session.next(3)
    hook.remove()
    assert engine.alive and len((await session.next(3)).ids) == 3
    await engine.shut()
