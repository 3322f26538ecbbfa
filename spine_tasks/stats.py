"""Statistics of a grid's scores: persons are the n of every mean, interval and test.

All tables start from `cases`, one row per case (or slice) and metric, with the columns `cell, arm,
split, fold, seed, person, subject, case, slice, label, metric, value`. `slice` is missing for a
value per volume, and a `value` of NaN is undefined. An arm is what the grid compares, written as
text such as `init=scratch augment=False`. Rows come back sorted, whatever the order of `cases`.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from spine_tasks.errors import ConfigError, DataError

log = logging.getLogger(__name__)

MEASURE = ["label", "metric"]
VALUE_OF = ["cell", "person", "case", "slice", *MEASURE]  # what one value belongs to
SUMMARY = ["arm", *MEASURE, "n", "n_undefined", "values_undefined", "mean", "low", "high"]
SUMMARY += ["sd", "median", "seeds", "cells"]
COMPARISON = [*MEASURE, "arm", "baseline", "n", "n_dropped", "dropped", "mean_difference"]
COMPARISON += ["low", "high", "p", "p_holm", "smallest_p"]
CONFIDENCE = 0.95
SIGN_FLIPS = 2**16  # exhaustive up to 16 pairs
MANY_PAIRS = 50  # beyond, the normal approximation of the signed-rank statistic is good
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
    _check(cases)
    # Sorted by value too, so that the order of rows cannot change the last digit of a sum.
    ordered = cases.assign(person=cases["person"].astype(str)).sort_values("value")
    values = ordered.groupby(["arm", *MEASURE, "person"])["value"]
    people = values.agg(value="mean", n_values="count", n_rows="size").reset_index()
    people["n_undefined"] = people.pop("n_rows") - people["n_values"]
    return people


def summary(cases: pd.DataFrame) -> pd.DataFrame:
    """Mean, spread and interval over persons, per arm, label and metric.

    Returns
    -------
    DataFrame
        Columns `arm, label, metric, n, n_undefined, values_undefined, mean, low, high, sd, median,
        seeds, cells`. `n` persons have a defined value, `n_undefined` have none;
        `values_undefined` counts single NaNs; `low, high` is the mean's `interval`; `sd` has n - 1
        degrees of freedom and is NaN for one person; `seeds` and `cells` count distinct ones.

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
    ends = [interval(group["value"].dropna().to_numpy()) for _, group in grouped]
    table["low"], table["high"] = [low for low, _ in ends], [high for _, high in ends]
    table[["seeds", "cells"]] = cases.groupby(["arm", *MEASURE])[["seed", "cell"]].nunique()
    return table.reset_index()[SUMMARY]


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
    people = by_person(cases)
    arms = sorted(people["arm"].unique())
    if baseline not in arms:
        raise ConfigError(
            f"baseline {baseline!r} is no arm of these results; the arms are {arms}: "
            "name one of them as the grid's baseline"
        )
    values = people.pivot(index=[*MEASURE, "person"], columns="arm", values="value")
    change = values.drop(columns=baseline).sub(values[baseline], axis=0)
    largest = values.abs().max(axis=1).groupby(MEASURE).transform("max")
    unit = 10.0 ** np.ceil(np.log10(largest.where(largest > 0, 1.0)))
    change = change.div(unit, axis=0).round(DIGITS).mul(unit, axis=0)
    table = change.melt(ignore_index=False, value_name="difference").reset_index()
    columns = [*MEASURE, "arm", "person"]
    return table.sort_values(columns, ignore_index=True)[[*columns, "difference"]]


