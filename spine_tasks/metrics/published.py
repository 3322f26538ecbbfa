"""Metrics as the published paediatric grey-matter study computed them, to compare with it.

They differ from ours in what they say of the same masks, so they have names of their own. What
it did with the values also differs: it left undefined slices out (PPV of an empty prediction, CC
without overlap), averaged over slices rather than persons, and gave percent. Nothing here does
that.

References
----------
.. [1] Kumar, transfer learning for paediatric spinal cord grey-matter segmentation,
   https://github.com/ashwinkumargb/pediatric_gmseg.
"""

from spine_tasks.metrics.masks import Mask
from spine_tasks.metrics.overlap import Counts, count
from spine_tasks.metrics.surface import surface_distances


def published(truth: Mask, predicted: Mask) -> dict[str, float]:
    """Smoothed Dice and surface distances in pixels, of one slice.

    Parameters
    ----------
    truth, predicted
        Bool, 2-D, of one shape: one slice.

    Returns
    -------
    dict of str to float
        `DSC_slice_smoothed`: see `smoothed_dice`. `MSD_slice_px` and `HSD_slice_px`: the same
        distances as MSD and HSD, but in pixels, at least 0, NaN if either mask is empty. The
        study labelled them mm, and under MSD mixed the mean with a mean square; here it is the
        mean.

    Raises
    ------
    DataError
        A mask is not bool, the shapes differ, or there are not two axes.
    """
    distances = surface_distances(truth, predicted, spacing_mm=(1.0, 1.0))
    return {
        "DSC_slice_smoothed": smoothed_dice(count(truth, predicted)),
        "MSD_slice_px": distances["MSD"],
        "HSD_slice_px": distances["HSD"],
    }


def smoothed_dice(counts: Counts) -> float:
    """(2TP + 1)/(2TP + FP + FN + 1), above 0 and at most 1; never NaN.

    The added 1 makes a slice where both masks are empty a perfect 1, and one of a few voxels
    better than its DSC: the mean over slices rises with the share of empty slices.

    Examples
    --------
    >>> smoothed_dice(Counts(tp=1, fp=1, fn=0, tn=2))
    0.75
    >>> smoothed_dice(Counts(tp=0, fp=0, fn=0, tn=4))
    1.0
    """
    tp, fp, fn, _ = counts
    return (2 * tp + 1) / (2 * tp + fp + fn + 1)
