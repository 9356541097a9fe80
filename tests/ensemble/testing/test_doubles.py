"""The shipped doubles keep the contract that they are used to test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensemble.errors import MemberLost
from ensemble.heads.experts import Experts
from ensemble.request import Request
from ensemble.testing import ScriptedMember, TinyMember
from ensemble.testing.conformance import EngineConformance
from ensemble.testing.heads import HeadConformance


class TestTinyMember(EngineConformance):
    @pytest.fixture
    def member(self) -> TinyMember:
        return TinyMember("tiny", seed=3, context_length=128)


class TestHeadsOfTinyMember(HeadConformance):
    @pytest.fixture
    def member(self) -> TinyMember:
        rows = torch.tensor(np.random.default_rng(0).normal(size=(2, TinyMember.WIDTH))).float()
        return TinyMember("tiny", seed=3, heads={"experts": Experts(rows, torch.zeros(2), ("law", "code"))})


async def test_a_scripted_member_fails_at_its_step() -> None:
    member = ScriptedMember("a", [b"x", b""], [b"x"] * 9, fail_at=2)
    async with await member.start(Request.of("?")) as session:
        await session.next(1)
        await session.next(1)
        with pytest.raises(MemberLost):
            await session.next(1)
    assert member.open_sessions == 0


async def test_a_member_gives_its_answers_in_turn() -> None:
    member = ScriptedMember.answering("a", ["1", "2"])
    assert [(await member.answer(Request.of("?"))).text for _ in range(3)] == ["1", "2", "1"]