def comparisons(cases: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each arm against the baseline, paired by person, per label and metric.

    Returns
    -------
    DataFrame
        Columns `label, metric, arm, baseline, n, n_dropped, dropped, mean_difference, low, high,
        p, p_holm, smallest_p`. `n` pairs of persons; `dropped` names the others, joined by `;`.
        `mean_difference` is arm minus baseline in the metric's unit, `low, high` its `interval`,
        `p` the `signed_rank_p`, `p_holm` the same after Holm's correction [1]_ over the arms of
        one label and metric, `smallest_p` = 2 / 2**n the smallest p that n pairs can give. All
        are NaN without a pair, and an undefined p does not count in Holm's correction.

    Raises
    ------
    ConfigError, DataError
        As in `differences`.

    References
    ----------
    .. [1] Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
       Statistics 6, 1979, https://www.jstor.org/stable/4615733.
    """
    rows = []
    for (label, metric, arm), group in differences(cases, baseline).groupby([*MEASURE, "arm"]):
        pairs = group["difference"].dropna().to_numpy()
        dropped = group["person"][group["difference"].isna()]
        row = {"label": label, "metric": metric, "arm": arm, "baseline": baseline}
        row |= {"n": len(pairs), "n_dropped": len(dropped), "dropped": ";".join(dropped)}
        row["mean_difference"] = pairs.mean() if len(pairs) else np.nan
        row["low"], row["high"] = interval(pairs)
        row["p"] = signed_rank_p(pairs)
        row["smallest_p"] = 2 / 2.0 ** len(pairs) if len(pairs) else np.nan
        rows.append(row)
    table = pd.DataFrame(rows, columns=COMPARISON)
    table["p_holm"] = table.groupby(MEASURE)["p"].transform(holm)
    return table


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of `values`, one per person, shape (n,).

    BCa [1]_ with 9999 resamples from a fixed seed, so that a table can be made again. Where BCa is
    undefined (its skewness under- or overflows) the percentile interval is given and logged.
    Equal values give an interval of no width, fewer than two values (NaN, NaN).

    References
    ----------
    .. [1] Efron, Better bootstrap confidence intervals, Journal of the American Statistical
       Association 82, 1987, doi:10.1080/01621459.1987.10478410.

    Examples
    --------
    >>> interval(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.5)
    """
    if len(values) < 2:
        return np.nan, np.nan
    if (values == values[0]).all():
        return float(values[0]), float(values[0])
    return resampled((values,), np.mean)


def resampled(
    samples: tuple[NDArray[np.float64], ...], statistic: Callable[..., Any]
) -> tuple[float, float]:
    """The interval of a statistic of samples, each drawn anew by itself, as `interval` has it.

    `statistic` takes the samples and an `axis`. Each has two values or more, and not all samples
    are constant.
    """
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # answered below
            low, high = stats.bootstrap(
                samples,
                statistic,
                confidence_level=CONFIDENCE,
                method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval
        if np.isfinite([low, high]).all():
            break
        log.warning("the %s interval of %d values is undefined", method, sum(map(len, samples)))
    return float(low), float(high)


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """The two-sided p of Wilcoxon's signed-rank test [1]_ of paired differences, shape (n,).

    Zeros are discarded, as by Wilcoxon, and equal sizes share their mean rank. Exact up to 50
    differences without ties. With ties the signs of the ranks are flipped in all ways up to 16
    differences, which is exact too, and in 65 536 random ways of a fixed seed up to 50. Beyond 50,
    the normal approximation corrected for ties. Only zeros give 1, no difference at all NaN.

    References
    ----------
    .. [1] Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1, 1945,
       doi:10.2307/3001968.

    Examples
    --------
    >>> signed_rank_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))  # 2 / 2**5
    0.0625
    """
    if not len(differences):
        return np.nan
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return 1.0
    sizes = np.abs(nonzero)
    if len(np.unique(sizes)) == len(sizes) or len(sizes) > MANY_PAIRS:
        return float(stats.wilcoxon(nonzero).pvalue)
    # SciPy's own permutation method ranks anew for each flip, a hundred times slower.
    flipped = stats.permutation_test(
        (np.sign(nonzero) * stats.rankdata(sizes),),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=SIGN_FLIPS,
        rng=np.random.default_rng(0),
    )
    return float(flipped.pvalue)


def holm(p: "pd.Series[float]") -> "pd.Series[float]":
    """The p of a family of tests after Holm's correction; an undefined one stays and counts not.

    Examples
    --------
    >>> holm(pd.Series([0.03, np.nan, 0.01])).tolist()
    [0.03, nan, 0.02]
    """
    corrected = p.copy()
    if p.notna().any():
        corrected[p.notna()] = multipletests(p.dropna(), method="holm")[1]
    return corrected


def _check(cases: pd.DataFrame) -> None:
    needed = ["arm", "seed", *VALUE_OF, "value"]
    if absent := [name for name in needed if name not in cases]:
        raise DataError(f"cases have no column {absent}; they have {list(cases)}; add it")
    for name in ["arm", "person", *MEASURE]:
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
