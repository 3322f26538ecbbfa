"""The tables of all cells, from the pieces in which they were read."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from spine_tasks.cell import Cell
from spine_tasks.collect.cell_rows import counts, joined
from spine_tasks.collect.long_table import to_frame
from spine_tasks.collect.reading import Reading
from spine_tasks.collect.schema import COLUMNS


def long_table_of(grid: str, cells: Sequence[Cell], reading: Reading) -> pd.DataFrame:
    """The scores of some cells, in their order, as `schema.SCHEMA` has them.

    Parameters
    ----------
    grid
        The name that it was launched as.
    cells
        One or more.
    """
    ids = [cell.id for cell in cells]
    rows = list(counts(reading.cases, ids).values())
    of_cell = {
        "grid": _repeated([grid] * len(cells), rows),
        "cell": _repeated(ids, rows),
        "arm": _repeated([cell.arm_name for cell in cells], rows),
        "split": _repeated([cell.split for cell in cells], rows),
        "fold": np.repeat(np.array([cell.fold for cell in cells], np.int32), rows),
        "seed": np.repeat(np.array([cell.seed for cell in cells], np.int64), rows),
    }
    in_cell = to_frame(joined(reading.cases, ids))
    return pd.DataFrame(of_cell | dict(in_cell.items()), columns=COLUMNS, copy=False)


def histories_of(cells: Sequence[Cell], reading: Reading) -> pd.DataFrame:
    """A row a cell and epoch: what its record says, then `arm, fold, seed`.

    The columns come in the order of the alphabet, and one without a value is left out.
    """
    ids = [cell.id for cell in cells]
    rows = list(counts(reading.histories, ids).values())
    table = joined(reading.histories, ids)
    columns = {
        name: table[name].to_numpy()
        for name in sorted(table.column_names)
        if table[name].null_count < len(table)
    }
    for name in ("epoch", "best_epoch"):  # whole numbers, but where a record lacks it
        if name in columns and not np.isnan(columns[name]).any():
            columns[name] = columns[name].astype(np.int64)
    arms = np.array([cell.arm_name for cell in cells], object)
    return pd.DataFrame(columns).assign(
        arm=pd.Series(arms[np.repeat(np.arange(len(cells)), rows)], dtype="str"),
        fold=np.repeat([cell.fold for cell in cells], rows),
        seed=np.repeat([cell.seed for cell in cells], rows),
    )


def _repeated(texts: Sequence[str], counts: Sequence[int]) -> pd.Categorical:
    """Each text so many times, the categories in the order of the alphabet."""
    names, codes = np.unique(np.array(texts, object), return_inverse=True)
    return pd.Categorical.from_codes(np.repeat(codes, counts), pd.Index(names, dtype="str"))
