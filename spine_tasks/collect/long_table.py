"""The long table in files: every score of a grid's runs, one value a row.

`cases.parquet` holds it always, `cases.csv` too up to `CSV_ROWS` rows. pandas reads both in one
line, those of several grids together; `load_cases` checks what it reads against `schema.SCHEMA`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv, parquet

from spine_tasks.collect.schema import COLUMNS, SCHEMA, TEXT, check
from spine_tasks.errors import DataError
from spine_tasks.files import replacing, sha256

CSV_ROWS = 1_000_000  # more are over 100 MB of text, which few programs open
ROWS_AT_ONCE = 1 << 20  # that are in memory a second time while they are written
FILE = "cases.parquet"
AS_KEPT = {"compression": "zstd", "use_dictionary": COLUMNS[:-1], "write_page_checksum": True}
AGAIN = "delete the file and run jobs/collect.py, which writes it anew"


def load_cases(file: Path) -> pd.DataFrame:
    """A long table from a `cases.parquet` or a `cases.csv`, checked.

    Returns
    -------
    DataFrame
        The columns of `SCHEMA`, as `to_frame` has them.

    Raises
    ------
    DataError
        The file is not whole, has other columns, or a row that `check` refuses; the message says
        file, line (of a Parquet file the row) and what to do.
    """
    in_text = file.suffix == ".csv"
    table = _from_text(file) if in_text else _from_parquet(file)
    first, unit = (2, "line") if in_text else (1, "row")
    check(table, lambda row: f"{file}, {unit} {row + first}", AGAIN)
    return to_frame(table)


def write_cases(cases: pd.DataFrame, folder: Path) -> str:
    """Write `cases.parquet` into a folder, and `cases.csv` if the table is small enough.

    The `cases.csv` of an earlier, smaller table is removed, so that the two never differ.

    Parameters
    ----------
    cases
        With the columns of `SCHEMA`.

    Returns
    -------
    str
        The SHA-256 of `cases.parquet`.
    """
    with replacing(folder / FILE) as partial:
        with parquet.ParquetWriter(partial, SCHEMA, **AS_KEPT) as file:
            for part in _parts(cases):
                file.write_table(part)
        digest = sha256(partial)
    text = folder / "cases.csv"
    if len(cases) > CSV_ROWS:
        text.unlink(missing_ok=True)
        return digest
    with replacing(text) as partial:
        try:  # "needed" puts every text into quotes
            _write_text(cases, partial, "none")
        except pa.ArrowInvalid:  # a text has a comma, a quote or a line's end
            _write_text(cases, partial, "needed")
    return digest


def _parts(cases: pd.DataFrame) -> Iterator[pa.Table]:
    """The table in arrow, piece by piece; of no rows one without."""
    for start in range(0, len(cases) or 1, ROWS_AT_ONCE):
        part = cases.iloc[start : start + ROWS_AT_ONCE]
        columns = {name: pa.array(part[name], from_pandas=name == "slice") for name in COLUMNS}
        yield pa.table(columns).cast(SCHEMA)


def _write_text(cases: pd.DataFrame, file: Path, quoting: str) -> None:
    style = csv.WriteOptions(quoting_style=quoting, quoting_header="none")
    with csv.CSVWriter(file, SCHEMA, write_options=style) as out:
        for part in _parts(cases):
            out.write_table(part)


def _from_parquet(file: Path) -> pa.Table:
    try:
        table = parquet.read_table(file, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a whole Parquet file ({error}); {AGAIN}") from error
    _check_names(f"{file}", table.column_names)
    try:
        return table.cast(SCHEMA)
    except pa.ArrowException as error:
        raise DataError(f"{file}: a column of another type ({error}); {AGAIN}") from error


def parse(content: bytes, file: Path, threads: bool = False) -> pa.Table:
    """The rows of a table in text, columns of the long table in its types.

    Parameters
    ----------
    threads
        Parse on all processors, where a message has no line.

    Raises
    ------
    DataError
        The text is not UTF-8, a row has too many or too few values, or one is no number.
    """
    try:
        return csv.read_csv(
            source(content),
            csv.ReadOptions(use_threads=threads),
            csv.ParseOptions(newlines_in_values=b'"' in content),
            # A person may be called NA: only what is empty is missing.
            csv.ConvertOptions(
                column_types=dict(zip(COLUMNS, SCHEMA.types, strict=True)), null_values=[""]
            ),
        )
    except pa.ArrowException as error:
        found = re.search(r"Row #(\d+): ", str(error))
        line = f", line {found[1]}" if found else ""
        said = re.sub(r"Row #\d+: |In CSV column #\d+: ", "", str(error))
        raise DataError(f"{file}{line}: not a row of scores ({said}); {AGAIN}") from error


def source(content: bytes) -> pa.BufferReader:
    """What arrow reads bytes from, in its own memory.

    Its threads may let go of a file last, and end the process with a crash where that is an object
    of a Python that is ending.
    """
    copy = pa.BufferOutputStream()
    copy.write(content)
    return pa.BufferReader(copy.getvalue())


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A table of arrow as pandas has it, alike from whatever pieces it was joined.

    Text becomes categories, each of which occurs, in the order of the alphabet, so that groups come
    in that order; `slice` becomes a float, NaN where there is none.
    """
    columns = {
        name: _categories(table[name])
        if table[name].type == TEXT
        else table[name].cast(pa.float64() if name == "slice" else table[name].type).to_numpy()
        for name in table.column_names
    }
    return pd.DataFrame(columns, copy=False)


def _categories(column: pa.ChunkedArray) -> pd.Categorical:
    column = column.unify_dictionaries().combine_chunks()
    codes, names = column.indices.to_numpy(), np.array(column.dictionary.to_pylist(), object)
    used = np.flatnonzero(np.bincount(codes, minlength=len(names)))
    used = used[np.argsort(names[used])]
    place = np.zeros(len(names), np.int32)
    place[used] = np.arange(len(used))
    return pd.Categorical.from_codes(place[codes], categories=pd.Index(names[used], dtype="str"))


def _from_text(file: Path) -> pa.Table:
    content = file.read_bytes()
    head = content.partition(b"\n")[0].decode(errors="replace")
    _check_names(f"{file}, line 1", [name.strip('"\r') for name in head.split(",")])
    return parse(content, file)


def _check_names(where: str, names: list[str]) -> None:
    if names != COLUMNS:
        raise DataError(
            f"{where}: the columns are {', '.join(names)}, and a long table has exactly "
            f"{', '.join(COLUMNS)}; {AGAIN}"
        )
