"""An image and its cord mask as nnU-Net is given them: in one orientation, on one grid."""

# mypy: untyped-calls-exclude="nibabel"

from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.processing import resample_from_to
from numpy.typing import NDArray

from spine_tasks.data.nifti import load_image
from spine_tasks.errors import DataError
from spine_tasks.nnunet.pairs import Pair

# From right, posterior and inferior on, which spinal-cord tools call RPI; nibabel names an axis by
# where it leads to.
TO = ("L", "A", "S")
SAME_GRID_VOXELS = 0.25  # corners may be off by so much; a shift by half is another convention


def volumes_of(pair: Pair) -> tuple[nib.Nifti1Image, nib.Nifti1Image, bool]:
    """The image and its cord mask on the image's grid, axes from right, posterior and inferior on.

    Returns
    -------
    image
        (X, Y, Z) float32.
    mask
        (X, Y, Z) uint8, 1 where the label is above the source's threshold.
    bool
        Whether the label lay on another grid and was resampled (linearly, then thresholded).

    Raises
    ------
    DataError
        As `image_and_mask`.
    """
    image, mask, resampled = image_and_mask(pair)
    return (
        turned(image, np.asarray(image.dataobj)),
        turned(image, mask.astype(np.uint8)),
        resampled,
    )


def image_and_mask(pair: Pair) -> tuple[nib.Nifti1Image, NDArray[np.bool_], bool]:
    """The image as it is, its cord mask on its grid, and whether that was resampled.

    Returns
    -------
    image
        (X, Y, Z) float32 in the order of the file.
    mask
        (X, Y, Z) bool, true where the label is above the source's threshold.
    bool
        Whether the label lay on another grid and was resampled (linearly, then thresholded).

    Raises
    ------
    DataError
        As `spine_tasks.data.nifti.load_image`; label and image do not overlap, or the label holds
        values that are no share of cord.
    """
    image, label = load_image(pair.image), load_image(pair.label)
    _check_values(pair, label)
    resampled = not _same_grid(image, label)
    if resampled:
        _check_overlap(pair, image, label)
        label = resample_from_to(label, (image.shape, image.affine), order=1, cval=0.0)
    return image, np.asarray(label.dataobj) > pair.source.threshold, resampled


def turned(image: nib.Nifti1Image, array: NDArray[np.generic]) -> nib.Nifti1Image:
    """An array of an image's grid, its axes turned to L-A-S; no value changes."""
    turn = _turn(image)
    found = nib.Nifti1Image(
        np.ascontiguousarray(nib.orientations.apply_orientation(array, turn)),
        image.affine @ inv_ornt_aff(turn, image.shape),
    )
    found.set_qform(found.affine, code=1)
    found.set_sform(found.affine, code=1)
    return found


def turned_back(image: nib.Nifti1Image, array: NDArray[np.generic]) -> NDArray[Any]:
    """An array whose axes were turned to L-A-S, on the image's own grid again."""
    back = ornt_transform(axcodes2ornt(TO), io_orientation(image.affine))
    return np.ascontiguousarray(nib.orientations.apply_orientation(array, back))


def _turn(image: nib.Nifti1Image) -> NDArray[np.float64]:
    return np.asarray(ornt_transform(io_orientation(image.affine), axcodes2ornt(TO)))


def _check_values(pair: Pair, label: nib.Nifti1Image) -> None:
    values = np.asarray(label.dataobj)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise DataError(
            f"{pair.label}: values are {low:g} to {high:g}, but a cord mask has shares from 0 to "
            "1; it may be of other structures: correct the suffix, or make a mask of the cord"
        )


def _same_grid(image: nib.Nifti1Image, label: nib.Nifti1Image) -> bool:
    if image.shape != label.shape:
        return False
    moved = apply_affine(label.affine, _corners(label)) - apply_affine(
        image.affine, _corners(image)
    )
    edge = float(min(nib.affines.voxel_sizes(image.affine)))
    return bool(np.linalg.norm(moved, axis=1).max() <= SAME_GRID_VOXELS * edge)


def _corners(image: nib.Nifti1Image) -> NDArray[np.float64]:
    ends = np.array([(-0.5, length - 0.5) for length in image.shape])
    return np.array(np.meshgrid(*ends)).reshape(3, -1).T


def _check_overlap(pair: Pair, image: nib.Nifti1Image, label: nib.Nifti1Image) -> None:
    """Refuse a label of which nothing lies in the image's volume."""
    marked = np.argwhere(np.asarray(label.dataobj) > pair.source.threshold)
    if not len(marked):
        return
    inside = apply_affine(np.linalg.inv(image.affine) @ label.affine, marked)
    if not ((inside > -0.5) & (inside < np.array(image.shape) - 0.5)).all(axis=1).any():
        raise DataError(
            f"{pair.label}: shape {label.shape}, and nothing of what it marks lies in its image of "
            f"shape {image.shape}; it was drawn on another image, or its affine is wrong"
        )
