"""Distances between the surfaces of two masks."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from spine_tasks.errors import DataError
from spine_tasks.metrics.masks import Mask, check_masks


def surface_distances(
    truth: Mask, predicted: Mask, spacing_mm: Sequence[float]
) -> dict[str, float]:
    """MSD, HSD and HD95: mean, maximum and 95 % of the distances from each surface to the other.

    Each surface voxel of either mask gives one distance, from its centre to the nearest surface
    voxel of the other mask; those of both directions are pooled, so that MSD and HSD are
    symmetric. MSD weighs every surface voxel alike and is thus not the mean of two means. HD95 is
    the larger of the two directions' 95th percentiles, as [3]_ has it.

    Parameters
    ----------
    truth, predicted
        Bool, of one shape, 2-D (one slice) or 3-D (a volume).
    spacing_mm
        Distance of voxel centres in mm, one per array axis. With a spacing of 1 the distances
        are in pixels.

    Returns
    -------
    dict of str to float
        MSD, HSD and HD95 in mm, at least 0, and 0 is best; NaN if either mask is empty.

    Raises
    ------
    DataError
        A mask is not bool, the shapes differ, there are not 2 or 3 axes, or `spacing_mm` is
        not one positive number per axis.

    Notes
    -----
    Surface voxels are those with a face (2-D: an edge) in common with the background. What lies
    outside the array counts as background: where a mask is cut by the image's border, the cut is
    surface. So every voxel of a volume one slice thick is surface; score its slice in 2-D.

    References
    ----------
    .. [1] Heimann et al., Comparison and evaluation of methods for liver segmentation from CT
       datasets, IEEE Trans. Med. Imaging 28, 2009, doi:10.1109/TMI.2009.2013851 (distances of
       both directions pooled; its surface voxels count corners as neighbours too).
    .. [2] Prados et al., Spinal cord grey matter segmentation challenge, NeuroImage 152, 2017,
       doi:10.1016/j.neuroimage.2017.03.010.
    .. [3] Maier-Hein et al., Metrics reloaded, Nat Methods 21, 2024,
       doi:10.1038/s41592-023-02151-z.

    Examples
    --------
    Two single voxels, two columns of 0.5 mm apart:

    >>> truth = np.array([[True, False, False]])
    >>> predicted = np.array([[False, False, True]])
    >>> surface_distances(truth, predicted, spacing_mm=(3.0, 0.5))
    {'MSD': 1.0, 'HSD': 1.0, 'HD95': 1.0}
    """
    check_masks(truth, predicted)
    _check_axes(truth.ndim, spacing_mm)
    if not truth.any() or not predicted.any():
        return dict.fromkeys(("MSD", "HSD", "HD95"), math.nan)
    box = ndimage.find_objects((truth | predicted).view(np.uint8))[0]
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (truth[box], predicted[box])]
    to_edge = [ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in edges]
    # Both directions: a missed lobe is far from the prediction, not from the truth.
    directed = [to_edge[1][edges[0]], to_edge[0][edges[1]]]
    distances = np.concatenate(directed)
    return {
        "MSD": float(distances.mean()),
        "HSD": float(distances.max()),
        "HD95": max(float(np.percentile(one, 95)) for one in directed),
    }


def _check_axes(axes: int, spacing_mm: Sequence[float]) -> None:
    if axes not in (2, 3):
        raise DataError(f"masks must have 2 or 3 axes, got {axes}; score one label at a time")
    if len(spacing_mm) != axes or not all(0 < step < math.inf for step in spacing_mm):
        got = [float(step) for step in spacing_mm]
        raise DataError(
            f"need {axes} positive spacings in mm, one per axis, got {got}; "
            "take them from the image's header"
        )
