"""Intervals of a statistic of persons; which method has which n, `benchmarks/coverage.py` shows."""

import logging
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

log = logging.getLogger(__name__)

CONFIDENCE = 0.95
RESAMPLES = 9999
FEW = 7  # values, below which bootstrap-t intervals get far longer and cover hardly better
MANY = 50  # values, from which BCa covers as well to .03, and stays where the data are
ROUND_OFF = 1e-12  # in a sample whose variance is 1

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """The ends of a 95 % interval, and by which method it was made."""

    low: float
    high: float
    method: str  # t, bootstrap-t, BCa, percentile; constant: of equal values; "": undefined


def interval(values: Floats) -> Interval:
    """The 95 % interval of the mean of `values`, one per person, shape (n,).

    The method depends on n, as the coverage of means and of paired differences that
    `benchmarks/coverage.py` simulates: below 7 values Student's `t`, below 50 `bootstrap-t` [1]_,
    from 50 on `BCa` [2]_. Both bootstraps take 9999 resamples from a fixed seed, so that a table
    can be made again. Where many resamples have no spread (a value that most persons share)
    bootstrap-t has no finite end, and the interval is Student's `t`. Where BCa is undefined (its
    skewness under- or overflows) the `percentile` interval is given and logged.

    The ends of `t` and `bootstrap-t` may lie beyond what the metric allows: a DSC of 1.02 says
    that persons are too few to know the mean better. Equal values give an interval of no width,
    `constant`; fewer than two (NaN, NaN) and no method.

    References
    ----------
    .. [1] DiCiccio and Efron, Bootstrap confidence intervals, Statistical Science 11, 1996,
       doi:10.1214/ss/1032280214.
    .. [2] Efron, Better bootstrap confidence intervals, Journal of the American Statistical
       Association 82, 1987, doi:10.1080/01621459.1987.10478410.

    Examples
    --------
    >>> interval(np.array([0.5, 0.5, 0.5]))
    Interval(low=0.5, high=0.5, method='constant')
    >>> low, high, method = interval(np.array([0.7, 0.8, 0.9]))
    >>> round(low, 3), round(high, 3), method  # 0.8 -+ 4.303 x 0.1 / sqrt(3)
    (0.552, 1.048, 't')
    """
    n = len(values)
    if n < 2:
        return Interval(np.nan, np.nan, "")
    if (values == values[0]).all():
        return Interval(float(values[0]), float(values[0]), "constant")
    if n >= MANY:
        return resampled((values,), np.mean)
    if n >= FEW:
        low, high = bootstrap_t(values, draws(n))
        if np.isfinite([low, high]).all():
            return Interval(float(low), float(high), "bootstrap-t")
    low, high = stats.t.interval(CONFIDENCE, n - 1, values.mean(), stats.sem(values))
    return Interval(float(low), float(high), "t")


@lru_cache(maxsize=4)
def draws(n: int) -> Floats:
    """How often each of n values is in each resample, shape (9999, n); always the same ones."""
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return counts.astype(float)


def bootstrap_t(
    values: Floats, counts: Floats, confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """The bootstrap-t interval of the mean of each row of `values`, for given resamples.

    Parameters
    ----------
    values
        Shape (..., n), in each row two different ones or more.
    counts
        How often each value is in each of B resamples, shape (B, n).
    confidence
        (B + 1) (1 - confidence) / 2 should be whole.

    Returns
    -------
    low, high
        Shape (...). Infinite where too many resamples have no spread, so that their t is.
    """
    n = values.shape[-1]
    mean, sd = values.mean(axis=-1), values.std(axis=-1, ddof=1)
    apart = (values - mean[..., None]) / sd[..., None]
    moved = apart @ counts.T / n
    variance = (apart**2 @ counts.T / n - moved**2) * n / (n - 1)
    moved[np.abs(moved) < ROUND_OFF] = 0
    variance[variance < ROUND_OFF] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = moved / np.sqrt(variance / n)
    t[np.isnan(t)] = 0  # a resample without spread whose mean is the sample's
    rank = round((len(counts) + 1) * (1 - confidence) / 2)
    t.partition((rank - 1, len(counts) - rank), axis=-1)
    error = sd / np.sqrt(n)
    return mean - error * t[..., -rank], mean - error * t[..., rank - 1]


def resampled(samples: tuple[Floats, ...], statistic: Callable[..., Any]) -> Interval:
    """The BCa interval of a statistic of samples, each drawn anew by itself.

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
                n_resamples=RESAMPLES,
                method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval
        if np.isfinite([low, high]).all():
            break
        log.warning("the %s interval of %d values is undefined", method, sum(map(len, samples)))
    return Interval(float(low), float(high), method)
