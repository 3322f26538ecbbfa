"""Pictures of example places, with their true grade and what each arm gave them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from spine_tasks.collect.set_scores import graded_places
from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.data.pictures import read_picture, to_uint8
from spine_tasks.experiment import Experiment
from spine_tasks.figures.examples import Example
from spine_tasks.figures.slices import CASED, MANUAL
from spine_tasks.figures.style import INCH_A_LINE, drawn, in_lines

PANEL_INCH = 3.0
ROOM = 3.0  # times the place's longer side
SHARE = 0.25  # of the picture's longer side, around a point
MARK: dict[str, Any] = {"color": MANUAL, "linestyle": "--", "linewidth": 1, "path_effects": CASED}


def draw_grade_examples(
    experiment: Experiment,
    found: Sequence[Example],
    arms: Sequence[str],
    condition: str,
    file: Path,
) -> None:
    """Draw a panel an example: the place, its true grade, and each arm's most probable one."""
    said = [_words(experiment, one, arms, condition) for one in found]
    lines = max(text.count("\n") + 1 for _, text in said)
    width = (PANEL_INCH + 0.2) * len(found)
    height = PANEL_INCH + 0.4 + INCH_A_LINE * lines
    with drawn(file, width, height, svg=False) as figure:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (case, text) in zip(panels, said, strict=True):
            _draw_place(axes, case)
            axes.set_title(text, fontsize="medium", multialignment="left")
        figure.supxlabel(
            in_lines(f"{condition}: the most probable grade, and its probability", width),
            fontsize="medium",
        )


def _words(
    experiment: Experiment, one: Example, arms: Sequence[str], condition: str
) -> tuple[GradeCase, str]:
    lines = [one.place, one.case]
    for arm in arms:
        if arm not in one.cells:
            lines.append(f"{arm}: did not test it")
            continue
        of_conditions, data = graded_places(experiment, one.cells[arm])
        places, grades = of_conditions[condition], data.conditions[condition]
        at = [case.id for case in places.cases].index(one.case)
        if len(lines) == 2:
            lines.append(f"true: {grades[places.truth[at]]}")
        p = places.p[at]
        lines.append(f"{arm}: {grades[int(p.argmax())]} ({p.max():.2f})")
    return places.cases[at], "\n".join(in_lines(line, PANEL_INCH) for line in lines)


def _draw_place(axes: Axes, case: GradeCase) -> None:
    picture = read_picture(case.series[case.index])
    sides = [side for side in (case.width, case.height) if side is not None]
    half = (ROOM * max(sides) if sides else SHARE * max(picture.shape)) / 2
    left, top = max(0, int(case.x - half)), max(0, int(case.y - half))
    inside = picture[top : int(case.y + half) + 1, left : int(case.x + half) + 1]
    down, across = inside.shape
    extent = (left - 0.5, left + across - 0.5, top + down - 0.5, top - 0.5)
    axes.imshow(to_uint8(inside), cmap="gray", extent=extent, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    if case.width is None or case.height is None:
        axes.plot([case.x], [case.y], marker="+", markersize=12, **MARK)
        return
    corner = (case.x - case.width / 2, case.y - case.height / 2)
    axes.add_patch(Rectangle(corner, case.width, case.height, fill=False, **MARK))
