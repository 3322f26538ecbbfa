"""Overlap of two masks: how many voxels agree."""

from typing import NamedTuple

import numpy as np

from spine_tasks.metrics.masks import Mask, check_masks


class Counts(NamedTuple):
    """Voxels of a prediction, held against the truth."""

    tp: int  # in both
    fp: int  # in the prediction only
    fn: int  # in the truth only
    tn: int  # in neither


def count(truth: Mask, predicted: Mask) -> Counts:
    """Count the voxels on which two masks agree and differ.

    Parameters
    ----------
    truth, predicted
        Bool, of one shape, any number of axes.

    Raises
    ------
    DataError
        A mask is not bool, or the shapes differ.

    Examples
    --------
    >>> count(np.array([True, True, False]), np.array([True, False, False]))
    Counts(tp=1, fp=0, fn=1, tn=1)
    """
    check_masks(truth, predicted)
    tp = int(np.count_nonzero(truth & predicted))
    fp = int(np.count_nonzero(predicted)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Counts(tp=tp, fp=fp, fn=fn, tn=truth.size - tp - fp - fn)


def overlap(counts: Counts) -> dict[str, float]:
    """DSC, JI, CC, TPR, TNR and PPV of one pair of masks.

    DSC = 2TP/(2TP+FP+FN), JI = TP/(TP+FP+FN), CC = 1 - (FP+FN)/TP (the conformity
    coefficient [1]_), TPR = TP/(TP+FN), TNR = TN/(TN+FP), PPV = TP/(TP+FP).

    Returns
    -------
    dict of str to float
        Fractions, at most 1, and 1 is best; CC can be any negative number, the others are at
        least 0. A metric whose denominator is zero is NaN: undefined, neither 0 nor 1. That is
        DSC and JI if both masks are empty, CC if TP is 0, TPR if the truth is empty, TNR if the
        truth is full, PPV if the prediction is empty.

    Notes
    -----
    JI = DSC/(2-DSC) and CC = (3 DSC - 2)/DSC: the three rank two segmentations of one case
    alike. All are reported to compare with the grey-matter challenge [2]_. TNR grows with the
    field of view; compare it between equal crops only.

    References
    ----------
    .. [1] Chang et al., Performance measure characterization for evaluating neuroimage
       segmentation algorithms, NeuroImage 47, 2009, doi:10.1016/j.neuroimage.2009.03.068.
    .. [2] Prados et al., Spinal cord grey matter segmentation challenge, NeuroImage 152, 2017,
       doi:10.1016/j.neuroimage.2017.03.010.

    Examples
    --------
    >>> overlap(Counts(tp=3, fp=1, fn=1, tn=95))["DSC"]
    0.75
    >>> overlap(Counts(tp=0, fp=0, fn=0, tn=100))["DSC"]
    nan
    """
    tp, fp, fn, tn = counts
    return {
        "DSC": _ratio(2 * tp, 2 * tp + fp + fn),
        "JI": _ratio(tp, tp + fp + fn),
        "CC": 1 - _ratio(fp + fn, tp),
        "TPR": _ratio(tp, tp + fn),
        "TNR": _ratio(tn, tn + fp),
        "PPV": _ratio(tp, tp + fp),
    }


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")
