"""What a collect keeps so that the next one reads only the cells whose files changed.

That is `cases.parquet` itself, and in the folder `collected/` the epochs of all cells and an index:
what else each cell left, and by which sizes and times its files are known to be the same. The index
is written last and has the digests of both tables. What does not fit it, was cut off or is of
another version is as good as lost, which costs time only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from spine_tasks.collect import long_table
from spine_tasks.collect.cell_rows import CellRows, cell_rows, counts, joined
from spine_tasks.collect.reading import Left, Reading
from spine_tasks.collect.schema import IN_CELL, SCHEMA
from spine_tasks.errors import RunError
from spine_tasks.files import read_json, replacing, sha256, write_json

FOLDER = "collected"  # in an experiment's folder
INDEX = "index.json"
EPOCHS = "histories.parquet"
VERSION = 1  # raise it with every change of what is kept, or of how it is made of a cell's files


@dataclass(frozen=True)
class Memory:
    """What is known of the cells of a long table, and of those that they start from."""

    cells: dict[str, Left]
    rows: dict[str, int]  # how many each cell of the table has, in its order
    epochs: dict[str, int]  # the same of its epochs
    histories: pa.Table  # which has these


def remembered(folder: Path) -> Reading:
    """What the last collect of an experiment's folder kept; nothing where that is lost."""
    try:
        index = read_json(folder / FOLDER / INDEX)
        if index["version"] != VERSION:
            return Reading()
        cases = _kept(folder / long_table.FILE, index["cases"], list(IN_CELL))
        table = cases.table.cast(pa.schema([SCHEMA.field(name) for name in IN_CELL]))
        return Reading(
            {cell: Left(**left) for cell, left in index["cells"].items()},
            (CellRows(table, cases.spans),),
            (_kept(folder / FOLDER / EPOCHS, index["epochs"]),),
        )
    except (OSError, RunError, KeyError, TypeError, ValueError, AttributeError, pa.ArrowException):
        return Reading()


def memory_of(reading: Reading, ids: Sequence[str], needed: Sequence[str]) -> Memory:
    """What to keep of the cells of the long table, in its order, and of those that they need."""
    return Memory(
        cells={cell: reading.cells[cell] for cell in (*needed, *ids)},
        rows=counts(reading.cases, ids),
        epochs=counts(reading.histories, ids),
        histories=joined(reading.histories, ids),
    )


def keep(folder: Path, cases: pd.DataFrame, memory: Memory) -> None:
    """Write the long table into an experiment's folder, and what the next collect knows by it.

    Parameters
    ----------
    cases
        The long table of the memory's cells.
    """
    digest = long_table.write_cases(cases, folder)
    epochs = folder / FOLDER / EPOCHS
    with replacing(epochs) as partial:
        parquet.write_table(memory.histories, partial)
        of_epochs = sha256(partial)
    index = {
        "version": VERSION,
        "cells": {cell: vars(left) for cell, left in memory.cells.items()},
        # Pairs, since the order of names in JSON is lost.
        "cases": [digest, list(memory.rows.items())],
        "epochs": [of_epochs, list(memory.epochs.items())],
    }
    write_json(folder / FOLDER / INDEX, index)


def _kept(
    file: Path, kept: tuple[str, list[tuple[str, int]]], columns: list[str] | None = None
) -> CellRows:
    digest, rows = kept
    if sha256(file) != digest:
        raise RunError(f"{file}: not as it was written")
    return cell_rows(parquet.read_table(file, columns=columns), dict(rows))
