"""Grey values of DICOM files of one frame, by pydicom."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spine_tasks.errors import DataError

if TYPE_CHECKING:
    from pydicom import FileDataset

DECODERS = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"


def read_dicom(file: Path) -> NDArray[np.float32]:
    """The values (H, W) of a DICOM file, as `spine_tasks.data.pictures.read_picture` says.

    Raises
    ------
    DataError
        As there.
    """
    with _read(file) as found:
        frames = int(found.get("NumberOfFrames") or 1)
        if frames > 1 or "SharedFunctionalGroupsSequence" in found:
            raise DataError(
                f"{file}: enhanced DICOM of {frames} frames; convert it to one file a slice"
            )
        kind = found.get("PhotometricInterpretation", "none")
        if kind not in ("MONOCHROME1", "MONOCHROME2"):
            raise DataError(f"{file}: DICOM of kind {kind}, not of grey values; leave it out")
        return _values(file, found, mirrored=kind == "MONOCHROME1")


def dicom_size(file: Path) -> tuple[int, int]:
    """Width and height of a DICOM file in px, without its pixels.

    Raises
    ------
    DataError
        It is damaged or has no pixels.
    """
    with _read(file, stop_before_pixels=True) as found:
        return int(found.Columns), int(found.Rows)


class Geometry(NamedTuple):
    """Where a slice lies, as far as its file says."""

    spacing_mm: tuple[float, float] | None  # from row to row, from column to column
    position_mm: NDArray[np.float64] | None  # (3,) of the middle of the first pixel
    normal: NDArray[np.float64] | None  # (3,) direction across the slice


def slice_geometry(file: Path) -> Geometry:
    """Where a slice lies, without reading its pixels.

    Raises
    ------
    DataError
        It is damaged, or says something that cannot be.
    """
    with _read(file, stop_before_pixels=True) as found:
        spacing, position = found.get("PixelSpacing"), found.get("ImagePositionPatient")
        directions = found.get("ImageOrientationPatient")
        if spacing is not None and min(map(float, spacing)) <= 0:
            raise DataError(f"{file}: PixelSpacing {list(spacing)}; it must be above 0 mm")
        normal = None
        if directions is not None:
            right, down = np.array(directions, float).reshape(2, 3)
            normal = np.cross(right, down)
        return Geometry(
            None if spacing is None else (float(spacing[0]), float(spacing[1])),
            None if position is None else np.array(position, float),
            normal,
        )


@contextmanager
def _read(file: Path, stop_before_pixels: bool = False) -> "Iterator[FileDataset]":
    """A DICOM file; what goes wrong inside is a `DataError`."""
    try:
        import pydicom
    except ImportError as error:
        raise DataError(
            f"{file}: DICOM needs pydicom; install the extra `detection` or `grading`, or convert "
            "it to PNG"
        ) from error
    try:
        yield pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
    except DataError:
        raise
    except Exception as error:  # of many kinds, where a tag is missing, wrong or cut off
        raise DataError(f"{file}: damaged or no image ({error}); fetch or copy it again") from error


def _values(file: Path, found: "FileDataset", mirrored: bool) -> NDArray[np.float32]:
    from pydicom.pixels.processing import apply_modality_lut

    try:
        pixels = found.pixel_array
    except (RuntimeError, NotImplementedError) as error:  # no decoder for this compression
        way = found.file_meta.TransferSyntaxUID.name
        raise DataError(
            f"{file}: compressed as {way}, and its pixels cannot be decoded here; "
            f"{DECODERS}, or convert it to PNG ({error})"
        ) from error
    values = apply_modality_lut(pixels, found)
    if mirrored:
        values = values.max() + values.min() - values.astype(np.float64)
    return np.asarray(values, np.float32)
