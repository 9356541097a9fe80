"""Tables of others, as they are: Parquet, JSON lines, CSV, or a folder's outcome table in long form.

Knows nothing of what their columns mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ensemble.errors import BadRequest
from jobs.inputs import READERS, opened

_ENDINGS = (*READERS, ".csv")


def rows(path: Path) -> pa.Table:
    """All columns of a file.

    Raises:
        BadRequest: it cannot be read, or a line of it is no row.
    """
    if not path.name.endswith(_ENDINGS):
        raise BadRequest(f"{path}: unknown format; a file name must end with one of: {', '.join(_ENDINGS)}")
    try:
        if path.name.endswith(".csv"):
            return pyarrow.csv.read_csv(path)
        if path.name.endswith(".parquet"):
            return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise BadRequest(f"{path}: the file cannot be read: {reason}", param="input") from error
    return _lines(path)


def require(table: pa.Table, names: Sequence[str], path: Path) -> None:
    """Refuse columns that are not there.

    Raises:
        BadRequest: naming those there are.
    """
    for name in names:
        if name not in table.column_names:
            has = ", ".join(table.column_names) or "none"
            raise BadRequest(f"{path} has no column {name!r}; it has: {has}", param=name)


def _lines(path: Path) -> pa.Table:
    source = opened(path)
    if source.schema.names:
        cells = (cell for chunk in source.cells(source.schema.names[0]) for cell in chunk)
        for row, cell in enumerate(cells):
            if cell.problem is not None:
                raise BadRequest(f"row {row} of {path}: {cell.problem}", param="input")
    return pa.concat_tables(list(source.tables())) if source.rows else source.schema.empty_table()
