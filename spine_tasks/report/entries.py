"""How a number reads in a table to publish, and the notes below the table."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from spine_tasks.collect.set_scores import REPLICATES
from spine_tasks.report.console import ALPHA
from spine_tasks.report.methods import HOLM, intervals, signed_rank
from spine_tasks.report.typeset import MINUS, NOTHING

ARROWS = "↑ higher is better, ↓ lower."

Row = dict[str, Any]  # of one of the collector's tables, by column; empty where it has none


def records(rows: pd.DataFrame) -> list[Row]:
    """A table's rows, one by one."""
    return [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def as_mean(row: Row) -> str:
    """A row of `summary` as mean ± sd (n)."""
    if not row.get("n"):
        return NOTHING
    return f"{_number(row['mean'])} ± {_number(row['sd'])} ({row['n']})"


def as_median(row: Row) -> str:
    """A row of `summary` as median [quartiles] (n)."""
    if not row.get("n"):
        return NOTHING
    return f"{_number(row['median'])} {_between(row['q25'], row['q75'])} ({row['n']})"


def as_difference(row: Row) -> str:
    """A row of `comparisons` as mean [95 % interval], p after Holm's correction (n)."""
    if not row.get("n"):
        return NOTHING
    size = f"{_signed(row['mean_difference'])} {_between(row['low'], row['high'])}"
    return f"{size}, p {_p(row['p_holm'])} ({row['n']})"


def as_set_score(row: Row) -> str:
    """A row of `sets` as mean [95 % interval] (models that have a value)."""
    if not row or pd.isna(row["mean"]):
        return NOTHING
    ends = "" if pd.isna(row["low"]) else f" {_between(row['low'], row['high'])}"
    return f"{_number(row['mean'])}{ends} ({row['cells'] - row['n_undefined']})"


def as_set_difference(row: Row) -> str:
    """A row of `sets` as difference from the baseline [95 % interval]."""
    if not row:
        return NOTHING
    ends = _between(row["difference_low"], row["difference_high"])
    return f"{_signed(row['difference'])} {ends}"


def as_generalization(row: Row) -> list[str]:
    """A row of `generalization`: model, where, both means (n), and their difference with its p."""
    one, other = (
        f"{_number(row[f'mean{end}'])} ({row[f'n{end}']})" if row[f"n{end}"] else NOTHING
        for end in ("", "_other")
    )
    ends = _between(row["low"], row["high"])
    apart = f"{_signed(row['difference'])} {ends}, p {_p(row['p_holm'])}"
    return [row["model"], row["where"], one, other, apart if row["n"] else NOTHING]


def score_notes(rows: pd.DataFrame) -> Iterator[str]:
    """Below scores of persons."""
    yield (
        "n: persons with a defined value; a person's cases, slices, folds and seeds are averaged "
        f"first. {ARROWS}"
    )
    yield from left_out(rows, "n_undefined", "Persons without a defined value, left out")
    if undefined := int(rows["values_undefined"].sum()):
        yield f"{undefined} single undefined values were left out of persons' means."


def difference_notes(rows: pd.DataFrame) -> Iterator[str]:
    """Below differences from the baseline."""
    yield f"95 % intervals of the mean difference, paired by person: {intervals(rows)}."
    tests = rows.groupby("metric")["p"].transform("count")
    yield p_note(signed_rank(int(rows["n"].max())), int(tests.max()), "arms of a metric")
    least = (rows["smallest_p"] * tests).clip(upper=1.0)
    for n, p in dict.fromkeys(zip(rows["n"], least, strict=True)):
        if p >= ALPHA:
            yield f"With n = {n} no p after this correction can be below {_p(p)}."
    yield from left_out(rows, "n_dropped", "Persons without a pair, left out")


def p_note(test: str, tests: int, of: str) -> str:
    """By which test a table's p are, and over how many such tests they are corrected."""
    return f"p: {test}; corrected by {HOLM} over {tests} {of}. Bold: p < {ALPHA:g}."


def set_notes(rows: pd.DataFrame) -> Iterator[str]:
    """Below scores of whole test parts."""
    yield (
        f"95 % intervals, where given: percentiles of {REPLICATES:,} resamples of the persons of "
        f"each fold's test part, the same persons for every arm. {ARROWS}"
    )
    yield from left_out(rows, "n_undefined", "Models without a defined value, left out")


def left_out(rows: pd.DataFrame, count: str, what: str) -> Iterator[str]:
    """How many were left out of which entry; nothing where none was."""
    named = [
        f"{row[count]} ({row['metric']}, {row.get('arm') or row['model']})"
        for row in records(rows)
        if row[count]
    ]
    if named:
        yield f"{what}: {'; '.join(named)}."


def _number(value: float) -> str:
    return NOTHING if pd.isna(value) else f"{value:.3f}".replace("-", MINUS)


def _signed(value: float) -> str:
    return NOTHING if pd.isna(value) else f"{value:+.3f}".replace("-", MINUS)


def _between(low: float, high: float) -> str:
    return f"[{_number(low)}, {_number(high)}]"


def _p(value: float) -> str:
    """A p, which is never written as 0.

    Examples
    --------
    >>> _p(0.0123), _p(0.00004), _p(1.0)
    ('0.012', '<0.001', '1')
    """
    if pd.isna(value):
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.2g}"
