"""Requests with the same id, which clients choose, have nothing to do with one another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.serving.conftest import body

if TYPE_CHECKING:
    from tests.serving.conftest import Door

SAME = {"x-request-id": "the-same"}
QUESTIONS = ("12+34=", "47+38=", "5+6=", "90+9=")

pytestmark = pytest.mark.usefixtures("free")


@pytest.mark.parametrize("model", ["mixed", "gac", "forest"])
def test_each_has_its_own_answer(door: Door, model: str) -> None:
    alone = [door.text(model, question, seed=1) for question in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        together = list(pool.map(lambda question: answer(door, model, question, seed=1), QUESTIONS))
    assert [text for text, _ in together] == alone
    assert {name for _, name in together} == {"the-same"}


def test_one_that_leaves_takes_no_other_along(door: Door) -> None:
    with ThreadPoolExecutor(2) as pool:
        stays = pool.submit(answer, door, "ramble", "go", max_tokens=150)
        with door.http.stream("POST", "/v1/chat/completions", json=long("ramble"), headers=SAME) as leaves:
            assert next(leaves.iter_text())
        text, _ = stays.result()
    assert text == door.text("ramble", "go", max_tokens=150)


def answer(door: Door, model: str, question: str, **fields: Any) -> tuple[str, str]:
    """The answer, and the id that it came under."""
    reply = door.http.post("/v1/chat/completions", json=body(model, question, **fields), headers=SAME)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"], reply.headers["x-request-id"]


def long(model: str) -> dict[str, Any]:
    return body(model, "go", max_tokens=1900, stream=True)
