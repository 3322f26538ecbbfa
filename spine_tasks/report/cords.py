"""What collect prints of cord models: the matrix, and how the models generalise."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from spine_tasks.collect.generalization import PAIRED, TESTED, UNPAIRED
from spine_tasks.report.tables import new_table

CELL = len(" 0.999 ± 0.999 (99)*")  # letters of a test set's column
NOTHING = "-"


def cord_tables(matrix: pd.DataFrame, generalization: pd.DataFrame, width: int) -> Iterator[Table]:
    """The tables to print, of those that `spine_tasks.collect.generalization` makes.

    The matrix has a row a model and a column a test set, in several tables where not all columns
    fit into `width` letters.
    """
    shown = matrix[matrix["metric"] == TESTED]
    test_sets = list(shown["test_set"].unique())
    together = max(1, width // CELL - 1)  # beside the models' names
    for start in range(0, len(test_sets), together):
        yield _matrix(shown, test_sets[start : start + together])
    rows = [{str(k): v for k, v in row.items()} for row in generalization.to_dict("records")]
    if paired := [row for row in rows if row["comparison"] == PAIRED]:
        yield _against_general(paired)
    yield _home_against_unseen([row for row in rows if row["comparison"] == UNPAIRED])


def _matrix(shown: pd.DataFrame, test_sets: Sequence[str]) -> Table:
    title = f"{TESTED} ↑ of each model on each test set, mean ± sd (n); * home: trained on its data"
    made = new_table(title, "model", *(escape(one).replace(" ", "\n", 1) for one in test_sets))
    for model, own in shown.groupby("model", sort=False):
        found = own.set_index("test_set").to_dict("index")
        cells = [_cell(found[one]) if one in found else NOTHING for one in test_sets]
        made.add_row(escape(str(model)), *cells)
    return made


def _cell(row: dict[Any, Any]) -> str:
    home = "*" if row["home"] == "yes" else " "
    return f"{_number(row['mean'])} ± {_number(row['sd'])} ({row['n']}){home}"


def _against_general(rows: Sequence[dict[str, Any]]) -> Table:
    title = f"{TESTED} of the general model minus that of each other one, paired by person"
    heads = ("model", "where", "n", "dropped", "general", "model ", "difference", "95 % interval")
    made = new_table(title, *heads, "p", "Holm p", "least p")
    for row in rows:
        counts = (str(row["n"]), str(row["n_dropped"]))
        made.add_row(escape(row["model"]), row["where"], *counts, *_numbers(row))
    return made


def _home_against_unseen(rows: Sequence[dict[str, Any]]) -> Table:
    title = f"{TESTED} of each model at home minus that of other persons of unseen data sets"
    heads = ("model", "n home", "unseen", "dropped", "home", "unseen ", "difference")
    made = new_table(title, *heads, "95 % interval", "p", "Holm p", "least p")
    for row in rows:
        counts = (str(row["n"]), str(row["n_other"]), str(row["n_dropped"]))
        made.add_row(escape(row["model"]), *counts, *_numbers(row))
    return made


def _numbers(row: dict[str, Any]) -> Iterator[str]:
    """Both means, their difference, its interval and what p it has."""
    yield _number(row["mean"])
    yield _number(row["mean_other"])
    yield _number(row["difference"], "+.3f")
    yield NOTHING if pd.isna(row["low"]) else f"{row['low']:.3f} to {row['high']:.3f}"
    yield from (_number(row[name], ".2g") for name in ("p", "p_holm", "smallest_p"))


def _number(value: float, form: str = ".3f") -> str:
    return NOTHING if pd.isna(value) else format(value, form)
