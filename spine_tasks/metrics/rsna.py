"""The metric of the RSNA 2024 challenge on lumbar degenerative disease.

For each of three conditions, both sides together, the log loss of all rows, weighted 1, 2 and 4 by
their true grade; and, for the spinal canal, that of whether any level of a study is severe. The
mean of the four is the score; lower is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spine_tasks.data.rsna_names import CANAL, CONDITIONS
from spine_tasks.metrics.box_rates import ratio
from spine_tasks.metrics.grades import Floats, Integers, log_losses

WEIGHTS = np.array([1.0, 2.0, 4.0])  # of a row, by its true grade
SEVERE = 2


@dataclass(frozen=True)
class Graded:
    """The graded rows of one condition."""

    p: Floats  # (N, 3)
    truth: Integers  # (N,)
    studies: Sequence[str]  # (N,)
    weights: Floats  # (B, N): how often each row counts, the same for all rows of a study


def rsna(rows: Mapping[str, Graded]) -> dict[str, Floats]:
    """The terms of the metric and their mean.

    Parameters
    ----------
    rows
        Of each of the three conditions.

    Returns
    -------
    dict of str to ndarray
        (B,) each: the three conditions, `any_severe_spinal` and `rsna`, the mean of the four. NaN
        where a condition has no row of any weight.
    """
    terms = {name: _weighted(rows[name]) for name in CONDITIONS}
    terms["any_severe_spinal"] = _any_severe(rows[CANAL])
    return terms | {"rsna": np.mean(list(terms.values()), axis=0)}


def _weighted(rows: Graded) -> Floats:
    weights = rows.weights * WEIGHTS[rows.truth]
    return ratio(weights @ log_losses(rows.p, rows.truth), weights.sum(axis=1))


def _any_severe(rows: Graded) -> Floats:
    """Log loss of a study's highest probability of a severe canal; its weight is its highest."""
    names, study = np.unique(np.asarray(rows.studies, str), return_inverse=True)
    highest, weight = np.zeros(len(names)), np.zeros(len(names))
    np.maximum.at(highest, study, rows.p[:, SEVERE])
    np.maximum.at(weight, study, WEIGHTS[rows.truth])
    severe = np.zeros(len(names), int)
    np.maximum.at(severe, study, (rows.truth == SEVERE).astype(int))
    first = np.unique(study, return_index=True)[1]
    times = rows.weights[:, first] * weight
    losses = log_losses(np.stack([1 - highest, highest], axis=1), severe)
    return ratio(times @ losses, times.sum(axis=1))
