"""The columns of the long table, the same for all grids, and what each of them may hold.

A row is one value: of a case, of one slice of it, or (case `*`) of all cases of a test part.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from spine_tasks.errors import DataError
from spine_tasks.metrics import METRICS, Metric
from spine_tasks.metrics.box_scores import SET

TEXT = pa.dictionary(pa.int32(), pa.string())  # of one width, so that tables of grids join
SCHEMA = pa.schema(
    {
        "grid": TEXT,  # the name it was launched as
        "cell": TEXT,  # its id
        "arm": TEXT,
        "split": TEXT,
        "fold": pa.int32(),  # from 0
        "seed": pa.int64(),  # from 0
        "person": TEXT,
        "subject": TEXT,
        "case": TEXT,  # `*`: of a whole test part, as are its person and subject then
        "slice": pa.int32(),  # from 0; missing of a value that is of no single slice
        "label": TEXT,
        "metric": TEXT,  # a name in `metrics.METRICS`, which has its unit and range
        "value": pa.float64(),  # NaN: undefined
    }
)
COLUMNS: list[str] = SCHEMA.names
TEXTS = [field.name for field in SCHEMA if field.type == TEXT]
OF_CELL = COLUMNS[:6]  # the same in all rows of a cell; the others are as in its scores.csv
IN_CELL = COLUMNS[6:]
VALUE_OF = ["cell", "case", "label", "metric"]  # and slice: what has one value
LARGEST = 2**62  # product of how many texts there are of each
ROUND_OFF = 1e-9  # a value may be outside its range by so much
OF_LABELS = {name.removesuffix("<label>"): METRICS[name] for name in METRICS if "<label>" in name}

Rows = NDArray[np.bool_]  # which rows are wrong, shape (n,)
Problem = tuple[Rows, Callable[[int], str]]  # and what is wrong with one of them


def check(table: pa.Table, where: Callable[[int], str], remedy: str) -> None:
    """Refuse rows that the long table does not allow.

    Parameters
    ----------
    table
        With columns of `SCHEMA`, each of its type; `fold` and what names the grid, the arm and the
        split may be missing.
    where
        The place of a row, numbered from 0, as the message names it: file and line.
    remedy
        What to do, as the message ends.

    Raises
    ------
    DataError
        A text is empty or missing; a metric is unknown; a number is missing, infinite, or negative
        where it counts; a value is outside the range of its metric, as percent or another unit is;
        a value of a slice has none, or another one has; a value of a whole set is of one case, or
        the other way round; or one value is there twice, the same or another.
    """
    for wrong, problem in _problems(table) if len(table) else ():
        if count := int(wrong.sum()):
            row = int(wrong.argmax())
            more = f", and so are {count - 1} more rows" if count > 1 else ""
            raise DataError(f"{where(row)}: {problem(row)}{more}; {remedy}")


def meaning(metric: str) -> Metric | None:
    """What `metrics.METRICS` says of a metric; None of an unknown one.

    Examples
    --------
    >>> meaning("DSC").maximum, meaning("found_as_disc").unit, meaning("dice")
    (1.0, 'boxes', None)
    """
    of_labels = (OF_LABELS[start] for start in OF_LABELS if metric.startswith(start))
    return METRICS.get(metric) or next(of_labels, None)


def _problems(table: pa.Table) -> Iterator[Problem]:
    text = {name: _coded(table[name]) for name in TEXTS if name in table.column_names}
    yield from _of_text(text)
    slices = table["slice"].cast(pa.float64()).to_numpy()  # NaN where there is none
    yield from _of_numbers(table, slices)
    yield from _of_metrics(text["metric"], text["case"], slices, table["value"].to_numpy())
    yield _twice(text, slices), _said("a second value of one case, label and metric")


def _twice(text: dict[str, "Coded"], slices: NDArray[np.float64]) -> Rows:
    """Whether what has one value had one in a row before."""
    key = np.nan_to_num(slices, nan=-1.0).astype(np.int64) + 1
    size = int(key.max()) + 1
    for name in VALUE_OF:
        codes, names = text[name]
        if size * len(names) > LARGEST:  # as small numbers as can be
            key = pd.factorize(key)[0]
            size = len(key)
        key, size = key * len(names) + codes, size * len(names)
    return pd.Series(key).duplicated().to_numpy()


def _said(text: str) -> Callable[[int], str]:
    return lambda _row: text


Coded = tuple[NDArray[np.int32], list[str]]  # of each row the place of its text


def _coded(column: pa.ChunkedArray) -> Coded:
    column = column.unify_dictionaries().combine_chunks()
    names: list[str] = column.dictionary.to_pylist()
    if not column.null_count:
        return column.indices.to_numpy(), names
    return column.indices.fill_null(len(names)).to_numpy(), [*names, ""]


def _of_text(text: dict[str, Coded]) -> Iterator[Problem]:
    for name, (codes, names) in text.items():
        yield np.array([not one for one in names])[codes], _said(f"{name} is empty")


def _of_numbers(table: pa.Table, slices: NDArray[np.float64]) -> Iterator[Problem]:
    for name in (name for name in ("fold", "seed", "value") if name in table.column_names):
        missing = table[name].is_null().to_numpy()
        yield missing, _said(f"{name} is missing (an undefined value is nan)")
        if name != "value":
            yield table[name].to_numpy() < 0, _said(f"{name} is below 0")
    yield slices < 0, _said("slice is below 0")
    value = table["value"].to_numpy()
    yield np.isinf(value), _said("value is infinite; an undefined one is nan")


def _of_metrics(
    metric: Coded, case: Coded, slices: NDArray[np.float64], value: NDArray[np.float64]
) -> Iterator[Problem]:
    codes, names = metric
    means = [meaning(name) for name in names]
    known = [one for one in means if one is not None]

    def told(row: int) -> str:
        return f"metric {names[codes[row]]}"

    unknown = np.array([one is None for one in means])[codes]
    yield unknown, lambda row: f"{told(row)} is not one of spine_tasks/metrics"
    low = np.array([one.minimum for one in known])[codes]
    high = np.array([one.maximum for one in known])[codes]

    def outside(row: int) -> str:
        ends = f"{low[row]:g} to {high[row]:g} {known[codes[row]].unit}".rstrip()
        return f"{told(row)} is {ends}, got {value[row]:g}, which may be of another unit"

    yield (value < low - ROUND_OFF) | (value > high + ROUND_OFF), outside
    of_slice = np.array([one.scope == "slice" for one in known])[codes]
    yield (
        of_slice == np.isnan(slices),
        lambda row: f"{told(row)} is of {'a' if of_slice[row] else 'no'} single slice",
    )
    of_set = np.array([one.scope == "set" for one in known])[codes]
    yield (
        of_set != np.array([one == SET for one in case[1]])[case[0]],
        lambda row: f"{told(row)} is of {'a whole set, case *' if of_set[row] else 'a case'}",
    )
