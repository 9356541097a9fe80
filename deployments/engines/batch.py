"""One forward pass as arrays: tokens of many sessions at once, of different lengths, in chains and in trees.

A *span of tokens* to be computed is a ``Row``. Long rows are folded: since every token is written to its slot before
any is read, a row of 64 tokens can stand as 8 rows of 8, and a pass that mixes decoding with a chunk of prefill
carries little padding. Pure: numpy in, numpy out; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
_ROW_COST = 2
"""Folding cost of one more row, in padded tokens (measured on CPU: the copy of its keys)."""


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens to compute in one slot.

    Columns are where keys are stored; positions are what the model is told. They differ in trees only, where branches
    share positions but not columns.
    """

    slot: int
    start: int
    """Column of the first token; all columns before it are visible to every token of the row."""
    ids: Sequence[int]
    parents: Sequence[int] | None = None
    """Trees: index in the row of each token's parent, -1 for the stem; ``None``: a chain."""
    wanted: Sequence[int] = ()
    """Indices whose logits are wanted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays of one pass; B rows of T tokens."""

    ids: Array
    """[B, T]"""
    positions: Array
    """[B, T]"""
    slots: Array
    """[B, T], where tokens are stored; the spare slot for padding."""
    columns: Array
    """[B, T]"""
    rows: Array
    """[B], the slot each row reads."""
    visible: npt.NDArray[np.bool_]
    """[B, T, width]: columns that each token attends to."""
    distances: Array | None
    """[B, T, width]: position of the token minus position of the column, for sliding windows."""
    wanted: Array
    """[N, 2]: (b, t) of the wanted logits, in the order of the rows given and of their ``wanted``."""

    @property
    def width(self) -> int:
        return int(self.visible.shape[2])


def assemble(rows: Sequence[Row], spare: int, *, distances: bool = False) -> Batch:
    """Lay rows out as one pass.

    Args:
        rows: in order of slot, each in a slot of its own.
        spare: the slot that takes padding.
        distances: whether the model needs them (sliding windows).
    """
    length = _fold_length([len(row.ids) for row in rows])
    width = max(row.start + len(row.ids) for row in rows)
    pieces = [(row, at) for row in rows for at in range(0, len(row.ids), length)]
    shape = (len(pieces), length)
    ids, positions, columns = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    slots = np.full(shape, spare, np.int64)
    visible = np.zeros((*shape, width), bool)
    visible[:, :, 0] = True  # padding must see something, or its softmax is not a number
    column_positions = np.tile(np.arange(width), (len(pieces), 1))
    for b, (row, at) in enumerate(pieces):
        count = min(length, len(row.ids) - at)
        here = slice(at, at + count)
        depths, sight = _sight(row, width)
        ids[b, :count] = row.ids[here]
        positions[b, :count] = row.start + depths[here]
        columns[b, :count] = row.start + np.arange(at, at + count)
        slots[b, :count] = row.slot
        visible[b, :count] = sight[here]
        column_positions[b, row.start : row.start + len(row.ids)] = row.start + depths
    gaps = positions[:, :, None] - column_positions[:, None, :] if distances else None
    slot_of_piece = np.array([row.slot for row, _ in pieces], np.int64)
    return Batch(ids, positions, slots, columns, slot_of_piece, visible, gaps, _wanted(pieces, length))


def _fold_length(lengths: Sequence[int]) -> int:
    """The row length with the least padding and folding."""

    def cost(length: int) -> int:
        folded = sum(-(-n // length) for n in lengths)
        return folded * (length + _ROW_COST)

    candidates = {1 << i for i in range(max(lengths).bit_length() + 1)} | {max(lengths)}
    return min(sorted(candidates), key=cost)


def _sight(row: Row, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Depth of each token below the stem, shape [n], and the columns it sees, shape [n, width]."""
    count = len(row.ids)
    if row.parents is None:
        depths = np.arange(count)
        return depths, np.arange(width)[None, :] <= (row.start + depths)[:, None]
    depths = np.zeros(count, np.int64)
    sight = np.zeros((count, width), bool)
    sight[:, : row.start] = True
    for i, parent in enumerate(row.parents):
        if parent >= 0:
            depths[i] = depths[parent] + 1
            sight[i] |= sight[parent]
        sight[i, row.start + i] = True
    return depths, sight


def _wanted(pieces: Sequence[tuple[Row, int]], length: int) -> Array:
    first: dict[int, int] = {}
    for b, (row, _) in enumerate(pieces):
        first.setdefault(row.slot, b)
    places = [
        (first[row.slot] + index // length, index % length) for row, at in pieces if at == 0 for index in row.wanted
    ]
    return np.array(places, np.int64).reshape(-1, 2)
