"""Confusion tables as pictures: what each arm takes for what."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from spine_tasks.figures.style import INCH_A_LINE, drawn, in_lines, name_lines, width_of

FOUND_AS = "found_as_"
BACKGROUND = "background"
IN_A_ROW = 5  # panels
HEATED: dict[str, Any] = {
    "cmap": "Blues",
    "vmin": 0,
    "vmax": 1,
    "edgecolors": "0.85",
    "linewidth": 0.5,
}

Floats = NDArray[np.float64]


def box_tables(of_sets: pd.DataFrame) -> tuple[list[str], dict[str, Floats]]:
    """The `found_as_*` scores of all cells of an arm together, as a table an arm.

    Returns
    -------
    list of str
        The categories, with `background` last.
    dict of str to (K, K) ndarray
        Arm -> boxes; a row is what they are, a column what they were found as. The corner of
        `background` is NaN: nothing counts what is nowhere and was not found.
    """
    rows = of_sets[of_sets["metric"].str.startswith(FOUND_AS)]
    found_as = rows["metric"].str.removeprefix(FOUND_AS)
    names = [name for name in rows["label"].unique() if name != BACKGROUND] + [BACKGROUND]
    tables = {}
    for arm, own in rows.assign(found=found_as).groupby("arm", sort=False):
        boxes = own.pivot_table(index="label", columns="found", values="value", aggfunc="sum")
        table = boxes.reindex(index=names, columns=names).to_numpy(float, copy=True)
        tables[str(arm)] = table
    return names, tables


def draw_confusion(
    of_arms: Mapping[str, Floats],
    names: Sequence[str],
    words: tuple[str, str, str],
    file: Path,
) -> None:
    """Draw a panel an arm: rows are what is true, columns what is given.

    Parameters
    ----------
    of_arms
        Arm -> (K, K) counts, drawn as numbers; the colour is the share of the row, which a row of
        `background` has not: it is not counted in n either. NaN is empty.
    names
        Of the K rows and columns.
    words
        What rows are, what columns are, and what is counted.
    """
    rows_are, columns_are, counted = words
    side = max(2.2, 0.55 * len(names) + 1)
    lines = max(len(name_lines(arm)) for arm in of_arms) + 1
    rows = math.ceil(len(of_arms) / IN_A_ROW)
    columns = math.ceil(len(of_arms) / rows)
    named = width_of(list(names))
    width = 0.6 + named + columns * (side + 0.1)
    height = 0.6 + named + rows * (side + INCH_A_LINE * lines)
    with drawn(file, width, height) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axes in panels[len(of_arms) :]:
            axes.remove()
        for axes, (arm, table) in zip(panels, of_arms.items(), strict=False):
            _draw_table(axes, table, names)
            true = [row for row, name in zip(table, names, strict=True) if name != BACKGROUND]
            n = f"n = {np.nansum(true):.0f} {counted}"
            axes.set_title("\n".join([*name_lines(arm), n]), fontsize="medium")
        figure.supylabel(in_lines(rows_are, rows * side), fontsize="medium")
        figure.supxlabel(in_lines(columns_are, width), fontsize="medium")


def _draw_table(axes: Axes, table: Floats, names: Sequence[str]) -> None:
    of_row = table / np.maximum(np.nansum(table, axis=1, keepdims=True), 1)
    of_row[[name == BACKGROUND for name in names]] = np.nan
    # Not as an image: these squares stay lines in an SVG.
    axes.pcolormesh(np.ma.masked_invalid(of_row), **HEATED)
    axes.grid(visible=False)
    axes.set(aspect="equal")
    middles = np.arange(len(names)) + 0.5
    axes.set_xticks(middles, names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(middles, names)
    axes.set_ylim(len(names), 0)
    for (row, column), number in np.ndenumerate(table):
        if np.isfinite(number):
            shade = "white" if of_row[row, column] > 0.5 else "black"
            where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small"}
            axes.text(column + 0.5, row + 0.5, f"{number:.0f}", color=shade, **where)
