"""From an image's own voxel grid to the network's slices, and back.

Slices are axial, in the orientation L-A-S of nibabel: rows run from right to left, columns from
posterior to anterior, slices from inferior to superior. The official grey-matter weights expect
this one; mirrored or transposed, they find less or nothing.
"""
# mypy: allow-untyped-calls
# (nibabel.orientations has no annotations)

from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel import orientations
from numpy.typing import NDArray
from scipy import ndimage

from spine_tasks.errors import ConfigError, DataError

SLICES = "LAS"

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class Placement:
    """Where slices lie in the image that they were cut from."""

    image: str  # its file, for messages
    shape: tuple[int, ...]  # voxels of the image, in its own axis order
    to_las: NDArray[np.float64]  # nibabel's orientation transform, from the image's axes
    to_own: NDArray[np.float64]  # and back
    las_shape: tuple[int, ...]  # X, Y, Z after reorientation
    grid: tuple[int, int]  # X, Y pixels after resampling
    start: tuple[int, int]  # first pixel of the crop; negative where the slice is padded
    size_px: int


def to_slices(
    image: Any,
    *,
    spacing_mm: float | None,
    size_px: int,
    normalise: Literal["volume", "slice"] = "volume",
    centre: Literal["image"] | Mask = "image",
) -> tuple[NDArray[np.float32], Placement]:
    """Cut normalised square axial slices from an image.

    Reorient, resample in plane (linear, edge values beyond the edge), crop, normalise. At 0.25 mm,
    200 px and `volume` this is what the Spinal Cord Toolbox does before its network [1]_.

    Parameters
    ----------
    image
        A nibabel image, three-dimensional, in any orientation.
    spacing_mm
        In-plane spacing of the slices; None keeps the image's own.
    size_px
        Height and width of the slices.
    normalise
        Subtract the mean and divide by the standard deviation of all cut slices together
        (`volume`) or of each slice alone (`slice`). What lies outside the crop has no part in it.
        Constant intensities become zeros.
    centre
        `image`, or a cord mask (bool, the image's shape): then the centre of mass of the mask, one
        for all slices, is in the middle of the crop, as far as the crop stays within the image.

    Returns
    -------
    slices : float32 array (Z, H, W)
        Mean 0, standard deviation 1. Where the image is smaller than the crop it lies in the middle
        and the rest is 0, the mean.
    placement : Placement
        For `mask_to_slices` and `to_image`.

    Raises
    ------
    DataError
        The image is not three-dimensional, is empty, has values that are not finite or no usable
        affine; the mask is not bool, empty or of another shape.
    ConfigError
        `spacing_mm` or `size_px` is not positive, or leaves no pixel; `normalise` or `centre` is
        unknown.

    References
    ----------
    .. [1] De Leener et al., SCT: Spinal Cord Toolbox, NeuroImage 145, 2017,
       doi:10.1016/j.neuroimage.2016.10.009.

    Examples
    --------
    Six rows of 1 mm are twelve of half a millimetre; the eight in the middle start at the second.

    >>> image = nib.Nifti1Image(np.arange(6.0 * 6 * 2).reshape(6, 6, 2), np.diag([-1, 1, 5, 1]))
    >>> slices, placement = to_slices(image, spacing_mm=0.5, size_px=8)
    >>> slices.shape, placement.grid, placement.start
    ((2, 8, 8), (12, 12), (2, 2))
    """
    if normalise not in ("volume", "slice"):
        raise ConfigError(f"normalise must be 'volume' or 'slice', got {normalise!r}")
    volume = _volume(image)
    placement = _place(image, spacing_mm, size_px, centre)
    inside = _cut(volume, placement)
    standard = _standardised(inside, (0, 1, 2) if normalise == "volume" else (1, 2))
    return _pad(standard, placement).astype(np.float32), placement


def mask_to_slices(mask: NDArray[Any], placement: Placement) -> Mask:
    """The mask (bool, the image's own shape) on the slices, bool (Z, H, W).

    A pixel is inside where linear interpolation of the mask gives more than a half. Outside of the
    image it is False.

    Raises
    ------
    DataError
        The mask is not bool or not of the image's shape.
    """
    _check_mask(mask, placement.shape, f"{placement.image}: mask")
    return _pad(_cut(mask.astype(np.float64), placement) > 0.5, placement)


def to_image(probability: Floats, placement: Placement, threshold: float) -> Mask:
    """Binarise the slices' probabilities and bring them into the image's own voxel grid.

    Parameters
    ----------
    probability
        (Z, H, W), in [0, 1].
    placement
        As `to_slices` returned it.
    threshold
        A pixel is inside where its probability is greater; a voxel of the image, where linear
        interpolation of the binary pixels then gives more than a half.

    Returns
    -------
    bool array of the image's shape
        False outside of the crop.

    Raises
    ------
    DataError
        The slices are not those of the placement, or not finite.
    """
    expected = (placement.las_shape[2], placement.size_px, placement.size_px)
    if probability.shape != expected:
        raise DataError(
            f"{placement.image}: probabilities must be of shape {expected}, got {probability.shape}"
        )
    if bad := int(probability.size - np.isfinite(probability).sum()):
        raise DataError(
            f"{placement.image}: {bad} of {probability.size} probabilities are not finite; the "
            "network's weights have diverged, or half precision overflowed: use float32"
        )
    on_grid = np.zeros((*placement.grid, expected[0]))
    there, here = _windows(placement)
    on_grid[there] = np.moveaxis(probability > threshold, 0, 2)[here]
    in_las = _resampled(on_grid, placement.las_shape) > 0.5
    own: Mask = orientations.apply_orientation(in_las, placement.to_own)
    return own


def _name(image: Any) -> str:
    return str(image.get_filename() or "image")


