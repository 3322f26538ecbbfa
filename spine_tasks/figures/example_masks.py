"""Pictures of example cases with masks: the image, and each arm's outline on the reference's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from spine_tasks.cell import Cell
from spine_tasks.data.cases import cases_of, target
from spine_tasks.data.nifti import load_image, load_mask
from spine_tasks.experiment import Experiment
from spine_tasks.figures.examples import Example
from spine_tasks.figures.slices import (
    CASED,
    MANUAL,
    Slice,
    draw_slice,
    mark_sides,
    outline,
    widest_slice,
)
from spine_tasks.figures.style import INCH_A_LINE, drawn, in_lines, name_lines, width_of

LEAST_SIDE_MM = 24.0  # of the square around the mask
ROOM = 1.8  # times the mask's longer side
PANEL_INCH = 2.2
FOUND = "#56B4E9"  # sky blue: seen on grey, and told apart from the reference's yellow


def draw_mask_examples(
    experiment: Experiment,
    found: Sequence[Example],
    arms: Sequence[str],
    metric: str,
    file: Path,
) -> None:
    """Draw a row an example: the slice with most of the reference, bare and as each arm found it.

    Parameters
    ----------
    arms
        Those shown, from left to right.
    metric
        That of the examples' scores.
    """
    side = max([PANEL_INCH, *(width_of(name_lines(arm)) for arm in arms)])
    names = [f"{in_lines(one.place, side)}\n{in_lines(one.case, side)}" for one in found]
    lines = max(name.count("\n") + 1 for name in names)
    first = max(len(name_lines(arm)) for arm in arms)
    height = 0.5 + len(found) * (side + INCH_A_LINE * (lines + 0.5)) + INCH_A_LINE * first
    with drawn(file, (1 + len(arms)) * (side + 0.1), height, svg=False) as figure:
        panels = figure.subplots(len(found), 1 + len(arms), squeeze=False)
        for row, (one, name) in enumerate(zip(found, names, strict=True)):
            shown = _slice(experiment, one)
            side_mm = _side_mm(shown)
            draw_slice(panels[row][0], shown, side_mm)
            mark_sides(panels[row][0], shown, side_mm)
            panels[row][0].set_title(name, fontsize="medium")
            for axes, arm in zip(panels[row][1:], arms, strict=True):
                title = name_lines(arm) if row == 0 else []
                _draw_arm(axes, shown, side_mm, arm)
                score = one.scores.get(arm)
                said = "did not test it" if score is None else f"{metric} {score:.3f}"
                axes.set_title("\n".join([*title, said]), fontsize="medium")
        keys = [Line2D([], [], color=MANUAL, label="reference", path_effects=CASED)]
        words = f"found ({metric} is of the whole volume)"
        keys.append(Line2D([], [], color=FOUND, label=words, path_effects=CASED))
        figure.legend(handles=keys, loc="outside lower center", ncols=2)


def _slice(experiment: Experiment, one: Example) -> Slice:
    cell = next(iter(one.cells.values()))
    case = next(c for c in cases_of(cell, "test", experiment.folder) if c.id == one.case)
    image = load_image(case.image)
    _, reference = target(case)
    found = {arm: _mask(experiment, own, one.case, image) for arm, own in one.cells.items()}
    return widest_slice(image, load_mask(reference, image), found)


def _mask(experiment: Experiment, cell: Cell, case: str, image: Any) -> Any:
    return load_mask(experiment.run(cell).predictions / f"{case}.nii.gz", image)


def _side_mm(shown: Slice) -> float:
    marked = np.argwhere(shown.manual)
    extent = (np.ptp(marked, axis=0) + 1) * shown.spacing_mm if len(marked) else np.zeros(2)
    return max(LEAST_SIDE_MM, ROOM * float(extent.max()))


def _draw_arm(axes: Axes, shown: Slice, side_mm: float, arm: str) -> None:
    draw_slice(axes, shown, side_mm)
    outline(axes, shown.manual, shown.spacing_mm, color=MANUAL)
    if arm in shown.found:
        outline(axes, shown.found[arm], shown.spacing_mm, color=FOUND)
