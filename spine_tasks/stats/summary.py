"""Mean, spread and interval over persons, arm by arm."""

import pandas as pd

from spine_tasks.stats.intervals import interval
from spine_tasks.stats.persons import MEASURE, by_person

SUMMARY = ["arm", *MEASURE, "n", "n_undefined", "values_undefined", "mean", "low", "high"]
SUMMARY += ["interval", "sd", "median", "q25", "q75", "seeds", "cells"]


def summary(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean, spread and interval over persons, per arm, label and metric.

    Returns
    -------
    DataFrame
        Columns `arm, label, metric, n, n_undefined, values_undefined, mean, low, high, interval,
        sd, median, q25, q75, seeds, cells`. `n` persons have a defined value, `n_undefined` have
        none; `values_undefined` counts single NaNs; `low, high` is the mean's `interval`, and
        `interval` the method that made it; `sd` has n - 1 degrees of freedom and is NaN for one
        person; `q25, q75` are the quartiles, linear between persons; `seeds` and `cells` count
        distinct ones.

    Raises
    ------
    DataError
        As in `by_person`.
    """
    grouped = by_person(cases).groupby(["arm", *MEASURE])
    table = grouped.agg(
        n=("value", "count"),
        persons=("value", "size"),
        values_undefined=("n_undefined", "sum"),
        mean=("value", "mean"),
        sd=("value", "std"),
        median=("value", "median"),
    )
    table["n_undefined"] = table["persons"] - table["n"]
    table["q25"] = grouped["value"].quantile(0.25)
    table["q75"] = grouped["value"].quantile(0.75)
    ends = [interval(group["value"].dropna().to_numpy()) for _, group in grouped]
    for number, column in enumerate(("low", "high", "interval")):
        table[column] = [one[number] for one in ends]
    table[["seeds", "cells"]] = cases.groupby(["arm", *MEASURE])[["seed", "cell"]].nunique()
    return table.reset_index()[SUMMARY]