def _volume(image: Any) -> NDArray[np.float64]:
    where = _name(image)
    if len(image.shape) != 3 or 0 in image.shape:
        raise DataError(
            f"{where}: shape {image.shape}; needed is one volume of three dimensions, none of "
            "them 0; split a series into its volumes"
        )
    volume: NDArray[np.float64] = image.get_fdata(caching="unchanged")
    if bad := int(volume.size - np.isfinite(volume).sum()):
        raise DataError(f"{where}: {bad} of {volume.size} voxels are not finite; mend the image")
    return volume


def _place(
    image: Any, spacing_mm: float | None, size_px: int, centre: Literal["image"] | Mask
) -> Placement:
    where = _name(image)
    axes = orientations.io_orientation(image.affine)
    if np.isnan(axes).any():
        raise DataError(f"{where}: the affine does not give each axis a direction; mend the header")
    las = orientations.axcodes2ornt(SLICES)
    to_las = orientations.ornt_transform(axes, las)
    order = np.argsort(to_las[:, 0])
    las_shape = tuple(int(image.shape[axis]) for axis in order)
    own_mm = nib.affines.voxel_sizes(image.affine)[order][:2]
    grid = _grid(where, las_shape, own_mm, spacing_mm)
    if size_px < 1:
        raise ConfigError(f"size_px must be at least 1, got {size_px}")
    middle: tuple[float, ...] = tuple(pixels // 2 for pixels in grid)
    if not isinstance(centre, str):
        _check_mask(centre, image.shape, f"{where}: cord mask")
        if not centre.any():
            raise DataError(f"{where}: the cord mask is empty, no centre for the crop")
        mass = ndimage.center_of_mass(orientations.apply_orientation(centre, to_las))
        middle = tuple(mass[axis] * grid[axis] / las_shape[axis] for axis in (0, 1))
    elif centre != "image":
        raise ConfigError(f"centre must be 'image' or a mask, got {centre!r}")
    return Placement(
        image=where,
        shape=tuple(image.shape),
        to_las=to_las,
        to_own=orientations.ornt_transform(las, axes),
        las_shape=las_shape,
        grid=grid,
        start=(_start(middle[0], grid[0], size_px), _start(middle[1], grid[1], size_px)),
        size_px=size_px,
    )


def _grid(
    where: str, las_shape: tuple[int, ...], own_mm: NDArray[Any], spacing_mm: float | None
) -> tuple[int, int]:
    if spacing_mm is None:
        return las_shape[0], las_shape[1]
    if not spacing_mm > 0:
        raise ConfigError(f"spacing_mm must be positive, got {spacing_mm}")
    x, y = (round(las_shape[axis] * float(own_mm[axis]) / spacing_mm) for axis in (0, 1))
    if min(x, y) < 1:
        raise ConfigError(f"{where}: spacing_mm {spacing_mm} leaves no pixel; the image is smaller")
    return x, y


def _start(middle: float, pixels: int, size_px: int) -> int:
    if pixels <= size_px:
        return pixels // 2 - size_px // 2
    return min(max(round(middle) - size_px // 2, 0), pixels - size_px)


def _check_mask(mask: NDArray[Any], shape: tuple[int, ...], name: str) -> None:
    if mask.dtype != np.bool_:
        raise DataError(f"{name} must be bool, got {mask.dtype}; threshold first")
    if mask.shape != tuple(shape):
        raise DataError(f"{name} must have the image's shape {tuple(shape)}, got {mask.shape}")


def _cut(volume: NDArray[np.float64], placement: Placement) -> NDArray[np.float64]:
    """From the image's own axes to Z, H, W within the crop."""
    in_las = orientations.apply_orientation(volume, placement.to_las)
    shape = (*placement.grid, placement.las_shape[2])
    on_grid = _resampled(in_las, shape, part=_windows(placement)[0])
    return np.moveaxis(on_grid, 2, 0)


def _resampled(
    volume: NDArray[np.float64], shape: tuple[int, ...], part: tuple[slice, ...] = ()
) -> NDArray[np.float64]:
    """Linear, and only a part of the first axes; the first voxel's centre stays, as in SCT."""
    if volume.shape == shape:
        return volume[part]
    part += tuple(slice(0, length) for length in shape[len(part) :])
    step = np.divide(volume.shape, shape)
    resampled: NDArray[np.float64] = ndimage.affine_transform(
        volume,
        step,
        offset=step * [one.start for one in part],
        output_shape=tuple(one.stop - one.start for one in part),
        order=1,
        mode="nearest",
    )
    return resampled


def _windows(placement: Placement) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part that grid and slice share: in the grid, and in the slice."""
    there, here = [], []
    for start, pixels in zip(placement.start, placement.grid, strict=True):
        first, last = max(start, 0), min(start + placement.size_px, pixels)
        there.append(slice(first, last))
        here.append(slice(first - start, last - start))
    return (there[0], there[1]), (here[0], here[1])


def _pad(inside: NDArray[Any], placement: Placement) -> NDArray[Any]:
    _, here = _windows(placement)
    side = placement.size_px
    padded = np.zeros((inside.shape[0], side, side), dtype=inside.dtype)
    padded[:, *here] = inside
    return padded


def _standardised(values: NDArray[np.float64], axes: tuple[int, ...]) -> NDArray[np.float64]:
    centred = values - values.mean(axis=axes, keepdims=True)
    spread = values.std(axis=axes, keepdims=True)
    # Rounding leaves a constant image a spread that is tiny but not 0.
    constant = spread <= 1e-12 * np.abs(values).max(initial=0)
    standardised: NDArray[np.float64] = np.divide(
        centred, spread, out=np.zeros_like(centred), where=~constant
    )
    return standardised
