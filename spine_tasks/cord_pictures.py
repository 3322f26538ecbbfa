"""Pictures of found cords: an axial slice a test set, with the manual outline and each model's."""
# mypy: untyped-calls-exclude="nibabel"

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from spine_tasks.cell import Cell
from spine_tasks.data.cases import cord_cases_of
from spine_tasks.data.nifti import load_mask
from spine_tasks.experiment import Experiment
from spine_tasks.generalization import TESTED
from spine_tasks.nnunet.pairs import Pair
from spine_tasks.nnunet.volumes import image_and_mask, turned
from spine_tasks.plots import INCH_A_LETTER, INCH_A_LINE, drawn, look, name_lines
from spine_tasks.set_scores import by_arm

SIDE_MM = 40.0  # of the square around the cord
BAR_MM = 10.0
SPLIT = 8  # of a pixel's edge
WINDOW = (1, 99.5)  # percentiles of the square that are black and white
IN_A_ROW = 4  # panels
LEAST_SIDE_INCH = 1.8  # of a panel
MANUAL = "#F0E442"  # the yellow of Okabe and Ito, which no model has
CASED = [Stroke(linewidth=2, foreground="black"), Normal()]  # seen on black and on white


@dataclass(frozen=True)
class Slice:
    """An axial slice: rows from the patient's right to left, columns from posterior to anterior."""

    image: NDArray[np.float32]  # (X, Y)
    manual: NDArray[np.bool_]  # (X, Y)
    found: dict[str, NDArray[np.bool_]]  # model -> (X, Y)
    spacing_mm: tuple[float, float]


def draw_cords(experiment: Experiment, arms: Sequence[Cell], cases: pd.DataFrame) -> None:
    """Draw `cord_<test set>.png`: of its first case by id, the slice with most of the manual mask.

    The case is one of the first fold of `arms`, as the cells of the least seed segmented it; a
    model without a cell there has no panel. `cases` say the Dice.
    """
    first = min(cell.fold for cell in arms)
    there = [cell for cell in arms if cell.fold == first]
    cells = {model: min(own, key=lambda cell: cell.seed) for model, own in by_arm(there).items()}
    order = list(by_arm(arms))
    pairs = cord_cases_of(there[0], "test", experiment.folder)
    dice = cases[cases["metric"] == TESTED].set_index(["cell", "case"])["value"]
    for test_set in dict.fromkeys(pair.test_set for pair in pairs):
        pair = min((one for one in pairs if one.test_set == test_set), key=lambda one: one.id)
        shown = _slice(experiment, cells, pair)
        titles = {model: float(dice[cell.id, pair.id]) for model, cell in cells.items()}
        name = re.sub(r"[^A-Za-z0-9]", "_", test_set)
        looks = {model: look(order.index(model)) for model in cells}
        _draw(shown, test_set, titles, looks, experiment.folder / f"cord_{name}.png")


def _slice(experiment: Experiment, cells: dict[str, Cell], pair: Pair) -> Slice:
    """The slice with most of the manual mask, the lowest of several; the middle one of none."""
    image, manual, _ = image_and_mask(pair)
    las = turned(image, np.asarray(image.dataobj))
    truth = _turned(image, manual)
    at = int(truth.sum(axis=(0, 1)).argmax()) if truth.any() else las.shape[2] // 2
    found = {
        model: _turned(
            image, load_mask(experiment.run(cell).predictions / f"{pair.id}.nii.gz", image)
        )[..., at]
        for model, cell in cells.items()
    }
    x_mm, y_mm, _ = (float(edge) for edge in voxel_sizes(las.affine))
    return Slice(np.asarray(las.dataobj)[..., at], truth[..., at], found, (x_mm, y_mm))


