"""Arms compared with each other, paired by person."""

from typing import Any

import numpy as np
import pandas as pd

from spine_tasks.stats.intervals import interval
from spine_tasks.stats.persons import MEASURE, apart, differences, side_by_side
from spine_tasks.stats.power import detectable
from spine_tasks.stats.rank_tests import holm, rank_biserial, signed_rank_p

TESTED = ["n", "n_dropped", "dropped", "mean_difference", "low", "high", "interval"]
TESTED += ["sd_difference", "rank_biserial", "detectable", "p", "p_holm", "smallest_p"]
COMPARISON = [*MEASURE, "arm", "baseline", *TESTED]


def comparisons(cases: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each arm against the baseline, paired by person, per label and metric.

    Returns
    -------
    DataFrame
        Columns `label, metric, arm, baseline` and those of `tested`. The mean difference is arm
        minus baseline. `p_holm` is `p` after Holm's correction [1]_ over the arms of one label and
        metric; an undefined p does not count in it.

    Raises
    ------
    ConfigError, DataError
        As in `differences`.

    References
    ----------
    .. [1] Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
       Statistics 6, 1979, https://www.jstor.org/stable/4615733.
    """
    return _compared(differences(cases, baseline).assign(baseline=baseline))


def all_pairs(cases: pd.DataFrame) -> pd.DataFrame:
    """Every arm against every other, once: the columns of `comparisons`.

    Of two arms, `baseline` is the one whose name sorts first. `p_holm` is corrected over all pairs
    of arms of one label and metric, so it is larger than in `comparisons`, where only the question
    that the grid asks is tested. Two arms without a person in common have a row, and n = 0.

    Raises
    ------
    DataError
        As in `by_person`.
    """
    values = side_by_side(cases)
    arms = [str(arm) for arm in values]
    # The last arm is first of no pair; its table is empty, and gives a grid of one arm its columns.
    tables = [
        apart(values, first, arms[number:]).assign(baseline=first)
        for number, first in enumerate(arms, start=1)
    ]
    return _compared(pd.concat(tables))


def tested(differences: "pd.Series[float]") -> dict[str, Any]:
    """What is said of paired differences, by person (the index).

    Returns
    -------
    dict
        All of `TESTED` but `p_holm`. `n` pairs of persons; `dropped` names the others, joined by
        `;`. `mean_difference` in the metric's unit, `low, high` its `interval` and `interval` the
        method of it; `sd_difference` (n - 1), by which to divide the mean for the standardised
        difference d_z [1]_; `rank_biserial`, the effect size; `detectable`, the smallest mean
        difference that so many pairs would have shown; `p` the `signed_rank_p`, and `smallest_p` =
        2 / 2**n the smallest that n pairs can give. All are NaN without a pair, the sd with one.

    References
    ----------
    .. [1] Lakens, Calculating and reporting effect sizes to facilitate cumulative science,
       Frontiers in Psychology 4, 2013, doi:10.3389/fpsyg.2013.00863.
    """
    defined = differences.dropna()
    pairs, n = np.asarray(defined, dtype=np.float64), len(defined)
    dropped = differences.index[differences.isna()]
    low, high, method = interval(pairs)
    return {
        **{"n": n, "n_dropped": len(dropped), "dropped": ";".join(dropped)},
        "mean_difference": pairs.mean() if n else np.nan,
        **{"low": low, "high": high, "interval": method},
        "sd_difference": pairs.std(ddof=1) if n > 1 else np.nan,
        "rank_biserial": rank_biserial(pairs),
        "detectable": detectable(pairs),
        "p": signed_rank_p(pairs),
        "smallest_p": 2 / 2.0**n if n else np.nan,
    }


def _compared(differences: pd.DataFrame) -> pd.DataFrame:
    names = [*MEASURE, "baseline", "arm"]
    rows = [
        dict(zip(names, key, strict=True)) | tested(group.set_index("person")["difference"])
        for key, group in differences.groupby(names)
    ]
    table = pd.DataFrame(rows, columns=COMPARISON)
    table["p_holm"] = table.groupby(MEASURE)["p"].transform(holm)
    return table
