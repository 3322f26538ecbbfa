"""Training curves: what cells scored epoch by epoch, and which epoch's weights they kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from spine_tasks.errors import ConfigError
from spine_tasks.figures.style import (
    DOT,
    INCH_A_LINE,
    drawn,
    in_lines,
    look,
    marker,
    name_lines,
    width_of,
)

TOGETHER = 16  # cells that one panel carries; of more, each arm has its own
FAINT: dict[str, Any] = {"color": "0.9", "linewidth": 0, "zorder": 1}
CELL = ["arm", "seed", "fold"]


def training_curves(histories: pd.DataFrame, file: Path, metric: str | Sequence[str]) -> None:
    """Draw a panel per metric, a thin line per cell, and a dot at the epoch whose weights count.

    Of more than 16 cells each arm has a row of panels, on the range of all arms' cells in grey.

    Parameters
    ----------
    histories
        One row per cell and epoch, with the columns `arm, seed, fold, epoch, best_epoch` and each
        metric drawn. Of `best_epoch` that of a cell's last epoch counts; NaN has no dot. A NaN in
        a metric is a gap in its line.
    file
        The PNG.
    metric
        One column name, or several.

    Raises
    ------
    ConfigError
        A column is missing, or there is no row.
    """
    metrics = [metric] if isinstance(metric, str) else list(metric)
    if absent := [one for one in [*CELL, "epoch", "best_epoch", *metrics] if one not in histories]:
        raise ConfigError(f"{file.name}: no column {absent} in {list(histories)}; choose of these")
    if histories.empty:
        raise ConfigError(f"{file.name}: no epoch is in the histories; train a cell first")
    arms = list(histories["arm"].unique())
    if histories.groupby(CELL, dropna=False).ngroups > TOGETHER and len(arms) > 1:
        _apart(histories, arms, metrics, file)
    else:
        _together(histories, arms, metrics, file)


def _together(
    histories: pd.DataFrame, arms: Sequence[str], metrics: Sequence[str], file: Path
) -> None:
    """All arms in one panel a metric, told apart by the legend."""
    width = 1 + 3.6 * len(metrics)
    names = [in_lines(_named(histories, arm), width - 1) for arm in arms]
    lines = 1 + sum(1 + name.count("\n") for name in names)
    with drawn(file, width, height=2.8 + INCH_A_LINE * (lines + 1)) as figure:
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, name in zip(panels, metrics, strict=True):
            for place, arm in enumerate(arms):
                _draw_arm(axes, histories[histories["arm"] == arm], name, place)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set(xlabel="epoch", ylabel=name)
        keys = [Line2D([], [], label=name, **look(i)) for i, name in enumerate(names)]
        figure.legend(handles=[*keys, _kept()], loc="outside lower center")


def _apart(
    histories: pd.DataFrame, arms: Sequence[str], metrics: Sequence[str], file: Path
) -> None:
    """A row of panels an arm, in the limits of all."""
    names = [[*name_lines(arm), _cells(histories, arm)] for arm in arms]
    side = 0.3 + max(map(width_of, names))
    tallest = max(1.3, 0.3 + INCH_A_LINE * max(map(len, names)))
    width, height = side + 3.2 * len(metrics), 0.9 + tallest * len(arms)
    with drawn(file, width, height) as figure:
        panels = figure.subplots(len(arms), len(metrics), squeeze=False, sharex=True, sharey="col")
        for place, arm in enumerate(arms):
            own = histories["arm"] == arm
            for axes, name in zip(panels[place], metrics, strict=True):
                ends = histories.groupby("epoch")[name].agg(["min", "max"])
                axes.fill_between(ends.index, ends["min"], ends["max"], **FAINT)
                _draw_arm(axes, histories[own], name, place)
            text = "\n".join(names[place])
            panels[place][0].set_ylabel(text, rotation=0, ha="right", va="center")
        for top, bottom, name in zip(panels[0], panels[-1], metrics, strict=True):
            top.set_title(name, fontsize="medium")
            bottom.set_xlabel("epoch")
            bottom.xaxis.get_major_locator().set_params(integer=True)
        every = Patch(label="range of all arms' cells", **FAINT)
        figure.legend(handles=[every, _kept()], loc="outside lower center", ncols=2)


def _draw_arm(axes: Axes, own: pd.DataFrame, metric: str, place: int) -> None:
    """The cells of an arm."""
    for _, cell in own.groupby(CELL, dropna=False):
        line = cell.sort_values("epoch")
        axes.plot(line["epoch"], line[metric], linewidth=0.8, alpha=0.8, zorder=2, **look(place))
        best = line[line["epoch"] == line["best_epoch"].iloc[-1]]  # the best of all
        dot = DOT | {"marker": marker(place), "color": look(place)["color"]}
        axes.plot(best["epoch"], best[metric], zorder=3, **dot)


def _kept() -> Line2D:
    return Line2D([], [], label="epoch of the weights kept", color="0.4", **DOT)


def _named(histories: pd.DataFrame, arm: str) -> str:
    return f"{arm} ({_cells(histories, arm)})"


def _cells(histories: pd.DataFrame, arm: str) -> str:
    cells = histories[histories["arm"] == arm].groupby(CELL, dropna=False).ngroups
    return f"n = {cells} cell{'s' if cells > 1 else ''}"
