"""The tables of an experiment as the page shows them: which rows and columns, in which order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.tables import Tables
from spine_tasks.metrics import METRICS
from spine_tasks.report.console import ALPHA, SHOWN, SHOWN_OF_SETS
from spine_tasks.report.page_columns import (
    Cell,
    Column,
    Kind,
    cell_of,
    column_of,
    ends_at,
    interval_of,
    metric_of,
    named,
)

MOST_ROWS = 500  # on the page; the CSV has all
MOST_FIRST = 24  # rows that are seen at first, unless one metric has more
SHORT = 26  # letters that stay on one line, as a time does
RUN_METRICS = 6  # columns of metrics in the table of runs
FIRST = (*SHOWN, *SHOWN_OF_SETS)  # metrics whose rows are seen at first
WHO = ("dropped", "person", "subject", "case", "slice")  # left to the CSV
LEFT = (
    "comparison",
    "by",
    "group",
    "label",
    "test_set",
    "metric",
    "factor",
    "level",
    "arm",
    "model",
)
KEPT = ("arm", "model", "cell")  # columns that stay even where all rows say the same
COUNTS = ("n_undefined", "values_undefined", "n_dropped", "seeds", "cells", "persons", "never")

_PAIRED = "n counts pairs of persons; dropped persons have no pair, and the CSV names them."
TITLES = {  # in the order of the page
    "generalization": ("Home and unseen data", _PAIRED),
    "matrix": ("Every model on every test set", "n counts persons."),
    "summary": ("Scores over persons", "n counts persons, whose values are averaged first."),
    "comparisons": ("Each arm minus the baseline, paired by person", _PAIRED),
    "pairs": ("All pairs of arms, paired by person", _PAIRED),
    "factors": (
        "Effects of single factors",
        "A level minus the baseline's level, averaged over the levels of the other factors. "
        "n counts persons.",
    ),
    "interactions": (
        "What two factors change together beyond the sum of both",
        "A difference of differences. n counts persons.",
    ),
    "sets": (
        "Scores of a whole test part",
        "Of all its images or places together; means over cells, intervals by resampling persons.",
    ),
    "groups": ("Scores of groups of persons", "n counts the persons of a group."),
    "raters": ("Agreement of raters", "n counts persons."),
    "seeds": (
        "Differences between seeds and between persons",
        "Undefined where no fold has two persons and two seeds.",
    ),
    "convergence": (
        "Speed of training",
        "Medians over cells; the mark is the baseline's best validation score.",
    ),
    "published": (
        "Published numbers beside ours",
        "What is published is as its authors give it, and was not computed here.",
    ),
    "runs": ("Runs", "A row a complete cell; scores are means over the n persons tested in it."),
}
_OF_RUNS = ("arm", "cell", "role", "fold", "seed", "chosen", "persons")
_OF_RUNS_LAST = (
    *("epochs_trained", "best_epoch", "attempts", "seconds", "gpu_hours", "gpu_hours_asked"),
    *("time", "commit", "code_sha256", "data_sha256"),
)


@dataclass(frozen=True)
class Row:
    """A row; only a significant one is emphasised."""

    cells: list[Cell]
    first: bool  # seen without asking for all
    classes: str  # `significant`, and `begins` where another label or metric begins


@dataclass(frozen=True)
class Shown:
    """A table of the page."""

    name: str
    title: str
    note: str
    common: list[str]  # what all rows say, which has no column
    columns: list[Column]
    rows: list[Row]
    total: int  # rows there are; more than `rows` where those were cut
    file: str = ""  # the CSV beside the page; empty without one

    @property
    def first(self) -> int:
        """How many rows are seen at first."""
        return sum(row.first for row in self.rows)


def shown_tables(gathered: Gathered, tables: Tables) -> list[Shown]:
    """The tables that have rows, as the page shows them."""
    arms = arms_in_order(gathered)
    there = {name: tables[name] for name in TITLES if name in tables and len(tables[name])}
    of_persons = gathered.of_persons
    for name, of in (("sets", "arm"), ("runs", "cell")):
        if name in there:  # whose numbers have no n of their own
            persons = of_persons.groupby(of)["person"].nunique()
            there[name] = there[name].assign(persons=there[name][of].map(persons))
    if "runs" in there:
        there["runs"] = _runs(there["runs"])
    return [
        shown(name, *TITLES[name], in_order(table, arms), file=f"{name}.csv")
        for name, table in there.items()
    ]


def shown(name: str, title: str, note: str, table: pd.DataFrame, file: str = "") -> Shown:
    """A table of at least one row as the page shows it, cut to MOST_ROWS."""
    marks = [*zip(_first(table), _classes(table), strict=True)][:MOST_ROWS]
    columns = [str(one) for one in table.columns if one not in WHO]
    columns.sort(key=lambda one: LEFT.index(one) if one in LEFT else len(LEFT))
    common = [one for one in columns if one not in KEPT and _says_the_same(one, table[one])]
    columns = [one for one in columns if one not in common]
    cells = [*_columns(table, columns)]
    rows = zip(*(values for _, values in cells), strict=True)
    return Shown(
        name=name,
        title=title,
        note=note,
        common=[_common(one, table[one]) for one in common],
        columns=[replace(column, short=_short(values)) for column, values in cells],
        rows=[Row(list(row), *mark) for row, mark in zip(rows, marks, strict=True)],
        total=len(table),
        file=file,
    )


def arms_in_order(gathered: Gathered) -> list[str]:
    """Names of the arms in the order of the grid; ensembles last."""
    planned = (cell.arm_name for cell in gathered.experiment.cells)
    return list(dict.fromkeys([*planned, *(cell.arm_name for cell in gathered.arms)]))


def in_order(table: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """Rows seen at first come first; those of a metric are by label, metric and arm."""
    place: dict[str, list[int]] = {"later": [int(not one) for one in _first(table)]}
    known = {"metric": [*FIRST, *METRICS], "arm": arms, "model": arms}
    for name in LEFT if "metric" in table else ():
        if name in table:
            order = list(dict.fromkeys([*known.get(name, ()), *table[name]]))
            place[name] = [order.index(one) for one in table[name]]
    ordered = pd.DataFrame(place).sort_values([*place], kind="stable")
    return table.iloc[ordered.index]


def _first(table: pd.DataFrame) -> list[bool]:
    """Which rows are seen at first: those of the metrics that are read first, as many as fit."""
    if "metric" not in table:
        return [True] * len(table)
    chosen: list[str] = []
    for metric in (one for one in FIRST if (table["metric"] == one).any()):
        if chosen and table["metric"].isin([*chosen, metric]).sum() > MOST_FIRST:
            break
        chosen.append(metric)
    return list(table["metric"].isin(chosen) | (not chosen))


def _classes(table: pd.DataFrame) -> list[str]:
    """How each row is marked; only a significant one is emphasised."""
    of = [one for one in LEFT[: LEFT.index("metric") + 1] if one in table]
    begins = (table[of] != table[of].shift()).any(axis=1)
    significant = table["p_holm"] < ALPHA if "p_holm" in table else begins & False
    return [
        " ".join(["significant"] * bool(bold) + ["begins"] * bool(other))
        for bold, other in zip(significant, begins, strict=True)
    ]


def _runs(runs: pd.DataFrame) -> pd.DataFrame:
    """What is read of the runs: who they are, main scores, time and versions; not every knob."""
    numbers = runs.select_dtypes("number")  # one knob has a metric's name
    of_metrics = [str(one) for one in numbers if metric_of(str(one)) in FIRST]
    of_metrics.sort(key=lambda one: FIRST.index(metric_of(one) or ""))
    chosen = [*_OF_RUNS, *of_metrics[:RUN_METRICS], *_OF_RUNS_LAST]
    return runs[[one for one in chosen if one in runs]].rename(columns={"cell": "id"})


def _says_the_same(name: str, values: "pd.Series[Any]") -> bool:
    """Whether a column is a line above the table: the same word or count in all rows."""
    word = name in COUNTS or not is_numeric_dtype(values)
    return word and len(values) > 1 and values.nunique(dropna=False) == 1


def _columns(table: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[Column, list[Cell]]]:
    """Each column with its cells; both ends of an interval are one column."""
    cut = table.head(MOST_ROWS)
    upper = {ends_at(name) for name in names}
    for name in names:
        column = column_of(name, table[name])
        if (other := ends_at(name)) in table:
            ends = zip(cut[name], cut[other], strict=True)
            yield column, [interval_of(low, high, column.kind) for low, high in ends]
        elif name == "metric":
            yield column, [Cell(_text(name, one)) for one in cut[name]]
        elif name not in upper:
            yield column, [cell_of(one, column.kind) for one in cut[name]]


def _short(cells: Sequence[Cell]) -> bool:
    return max(len(cell.text) for cell in cells) <= SHORT


def _common(name: str, values: "pd.Series[Any]") -> str:
    """What all rows say, as a line above the table."""
    column = column_of(name, values)
    return f"{column.head}: {_text(name, values.iloc[0], column.kind)}"


def _text(column: str, value: Any, kind: Kind = "text") -> str:
    return named(str(value)) if column == "metric" else cell_of(value, kind).text
