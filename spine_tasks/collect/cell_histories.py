"""The epochs of many cells parsed at once into one table of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import json

from spine_tasks.cell import Cell
from spine_tasks.collect.cell_rows import CellRows, cell_rows
from spine_tasks.collect.long_table import source
from spine_tasks.errors import RunError
from spine_tasks.experiment import Experiment
from spine_tasks.files import parse_lines


def parse_histories(
    experiment: Experiment, cells: Sequence[Cell], contents: Sequence[bytes]
) -> CellRows:
    """A row an epoch of some cells' history.jsonl, as `Run.history` has them.

    Every column is a float, missing where a record lacks it.

    Raises
    ------
    RunError
        A value is no number; the message names the file.
    """
    ids = [cell.id for cell in cells]
    counts = [content.count(b"\n") for content in contents]
    if (table := _at_once(contents, counts)) is not None:
        return cell_rows(table, dict(zip(ids, counts, strict=True)))
    tables = [_one(experiment, *each) for each in zip(cells, contents, strict=True)]
    whole = pa.concat_tables(tables, promote_options="default")
    return cell_rows(whole, dict(zip(ids, map(len, tables), strict=True)))


def learned(cells: Sequence[Cell], epochs: CellRows) -> dict[str, dict[str, Any]]:
    """By cell id `epochs_trained`, and `best_epoch` with its `val_score` (NaN without)."""
    columns = {name: epochs.table[name].to_numpy() for name in epochs.table.column_names}
    missing = np.full(len(epochs.table), np.nan)
    at, bests = columns.get("epoch", missing), columns.get("best_epoch", missing)
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        start, end = epochs.spans[cell.id]
        best = bests[end - 1] if end > start else np.nan
        scores = columns.get(cell.config.chosen_by, missing)[start:end][at[start:end] == best]
        found[cell.id] = {
            "epochs_trained": end - start,
            "best_epoch": None if np.isnan(best) else int(best),
            "val_score": float(scores[0]) if len(scores) else np.nan,
        }
    return found


def _at_once(contents: Sequence[bytes], counts: Sequence[int]) -> pa.Table | None:
    """All epochs from one parse; None where a line was cut off, or is not the next epoch's."""
    together = b"".join(contents)
    if not together or not all(content.endswith(b"\n") for content in contents if content):
        return None
    try:
        table = json.read_json(source(together))
    except pa.ArrowException:
        return None
    numbers = all(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in table.schema.types
    )
    if len(table) != sum(counts) or not numbers or "epoch" not in table.column_names:
        return None
    first = np.zeros(len(table) + 1, bool)
    first[np.cumsum([0, *counts])] = True
    epoch = table["epoch"].to_numpy()
    if not (first[1:-1] | (np.diff(epoch) > 0)).all() or np.isnan(epoch).any():
        return None
    return table.cast(pa.schema([(name, pa.float64()) for name in table.column_names]))


def _one(experiment: Experiment, cell: Cell, content: bytes) -> pa.Table:
    file = experiment.run(cell).folder / "history.jsonl"
    by_epoch = {record["epoch"]: record for record in parse_lines(content, file)}
    records = [by_epoch[epoch] for epoch in sorted(by_epoch)]
    names = dict.fromkeys(name for record in records for name in record)
    try:
        columns = {name: pa.array([r.get(name) for r in records], pa.float64()) for name in names}
    except (pa.ArrowException, TypeError) as error:
        raise RunError(
            f"{file}: holds numbers only, got another value ({error}); take it out, or delete the "
            "cell's folder and launch the grid again"
        ) from error
    return pa.table(columns)
