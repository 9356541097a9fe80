"""The slots' memory: copies in their order and on the pass's own time, growth that fails half-way, and its bounds."""

from __future__ import annotations

import pytest
import torch

from deployments.engines.slots import SlotCache, SlotTable


def write(cache: SlotCache, slot: int, start: int, values: list[float]) -> list[float]:
    """Write values as keys of one head; returns what the row then sees."""
    columns = torch.arange(start, start + len(values))[None]
    cache.place(torch.full_like(columns, slot), columns, [slot], start + len(values))
    states = torch.tensor(values)[None, None, :, None]
    for layer in (0, 1):
        keys, _ = cache.update(states, states, layer)
    return keys[0, 0, :, 0].tolist()


def test_copies_are_made_by_the_next_pass_in_their_order() -> None:
    cache = SlotCache(3)
    write(cache, 0, 0, [1.0, 2.0, 3.0])
    write(cache, 1, 0, [7.0, 8.0])
    cache.copy(0, 2, 2)
    cache.copy(1, 0, 2)
    assert cache._keys[0][2, 0, :2, 0].tolist() == [0.0, 0.0], "handing out slots moves nothing"
    assert write(cache, 2, 2, [9.0]) == [1.0, 2.0, 9.0]
    assert write(cache, 0, 2, [9.0]) == [7.0, 8.0, 9.0]


def test_a_slot_that_gives_its_prefix_away_may_itself_be_taken_over_in_the_same_plan() -> None:
    cache = SlotCache(2)
    table = SlotTable(cache)
    write(cache, 0, 0, [1.0, 2.0])
    first, second = table._slots
    first.ids, first.owner = [1, 2], "a"
    taken = table.acquire("b", [1, 2, 3], {"a", "b"}, 1)
    table.release("a")
    again = table.acquire("c", [5], {"b", "c"}, 1)
    assert (taken, again) == (second, first)
    assert write(cache, 1, 2, [3.0]) == [1.0, 2.0, 3.0]


def test_memory_that_ends_while_it_grows_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SlotCache(2)
    write(cache, 0, 0, [1.0])
    whole, made = cache._empty, []

    def ending(states: torch.Tensor, capacity: int) -> torch.Tensor:
        if made:
            raise torch.OutOfMemoryError("no memory")
        made.append(capacity)
        return whole(states, capacity)

    monkeypatch.setattr(cache, "_empty", ending)
    with pytest.raises(torch.OutOfMemoryError):
        write(cache, 0, 1, [2.0] * 100)
    monkeypatch.undo()
    assert write(cache, 0, 1, [3.0]) == [1.0, 3.0]
    assert write(cache, 0, 2, [4.0] * 100)[:3] == [1.0, 3.0, 4.0]


def test_it_grows_no_further_than_a_sequence_can() -> None:
    cache = SlotCache(1, longest=100)
    write(cache, 0, 0, [1.0] * 65)
    assert cache._keys[0].shape[2] == 65
    write(cache, 0, 65, [1.0])
    assert cache._keys[0].shape[2] == 100
    write(cache, 0, 66, [1.0] * 50)
    assert cache._keys[0].shape[2] == 116, "a tree may be wider"
