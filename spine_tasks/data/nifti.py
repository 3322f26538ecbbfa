"""NIfTI volumes and masks, checked when they are read so that nothing wrong reaches training.

Arrays are (X, Y, Z) in the order of the file: no axis is turned or resampled here.
"""

# mypy: untyped-calls-exclude="nibabel"
# nibabel annotates only some of its functions.

import gzip
import itertools
import logging
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray

from spine_tasks.errors import DataError
from spine_tasks.files import replacing

log = logging.getLogger(__name__)

KINDS: tuple[Any, ...] = (nib.Nifti1Image, nib.Nifti2Image)

# A mask saved with rounded rotations is off by a fraction of a voxel at the corners (0.15 voxel in
# the gray-matter challenge data); a shift by half a voxel is already another convention.
TOLERANCE_VOXELS = 0.25
ROUNDING_MM = 1e-3  # below this an affine went through 32-bit numbers, nothing more

# What places a voxel grid in the scanner; the rest of a header (names, display range) stays behind.
GEOMETRY = ("pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z")
QUATERNION = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")


def load_image(file: Path) -> nib.Nifti1Image:
    """Read a 3-D NIfTI image whole into memory, decompression checksum included.

    Parameters
    ----------
    file
        `.nii` or `.nii.gz`, NIfTI-1 or NIfTI-2.

    Returns
    -------
    nibabel image
        Its array is (X, Y, Z) float32 in the order and intensity unit of the file, finite, with at
        least one voxel; `get_fdata(dtype=np.float32)` costs nothing. Trailing axes of length 1
        are dropped, and logged. Spacing in mm is `header.get_zooms()`, and agrees with the affine.

    Raises
    ------
    DataError
        The file is missing, not NIfTI, cut off or damaged; the image is not 3-D, has no voxel,
        holds NaN or infinity, or is not of real numbers; its spacing is not positive or
        contradicts its affine.
    """
    content = _content(file)
    kind = next((k for k in KINDS if k.header_class.may_contain_header(content)), None)
    if kind is None:
        raise DataError(f"{file}: not a NIfTI file; convert it to .nii or .nii.gz")
    _check_spacing(file, kind.header_class, content)
    try:
        image = kind.from_bytes(content)
        _check_shape(file, image)
        array = _finite_float32(file, image)
    except DataError:
        raise
    except (OSError, ValueError, nib.spatialimages.HeaderDataError) as error:
        raise DataError(f"{file}: damaged or cut off ({error}); fetch or copy it again") from error
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    checked: nib.Nifti1Image = kind(array, image.affine, header)
    checked.set_filename(str(file))  # for messages about it
    return checked


def load_mask(file: Path, image: nib.Nifti1Image) -> NDArray[np.bool_]:
    """Read the mask of an image.

    Returns
    -------
    (X, Y, Z) bool
        On the voxel grid of `image`; all False when nothing is marked.

    Raises
    ------
    DataError
        As `load_image`; the shape differs from the image's, a corner of the volume lies more than
        a quarter of the smallest voxel edge from the image's, or a value is neither 0 nor 1.
    """
    mask = load_image(file)
    if mask.shape != image.shape:
        raise DataError(
            f"{file}: shape {mask.shape}, but its image has {image.shape}; "
            "use the mask drawn on this image, or resample it to the image"
        )
    _check_same_place(file, mask, image)
    array = np.asarray(mask.dataobj)
    values = np.unique(array)
    if not np.isin(values, (0, 1)).all():
        shown = ", ".join(f"{value:g}" for value in values[:8]) + (
            ", ..." if len(values) > 8 else ""
        )
        raise DataError(
            f"{file}: a mask holds 0 and 1 only, got {len(values)} values: {shown}; threshold first"
        )
    return array.astype(bool)


