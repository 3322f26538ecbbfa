"""Figures of a grid's results as PNG files: a point is a person, a colour is an arm.

The figures are made without pyplot, so that none stays open and none needs a display.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spine_tasks.errors import ConfigError
from spine_tasks.files import replacing
from spine_tasks.metrics import METRICS
from spine_tasks.stats import by_person, comparisons, differences

# Okabe and Ito, https://jfly.uni-koeln.de/color: told apart with any kind of colour vision. Their
# yellow is left out, too pale for thin lines on white.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
LONG_KNOB = 20  # letters
INCH_A_LETTER = 0.085
INCH_A_LINE = 0.17
LINES = ["-", "--", ":", "-."]  # arms beyond the colours get another line
DOT: dict[str, Any] = {"marker": "o", "markersize": 5, "markeredgecolor": "white", "linestyle": ""}
MEAN: dict[str, Any] = {"color": "black", "linewidth": 2, "marker": "D", "markevery": [1]}
STYLE: dict[Any, Any] = {
    "savefig.dpi": 200,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "boxplot.boxprops.color": "0.4",
    "boxplot.whiskerprops.color": "0.4",
    "boxplot.capprops.color": "0.4",
}


def box_plot(cases: pd.DataFrame, metric: str, label: str, file: Path) -> None:
    """Draw a box per arm with a point per person, for one metric and label.

    A point is a person's mean as in `by_person`. A box spans the quartiles of the persons, its
    line is their median, and its whiskers reach the last person within 1.5 box lengths. Arms stand
    in the order of `cases`, each with its n and its number of persons without a defined value.

    Raises
    ------
    ConfigError
        `cases` have no such metric and label.
    DataError
        As in `by_person`.
    """
    people = by_person(_chosen(cases, metric, label))
    arms = list(cases["arm"].unique())
    widest = max(0.9, *(INCH_A_LETTER * len(line) for arm in arms for line in name_lines(arm)))
    names = []
    with drawn(file, width=1 + widest * len(arms), height=3.6) as figure:
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        for place, arm in enumerate(arms):
            values = people.loc[people["arm"] == arm].set_index("person")["value"]
            defined = values.dropna()
            colour = _colour(place)
            axes.boxplot(
                defined,
                positions=[place],
                widths=0.55,
                showfliers=False,  # every person is drawn as a point
                manage_ticks=False,
                medianprops={"color": colour, "linewidth": 2},
            )
            spread = sideways(defined.index, people["person"])
            axes.scatter(place + spread, defined, s=16, color=colour, alpha=0.7, linewidth=0)
            names.append(_name(arm, len(defined), len(values) - len(defined), "undefined"))
        axes.set_xticks(range(len(arms)), names)
        axes.set_xlim(-0.6, len(arms) - 0.4)
        axes.set_ylabel(_with_unit(f"{metric} of {label}", metric))


def paired_differences(
    cases: pd.DataFrame, metric: str, label: str, baseline: str, file: Path
) -> None:
    """Draw each arm minus the baseline, a point per person, with the mean and its 95 % interval.

    The numbers are those of `comparisons`. Arms stand from top to bottom in the order of `cases`,
    each with its n and its number of persons without a pair.

    Raises
    ------
    ConfigError
        `cases` have no such metric and label, or no such baseline, or no arm besides it.
    DataError
        As in `by_person`.
    """
    chosen = _chosen(cases, metric, label)
    change = differences(chosen, baseline).set_index("person")
    order = list(cases["arm"].unique())
    arms = [arm for arm in order if arm != baseline]
    if change.empty:
        raise ConfigError(f"{file.name}: {baseline!r} is the only arm with {metric} of {label}")
    table = comparisons(chosen, baseline).set_index("arm").reindex(arms)
    reference = textwrap.fill(baseline, 45)
    names = []
    tallest = INCH_A_LINE * (2 + max(len(name_lines(arm)) for arm in arms))
    with drawn(file, width=5.5, height=1.1 + tallest * len(arms)) as figure:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color="0.4", linewidth=1)
        for place, arm in enumerate(arms):
            pairs = change["difference"][change["arm"] == arm].dropna()
            spread = sideways(pairs.index, change.index)
            colour = _colour(order.index(arm))  # as in the box plot
            axes.scatter(pairs, place + 0.12 + spread, s=16, color=colour, alpha=0.7, linewidth=0)
            found = table.loc[arm]
            ends = [found["low"], found["mean_difference"], found["high"]]
            axes.plot(ends, [place - 0.25] * 3, **MEAN)
            dropped = change.index.nunique() - len(pairs)
            names.append(_name(arm, len(pairs), dropped, "without a pair"))
        axes.set_yticks(range(len(arms)), names)
        keys = [Line2D([], [], label="person", color="0.4", **DOT)]
        keys += [Line2D([], [], label="mean, 95 % interval", **MEAN)]
        figure.legend(handles=keys, loc="outside upper right", ncols=2)
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_xlabel(_with_unit(f"{metric} of {label}: difference from\n{reference}", metric))


def training_curves(histories: pd.DataFrame, file: Path, metric: str | Sequence[str]) -> None:
    """Draw one panel per metric, a thin line per cell, and a dot at the epoch whose weights count.

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
    needed = ["arm", "seed", "fold", "epoch", "best_epoch", *metrics]
    if absent := [name for name in needed if name not in histories]:
        raise ConfigError(f"{file.name}: no column {absent} in {list(histories)}; choose of these")
    if histories.empty:
        raise ConfigError(f"{file.name}: no epoch is in the histories; train a cell first")
    arms = list(histories["arm"].unique())
    width = max(1 + 3.6 * len(metrics), 1 + INCH_A_LETTER * max(map(len, arms)))
    with drawn(file, width, height=2.8 + INCH_A_LINE * (len(arms) + 1)) as figure:
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, name in zip(panels, metrics, strict=True):
            for (arm, _, _), cell in histories.groupby(["arm", "seed", "fold"], dropna=False):
                line = cell.sort_values("epoch")
                own = look(arms.index(arm))
                axes.plot(line["epoch"], line[name], linewidth=0.8, alpha=0.8, **own)
                best = line[line["epoch"] == line["best_epoch"].iloc[-1]]  # the best of all
                axes.plot(best["epoch"], best[name], color=own["color"], zorder=3, **DOT)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("epoch")
            axes.set_ylabel(name)
        keys = [Line2D([], [], label=arm, **look(place)) for place, arm in enumerate(arms)]
        kept = Line2D([], [], label="epoch of the weights kept", color="0.4", **DOT)
        figure.legend(handles=[*keys, kept], loc="outside lower center")


