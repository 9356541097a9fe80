"""Embeddings that are made together, remembered, and asked for by those who may leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from deployments.embedder import Embedding
from ensemble.outcomes.dense import Floats


class Counting:
    """Embeds a text as its length; counts what it is asked."""

    size = 1

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def embed(self, texts: Sequence[str]) -> Floats:
        self.go.wait(5)
        self.batches.append(list(texts))
        if "bad" in texts:
            raise ValueError("cannot be read")
        return np.array([[len(text)] for text in texts], np.float32)


async def test_rows_in_the_order_of_the_texts() -> None:
    embedding = Embedding(Counting(), batch=2, remembered=10)
    assert (await embedding.of(["aaa", "b", "aaa", "cc"])).tolist() == [[3], [1], [3], [2]]
    assert (await embedding.of([])).shape == (0, 1)


async def test_all_that_ask_meanwhile_are_embedded_together() -> None:
    encoder = Counting()
    encoder.go.clear()
    embedding = Embedding(encoder, batch=100, remembered=10)
    first = asyncio.create_task(embedding.of(["a"]))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(embedding.of([text])) for text in ("bb", "ccc", "bb")]
    await asyncio.sleep(0.01)
    encoder.go.set()
    assert [(await task).tolist() for task in (first, *others)] == [[[1]], [[2]], [[3]], [[2]]]
    assert encoder.batches == [["a"], ["bb", "ccc"]]


async def test_what_is_remembered_is_not_embedded_again() -> None:
    encoder = Counting()
    embedding = Embedding(encoder, batch=10, remembered=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await embedding.of([text])
    # "a" was asked for lately when "c" came, "b" was not.
    assert encoder.batches == [["a"], ["b"], ["c"], ["b"]] and embedding.hits == 2


async def test_who_leaves_takes_nobody_along() -> None:
    encoder = Counting()
    encoder.go.clear()
    embedding = Embedding(encoder, batch=10, remembered=10)
    leaving, staying = (asyncio.create_task(embedding.of(["a"])) for _ in range(2))
    await asyncio.sleep(0.01)
    leaving.cancel()
    encoder.go.set()
    assert (await staying).tolist() == [[1]]


async def test_a_text_that_cannot_be_read_takes_nobody_along() -> None:
    encoder = Counting()
    encoder.go.clear()
    embedding = Embedding(encoder, batch=10, remembered=10)
    first = asyncio.create_task(embedding.of(["a"]))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(embedding.of([text])) for text in ("bb", "bad", "ccc")]
    await asyncio.sleep(0.01)
    encoder.go.set()
    one, bad, other = await asyncio.gather(*others, return_exceptions=True)
    assert (await first).tolist() == [[1]] and isinstance(bad, ValueError)
    assert [row.tolist() for row in (one, other) if isinstance(row, np.ndarray)] == [[[2]], [[3]]]


async def test_rows_that_are_missing_keep_nobody_waiting() -> None:
    class Short(Counting):
        def embed(self, texts: Sequence[str]) -> Floats:
            return super().embed(texts)[1:]

    embedding = Embedding(Short(), batch=10, remembered=10)
    for _ in range(2):
        with pytest.raises(ValueError, match="0 rows of 1 texts"):
            await asyncio.wait_for(embedding.of(["a"]), 1)


async def test_what_is_remembered_is_no_part_of_a_batch() -> None:
    embedding = Embedding(Counting(), batch=10, remembered=10)
    await embedding.of(["a", "bb"])
    assert all(row.base is None for row in embedding._known.values())


async def test_a_failure_is_told_to_those_that_waited_for_it() -> None:
    embedding = Embedding(Counting(), batch=1, remembered=10)
    bad, good = await asyncio.gather(embedding.of(["bad"]), embedding.of(["a"]), return_exceptions=True)
    assert isinstance(bad, ValueError) and isinstance(good, np.ndarray)
    with pytest.raises(ValueError, match="cannot be read"):
        await embedding.of(["bad"])
