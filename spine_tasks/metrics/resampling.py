"""AP50 and F1 of resampled persons: boxes are matched once, then images are only weighed.

Use the same weights for two runs on the same images, and the difference of their replicates is
that of pairs.
"""

from collections.abc import Sequence

import numpy as np

from spine_tasks.metrics.box_rates import BoxCounts, ratio
from spine_tasks.metrics.boxes import Floats, Matches
from spine_tasks.metrics.coco_ap import BOXES

RECALLS = np.linspace(0, 1, 101)  # where COCO reads precision


def person_weights(persons: Sequence[str], replicates: int, seed: int) -> Floats:
    """How often each image counts when persons are drawn with replacement.

    Parameters
    ----------
    persons
        (images,) whose each image is; all images of a person are drawn together.
    replicates
        B, how often as many persons as there are, are drawn.

    Returns
    -------
    ndarray
        (B, images) whole numbers; they follow from the persons' names, not from their order.

    Examples
    --------
    >>> weights = person_weights(["ann", "bob", "ann"], 1000, seed=0)
    >>> bool((weights[:, 0] == weights[:, 2]).all()), set(weights[:, :2].sum(axis=1).tolist())
    (True, {2.0})
    """
    names, index = np.unique(np.asarray(persons, dtype=str), return_inverse=True)
    share = np.full(len(names), 1 / max(len(names), 1))
    drawn = np.random.default_rng(seed).multinomial(len(names), share, size=replicates)
    return drawn[:, index].astype(float)


def ap50_replicates(matches: Matches, weights: Floats, label: int | None = None) -> Floats:
    """AP50 when each image counts as often as its weight says.

    With weights of 1 this is COCO's AP50 [1]_, at most 100 boxes of a label in an image; with
    other whole numbers that of data in which the images occur so often.

    Parameters
    ----------
    weights
        (B, images), at least 0, in the order of the cases that were matched.
    label
        Which; None = the mean over the labels that are defined.

    Returns
    -------
    ndarray
        (B,) fractions, 1 is best; NaN where no reference box of the label has a weight.

    References
    ----------
    .. [1] Lin et al., Microsoft COCO: common objects in context, ECCV 2014,
       doi:10.1007/978-3-319-10602-1_48.
    """
    if label is not None:
        return _ap50(matches, weights, label)
    values = np.array([_ap50(matches, weights, one) for one in range(matches.true.shape[1])])
    return ratio(np.nansum(values, axis=0), np.isfinite(values).sum(axis=0))


def _ap50(matches: Matches, weights: Floats, label: int) -> Floats:
    counted = (matches.label == label) & (matches.rank < BOXES)
    image, right = matches.image[counted], matches.right[counted]
    # Precision is highest right after a true positive, so it is only computed there. What was
    # found up to each follows from how many boxes of every image come up to each.
    at = np.flatnonzero(right)
    steps = np.zeros((weights.shape[1], len(at) + 1))
    np.add.at(steps, (image, np.searchsorted(at, np.arange(len(image)))), 1)
    up_to = weights @ steps.cumsum(axis=1)[:, : len(at)]  # (B, true positives)
    tp = weights[:, image[at]].cumsum(axis=1)
    precision = np.divide(tp, up_to, out=np.zeros_like(tp), where=up_to > 0)
    best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    true = (weights @ matches.true[:, label])[:, None]
    recall = np.divide(tp, true, out=np.zeros_like(tp), where=true > 0)
    reached = np.searchsorted(RECALLS, recall, side="right")  # how many recall points
    newly = np.diff(reached, axis=1, prepend=0)
    area = (best_from_here * newly).sum(axis=1) / len(RECALLS)
    return np.where(true[:, 0] > 0, area, np.nan)


def f1_replicates(counts: BoxCounts, weights: Floats, label: int | None = None) -> Floats:
    """F1 over all images when each counts as often as its weight says.

    Parameters
    ----------
    counts
        Each (images, labels), at the thresholds chosen on the validation part.
    weights
        (B, images), at least 0.
    label
        Which; None = the boxes of all labels together.

    Returns
    -------
    ndarray
        (B,) fractions, 1 is best; NaN where no box of the label has a weight.
    """
    tp, fp, fn = (
        weights @ (count.sum(axis=1) if label is None else count[:, label]) for count in counts
    )
    return ratio(2 * tp, 2 * tp + fp + fn)


def interval_of(replicates: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval [1]_ of the replicates that are defined.

    Parameters
    ----------
    replicates
        (B,) values, or differences of two runs' values.

    Returns
    -------
    tuple of float
        Lower and upper end; (NaN, NaN) without a defined replicate. Count the undefined ones
        (NaN) beside it: the interval is of resamples that hold a box of the label.

    References
    ----------
    .. [1] Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7, 1979,
       doi:10.1214/aos/1176344552.

    Examples
    --------
    >>> interval_of(np.arange(101.0), confidence=0.5)
    (25.0, 75.0)
    """
    defined = replicates[np.isfinite(replicates)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = 50 * (1 - confidence)
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)
