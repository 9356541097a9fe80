"""What a model computes and is no distribution is refused with its reason, so that it is counted by it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from random_models import BYTES, engine_of

from deployments.engines.engine import EngineMember
from deployments.engines.work import finite
from ensemble.errors import BadAnswer
from ensemble.request import Request


@pytest.mark.parametrize("row", [[np.nan] * 3, [np.nan, -1.0, -2.0]])
def test_rows_that_hold_no_numbers_are_counted_as_such(row: list[float]) -> None:
    with pytest.raises(BadAnswer) as refused:
        finite(np.array(row))
    assert refused.value.reason == "nan"


def test_impossible_tokens_are_numbers() -> None:
    row = np.array([-np.inf, 0.0])
    assert finite(row) is row


async def test_who_is_written_to_or_asked_hears_the_reason_and_the_member() -> None:
    engine = engine_of("llama")
    with torch.no_grad():
        engine._forward._model.get_input_embeddings().weight[BYTES.tokens.index(b"+")] = torch.nan
    member = EngineMember(engine)
    session = await member.start(Request.of("1+1="))
    answers = (session.next(3), member.answer(Request.of("2+2=", max_tokens=3)), member.answer(Request.of("3+")))
    told = await asyncio.gather(*answers, return_exceptions=True)
    assert [(type(error), error.reason, error.member) for error in told] == [(BadAnswer, "nan", "llama")] * 3
    assert len({id(error) for error in told}) == 3
    await session.close()
    await engine.shut()
