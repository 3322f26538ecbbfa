"""Effects of factors as dots on a line of zero."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from spine_tasks.figures.style import (
    INCH_A_LINE,
    colour,
    drawn,
    in_lines,
    marker,
    shortened,
    width_of,
    with_unit,
)

PANEL_INCH = 3.4
BAR: dict[str, Any] = {"linewidth": 1.5, "markersize": 6, "markevery": [1]}


def draw_factors(effects: pd.DataFrame, metric: str, file: Path) -> None:
    """Draw a panel a label: what each level of a factor changes, with its 95 % interval.

    Parameters
    ----------
    effects
        The rows of one metric, with the columns `label, factor, level, baseline_level, n,
        mean_difference, low, high`, and `p_holm` if there is one.
    """
    labels = list(effects["label"].unique())
    factors = list(effects["factor"].unique())
    named = effects.assign(name=[_name(row) for row in effects.to_dict("records")])
    rows = named.drop_duplicates("name")["name"].tolist()
    tallest = INCH_A_LINE * (1 + max(name.count("\n") + 1 for name in rows))
    side = 0.3 + width_of([line for name in rows for line in name.split("\n")])
    width, height = side + PANEL_INCH * len(labels), 1.1 + tallest * len(rows)
    with drawn(file, width, height) as figure:
        panels = figure.subplots(1, len(labels), squeeze=False, sharey=True)[0]
        for axes, label in zip(panels, labels, strict=True):
            axes.grid(visible=False, axis="y")
            axes.axvline(0, color="0.4", linewidth=1)
            for row in named[named["label"] == label].to_dict("records"):
                at, place = rows.index(row["name"]), factors.index(row["factor"])
                ends = [row["low"], row["mean_difference"], row["high"]]
                axes.plot(ends, [at] * 3, color=colour(place), marker=marker(place), **BAR)
            axes.set_xlabel(with_unit(in_lines(f"difference in {metric} of {label}", 3), metric))
        panels[0].set_yticks(np.arange(len(rows)), rows)
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
        key = Line2D([], [], label="mean over persons, 95 % interval", color="0.4", marker="o")
        figure.legend(handles=[key], loc="outside upper right")


def _name(row: Mapping[Any, Any]) -> str:
    words = f"{row['factor']}: {row['level']} minus {row['baseline_level']}"
    return in_lines(shortened(words), 2.6) + f"\nn = {row['n']} persons"
