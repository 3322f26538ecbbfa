"""One value a person: what every mean, interval and test of this package starts from.

All tables start from `cases`, one row per case (or slice) and metric, with the columns `cell, arm,
split, fold, seed, person, subject, case, slice, label, metric, value`. `slice` is missing for a
value per volume, and a `value` of NaN is undefined. An arm is what the grid compares, written as
text such as `init=scratch augment=False`. Rows come back sorted, whatever the order of `cases`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from spine_tasks.errors import ConfigError, DataError

MEASURE = ["label", "metric"]
TEXTS = ["arm", *MEASURE, "person"]
VALUE_OF = ["cell", "person", "case", "slice", *MEASURE]  # what one value belongs to
DIGITS = 12  # of a difference, relative to the values; what follows is round-off


def by_person(cases: pd.DataFrame) -> pd.DataFrame:
    """One value per arm, label, metric and person: the mean of all the person's defined values.

    Sessions, cases, slices, folds and seeds of a person repeat each other; they are averaged, all
    with the same weight, before anything is counted.

    Returns
    -------
    DataFrame
        Columns `arm, label, metric, person, value, n_values, n_undefined`. `n_values` counts the
        values averaged and `n_undefined` the NaNs left out; `value` is NaN where none is defined.

    Raises
    ------
    DataError
        A column is missing, a row names no person, arm, label or metric, a value is infinite,
        one case is there twice, or values per slice and per volume are mixed in one metric.

    Examples
    --------
    >>> cases = pd.DataFrame({"cell": "c", "arm": "a", "seed": 0, "person": ["p", "p", "q"],
    ...     "case": ["p1", "p2", "q1"], "slice": None, "label": "cord", "metric": "DSC",
    ...     "value": [0.5, 1.0, np.nan]})
    >>> by_person(cases)[["person", "value", "n_values", "n_undefined"]]
      person  value  n_values  n_undefined
    0      p   0.75         2            0
    1      q    NaN         0            1
    """
    return averaged(cases, TEXTS)


def averaged(cases: pd.DataFrame, over: Sequence[str]) -> pd.DataFrame:
    """The mean of all defined values that have the same in the columns `over`, as `by_person`.

    `over` are the columns of what `by_person` returns, or more of `cases`; texts are plain text in
    the table that comes back, also where they are categories in `cases`.

    Raises
    ------
    DataError
        As in `by_person`; and a row has nothing in one of the columns.
    """
    _check(cases, over)
    # Sorted by value too, so that the order of rows cannot change the last digit of a sum.
    values = cases.sort_values("value").groupby([*over])["value"]
    means = values.agg(value="mean", n_values="count", n_rows="size").reset_index()
    means["n_undefined"] = means.pop("n_rows") - means["n_values"]
    return means.astype(dict.fromkeys(TEXTS, str)).sort_values([*over], ignore_index=True)


def differences(cases: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each arm minus the baseline, person by person.

    Every person seen with a label and metric has a row for every other arm; the difference is NaN
    where the person is not defined in both arms. Differences keep 12 digits relative to the
    largest value, because round-off would break ties: 0.9 - 0.8 is not 0.8 - 0.7 in binary.

    Returns
    -------
    DataFrame
        Columns `label, metric, arm, person, difference`, in the metric's unit.

    Raises
    ------
    ConfigError
        No cell belongs to the arm `baseline`.
    DataError
        As in `by_person`.
    """
    values = side_by_side(cases)
    arms = [str(arm) for arm in values]
    if baseline not in arms:
        raise ConfigError(
            f"baseline {baseline!r} is no arm of these results; the arms are {arms}: "
            "name one of them as the grid's baseline"
        )
    return apart(values, baseline, [arm for arm in arms if arm != baseline])


def side_by_side(cases: pd.DataFrame) -> pd.DataFrame:
    """The values of `by_person`, a row a `label, metric, person` (the index), a column an arm.

    Raises
    ------
    DataError
        As in `by_person`.
    """
    return by_person(cases).pivot(index=[*MEASURE, "person"], columns="arm", values="value")


def apart(values: pd.DataFrame, baseline: str, arms: Sequence[str]) -> pd.DataFrame:
    """Some arms minus another one, from `side_by_side`; returns what `differences` does."""
    change = without_round_off(values[[*arms]].sub(values[baseline], axis=0), values)
    table = change.melt(ignore_index=False, value_name="difference").reset_index()
    columns = [*MEASURE, "arm", "person"]
    return table.sort_values(columns, ignore_index=True)[[*columns, "difference"]]


def without_round_off(change: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Differences of `values`, to 12 digits relative to the largest of a label and metric."""
    largest = values.abs().max(axis=1).groupby(MEASURE).transform("max")
    unit = 10.0 ** np.ceil(np.log10(largest.where(largest > 0, 1.0)))
    return change.div(unit, axis=0).round(DIGITS).mul(unit, axis=0)


def _check(cases: pd.DataFrame, over: Sequence[str]) -> None:
    needed = dict.fromkeys(["arm", "seed", *over, *VALUE_OF, "value"])
    if absent := [name for name in needed if name not in cases]:
        raise DataError(f"cases have no column {absent}; they have {list(cases)}; add it")
    for name in over:
        _refuse(cases, cases[name].isna(), f"no {name}; name it, or leave the row out")
    _refuse(cases, np.isinf(cases["value"]), "an infinite value; undefined values must be NaN")
    _refuse(cases, cases.duplicated(VALUE_OF), "one value twice; read every cell once")
    sliced = cases["slice"].notna()
    share = sliced.groupby([cases[name] for name in MEASURE]).transform("mean")
    mixed = "values per slice and per volume under one metric; choose one kind"
    _refuse(cases, sliced & (share < 1), mixed)


def _refuse(cases: pd.DataFrame, wrong: "pd.Series[bool]", problem: str) -> None:
    if wrong.any():
        first = cases.loc[wrong, [*VALUE_OF, "arm"]].iloc[0].to_dict()
        raise DataError(f"{wrong.sum()} of {len(cases)} rows have {problem}; first {first}")
