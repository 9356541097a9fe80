"""Arrays that grow at their end: an append costs its own row, not the whole array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_ROOM = 64
"""Rows that are made room for at least."""


def appended(rows: Array, count: int, row: npt.ArrayLike) -> Array:
    """The array with a row at place ``count``: the same one while it has room, else one with twice as much.

    Args:
        rows: [capacity, …], of which ``count`` hold something.
        row: […].
    """
    if count >= len(rows):
        wider = np.zeros((max(_ROOM, 2 * count), *rows.shape[1:]), rows.dtype)
        wider[:count] = rows[:count]
        rows = wider
    rows[count] = row
    return rows
