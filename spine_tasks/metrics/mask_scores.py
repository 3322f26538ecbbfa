"""All metrics of one case of masks."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from spine_tasks.errors import DataError
from spine_tasks.metrics.masks import Mask
from spine_tasks.metrics.overlap import count, overlap
from spine_tasks.metrics.published import published
from spine_tasks.metrics.size import areas, volumes
from spine_tasks.metrics.surface import surface_distances

Score = tuple[int | None, str, float]


def score_masks(
    truth: Mask, predicted: Mask, spacing_mm: Sequence[float], slice_axis: int
) -> Iterator[Score]:
    """Every metric in `METRICS` of one label of one case, in that order.

    Parameters
    ----------
    truth, predicted
        Bool, 3-D, of one shape.
    spacing_mm
        Distance of voxel centres in mm, one per array axis.
    slice_axis
        The array axis along the cord: 0, 1 or 2. Slices lie across it; their distances are
        measured in-plane.

    Returns
    -------
    iterator of (int or None, str, float)
        Slice index, name of the metric, value: first the metrics of the volume, whose slice is
        None, then those of every slice from 0 up. An undefined value is NaN and stays in, so the
        length is the same for every case of one shape.

    Raises
    ------
    DataError
        At the call: a mask is not bool, the shapes differ, there are not three axes, or the
        spacing or the slice axis does not fit them.

    Examples
    --------
    >>> mask = np.ones((2, 3, 3), dtype=bool)
    >>> scores = list(score_masks(mask, mask, spacing_mm=(5.0, 0.5, 0.5), slice_axis=0))
    >>> scores[0], scores[-1]
    ((None, 'DSC', 1.0), (1, 'HSD_slice_px', 0.0))
    """
    if truth.ndim != 3 or slice_axis not in range(3):
        raise DataError(
            f"need volumes of 3 axes and a slice axis of 0, 1 or 2, got {truth.ndim} axes and "
            f"slice axis {slice_axis}; give one slice a third axis of length 1"
        )
    volume = overlap(count(truth, predicted)) | surface_distances(truth, predicted, spacing_mm)
    area, area_of_slice = areas(truth, predicted, spacing_mm, slice_axis)
    volume |= volumes(truth, predicted, spacing_mm) | area
    whole: list[Score] = [(None, name, value) for name, value in volume.items()]
    return chain(whole, _score_slices(truth, predicted, spacing_mm, slice_axis, area_of_slice))


def _score_slices(
    truth: Mask,
    predicted: Mask,
    spacing_mm: Sequence[float],
    slice_axis: int,
    area_of_slice: Sequence[dict[str, float]],
) -> Iterator[Score]:
    in_plane_mm = [step for axis, step in enumerate(spacing_mm) if axis != slice_axis]
    # In one copy, as slices strewn over the memory of a volume take several times as long.
    stacks = [np.ascontiguousarray(np.moveaxis(mask, slice_axis, 0)) for mask in (truth, predicted)]
    for index, (true, found) in enumerate(zip(*stacks, strict=True)):
        values = overlap(count(true, found)) | surface_distances(true, found, in_plane_mm)
        for name, value in values.items():
            yield index, f"{name}_slice", value
        for name, value in (area_of_slice[index] | published(true, found)).items():
            yield index, name, value
