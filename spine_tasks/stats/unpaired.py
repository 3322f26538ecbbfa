"""Two groups of other persons compared: the interval of their means' difference, and a test."""

import warnings
from typing import Any

import numpy as np
from scipy import stats

from spine_tasks.stats.intervals import CONFIDENCE, MANY, Floats, Interval, resampled

DEALINGS = 2**16
MANY_PERSONS = 50  # beyond, the normal approximation of the rank-sum statistic is good with ties


def difference_interval(one: Floats, other: Floats) -> Interval:
    """The 95 % interval of mean(one) - mean(other), of two groups of other persons.

    Welch's t [1]_ where either group has fewer than 50, for the reason that `interval` takes no BCa
    there; else BCa, persons drawn in each group by itself. (NaN, NaN) with fewer than two values in
    either.

    References
    ----------
    .. [1] Welch, The generalization of Student's problem when several different population
       variances are involved, Biometrika 34, 1947, doi:10.1093/biomet/34.1-2.28.
    """
    fewer = min(len(one), len(other))
    if fewer < 2:
        return Interval(np.nan, np.nan, "")
    if np.ptp(one) == np.ptp(other) == 0:
        return Interval(float(one[0] - other[0]), float(one[0] - other[0]), "constant")
    if fewer >= MANY:
        return resampled((one, other), _difference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that a group of equal values has no sd
        low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval(CONFIDENCE)
    return Interval(float(low), float(high), "Welch's t")


def _difference(one: Floats, other: Floats, axis: int = -1) -> Any:
    return one.mean(axis=axis) - other.mean(axis=axis)


def rank_sum_p(one: Floats, other: Floats) -> float:
    """The two-sided p of the test of Mann and Whitney [1]_ of two groups of persons.

    Exact where either group has up to 8 and no value is there twice. With ties values are dealt to
    the groups anew, in all ways or 65 536 random ones of a fixed seed, up to 50 persons. Else the
    normal approximation corrected for ties. NaN if a group is empty.

    References
    ----------
    .. [1] Mann and Whitney, On a test of whether one of two random variables is stochastically
       larger than the other, Annals of Mathematical Statistics 18, 1947,
       doi:10.1214/aoms/1177730491.

    Examples
    --------
    >>> rank_sum_p(np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0]))  # 2 / 10 ways
    0.2
    """
    if not len(one) or not len(other):
        return np.nan
    together = np.concatenate([one, other])
    tied = len(np.unique(together)) < len(together) <= MANY_PERSONS
    dealt = stats.PermutationMethod(n_resamples=DEALINGS, rng=np.random.default_rng(0))
    return float(stats.mannwhitneyu(one, other, method=dealt if tied else "auto").pvalue)
