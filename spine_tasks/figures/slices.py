"""Axial slices with outlines of masks, as radiologists look at them."""
# mypy: untyped-calls-exclude="nibabel"

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import Normal, Stroke
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from spine_tasks.nnunet.volumes import turned

BAR_MM = 10.0
SPLIT = 8  # of a pixel's edge
WINDOW = (1, 99.5)  # percentiles of the square that are black and white
MANUAL = "#F0E442"  # the yellow of Okabe and Ito, which no model has
CASED = [Stroke(linewidth=2, foreground="black"), Normal()]  # seen on black and on white

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """An axial slice: rows from the patient's right to left, columns from posterior to anterior."""

    image: NDArray[np.float32]  # (X, Y)
    manual: Mask  # (X, Y)
    found: dict[str, Mask]  # model -> (X, Y)
    spacing_mm: tuple[float, float]


def widest_slice(image: Any, manual: Mask, found: Mapping[str, Mask]) -> Slice:
    """The slice with most of the manual mask, the lowest of several; the middle one of none.

    Parameters
    ----------
    image
        A volume of nibabel.
    manual, found
        Masks on its grid.
    """
    las = turned(image, np.asarray(image.dataobj))
    truth = _turned(image, manual)
    at = int(truth.sum(axis=(0, 1)).argmax()) if truth.any() else las.shape[2] // 2
    of_models = {model: _turned(image, mask)[..., at] for model, mask in found.items()}
    x_mm, y_mm, _ = (float(edge) for edge in voxel_sizes(las.affine))
    return Slice(np.asarray(las.dataobj)[..., at], truth[..., at], of_models, (x_mm, y_mm))


def _turned(image: Any, mask: Mask) -> Mask:
    return np.asarray(turned(image, mask.astype(np.uint8)).dataobj).astype(bool)


def draw_slice(axes: Axes, shown: Slice, side_mm: float) -> None:
    """A square around the manual mask: the right of the patient is left, anterior is up."""
    x_mm, y_mm = (n * edge for n, edge in zip(shown.image.shape, shown.spacing_mm, strict=True))
    left, right, bottom, top = _square(shown, side_mm)
    inside = shown.image[_pixels(left, right, shown.spacing_mm[0])]
    inside = inside[:, _pixels(bottom, top, shown.spacing_mm[1])]
    black, white = np.percentile(inside, WINDOW)
    axes.imshow(
        shown.image.T,  # rows of a picture are its height
        origin="lower",
        extent=(0, x_mm, 0, y_mm),
        cmap="gray",
        vmin=black,
        vmax=white,
        interpolation="nearest",
    )
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], facecolor="black")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _square(shown: Slice, side_mm: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top in mm from the slice's corner, around the mask or the middle."""
    marked = np.argwhere(shown.manual if shown.manual.any() else ~shown.manual)
    x, y = (marked.mean(axis=0) + 0.5) * shown.spacing_mm
    half = side_mm / 2
    return x - half, x + half, y - half, y + half


def _pixels(low_mm: float, high_mm: float, edge_mm: float) -> slice:
    return slice(max(0, math.floor(low_mm / edge_mm)), math.ceil(high_mm / edge_mm))


def outline(axes: Axes, mask: Mask, spacing_mm: Sequence[float], color: str) -> None:
    """The edges of a mask's pixels."""
    if not mask.any():
        return  # a contour of nothing is a warning
    # A contour runs from centre to centre and cuts corners: small ones where pixels are split.
    fine = np.pad(mask, 1).repeat(SPLIT, axis=0).repeat(SPLIT, axis=1)
    x, y = (
        ((np.arange(n) + 0.5) / SPLIT - 1) * edge
        for n, edge in zip(fine.shape, spacing_mm, strict=True)
    )
    line = axes.contour(x, y, fine.T, levels=[0.5], colors=color, linewidths=1)
    line.set_path_effects(CASED)


def mark_sides(axes: Axes, shown: Slice, side_mm: float) -> None:
    """The patient's right and anterior, and a bar of known length."""
    words: dict[str, Any] = {"color": "white", "transform": axes.transAxes, "path_effects": CASED}
    axes.text(0.03, 0.5, "R", va="center", **words)
    axes.text(0.5, 0.97, "A", ha="center", va="top", **words)
    _, right, bottom, _ = _square(shown, side_mm)
    ends = (right - 0.05 * side_mm - BAR_MM, right - 0.05 * side_mm)
    axes.plot(ends, [bottom + 0.05 * side_mm] * 2, color="white", path_effects=CASED)
    middle = 0.95 - BAR_MM / side_mm / 2
    axes.text(middle, 0.07, f"{BAR_MM / 10:g} cm", ha="center", fontsize="small", **words)
