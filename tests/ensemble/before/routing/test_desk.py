"""The desk: what one request asks of it is no other's misfortune."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.before.routing.desk import Desk, Loaded
from ensemble.errors import MemberError
from ensemble.request import Incident, Request
from tests.ensemble.before.routing.desks import FirstWord, artifact, ensemble, router, trace


def broken() -> Loaded:
    made = router()
    made.head = None  # type: ignore[assignment]
    return Loaded(made, "broken")


async def test_who_asks_another_router_in_the_same_tick_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    good = Loaded(router(), "good")
    desk = Desk("routed", good)
    failed, read = await asyncio.gather(
        desk.read(broken(), "word 1", 1.0), desk.read(good, "word 1", 1.0), return_exceptions=True
    )
    assert isinstance(failed, MemberError) and "has failed: AttributeError" in failed.message
    assert "the router of routed has failed" in caplog.text
    assert not isinstance(read, BaseException) and read.prediction.quality[0].round(6).tolist() == [0.2, 0.8, 0.4]


@pytest.mark.parametrize("wrong", ["no numbers", "an error"])
async def test_where_the_router_fails_the_fallback_answers(tmp_path: Path, wrong: str) -> None:
    routed = ensemble(artifact(tmp_path / "router"))
    made = routed.prepared.loaded.router
    if wrong == "an error":
        made.head = None
    else:
        made.costs.means[1] = np.nan
    answer = await routed.answer(Request.of("word 1"))
    assert (answer.text, trace(answer)["why"]) == ("a", "unread")
    (incident,) = answer.choices[0].incidents
    assert isinstance(incident, Incident) and incident.reason in ("nan", "member_failed")
    assert sum(count for (name, _), count in routed.prepared.counts.items() if name == "route_unread") == 1


async def test_a_long_text_is_read_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk: Desk = ensemble(artifact(tmp_path / "router")).prepared
    embed, threads = FirstWord.embed, []

    def noted(self: FirstWord, texts: Sequence[str]) -> Any:
        threads.append(threading.current_thread())
        return embed(self, texts)

    monkeypatch.setattr(FirstWord, "embed", noted)
    for text in ("word 1", "word " + "x" * 100_000):
        await desk.read(desk.loaded, text, 1.0)
    assert threads[0] is threading.main_thread() is not threads[1]
