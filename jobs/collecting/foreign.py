"""Tables of others, as they are: Parquet, JSON lines or CSV.

What a CSV file holds is text: whether ``007`` is a name or a number is for those to say who know what the column means.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from ensemble.errors import BadRequest
from jobs.inputs import READERS, opened

_ENDINGS = (*READERS, ".csv")


def rows(path: Path) -> pa.Table:
    """All columns of a file; those of CSV as text.

    Raises:
        BadRequest: it cannot be read, a line of it is no row, or two columns have one name.
    """
    table = _read(path)
    if twice := [name for name in table.column_names if table.column_names.count(name) > 1]:
        raise BadRequest(f"{path} has the column {twice[0]!r} twice; allowed: once", param="input")
    return table


def _read(path: Path) -> pa.Table:
    if not path.name.endswith(_ENDINGS):
        raise BadRequest(f"{path}: unknown format; a file name must end with one of: {', '.join(_ENDINGS)}")
    try:
        if path.name.endswith(".csv"):
            return _texts(path)
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


def _texts(path: Path) -> pa.Table:
    # A text may go on in the next line.
    parsing = csv.ParseOptions(newlines_in_values=True)
    with csv.open_csv(path, parse_options=parsing) as file:
        names = file.schema.names
    types = dict.fromkeys(names, pa.large_string())
    return csv.read_csv(path, parse_options=parsing, convert_options=csv.ConvertOptions(column_types=types))


def _lines(path: Path) -> pa.Table:
    source = opened(path)
    if source.schema.names:
        cells = (cell for chunk in source.cells(source.schema.names[0]) for cell in chunk)
        for row, cell in enumerate(cells):
            if cell.problem is not None:
                raise BadRequest(f"row {row} of {path}: {cell.problem}", param="input")
    return pa.concat_tables(list(source.tables())) if source.rows else source.schema.empty_table()
