"""How well probabilities of grades agree with the reference, for many weights at once.

Weights of 1 give the metric itself; the weights of resampled persons give its replicates.

Everywhere `p` is (N, K), the probabilities of the grades of N places, rows summing to 1, mildest
grade first; `truth` is (N,), 0-based grades; `weights` is (B, N), at least 0. Each function returns
(B,).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from spine_tasks.metrics.box_rates import ratio
from spine_tasks.metrics.cord_grades import quadratic_kappa

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BINS = 15  # of confidence, as Guo et al. have them
LEAST = 1e-15  # below it a probability counts as this, so that no logarithm is infinite


def tables(p: Floats, truth: Integers, weights: Floats, mean: bool = False) -> Floats:
    """Weights by true grade and given grade: (B, K, K).

    Parameters
    ----------
    mean
        The given grade is the mean grade, rounded; else the most probable one, of equal ones the
        mildest.
    """
    grades = p.shape[1]
    given = np.rint(p @ np.arange(grades)).astype(int) if mean else p.argmax(axis=1)
    of_cell = np.zeros((len(truth), grades * grades))
    of_cell[np.arange(len(truth)), truth * grades + given] = 1
    return (weights @ of_cell).reshape(-1, grades, grades)


def accuracy(table: Floats) -> Floats:
    """Share of the places that are given their grade; NaN without one."""
    return ratio(np.trace(table, axis1=-2, axis2=-1), table.sum(axis=(-2, -1)))


def recalls(table: Floats) -> Floats:
    """(B, K) of each grade's places, the share that is given it; NaN without one."""
    return ratio(_right(table), table.sum(axis=-1))


def precisions(table: Floats) -> Floats:
    """(B, K) of the places given a grade, the share that has it; NaN where none is given it."""
    return ratio(_right(table), table.sum(axis=-2))


def f1s(table: Floats) -> Floats:
    """(B, K) harmonic mean of both; NaN where a grade is neither given nor true."""
    return ratio(2 * _right(table), table.sum(axis=-1) + table.sum(axis=-2))


def kappa(table: Floats) -> Floats:
    """Cohen's kappa with quadratic weights, -1 to 1; NaN if all are of one grade."""
    return quadratic_kappa(table)


def log_loss(p: Floats, truth: Integers, weights: Floats) -> Floats:
    """Mean of minus the logarithm of the true grade's probability; NaN without a place."""
    return ratio(weights @ log_losses(p, truth), weights.sum(axis=1))


def log_losses(p: Floats, truth: Integers) -> Floats:
    """(N,) minus the logarithm of the true grade's probability, at most 34.5."""
    losses: Floats = -np.log(np.clip(p[np.arange(len(truth)), truth], LEAST, 1.0))
    return losses


def auroc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """How often a positive place has the higher score than a negative one; ties count half.

    Parameters
    ----------
    scores, positive
        (N,)

    Returns
    -------
    ndarray
        (B,) NaN where only positive or only negative places have a weight.

    Examples
    --------
    >>> scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    >>> auroc(scores, positive, np.ones((1, 4)))
    array([0.875])
    """
    values, tied = np.unique(scores, return_inverse=True)
    at_value = np.zeros((len(scores), len(values)))
    at_value[np.arange(len(scores)), tied] = 1
    above = weights @ (at_value * positive[:, None])  # (B, values): weight of the positive ones
    below = weights @ (at_value * ~positive[:, None])
    beaten = below.cumsum(axis=1) - below / 2
    return ratio((above * beaten).sum(axis=1), above.sum(axis=1) * below.sum(axis=1))


def ece(p: Floats, truth: Integers, weights: Floats) -> Floats:
    """Expected calibration error [1]_: how far confidence is from accuracy; NaN without a place.

    Confidence is the highest probability, in 15 bins of equal width; their differences are
    averaged by the weight in each bin.

    References
    ----------
    .. [1] Guo et al., On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.
    """
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    gap = np.abs(weights @ (_in_bins(confidence) * (confidence - right)[:, None])).sum(axis=1)
    return ratio(gap, weights.sum(axis=1))


def reliability(p: Floats, truth: Integers) -> tuple[Floats, Floats, Integers]:
    """Mean confidence, share that is right, and number of places, in each bin of `ece`.

    Returns
    -------
    tuple of ndarray
        (15,) each; both shares are NaN in a bin without a place.

    Examples
    --------
    >>> p = np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    >>> confidence, right, places = reliability(p, np.array([0, 0, 1]))
    >>> confidence[[9, 13]].round(2).tolist(), right[[9, 13]].tolist(), places[[9, 13]].tolist()
    ([0.6, 0.9], [1.0, 0.5], [1, 2])
    """
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    bins = _in_bins(confidence)
    places = bins.sum(axis=0)
    return ratio(confidence @ bins, places), ratio(right @ bins, places), places.astype(np.int64)


def temperature(p: Floats, truth: Integers) -> float:
    """The temperature [1]_ that the logarithms of probabilities are best divided by.

    Parameters
    ----------
    p, truth
        Of the validation part.

    Returns
    -------
    float
        From .05 (surer) to 20 (less sure), by the least log loss; NaN without a place.

    References
    ----------
    .. [1] Guo et al., On calibration of modern neural networks, ICML 2017, arXiv:1706.04599.
    """
    if not len(truth):
        return float("nan")

    def loss(log_t: float) -> float:
        return float(log_losses(tempered(p, np.exp(log_t)), truth).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded").x))


def tempered(p: Floats, by: float) -> Floats:
    """(N, K) probabilities whose logarithms are divided by a temperature; NaN by NaN."""
    changed: Floats = softmax(np.log(np.maximum(p, LEAST)) / by, axis=1)
    return changed


def _in_bins(confidence: Floats) -> Floats:
    """(N, 15) 1 in the bin of each confidence, else 0."""
    of_bin = np.zeros((len(confidence), BINS))
    of_bin[np.arange(len(confidence)), np.digitize(confidence, np.arange(1, BINS) / BINS)] = 1
    return of_bin


def _right(table: Floats) -> Floats:
    return np.diagonal(table, axis1=-2, axis2=-1)
