"""Key-value memory for all sessions of a replica: a fixed number of slots, each holding the cache of one id sequence.

A session does not own its slot for life. Slots are a cache of what sessions have computed: an idle session's slot is
given to another when none is free, and rebuilt from its ids when it is needed again. So an idle session never blocks
a request, and two engines with half-opened sessions cannot deadlock. A slot taken over is first filled with the
longest prefix that any slot already holds, so forks, the choices of one request and repeated prompts are computed once.

Knows nothing of sessions' meaning or of models; ``SlotCache`` is the side that transformers' attention layers see.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from transformers.cache_utils import Cache

from ensemble.vocabulary import common_prefix


class SlotCache(Cache):  # type: ignore[misc]
    """Keys and values of every slot and layer; grows in length as needed.

    One forward pass may hold any mixture of rows: row b writes its T tokens to (its slot, their columns) and attends
    to the first ``width`` columns of its slot under an explicit mask. One spare slot takes the padding.
    """

    def __init__(self, slots: int, longest: int | None = None) -> None:
        """
        Args:
            longest: columns that a sequence needs at most, trees not counted; ``None``: not known.
        """
        super().__init__(layers=[])
        self.slots = slots
        self._longest = longest
        self._copies: list[tuple[int, int, int]] = []
        """(source, target, columns) of copies that the next pass begins with."""
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._capacity = 0

    def place(self, slots: torch.Tensor, columns: torch.Tensor, rows: Sequence[int], width: int) -> None:
        """Say where the coming pass writes and reads.

        Args:
            slots, columns: shape [B, T], where each token's key and value go.
            rows: the slot each row attends to, ascending.
            width: columns that are read.
        """
        self._slots, self._columns, self._width = slots, columns, width
        consecutive = all(right == left + 1 for left, right in pairwise(rows))
        # A slice is a view, an index is a copy of every key of every row: decoding in neighbouring slots stays cheap.
        self._rows: Any = slice(rows[0], rows[-1] + 1) if consecutive else torch.tensor(rows, device=slots.device)
        self._copy()
        self._grow(width)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [B, heads, T, size] states; returns [B, heads, width, size] of every row's slot."""
        if layer_idx == len(self._keys):
            self._keys.append(self._empty(key_states, self._capacity))
            self._values.append(self._empty(value_states, self._capacity))
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        keys[self._slots, :, self._columns] = key_states.transpose(1, 2)
        values[self._slots, :, self._columns] = value_states.transpose(1, 2)
        return keys[self._rows, :, : self._width], values[self._rows, :, : self._width]

    def copy(self, source: int, target: int, length: int) -> None:
        """Fill the first columns of a slot from another, before the next pass writes anything."""
        # A long prefix is a gigabyte to move, which is nothing for the event loop that hands out slots. What is in a
        # slot changes in passes alone, so that the copies of one plan, in their order, are as good as done.
        self._copies.append((source, target, length))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self._width, 0

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(t.numel() * t.element_size() for t in (*self._keys, *self._values))

    def _copy(self) -> None:
        while self._copies:
            source, target, length = self._copies[0]
            for layer in (*self._keys, *self._values):
                layer[target, :, :length] = layer[source, :, :length]
            del self._copies[0]

    def _empty(self, states: torch.Tensor, capacity: int) -> torch.Tensor:
        _, heads, _, size = states.shape
        return states.new_zeros((self.slots + 1, heads, capacity, size))

    def _grow(self, width: int) -> None:
        if width <= self._capacity:
            return
        capacity = max(width, min(max(2 * self._capacity, 64), self._longest or 2**62))
        for layers in (self._keys, self._values):
            for i, old in enumerate(layers):
                if old.shape[2] < capacity:
                    layers[i] = self._empty(old, capacity)
                    layers[i][:, :, : old.shape[2]] = old
        # Last: where memory ends on the way, all layers still have at least what is promised.
        self._capacity = capacity


@dataclass(slots=True)
class Slot:
    """One slot: which ids its columns hold, and for whom."""

    index: int
    ids: list[int] = field(default_factory=list)
    owner: Hashable | None = None
    used: int = 0
    """Tick of the last use."""


class SlotTable:
    """Who has which slot."""

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        self._slots = [Slot(i) for i in range(cache.slots)]

    def acquire(self, owner: Hashable, ids: Sequence[int], busy: Container[Hashable], tick: int) -> Slot | None:
        """The owner's slot, or one taken over for it and filled with the longest known prefix of ``ids``.

        Slots of ``busy`` owners are not taken; ``None`` if there is no other. Of the rest, free ones go first, then
        the one whose owner has been idle longest.
        """
        slot = self.of(owner) or self._taken_over(owner, ids, busy)
        if slot is not None:
            slot.used = tick
        return slot

    def of(self, owner: Hashable) -> Slot | None:
        return next((s for s in self._slots if s.owner == owner), None)

    def release(self, owner: Hashable) -> None:
        """The slot becomes free; what it holds can still be copied."""
        slot = self.of(owner)
        if slot is not None:
            slot.owner = None

    @property
    def held(self) -> int:
        """Slots with an owner."""
        return sum(slot.owner is not None for slot in self._slots)

    def _taken_over(self, owner: Hashable, ids: Sequence[int], busy: Container[Hashable]) -> Slot | None:
        idle = [s for s in self._slots if s.owner is None or s.owner not in busy]
        if not idle:
            return None
        shared = {s.index: common_prefix(s.ids, ids) for s in self._slots}
        slot = min(idle, key=lambda s: (s.owner is not None, s.used if s.owner is not None else -shared[s.index]))
        best = max(self._slots, key=lambda s: shared[s.index])
        if shared[best.index] > shared[slot.index]:
            self._cache.copy(best.index, slot.index, shared[best.index])
            slot.ids = list(best.ids[: shared[best.index]])
        slot.owner = owner
        return slot
