"""What arms cost against what they score."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from spine_tasks.errors import ConfigError
from spine_tasks.figures.style import (
    INCH_A_LINE,
    colour,
    drawn,
    in_lines,
    marker,
    with_unit,
)

BAR: dict[str, Any] = {"capsize": 3, "markersize": 6, "linestyle": "", "elinewidth": 1.2}
WIDE = 20  # times the cheapest: then the axis is logarithmic
PANEL_INCH = 3.6


def draw_cost(
    summary: pd.DataFrame, runs: pd.DataFrame, metric: str, order: Sequence[str], file: Path
) -> None:
    """Draw a panel a label, and a point an arm: its mean score over the hours of one of its runs.

    Parameters
    ----------
    summary
        As `spine_tasks.stats.summary` makes it: the mean, its 95 % interval and n are drawn.
    runs
        A row a run with `role, arm, seconds`, and `gpu_hours` where it is known. Cells that others
        start from are not counted. Without any GPU-hour the hours of all attempts are drawn.

    order
        All arms, by whose order they have their colours.

    Raises
    ------
    ConfigError
        No arm has both a score of the metric and a run whose hours are known.
    """
    scores = summary[summary["metric"] == metric]
    hours, words = _hours(runs)
    scored = [arm for arm in order if (scores["arm"] == arm).any()]
    arms = [arm for arm in scored if arm in hours.index]
    if not arms:
        raise ConfigError(f"{file.name}: no arm has a {metric} and a run whose hours are known")
    labels = list(scores["label"].unique())
    width = 0.5 + PANEL_INCH * len(labels)
    without = [arm for arm in scored if arm not in arms]
    names = {arm: in_lines(_name(scores, runs, arm), width - 1) for arm in arms}
    if without:
        words += "; without " + ", ".join(without) + ", of no run whose hours are known"
    words = in_lines(words, PANEL_INCH - 0.6)
    lines = sum(1 + name.count("\n") for name in [*names.values(), words])
    with drawn(file, width, height=3.0 + INCH_A_LINE * lines) as figure:
        panels = figure.subplots(1, len(labels), squeeze=False)[0]
        for axes, label in zip(panels, labels, strict=True):
            own = scores[scores["label"] == label].set_index("arm")
            for arm in (arm for arm in arms if arm in own.index):
                _draw_point(axes, float(hours[arm]), own.loc[arm].to_dict(), order.index(arm))
            if hours[arms].min() > 0 and hours[arms].max() > WIDE * hours[arms].min():
                axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")  # not 10 to the power of
            axes.set_xlabel(words)
            axes.set_ylabel(in_lines(with_unit(f"{metric} of {label}, mean", metric), 3))
        looks: list[dict[str, Any]] = [
            {"color": colour(at), "marker": marker(at)} for at in map(order.index, arms)
        ]
        keys = [
            Line2D([], [], label=names[arm], linestyle="", **look)
            for arm, look in zip(arms, looks, strict=True)
        ]
        figure.legend(handles=keys, loc="outside lower center", title="mean, 95 % interval")


def _hours(runs: pd.DataFrame) -> tuple["pd.Series[float]", str]:
    """Hours of one run of each arm, their mean, and what they are."""
    own = runs[runs["role"] == "arm"]
    measured = pd.to_numeric(own["gpu_hours"]) if "gpu_hours" in own else None
    on_gpu = measured is not None and (measured > 0).any()
    hours = measured if on_gpu and measured is not None else own["seconds"] / 3600
    words = "GPU-hours of a run" if on_gpu else "hours of a run (no GPU was used)"
    return hours.groupby(own["arm"]).mean().dropna(), f"{words}, mean over those of an arm"


def _draw_point(axes: Axes, hours: float, row: Mapping[str, Any], place: int) -> None:
    ends = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
    if pd.isna(row["low"]):
        ends = [[0.0], [0.0]]  # of one person: no interval
    own: dict[str, Any] = {"color": colour(place), "marker": marker(place)}
    axes.errorbar([hours], [row["mean"]], yerr=ends, **own, **BAR)


def _name(scores: pd.DataFrame, runs: pd.DataFrame, arm: str) -> str:
    n = scores.loc[scores["arm"] == arm, "n"]
    persons = " to ".join(f"{one}" for one in sorted({n.min(), n.max()}))
    runs_of = int(((runs["role"] == "arm") & (runs["arm"] == arm)).sum())
    return f"{arm} (n\xa0=\xa0{persons}\xa0persons, {runs_of}\xa0run{'s' if runs_of > 1 else ''})"
