"""Figures of grades: how far confidence can be trusted, and what is taken for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from spine_tasks.cell import Cell
from spine_tasks.collect.set_scores import by_arm, graded_places
from spine_tasks.experiment import Experiment
from spine_tasks.figures.style import INCH_A_LINE, drawn, in_lines, look, marker
from spine_tasks.metrics.grade_scores import Places
from spine_tasks.metrics.grades import Floats, reliability, tables

SMALLEST_DOT, DOT_A_SHARE = 8.0, 160.0  # points^2: of no place, and more for all of them


@dataclass(frozen=True)
class Graded:
    """What the arms found for one condition, places of all cells of an arm together."""

    grades: Sequence[str]  # names, from the mildest on
    tables: dict[str, Floats]  # arm -> (K, K) places: true grade by given one
    points: dict[str, Floats]  # arm -> (3, bins): mean confidence, share right, places


def graded_by_arm(experiment: Experiment, arms: Sequence[Cell]) -> dict[str, Graded]:
    """What each arm found, by condition; a place counts once for each cell it is tested in."""
    found: dict[str, Graded] = {}
    for arm, cells in by_arm(arms).items():
        of_cells = [graded_places(experiment, cell) for cell in cells]
        for name, grades in of_cells[0][1].conditions.items():
            own = _together([places[name] for places, _ in of_cells])
            condition = found.setdefault(name, Graded(grades, {}, {}))
            [condition.tables[arm]] = tables(own.p, own.truth, np.ones((1, len(own.truth))))
            condition.points[arm] = np.stack(reliability(own.p, own.truth)).astype(np.float64)
    return found


def _together(places: Sequence[Places]) -> Places:
    return Places(
        [case for one in places for case in one.cases],
        np.concatenate([one.p for one in places]),
        np.concatenate([one.truth for one in places]),
    )


def draw_reliability(found: Mapping[str, Graded], file: Path) -> None:
    """Draw a panel a condition: share right over confidence, a line an arm, a dot a bin."""
    arms = list(dict.fromkeys(arm for condition in found.values() for arm in condition.points))
    width = max(5.0, 1 + 3.2 * len(found))
    names = [in_lines(arm, width - 1) for arm in arms]
    lines = 2 + sum(1 + name.count("\n") for name in names)
    with drawn(file, width, height=3.9 + INCH_A_LINE * lines) as figure:
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for axes, (name, condition) in zip(panels, found.items(), strict=True):
            axes.plot([0, 1], [0, 1], color="0.4", linewidth=1)
            for arm, (confidence, right, places) in condition.points.items():
                place, seen = arms.index(arm), places > 0
                own = look(place)
                axes.plot(confidence[seen], right[seen], linewidth=1, **own)
                size = SMALLEST_DOT + DOT_A_SHARE * places[seen] / places.sum()
                dots = {"color": own["color"], "marker": marker(place)}
                axes.scatter(confidence[seen], right[seen], s=size, **dots)
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=in_lines(name, 3.2))
            counts = {round(one[2].sum()) for one in condition.points.values()}
            n = " to ".join(f"{one}" for one in sorted({min(counts), max(counts)}))
            axes.set(xlabel="confidence", ylabel=f"share graded right, of n = {n} places")
        keys = [
            Line2D([], [], label=name, marker=marker(place), markersize=4, **look(place))
            for place, name in enumerate(names)
        ]
        kept = Line2D([], [], label="as confident as right; dots by number", color="0.4")
        figure.legend(handles=[*keys, kept], loc="outside lower center")
