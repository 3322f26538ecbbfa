"""The scores of many cells parsed at once into the long table; an error names file and line."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from spine_tasks.cell import Cell
from spine_tasks.collect.cell_rows import CellRows, cell_rows
from spine_tasks.collect.long_table import AGAIN, parse
from spine_tasks.collect.schema import IN_CELL, check
from spine_tasks.errors import DataError
from spine_tasks.experiment import Experiment

HEADER = ",".join(IN_CELL).encode() + b"\n"


def parse_scores(
    experiment: Experiment, cells: Sequence[Cell], scores: Sequence[bytes]
) -> CellRows:
    """The rows of some cells' scores.csv, with its columns alone.

    Raises
    ------
    DataError
        A file has another header, or a row that the long table does not allow.
    """
    counts = []
    for cell, content in zip(cells, scores, strict=True):
        if not content.startswith(HEADER):
            raise DataError(
                f"{experiment.run(cell).scores}, line 1: the columns are not {', '.join(IN_CELL)}; "
                f"{AGAIN}"
            )
        counts.append(_rows(content))
    table = _parsed(experiment, cells, scores, counts)
    ids = [cell.id for cell in cells]
    ends = np.cumsum(counts)

    def where(row: int) -> str:
        number = int(np.searchsorted(ends, row, side="right"))
        line = row - int(ends[number]) + counts[number] + 2
        return f"{experiment.run(cells[number]).scores}, line {line}"

    check(table.append_column("cell", repeated(ids, counts)), where, AGAIN)
    return cell_rows(table, dict(zip(ids, counts, strict=True)))


def repeated(texts: Sequence[str], counts: Sequence[int]) -> pa.Array:
    """A column with each text so many times."""
    names = pa.array(texts, pa.string()).dictionary_encode()
    codes = np.repeat(names.indices.to_numpy(), counts)
    return pa.DictionaryArray.from_arrays(pa.array(codes), names.dictionary)


def means_of(rows: CellRows) -> dict[str, dict[str, float]]:
    """The mean over persons of each metric of each cell, by cell id and name of the metric.

    All values of a person are averaged first. Where a cell has several labels a name begins with
    that of the label, since a mean over labels would say nothing. NaN where no person has a value.
    """
    means: dict[str, dict[str, float]] = {cell: {} for cell in rows.spans}
    if not len(rows.table):
        return means
    counts = [end - start for start, end in rows.spans.values()]
    coded = {name: _coded(rows.table[name]) for name in ("label", "metric", "person")}
    key = np.repeat(np.arange(len(counts)), counts)
    for codes, names in coded.values():
        key = key * len(names) + codes
    values = pd.Series(rows.table["value"].to_numpy())
    of_persons = values.groupby(key, sort=False).mean()
    persons = len(coded["person"][1])
    of_metrics = of_persons.groupby(of_persons.index.to_numpy() // persons, sort=False).mean()
    cells, labels, metrics = list(rows.spans), coded["label"][1], coded["metric"][1]
    cell_label, metric = np.divmod(of_metrics.index.to_numpy(), len(metrics))
    several = np.bincount(np.unique(cell_label) // len(labels)) > 1
    for number, m, mean in zip(cell_label.tolist(), metric.tolist(), of_metrics, strict=True):
        cell, label = divmod(number, len(labels))
        name = f"{labels[label]}_{metrics[m]}" if several[cell] else metrics[m]
        means[cells[cell]][name] = mean
    return means


def _rows(content: bytes) -> int:
    """How many rows a table in text has; lines within quotes are of one row."""
    outside = content.split(b'"')[::2] if b'"' in content else (content,)
    return sum(part.count(b"\n") for part in outside) - 1


def _parsed(
    experiment: Experiment, cells: Sequence[Cell], scores: Sequence[bytes], counts: Sequence[int]
) -> pa.Table:
    """All rows from one parse; what is wrong is looked for file by file."""
    bodies = (memoryview(content)[len(HEADER) :] for content in scores)
    try:
        table = parse(b"".join([HEADER, *bodies]), experiment.folder, threads=True)
        if len(table) == sum(counts):
            return table
    except DataError:
        pass
    for cell, content, count in zip(cells, scores, counts, strict=True):
        file = experiment.run(cell).scores
        if len(parse(content, file)) != count:
            raise DataError(f"{file}: a line is empty, or the last one has no end; {AGAIN}")
    raise DataError(f"{experiment.folder}: the scores are whole one by one and not together")


def _coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[str]]:
    column = column.unify_dictionaries().combine_chunks()
    return column.indices.to_numpy(), column.dictionary.to_pylist()
