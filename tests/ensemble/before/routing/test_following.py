"""A router in service: new artifacts, feedback, and both at once."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.before.routing import following
from ensemble.before.routing.desk import Desk
from ensemble.before.routing.feedback import Feedback, Judged, Page, Preferred, read
from ensemble.before.routing.following import Follower
from ensemble.ensemble import Ensemble
from ensemble.errors import MemberLost
from ensemble.request import Request
from tests.ensemble.before.routing.desks import QUALITY, artifact, ensemble, router, trace

OTHER = {**QUALITY, "c": (1.0, 1.0, 1.0)}
"""A router by which ``c`` is always the best."""


@dataclass
class Told:
    """Feedback that is asked for."""

    rows: list[Feedback] = field(default_factory=list)
    page: int = 100
    error: Exception | None = None

    def say(self, member: str, quality: float, question: str = "word 1") -> None:
        number = len(self.rows) + 1
        self.rows.append(Judged(sequence=number, question=question, member=member, quality=quality))

    async def pull(self, after: int) -> Page:
        if self.error is not None:
            raise self.error
        rows = self.rows[after : after + self.page]
        return Page(rows, after + len(rows), after + len(rows) == len(self.rows))


async def choice(routed: Ensemble, question: str = "word 1") -> str:
    return str(trace(await routed.answer(Request.of(question)))["answers"][0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return artifact(tmp_path / "router")


async def test_feedback_changes_the_choice(path: Path) -> None:
    routed, told = ensemble(path), Told(page=1)
    follower = Follower(routed.prepared, told.pull)
    assert await choice(routed) == "b"
    told.say("b", 0.0)
    told.say("nobody", 1.0)
    await follower.follow()
    assert await choice(routed) == "c"
    stats = routed.prepared.stats()
    assert (stats["feedback_learned", ()], stats["feedback_passed_over", ()]) == (1, 1)


async def test_feedback_is_learned_once(path: Path) -> None:
    routed, told = ensemble(path), Told()
    follower = Follower(routed.prepared, told.pull)
    told.say("b", 0.0)
    for _ in range(3):
        await follower.follow()
    assert routed.prepared.stats()["feedback_learned", ()] == 1


async def test_what_was_learned_before_a_failure_is_not_learned_again(path: Path) -> None:
    routed, told = ensemble(path), Told(page=1)
    for quality in (0.0, 0.5, 1.0):
        told.say("b", quality)
    asked: list[int] = []

    async def fails_once(after: int) -> Page:
        asked.append(after)
        if len(asked) == 2:
            raise MemberLost("away")
        return await told.pull(after)

    follower = Follower(routed.prepared, fails_once)
    with pytest.raises(MemberLost):
        await follower.follow()
    await follower.follow()
    assert asked == [0, 1, 1, 2]
    assert routed.prepared.stats()["feedback_learned", ()] == 3


async def test_an_encoder_that_fails_between_two_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routed, told = ensemble(path), Told()
    monkeypatch.setattr(following, "_BLOCK", 2)
    for i in range(6):
        told.say("b", 0.0, f"word {i}")
    encoder, asked = type(routed.prepared.loaded.router.encoder), []
    embed = encoder.embed

    def fails_once(self: Any, texts: Sequence[str]) -> Any:
        asked.append(list(texts))
        if len(asked) == 2:
            raise MemberLost("away")
        return embed(self, texts)

    monkeypatch.setattr(encoder, "embed", fails_once)
    follower = Follower(routed.prepared, told.pull)
    with pytest.raises(MemberLost):
        await follower.follow()
    await follower.follow()
    assert asked == [["word 0", "word 1"], *[["word 2", "word 3"]] * 2, ["word 4", "word 5"]]
    assert routed.prepared.stats()["feedback_learned", ()] == 6


async def test_what_cannot_be_learned_is_passed_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routed, told = ensemble(path), Told()
    learn = routed.prepared.loaded.router.head.learn

    def fails(outcome: Any) -> None:
        if outcome.quality == 0.5:
            raise ArithmeticError("singular")
        learn(outcome)

    monkeypatch.setattr(routed.prepared.loaded.router.head, "learn", fails)
    for quality in (0.5, 0.0):
        told.say("b", quality)
    await Follower(routed.prepared, told.pull).follow()
    assert await choice(routed) == "c"
    stats = routed.prepared.stats()
    assert (stats["feedback_learned", ()], stats["feedback_passed_over", ()]) == (1, 1)


async def test_an_embedding_that_is_no_number_teaches_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routed, told = ensemble(path), Told()
    told.say("b", 0.0)
    with monkeypatch.context() as broken:
        nothing = np.full((1, 3), np.nan, np.float32)
        broken.setattr(type(routed.prepared.loaded.router.encoder), "embed", lambda *_: nothing)
        await Follower(routed.prepared, told.pull).follow()
    assert await choice(routed) == "b"


async def test_feedback_that_was_begun_anew_is_followed_from_its_end(path: Path) -> None:
    artifact(path, settings={"feedback": 7})
    routed, told = ensemble(path), Told()

    async def short(after: int) -> Page:
        rows = told.rows[after:]
        return Page(rows, len(told.rows), complete=True)

    follower = Follower(routed.prepared, short)
    await follower.follow()
    told.say("b", 0.0)
    await follower.follow()
    assert await choice(routed) == "c"


async def test_learning_lets_requests_have_their_turn(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routed, told = ensemble(path), Told()
    for _ in range(20):
        told.say("a", 1.0, "sum 1")
    learn = routed.prepared.loaded.router.head.learn

    def slow(outcome: Any) -> None:
        time.sleep(0.003)
        learn(outcome)

    monkeypatch.setattr(routed.prepared.loaded.router.head, "learn", slow)
    learning = asyncio.create_task(Follower(routed.prepared, told.pull).follow())
    answers = 0
    while not learning.done():
        await routed.answer(Request.of("word 1"))
        answers += 1
    assert answers >= 3


async def test_copies_agree_however_they_hear_of_it(path: Path) -> None:
    told = Told(page=2)
    early, late = ensemble(path), ensemble(path)
    following = Follower(early.prepared, told.pull)
    for i in range(7):
        told.say("abc"[i % 3], (i % 4) / 4, f"{('sum', 'word')[i % 2]} {i}")
        await following.follow()
    await Follower(late.prepared, told.pull).follow()
    one, other = (desk.prepared.loaded.router.predict(np.eye(3, dtype=np.float32)) for desk in (early, late))
    assert np.array_equal(one.quality, other.quality)


async def test_a_new_artifact_takes_the_place_of_the_old_one(path: Path) -> None:
    routed = ensemble(path)
    follower = Follower(routed.prepared, None)
    await follower.look()
    assert await choice(routed) == "b"
    artifact(path, router(OTHER))
    await follower.look()
    assert await choice(routed) == "c"
    assert routed.prepared.stats()["route_artifacts", (("outcome", "taken"),)] == 1


async def test_it_learns_what_was_said_before_and_only_after_it_was_fitted(path: Path) -> None:
    routed, told = ensemble(path), Told()
    follower = Follower(routed.prepared, told.pull)
    for quality in (0.0, 0.0, 1.0):
        told.say("c", quality)
    await follower.follow()
    artifact(path, router(OTHER), settings={"feedback": 2})
    await follower.look()
    assert await choice(routed) == "c"
    artifact(path, router({**OTHER, "a": (0.0, 0.0, 0.0)}))
    told.rows.pop()
    await follower.look()
    # Without a note of what it was fitted on, it learns everything: c was wrong twice.
    assert await choice(routed) == "b"


@pytest.mark.parametrize("broken", ["manifest", "tensors", "another method", "another member"])
async def test_a_broken_artifact_leaves_the_old_one_in_service(path: Path, broken: str) -> None:
    routed = ensemble(path)
    follower = Follower(routed.prepared, None)
    await follower.look()
    _break(path, broken)
    await follower.look()
    await follower.look()
    assert await choice(routed) == "b"
    assert routed.prepared.stats()["route_artifacts", (("outcome", "refused"),)] == 1
    artifact(path, router(OTHER))
    await follower.look()
    assert await choice(routed) == "c"


def _break(path: Path, how: str) -> None:
    if how == "manifest":
        (path / "manifest.json").write_text("{")
    elif how == "tensors":
        artifact(path, router(OTHER))
        (path / "tensors.safetensors").write_bytes(b"torn")
    elif how == "another method":
        manifest = path / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"knn_router"', '"carrot"'))
    else:
        artifact(path, router({"a": (1.0, 1.0, 1.0), "z": (0.0, 0.0, 0.0)}))


async def test_a_folder_that_is_copied_file_by_file_is_taken_when_it_is_whole(path: Path, tmp_path: Path) -> None:
    routed = ensemble(path)
    follower = Follower(routed.prepared, None)
    await follower.look()
    new = artifact(tmp_path / "new", router(OTHER))
    # The tensors of both fits are of the same shapes: nothing but their digest tells them apart.
    for name, expected in (("manifest.json", "b"), ("tensors.safetensors", "c")):
        shutil.copy(new / name, path / name)
        for _ in range(2):
            await follower.look()
        assert await choice(routed) == expected
    counts = routed.prepared.stats()
    assert [counts["route_artifacts", (("outcome", outcome),)] for outcome in ("refused", "taken")] == [1, 1]


async def test_a_router_that_predicts_no_numbers_is_refused(path: Path) -> None:
    routed = ensemble(path)
    made = router(OTHER)
    made.costs.means[:] = np.nan  # type: ignore[attr-defined]
    artifact(path, made)
    await Follower(routed.prepared, None).look()
    assert await choice(routed) == "b"


@pytest.mark.parametrize(
    ("old", "new"),
    [('"k": 1', '"k": "one"'), ('"best": 0', '"best": 9'), ('"best": 0', '"best": null'), ('"members": [', '"is": [')],
)
async def test_a_manifest_that_somebody_has_changed_is_refused(path: Path, old: str, new: str) -> None:
    routed = ensemble(path)
    manifest = path / "manifest.json"
    told = manifest.read_text()
    assert old in told
    manifest.write_text(told.replace(old, new))
    await Follower(routed.prepared, None).look()
    assert routed.prepared.stats()["route_artifacts", (("outcome", "refused"),)] == 1
    assert await choice(routed) == "b"


async def test_a_request_ends_with_the_router_it_began_with(path: Path) -> None:
    routed = ensemble(path)
    desk: Desk = routed.prepared
    old = desk.loaded
    reading = asyncio.create_task(desk.read(old, "word 1", 1.0))
    artifact(path, router(OTHER))
    await Follower(desk, None).look()
    assert desk.loaded is not old
    assert (await reading).prediction.quality[0].round(6).tolist() == [0.2, 0.8, 0.4]


async def test_no_request_fails_while_artifacts_are_replaced(path: Path) -> None:
    routed = ensemble(path)
    follower = asyncio.create_task(Follower(routed.prepared, None, every=0.001).run())
    seen: set[tuple[str, str]] = set()

    async def asks() -> None:
        for _ in range(150):
            told = trace(await routed.answer(Request.of("word 1")))
            seen.add((told["artifact"], told["answers"][0]))
            await asyncio.sleep(0.001)

    async def replaces() -> None:
        for i in range(8):
            await asyncio.to_thread(artifact, path, router((OTHER, QUALITY)[i % 2]))
            await asyncio.sleep(0.02)

    await asyncio.gather(replaces(), *(asks() for _ in range(4)))
    follower.cancel()
    with suppress(asyncio.CancelledError):
        await follower
    assert {member for _, member in seen} == {"b", "c"} and len(seen) == 2


async def test_what_goes_wrong_is_tried_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    routed, told = ensemble(path), Told(error=MemberLost("away"))
    told.say("b", 0.0)
    follower = asyncio.create_task(Follower(routed.prepared, told.pull, every=0.001).run())
    await asyncio.sleep(0.05)
    assert routed.prepared.counts["route_follow_failures", ()] >= 1 and await choice(routed) == "b"
    told.error = None
    await asyncio.sleep(0.05)
    assert await choice(routed) == "c"
    follower.cancel()
    assert "away" in caplog.text


async def test_those_that_ask_in_one_tick_are_read_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routed = ensemble(path)
    sizes: list[int] = []
    embed = type(routed.prepared.loaded.router.encoder).embed

    def counted(self: Any, texts: Sequence[str]) -> Any:
        sizes.append(len(texts))
        return embed(self, texts)

    monkeypatch.setattr(type(routed.prepared.loaded.router.encoder), "embed", counted)
    asked = [Request.of(f"{word} {i % 3}") for i, word in enumerate(("sum", "word") * 6)]
    answers = await asyncio.gather(*(routed.answer(request) for request in asked))
    assert [answer.text for answer in answers] == ["a", "b"] * 6
    assert sizes == [6]


def test_feedback_of_a_journal() -> None:
    shared = {"sequence": 3, "question": "q", "ensemble": "r"}
    judged = read({**shared, "kind": "outcome", "member": "a", "quality": 0.5, "cost": None, "latency": 2})
    assert isinstance(judged, Judged) and (judged.quality, judged.latency) == (0.5, 2.0) and np.isnan(judged.cost)
    preferred = read({**shared, "kind": "preference", "winner": "a", "loser": "b", "tie": True})
    assert preferred == Preferred(sequence=3, question="q", winner="a", loser="b", tie=True)
    assert read({**shared, "kind": "route"}) is None
