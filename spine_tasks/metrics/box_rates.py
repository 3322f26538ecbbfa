"""Counts, rates and thresholds of boxes that were matched with reference boxes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.coco import BoxCase
from spine_tasks.metrics.boxes import Floats, Integers, Matches, box_iou, in_order, match
from spine_tasks.predictions import Detections

FALSE_POSITIVES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # an image: where FROC is read


class BoxCounts(NamedTuple):
    """Boxes that agree and differ, each (images, labels), or sums of those."""

    tp: Integers
    fp: Integers
    fn: Integers


def counts_at(matches: Matches, thresholds: Floats) -> BoxCounts:
    """TP, FP and FN of each image and label, of the boxes at least as sure as a threshold.

    Parameters
    ----------
    thresholds
        (labels,) scores.
    """
    sure = matches.score >= thresholds[matches.label]
    tp, fp = np.zeros_like(matches.true), np.zeros_like(matches.true)
    for counts, chosen in ((tp, sure & matches.right), (fp, sure & ~matches.right)):
        np.add.at(counts, (matches.image[chosen], matches.label[chosen]), 1)
    return BoxCounts(tp, fp, matches.true - tp)


def rates(counts: BoxCounts) -> dict[str, Floats]:
    """Precision TP/(TP+FP), recall TP/(TP+FN) and F1 2TP/(2TP+FP+FN), each in the counts' shape.

    Fractions, 1 is best. NaN where the denominator is 0: precision if nothing was found, recall if
    there is no reference box, F1 if neither is there. Found boxes where there is no reference box
    are wrong, so precision and F1 are then 0.

    Examples
    --------
    >>> one = BoxCounts(tp=np.array([2, 0]), fp=np.array([1, 0]), fn=np.array([2, 0]))
    >>> {name: values.round(3).tolist() for name, values in rates(one).items()}
    {'precision': [0.667, nan], 'recall': [0.5, nan], 'F1': [0.571, nan]}
    """
    tp, fp, fn = counts
    return {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "F1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """`above / below`, NaN where `below` is 0."""
    above, below = np.asarray(above, float), np.asarray(below, float)
    values: Floats = np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
    return values


def best_thresholds(matches: Matches) -> Floats:
    """The threshold of best F1 of each label; choose it on the validation part, never on the test.

    Returns
    -------
    ndarray
        (labels,) scores of found boxes, the highest of several that are equally good. NaN where
        there is no reference box of the label, or no box of it was found: nothing to choose by.
    """
    return np.array([_best_threshold(matches, label) for label in range(matches.true.shape[1])])


def _best_threshold(matches: Matches, label: int) -> float:
    score, tp, fp = _curve(matches, label)
    true = matches.true[:, label].sum()
    if not true or not len(score):
        return float("nan")
    f1 = 2 * tp / (tp + fp + true)
    return float(score[f1.argmax()])  # the first, which is the highest threshold


def froc(matches: Matches, label: int) -> Floats:
    """Sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives an image.

    Each is the best of all thresholds with at most so many false positives, over all images,
    with no interpolation between thresholds; their mean is the usual score [1]_.

    Returns
    -------
    ndarray
        (7,) fractions, 1 is best; NaN if there is no reference box of the label.

    References
    ----------
    .. [1] Setio et al., Validation, comparison, and combination of algorithms for automatic
       detection of pulmonary nodules, Medical Image Analysis 42, 2017,
       doi:10.1016/j.media.2017.06.015.
    """
    _, tp, fp = _curve(matches, label)
    images, true = len(matches.true), matches.true[:, label].sum()
    # Both counts only grow as the threshold falls.
    within = [np.searchsorted(fp, rate * images, side="right") for rate in FALSE_POSITIVES]
    found = np.concatenate([[0], tp])[within]
    return ratio(found, np.full(len(found), true))


def _curve(matches: Matches, label: int) -> tuple[Floats, Integers, Integers]:
    """All thresholds that differ in their boxes, falling, with TP and FP of each."""
    own = matches.label == label
    score, right = matches.score[own], matches.right[own]
    last = np.append(score[1:] != score[:-1], True)[: len(score)]  # of those of one score
    return score[last], right.cumsum()[last], (~right).cumsum()[last]


def of_images(counts: BoxCounts) -> dict[str, Floats]:
    """Sensitivity and specificity of calling an image positive for a label.

    An image is positive if it has a reference box of the label, and called positive if a box of
    it was found, wherever that lies.

    Parameters
    ----------
    counts
        Each (images, labels).

    Returns
    -------
    dict of str to ndarray
        (labels,) fractions, 1 is best; NaN without a positive or negative image respectively.
    """
    positive, called = counts.tp + counts.fn > 0, counts.tp + counts.fp > 0
    return {
        "sensitivity_image": ratio((positive & called).sum(axis=0), positive.sum(axis=0)),
        "specificity_image": ratio((~positive & ~called).sum(axis=0), (~positive).sum(axis=0)),
    }


def confusions(
    cases: Sequence[BoxCase], found: Sequence[Detections], thresholds: Floats
) -> Integers:
    """What reference boxes were found as, matched at IoU .5 whatever their labels.

    Parameters
    ----------
    thresholds
        (labels,): less sure boxes are left out.

    Returns
    -------
    ndarray
        (images, labels + 1, labels + 1) boxes: row of the reference, column of what was found,
        last the background: its column counts boxes that were missed, its row boxes found on
        nothing. Sum over the images for the table of the set.
    """
    labels = len(thresholds)
    tables = np.zeros((len(cases), labels + 1, labels + 1), np.int64)
    for table, case, one in zip(tables, cases, found, strict=True):
        order = in_order(one.boxes, one.labels, one.scores)
        order = order[one.scores[order] >= thresholds[one.labels[order]]]
        true = in_order(case.boxes, case.labels)
        partner = match(box_iou(one.boxes[order], case.boxes[true]))
        # The index -1 of a box without partner takes the background from the end.
        row = np.append(case.labels[true], labels)[partner]
        np.add.at(table, (row, one.labels[order]), 1)
        missed = np.delete(case.labels[true], partner[partner >= 0])
        table[:, labels] += np.bincount(missed, minlength=labels + 1)
    return tables