def _turned(image: Any, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(turned(image, mask.astype(np.uint8)).dataobj).astype(bool)


def _draw(
    shown: Slice,
    test_set: str,
    dice: dict[str, float],
    looks: dict[str, dict[str, Any]],
    file: Path,
) -> None:
    """A panel of the image alone, then one a model."""
    rows = math.ceil((1 + len(dice)) / IN_A_ROW)
    columns = math.ceil((1 + len(dice)) / rows)
    titles = {model: [*name_lines(model), f"{TESTED} {dice[model]:.3f}"] for model in dice}
    lines = max(map(len, titles.values()))
    longest = max(len(line) for title in [[test_set], *titles.values()] for line in title)
    side = max(LEAST_SIDE_INCH, INCH_A_LETTER * longest)
    height = 0.5 + rows * (side + INCH_A_LINE * (lines + 0.5))
    with drawn(file, width=columns * (side + 0.1), height=height) as figure:
        panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for axes in panels[1 + len(dice) :]:
            axes.remove()
        for axes in panels[: 1 + len(dice)]:
            _draw_image(axes, shown)
        panels[0].set_title(test_set, fontsize="medium")
        _mark(panels[0], shown)
        for axes, (model, title) in zip(panels[1:], titles.items(), strict=False):
            _outline(axes, shown.manual, shown.spacing_mm, color=MANUAL)
            _outline(axes, shown.found[model], shown.spacing_mm, **looks[model])
            axes.set_title("\n".join(title), fontsize="medium")
        keys = [Line2D([], [], color=MANUAL, label="manual", path_effects=CASED)]
        keys.append(Line2D([], [], color="0.5", label="model (DSC is of the whole volume)"))
        figure.legend(handles=keys, loc="outside lower center", ncols=2)


def _draw_image(axes: Axes, shown: Slice) -> None:
    """The square around the cord as radiologists look: right of the patient left, anterior up."""
    x_mm, y_mm = (n * edge for n, edge in zip(shown.image.shape, shown.spacing_mm, strict=True))
    left, right, bottom, top = _square(shown)
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


def _square(shown: Slice) -> tuple[float, float, float, float]:
    """Left, right, bottom and top in mm from the slice's corner, around the cord or the middle."""
    marked = np.argwhere(shown.manual if shown.manual.any() else ~shown.manual)
    x, y = (marked.mean(axis=0) + 0.5) * shown.spacing_mm
    half = SIDE_MM / 2
    return x - half, x + half, y - half, y + half


def _pixels(low_mm: float, high_mm: float, edge_mm: float) -> slice:
    return slice(max(0, math.floor(low_mm / edge_mm)), math.ceil(high_mm / edge_mm))


def _outline(axes: Axes, mask: NDArray[np.bool_], spacing_mm: Sequence[float], **own: Any) -> None:
    """The edges of a mask's pixels."""
    if not mask.any():
        return  # a contour of nothing is a warning
    # A contour runs from centre to centre and cuts corners: small ones where pixels are split.
    fine = np.pad(mask, 1).repeat(SPLIT, axis=0).repeat(SPLIT, axis=1)
    x, y = (
        ((np.arange(n) + 0.5) / SPLIT - 1) * edge
        for n, edge in zip(fine.shape, spacing_mm, strict=True)
    )
    style = {"colors": own["color"], "linestyles": own.get("linestyle", "-"), "linewidths": 1}
    axes.contour(x, y, fine.T, levels=[0.5], **style).set_path_effects(CASED)


def _mark(axes: Axes, shown: Slice) -> None:
    """The patient's right and anterior, and a bar of known length."""
    words: dict[str, Any] = {"color": "white", "transform": axes.transAxes, "path_effects": CASED}
    axes.text(0.03, 0.5, "R", va="center", **words)
    axes.text(0.5, 0.97, "A", ha="center", va="top", **words)
    _, right, bottom, _ = _square(shown)
    ends = (right - 0.05 * SIDE_MM - BAR_MM, right - 0.05 * SIDE_MM)
    axes.plot(ends, [bottom + 0.05 * SIDE_MM] * 2, color="white", path_effects=CASED)
    axes.text(0.82, 0.07, f"{BAR_MM / 10:g} cm", ha="center", fontsize="small", **words)
