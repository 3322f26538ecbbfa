"""The complete cells of an experiment: each file opened once, many scores parsed together."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from spine_tasks.cell import Cell
from spine_tasks.collect.cell_files import SCORES, CellFiles, Stamp, read_cell, stamp_of
from spine_tasks.collect.cell_histories import learned, parse_histories
from spine_tasks.collect.cell_rows import CellRows
from spine_tasks.collect.cell_scores import means_of, parse_scores
from spine_tasks.collect.runs import spent
from spine_tasks.experiment import Experiment

BATCH_BYTES = 1 << 25  # of scores that are parsed together
READERS = 8  # files asked for at once: over a network each answer takes its time
TRIED = 16  # cells by which it is found whether they do
SLOW_S = 0.003  # for one cell; six files at hand take a tenth of it

T = TypeVar("T")


@dataclass(frozen=True)
class Left:
    """What a complete cell left, beside its scores and epochs."""

    stamp: Stamp | None  # of its files as they were read; None: to be read anew the next time
    done: dict[str, Any]  # done.json without the predictions
    ran: dict[str, Any]  # columns of runs, as `learned` and `spent`
    means: dict[str, float]  # as `means_of`
    spoilt: str | None = None  # why its scores are to be made again; it has no rows then


@dataclass(frozen=True)
class Reading:
    """What cells left, and the pieces of tables that have their scores and their epochs."""

    cells: dict[str, Left] = field(default_factory=dict)
    cases: tuple[CellRows, ...] = ()
    histories: tuple[CellRows, ...] = ()

    def __add__(self, later: "Reading") -> "Reading":
        """Both; of a cell in both what was read later."""
        return Reading(
            self.cells | later.cells, self.cases + later.cases, self.histories + later.histories
        )


def read(experiment: Experiment, cells: Sequence[Cell], known: Reading) -> Reading:
    """Read what complete cells left, but those that are known and whose files did not change.

    Raises
    ------
    RunError
        A cell is not complete any more, or one of its files is not what it ought to be.
    DataError
        The long table does not allow a row of a scores.csv.
    """
    folder = str(experiment.folder)
    found = known
    with ThreadPoolExecutor(READERS) as pool:
        same = _of_each(pool, lambda cell: _unchanged(folder, cell, known), cells)
        anew = [cell for cell, unchanged in zip(cells, same, strict=True) if not unchanged]
        for batch in _batches(folder, anew):
            files = _of_each(pool, lambda cell: read_cell(experiment.folder / cell.id), batch)
            found += _made_of(experiment, batch, files)
    return found


def _of_each(pool: Executor, function: Callable[[Cell], T], cells: Sequence[Cell]) -> list[T]:
    """What a function says of each cell, by several threads if files are slow to come.

    Where they are at hand, threads only wait for each other.
    """
    start = time.perf_counter()
    found = [function(cell) for cell in cells[:TRIED]]
    if time.perf_counter() - start < SLOW_S * len(found):
        return found + [function(cell) for cell in cells[TRIED:]]
    return found + list(pool.map(function, cells[TRIED:]))


def _unchanged(folder: str, cell: Cell, known: Reading) -> bool:
    left = known.cells.get(cell.id)
    stamp = None if left is None else left.stamp
    return stamp is not None and stamp == stamp_of(f"{folder}/{cell.id}")


def _batches(folder: str, cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells whose scores together are not much larger than `BATCH_BYTES`."""
    batch: list[Cell] = []
    size = 0
    for cell in cells:
        with suppress(FileNotFoundError):  # which is said later
            size += os.stat(f"{folder}/{cell.id}/{SCORES}").st_size  # noqa: PTH116
        batch.append(cell)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _made_of(experiment: Experiment, cells: Sequence[Cell], files: Sequence[CellFiles]) -> Reading:
    whole = [(cell, one) for cell, one in zip(cells, files, strict=True) if one.spoilt is None]
    cases = parse_scores(experiment, [c for c, _ in whole], [one.scores for _, one in whole])
    histories = parse_histories(experiment, cells, [one.history for one in files])
    means, epochs = means_of(cases), learned(cells, histories)
    left = {
        cell.id: Left(
            stamp=one.stamp if one.spoilt is None else None,
            done=one.done,
            ran=epochs[cell.id] | spent(cell, one.attempts, one.resources, one.folder),
            means=means.get(cell.id, {}),
            spoilt=one.spoilt,
        )
        for cell, one in zip(cells, files, strict=True)
    }
    return Reading(left, (cases,), (histories,))
