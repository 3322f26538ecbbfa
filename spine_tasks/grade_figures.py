"""Figures of grades: how far confidence can be trusted, and what is taken for what."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from spine_tasks.cell import Cell
from spine_tasks.experiment import Experiment
from spine_tasks.metrics.grade_scores import Places
from spine_tasks.metrics.grades import Floats, reliability, tables
from spine_tasks.plots import INCH_A_LETTER, INCH_A_LINE, drawn, look, name_lines
from spine_tasks.set_scores import by_arm, graded_places

SMALLEST_DOT, DOT_A_SHARE = 8.0, 160.0  # points^2: of no place, and more for all of them


def draw_grades(experiment: Experiment, arms: Sequence[Cell]) -> None:
    """Draw `reliability.png`, and `confusion_<condition>.png` of each condition.

    Places of all cells of an arm count, once for each of its cells that they are tested in.
    """
    found: dict[str, dict[str, tuple[Floats, Floats]]] = {}  # condition -> arm -> points, table
    grades: dict[str, Sequence[str]] = {}
    for arm, cells in by_arm(arms).items():
        of_cells = [graded_places(experiment, cell) for cell in cells]
        grades |= of_cells[0][1].conditions
        for name in of_cells[0][1].conditions:
            own = _together([places[name] for places, _ in of_cells])
            [table] = tables(own.p, own.truth, np.ones((1, len(own.truth))))
            points: Floats = np.stack(reliability(own.p, own.truth)).astype(np.float64)
            found.setdefault(name, {})[arm] = (points, table)
    _draw_reliability(found, experiment.folder / "reliability.png")
    for name, of_arms in found.items():
        of_tables = {arm: table for arm, (_, table) in of_arms.items()}
        file = experiment.folder / f"confusion_{name}.png"
        _draw_confusion(of_tables, name, grades[name], file)


def _together(places: Sequence[Places]) -> Places:
    return Places(
        [case for one in places for case in one.cases],
        np.concatenate([one.p for one in places]),
        np.concatenate([one.truth for one in places]),
    )


def _draw_reliability(found: Mapping[str, Mapping[str, tuple[Floats, Floats]]], file: Path) -> None:
    """A panel a condition: share right over confidence, a line an arm, a dot a bin."""
    arms = list(dict.fromkeys(arm for of_arms in found.values() for arm in of_arms))
    width = max(1 + 3.2 * len(found), 1 + INCH_A_LETTER * max(map(len, arms)))
    with drawn(file, width, height=3.9 + INCH_A_LINE * (len(arms) + 1)) as figure:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (condition, of_arms) in zip(panels, found.items(), strict=True):
            axes.plot([0, 1], [0, 1], color="0.4", linewidth=1)
            for arm, ((confidence, right, places), _) in of_arms.items():
                own, seen = look(arms.index(arm)), places > 0
                axes.plot(confidence[seen], right[seen], linewidth=1, **own)
                size = SMALLEST_DOT + DOT_A_SHARE * places[seen] / places.sum()
                axes.scatter(confidence[seen], right[seen], s=size, color=own["color"])
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=condition)
            axes.set(xlabel="confidence", ylabel="share of places graded right")
        keys = [Line2D([], [], label=arm, **look(place)) for place, arm in enumerate(arms)]
        kept = Line2D([], [], label="as confident as right; dots by number", color="0.4")
        figure.legend(handles=[*keys, kept], loc="outside lower center")


def _draw_confusion(
    of_arms: Mapping[str, Floats], condition: str, grades: Sequence[str], file: Path
) -> None:
    """A panel an arm: rows are true grades, columns given ones; colour is the share of the row."""
    side = max(2.2, 0.55 * len(grades) + 1)
    lines = max(len(name_lines(arm)) for arm in of_arms)
    height = side + 0.6 + INCH_A_LINE * lines
    with drawn(file, width=1 + side * len(of_arms), height=height) as figure:
        panels = figure.subplots(1, len(of_arms), squeeze=False)[0]
        for axes, (arm, table) in zip(panels, of_arms.items(), strict=True):
            _draw_table(axes, table, grades)
            axes.set_title("\n".join(name_lines(arm)), fontsize="medium")
        panels[0].set_ylabel(f"true {condition}")
        figure.supxlabel(f"given {condition}", fontsize="medium")


def _draw_table(axes: Axes, table: Floats, grades: Sequence[str]) -> None:
    of_row = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(of_row, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set_xticks(range(len(grades)), grades, rotation=45 if max(map(len, grades)) > 3 else 0)
    axes.set_yticks(range(len(grades)), grades)
    for (row, column), number in np.ndenumerate(table):
        colour = "white" if of_row[row, column] > 0.5 else "black"
        axes.text(column, row, f"{number:.0f}", ha="center", va="center", color=colour)