@contextmanager
def drawn(file: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on, of some inches, that is a PNG at the end."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with replacing(file) as partial:
            figure.savefig(partial, format="png")


def _chosen(cases: pd.DataFrame, metric: str, label: str) -> pd.DataFrame:
    chosen = cases[(cases["metric"] == metric) & (cases["label"] == label)]
    if chosen.empty:
        known = sorted(set(zip(cases["metric"], cases["label"], strict=True)))
        raise ConfigError(f"no score is {metric} of {label}; there are {known}: choose of these")
    return chosen


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def look(place: int) -> dict[str, Any]:
    """Colour and line of the arm at a place."""
    return {"color": _colour(place), "linestyle": LINES[place // len(COLOURS) % len(LINES)]}


def sideways(
    persons: "pd.Index[str]", everyone: "pd.Series[str] | pd.Index[str]"
) -> NDArray[np.float64]:
    """Sideways offsets that keep points apart; a person has the same one in every arm."""
    ordered = sorted(set(everyone))
    offsets = np.random.default_rng(0).permutation(np.linspace(-0.2, 0.2, len(ordered)))
    return offsets[np.searchsorted(ordered, persons)]


def _name(arm: str, n: int, without: int, why: str) -> str:
    return "\n".join([*name_lines(arm), f"n = {n}", *([f"{without} {why}"] if without else [])])


def name_lines(arm: str) -> list[str]:
    """The lines of an arm's name: a knob a line, a long one in two."""
    lines = [k if len(k) <= LONG_KNOB else k.replace("=", "=\n", 1) for k in arm.split()]
    return "\n".join(lines).split("\n")


def _with_unit(text: str, metric: str) -> str:
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f"{text} ({unit})" if unit else text
