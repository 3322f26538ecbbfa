"""The slice that a place is in, with its neighbours by position."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.dicom_pictures import slice_geometry
from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.data.pictures import read_picture
from spine_tasks.errors import DataError

Floats = NDArray[np.float32]

# Places of a study share slices, and are asked for one after the other.
_picture = lru_cache(maxsize=64)(read_picture)
_geometry = lru_cache(maxsize=4096)(slice_geometry)


class Stack(NamedTuple):
    """Neighbouring slices of one size."""

    values: Floats  # (S, H, W) grey values of the files
    spacing_mm: tuple[float, float] | None  # from row to row, from column to column; None: unknown


def read_stack(case: GradeCase, slices: int) -> Stack:
    """The slice of a place in the middle of its neighbours, in the order of their positions.

    Parameters
    ----------
    slices
        Odd. Beyond the end of a series its last slice is repeated.

    Raises
    ------
    DataError
        A picture cannot be read; slices differ in size, spacing or direction, or two are at one
        position; the place is outside its slice; neighbours are wanted of a series whose files do
        not say where they are.
    """
    middle = case.series[case.index]
    spacing = _geometry(middle).spacing_mm if middle.suffix.lower() == ".dcm" else None
    files = [middle] if slices == 1 else _neighbours(case, slices)
    pictures = [_picture(file) for file in files]
    for file, picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[len(files) // 2].shape:
            raise DataError(
                f"{file}: {picture.shape[1]} x {picture.shape[0]} px, other than {middle.name} of "
                "its series; take slices=1, or remove the files of another size"
            )
    height, width = pictures[0].shape
    if not (0 <= case.x <= width and 0 <= case.y <= height):
        raise DataError(
            f"{middle}: the place of {case.id} is at {case.x:g}, {case.y:g} px, outside of the "
            f"slice of {width} x {height} px; correct its coordinates"
        )
    return Stack(np.stack(pictures), spacing)


def _neighbours(case: GradeCase, slices: int) -> list[Path]:
    ordered = _by_position(case.series)
    at = ordered.index(case.series[case.index])
    first = at - slices // 2
    return [ordered[min(max(first + n, 0), len(ordered) - 1)] for n in range(slices)]


@lru_cache(maxsize=1024)  # a series is asked for once a place
def _by_position(series: tuple[Path, ...]) -> tuple[Path, ...]:
    """The slices of a series along the direction they are stacked in."""
    if len(series) == 1:
        return series
    found = [_geometry(file) for file in series]
    if any(one.position_mm is None or one.normal is None for one in found):
        raise DataError(
            f"{series[0].parent}: slices without a position or direction, so their neighbours are "
            "not known; take slices=1"
        )
    for file, one in zip(series, found, strict=True):
        if not np.allclose(np.abs(np.dot(one.normal, found[0].normal)), 1, atol=1e-2):  # type: ignore[arg-type]
            raise DataError(f"{file}: lies in another direction than its series; take slices=1")
    along = [float(np.dot(one.position_mm, found[0].normal)) for one in found]  # type: ignore[arg-type]
    order = np.argsort(along)
    if (close := np.flatnonzero(np.diff(np.array(along)[order]) < 1e-3)).size:
        one, other = series[order[close[0]]], series[order[close[0] + 1]]
        raise DataError(f"{one} and {other.name} are at one position; keep one of them")
    return tuple(series[at] for at in order)
