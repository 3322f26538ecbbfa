"""Size of a mask: volume, and area across the cord."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_smoothing_spline

from spine_tasks.metrics.masks import Mask

SPLINE_POINTS = 5  # that a smoothing spline needs at least

Floats = NDArray[np.float64]


def volumes(truth: Mask, predicted: Mask, spacing_mm: Sequence[float]) -> dict[str, float]:
    """`volume` and `volume_reference` in mm3, and RVE, the relative volume error.

    RVE = (volume - volume_reference) / volume_reference, a fraction from -1 up; above 0 the
    prediction is too large. NaN if the truth is empty.

    Examples
    --------
    >>> truth = np.ones((2, 2, 2), dtype=bool)
    >>> volumes(truth, truth & False, spacing_mm=(1.0, 0.5, 0.5))
    {'volume': 0.0, 'volume_reference': 2.0, 'RVE': -1.0}
    """
    voxel_mm3 = math.prod(spacing_mm)
    found, true = (float(np.count_nonzero(mask)) for mask in (predicted, truth))
    return {
        "volume": found * voxel_mm3,
        "volume_reference": true * voxel_mm3,
        "RVE": (found - true) / true if true else math.nan,
    }


def cross_sections_mm2(mask: Mask, spacing_mm: Sequence[float], slice_axis: int) -> Floats:
    """The area of each slice, corrected by the angle between the slice and the cord.

    An oblique cut through a cord is larger than the cord. The area in the slice is multiplied by
    the cosine of the angle between the slice's normal and the centreline, as spinal-cord tools do
    [1]_. The centreline is a smoothing spline through the slices' centres of mass (its smoothness
    by generalised cross-validation); a straight line where fewer than five slices are marked.
    Slices weigh as their pixels, so that a stray voxel beyond the cord's end does not bend it.

    Parameters
    ----------
    mask
        Bool, 3-D.
    spacing_mm
        Distance of voxel centres in mm, one per array axis.
    slice_axis
        The array axis along the cord.

    Returns
    -------
    (Z,) float64
        mm2, at least 0; NaN where nothing is marked.

    References
    ----------
    .. [1] Cohen-Adad et al., Generic acquisition protocol for quantitative MRI of the spinal cord,
       Nat Protoc 16, 2021, doi:10.1038/s41596-021-00588-0.

    Examples
    --------
    A bar of 3 x 3 mm that moves by a slice's thickness from slice to slice is cut at 45 degrees:

    >>> mask = np.zeros((9, 3, 4), dtype=bool)
    >>> for z in range(4):
    ...     mask[z : z + 3, :, z] = True
    >>> cross_sections_mm2(mask, (1.0, 1.0, 1.0), slice_axis=2).round(2).tolist()
    [6.36, 6.36, 6.36, 6.36]
    """
    stack = np.moveaxis(mask, slice_axis, 0)
    pixel_mm = [step for axis, step in enumerate(spacing_mm) if axis != slice_axis]
    pixels = stack.sum(axis=(1, 2)).astype(np.float64)
    area = np.where(pixels > 0, pixels * math.prod(pixel_mm), np.nan)
    marked = np.flatnonzero(pixels)
    if len(marked) < 2:  # no line has a direction
        return area
    along_mm = marked.astype(np.float64) * spacing_mm[slice_axis]
    centres = np.array([np.argwhere(stack[at]).mean(axis=0) for at in marked]) * pixel_mm
    slopes = [_slope(along_mm, centres[:, axis], pixels[marked]) for axis in range(2)]
    area[marked] *= 1 / np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
    return area


def _slope(along_mm: Floats, across_mm: Floats, pixels: Floats) -> Floats:
    """How far the centreline moves across in each mm along, at each slice."""
    if len(along_mm) < SPLINE_POINTS:
        # Its weights are those of residuals, the spline's those of their squares.
        return np.full(len(along_mm), np.polyfit(along_mm, across_mm, 1, w=np.sqrt(pixels))[0])
    spline = make_smoothing_spline(along_mm, across_mm, w=pixels / pixels.mean())
    return np.asarray(spline.derivative()(along_mm))


def areas(
    truth: Mask, predicted: Mask, spacing_mm: Sequence[float], slice_axis: int
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Cross-sectional areas and their errors: of a volume, and of each of its slices.

    Returns
    -------
    dict of str to float
        `CSA` and `CSA_reference`, mean areas in mm2 over the slices that both masks mark, and
        `CSA_error`, the mean size of their difference there; NaN if there is no such slice.
    list of dict of str to float
        For each slice `CSA_slice`, `CSA_reference_slice` and `CSA_error_slice`, their difference
        with its sign; NaN where a mask that it needs marks nothing.
    """
    found, true = (cross_sections_mm2(mask, spacing_mm, slice_axis) for mask in (predicted, truth))
    error = found - true
    both = np.isfinite(error)
    means = {"CSA": found[both], "CSA_reference": true[both], "CSA_error": np.abs(error[both])}
    whole = {name: float(v.mean()) if len(v) else math.nan for name, v in means.items()}
    columns = zip(found.tolist(), true.tolist(), error.tolist(), strict=True)
    return whole, [
        {"CSA_slice": a, "CSA_reference_slice": b, "CSA_error_slice": c} for a, b, c in columns
    ]