def save_mask(file: Path, mask: NDArray[np.bool_], image: nib.Nifti1Image) -> None:
    """Write a mask as uint8 on the voxel grid of `image`, in one step.

    The same mask and image give the same bytes in a `.nii.gz`, whenever they are written.

    Parameters
    ----------
    file
        `.nii.gz` or `.nii`; its folder is made.
    mask
        (X, Y, Z) bool.
    image
        Gives the shape, the affine and the codes of qform and sform; nothing else of its header
        is copied.

    Raises
    ------
    DataError
        `mask` is not bool, or not of the image's shape.
    """
    if mask.dtype != bool or mask.shape != image.shape:
        raise DataError(
            f"{file}: a mask must be bool {image.shape} like its image, "
            f"got {mask.dtype} {mask.shape}; threshold, and bring it back to the image's voxel grid"
        )
    header = nib.Nifti1Header()
    for field in GEOMETRY + QUATERNION:
        header[field] = image.header[field]
    header.set_data_dtype(np.uint8)
    with replacing(file) as partial:
        nib.Nifti1Image(mask.astype(np.uint8), image.affine, header).to_filename(partial)


def _content(file: Path) -> bytes:
    """All bytes of a file, decompressed to the end: a header and a few slices prove nothing."""
    if not file.exists():
        raise DataError(f"{file}: no such file; fetch the data, or correct the path")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    if file.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{file}: damaged or cut off after {len(content)} bytes ({error}); "
            "fetch or copy it again"
        ) from error


def _check_spacing(file: Path, header_class: Any, content: bytes) -> None:
    """Refuse what nibabel would mend in silence: it reads 0 as 1 mm and -2 as 2 mm."""
    header = header_class(content[: header_class.sizeof_hdr], check=False)
    spacing_mm = [float(edge) for edge in header["pixdim"][1:4]]
    if not all(np.isfinite(edge) and edge > 0 for edge in spacing_mm):
        raise DataError(
            f"{file}: spacing must be positive, got {spacing_mm} mm; correct pixdim in its header"
        )


def _check_shape(file: Path, image: nib.Nifti1Image) -> None:
    shape = image.shape
    if 0 in shape:
        raise DataError(f"{file}: empty image, shape {shape}; fetch or convert it again")
    for axis, length in enumerate(shape[3:], start=3):
        if length != 1:
            raise DataError(
                f"{file}: needs 3 axes (X, Y, Z), got shape {shape}: axis {axis} has length "
                f"{length}; save one volume, or the mean over axis {axis}, as a 3-D file"
            )
    if len(shape) < 3:
        raise DataError(f"{file}: needs 3 axes (X, Y, Z), got shape {shape}; save it as a volume")
    if len(shape) > 3:
        log.info("%s: shape %s read as %s", file, shape, shape[:3])
    affine_mm = voxel_sizes(image.affine)
    spacing_mm = np.array(image.header.get_zooms()[:3])
    if not np.allclose(affine_mm, spacing_mm, rtol=0.01):
        raise DataError(
            f"{file}: two spacings, {spacing_mm.tolist()} mm in pixdim and {affine_mm.tolist()} mm "
            "in the affine; correct its header, or convert it again from the original"
        )


def _finite_float32(file: Path, image: nib.Nifti1Image) -> NDArray[np.float32]:
    """The array (X, Y, Z) of an image, intensities scaled as its header says."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{file}: needs real numbers, got {dtype}; save magnitude or gray values")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinity, reported below
        array: NDArray[np.float32] = image.get_fdata(dtype=np.float32).reshape(image.shape[:3])
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    if nan or infinite:
        raise DataError(
            f"{file}: {nan} voxels are NaN and {infinite} infinite, of {array.size}; "
            "all must be finite: find out why, then repair or leave out this image"
        )
    return array


def _check_same_place(file: Path, mask: nib.Nifti1Image, image: nib.Nifti1Image) -> None:
    corners = np.array(list(itertools.product(*[(-0.5, length - 0.5) for length in image.shape])))
    moved = apply_affine(mask.affine, corners) - apply_affine(image.affine, corners)
    distance_mm = float(np.linalg.norm(moved, axis=1).max())
    allowed_mm = TOLERANCE_VOXELS * float(voxel_sizes(image.affine).min())
    if not distance_mm <= allowed_mm:
        raise DataError(
            f"{file}: a corner lies {distance_mm:.3g} mm from its image's, allowed are "
            f"{allowed_mm:.3g}; affine of the mask {mask.affine[:3].round(4).tolist()}, of the "
            f"image {image.affine[:3].round(4).tolist()}; use the mask drawn on this image"
        )
    if distance_mm > ROUNDING_MM:
        log.warning("%s: a corner lies %.3g mm from its image's", file, distance_mm)
