"""Tests of paired differences by their signed ranks, and the correction for many tests."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

MANY_PAIRS = 50  # beyond, the normal approximation of the signed-rank statistic is good


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """The two-sided p of Wilcoxon's signed-rank test [1]_ of paired differences, shape (n,).

    Zeros are discarded, as by Wilcoxon, and equal sizes share their mean rank. Exact up to 50
    differences, also with ties: of all ways to give the ranks signs, those are counted [2]_ whose
    sum is as far out. Beyond, the normal approximation corrected for ties. Only zeros give 1, no
    difference at all NaN.

    References
    ----------
    .. [1] Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1, 1945,
       doi:10.2307/3001968.
    .. [2] Streitberg and Röhmel, Exact distributions for permutation and rank tests, Statistical
       Software Newsletter 12, 1986.

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
    if len(nonzero) > MANY_PAIRS:
        return float(stats.wilcoxon(nonzero).pvalue)
    return _exact_p(nonzero)


def _exact_p(nonzero: NDArray[np.float64]) -> float:
    # SciPy counts without ties only; with them it flips signs, a thousand times slower.
    ranks = np.rint(2 * stats.rankdata(np.abs(nonzero))).astype(int)  # twice, so that all are whole
    ways = np.zeros(ranks.sum() + 1)  # to have each sum of positive ranks; exact up to 2**53
    ways[0] = 1
    for rank in ranks:
        ways[rank:] = ways[rank:] + ways[:-rank]
    seen = ranks[nonzero > 0].sum()
    fewer = min(ways[: seen + 1].sum(), ways[seen:].sum())
    return float(min(1.0, 2 * fewer / 2.0 ** len(ranks)))


def rank_biserial(differences: NDArray[np.float64]) -> float:
    """The matched-pairs rank-biserial correlation [1]_ of paired differences, shape (n,).

    The effect size that belongs to the signed-rank test: the share of the ranks' sum with a
    positive difference minus the share with a negative one, -1 to 1; 1 if all differ in favour of
    the first. Zeros are discarded, so look at `n` and p too. NaN without a difference that is not
    zero.

    References
    ----------
    .. [1] Kerby, The simple difference formula, Comprehensive Psychology 3, 2014,
       doi:10.2466/11.IT.3.1.

    Examples
    --------
    >>> rank_biserial(np.array([3.0, -1.0, 2.0]))  # (3 + 2 - 1) / 6
    0.6666666666666666
    """
    nonzero = differences[differences != 0]
    if not len(nonzero):
        return np.nan
    ranks = stats.rankdata(np.abs(nonzero))
    return float((ranks * np.sign(nonzero)).sum() / ranks.sum())


def holm(p: "pd.Series[float]") -> "pd.Series[float]":
    """The p of a family of tests after Holm's correction; an undefined one stays and counts not.

    Examples
    --------
    >>> holm(pd.Series([0.03, np.nan, 0.01])).tolist()
    [0.03, nan, 0.02]
    """
    # That of statsmodels collects all garbage at each call, longer than all else takes here.
    ordered = p.dropna().sort_values()
    times = np.arange(len(ordered), 0, -1)
    return ordered.mul(times).cummax().clip(upper=1.0).reindex(p.index)
