"""Pictures of example images with the boxes that each arm found, and with reference boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spine_tasks.cell import Cell
from spine_tasks.data.cases import box_cases_of
from spine_tasks.data.pictures import read_picture
from spine_tasks.experiment import Experiment
from spine_tasks.figures.drawing import draw_boxes
from spine_tasks.figures.examples import Example
from spine_tasks.figures.style import INCH_A_LINE, drawn, in_lines, name_lines
from spine_tasks.metrics.box_scores import NO_CHOICE
from spine_tasks.predictions import Detections, load_boxes

PANEL_INCH = 3.4  # the width of a picture, enough to read what stands in it


def draw_box_examples(
    experiment: Experiment,
    found: Sequence[Example],
    arms: Sequence[str],
    cases: pd.DataFrame,
    metric: str,
    file: Path,
) -> None:
    """Draw a row an example, a picture an arm: found boxes, and dashed those of the reference.

    Boxes from each category's threshold on are drawn, which are those that the score counts.

    Parameters
    ----------
    cases
        With the rows `threshold`, as `score_boxes` makes them.
    """
    pictures = [
        {arm: _picture(experiment, cell, one.case, cases) for arm, cell in one.cells.items()}
        for one in found
    ]
    tall = [max(p.shape[0] / p.shape[1] for p in row.values()) * PANEL_INCH for row in pictures]
    lines = 2 + max(len(name_lines(arm)) for arm in arms)
    height = sum(tall) + INCH_A_LINE * (3 * len(found) + lines)
    with drawn(file, 0.4 + (PANEL_INCH + 0.1) * len(arms), height, svg=False) as figure:
        panels = figure.subplots(len(found), len(arms), squeeze=False, height_ratios=tall)
        for row, (one, of_arms) in enumerate(zip(found, pictures, strict=True)):
            for axes, arm in zip(panels[row], arms, strict=True):
                axes.set_axis_off()
                title = name_lines(arm) if row == 0 else []
                if arm in of_arms:
                    axes.imshow(of_arms[arm])
                    title = [*title, f"{metric} {one.scores[arm]:.3f}"]
                axes.set_title("\n".join(title if arm in of_arms else [*title, "did not test it"]))
            name = in_lines(f"{one.place}: {one.case}", tall[row])
            panels[row][0].text(
                *(-0.02, 0.5, name),
                **{"rotation": 90, "ha": "right", "va": "center"},
                transform=panels[row][0].transAxes,
            )


def _picture(
    experiment: Experiment, cell: Cell, name: str, cases: pd.DataFrame
) -> NDArray[np.uint8]:
    tested, data = box_cases_of(cell, "test", experiment.folder)
    boxes = load_boxes(experiment.run(cell).predictions / "test.json", tested, data.category_ids)
    at = [case.id for case in tested].index(name)
    chosen = cases[(cases["cell"] == cell.id) & (cases["metric"] == "threshold")]
    thresholds = chosen.set_index("label")["value"].reindex(data.categories).fillna(NO_CHOICE)
    sure = _from(boxes[at], thresholds.to_numpy())
    return np.asarray(draw_boxes(read_picture(tested[at].image), tested[at], sure, data.categories))


def _from(found: Detections, thresholds: NDArray[np.float64]) -> Detections:
    """The boxes that are at least as sure as their category's threshold."""
    kept = found.scores >= thresholds[found.labels]
    return Detections(found.boxes[kept], found.labels[kept], found.scores[kept])
