"""Figures of scores: a point is a person, a colour and marker is an arm."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spine_tasks.errors import ConfigError
from spine_tasks.figures.style import (
    DOT,
    INCH_A_LINE,
    MEAN,
    colour,
    drawn,
    in_lines,
    marker,
    name_lines,
    width_of,
    with_unit,
)
from spine_tasks.stats.persons import by_person, differences


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
    widest = max(0.9, *(width_of(name_lines(arm)) for arm in arms))
    lines = max(len(name_lines(arm)) for arm in arms)
    names = []
    with drawn(file, 1 + widest * len(arms), height=3.3 + INCH_A_LINE * lines) as figure:
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        for place, arm in enumerate(arms):
            values = people.loc[people["arm"] == arm].set_index("person")["value"]
            defined = values.dropna()
            own = colour(place)
            axes.boxplot(
                defined,
                positions=[place],
                widths=0.55,
                showfliers=False,  # every person is drawn as a point
                manage_ticks=False,
                medianprops={"color": own, "linewidth": 2},
            )
            spread = sideways(defined.index, people["person"])
            dots: dict[str, Any] = {
                "color": own,
                "marker": marker(place),
                "alpha": 0.7,
                "linewidth": 0,
            }
            axes.scatter(place + spread, defined, s=16, **dots)
            names.append(_name(arm, len(defined), len(values) - len(defined), "undefined"))
        axes.set_xticks(range(len(arms)), names)
        axes.set_xlim(-0.6, len(arms) - 0.4)
        axes.set_ylabel(with_unit(f"{metric} of {label}", metric))


def paired_differences(
    cases: pd.DataFrame, compared: pd.DataFrame, metric: str, label: str, baseline: str, file: Path
) -> None:
    """Draw each arm minus the baseline, a point per person, with the mean and its 95 % interval.

    Arms stand from top to bottom in the order of `cases`, each with its n and its number of persons
    without a pair.

    Parameters
    ----------
    compared
        As `comparisons` makes it of these cases: means and intervals are drawn as they stand there.

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
    rows = compared[(compared["metric"] == metric) & (compared["label"] == label)]
    table = rows[rows["baseline"] == baseline].set_index("arm").reindex(arms)
    names = []
    tallest = INCH_A_LINE * (2 + max(len(name_lines(arm)) for arm in arms))
    with drawn(file, width=5.5, height=1.1 + tallest * len(arms)) as figure:
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color="0.4", linewidth=1)
        for place, arm in enumerate(arms):
            pairs = change["difference"][change["arm"] == arm].dropna()
            spread = sideways(pairs.index, change.index)
            own: dict[str, Any] = {
                "color": colour(order.index(arm)),
                "marker": marker(order.index(arm)),
            }
            axes.scatter(pairs, place + 0.12 + spread, s=16, alpha=0.7, linewidth=0, **own)
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
        what = f"{metric} of {label}: difference from\n{in_lines(baseline, 3.8)}"
        axes.set_xlabel(with_unit(what, metric))


def _chosen(cases: pd.DataFrame, metric: str, label: str) -> pd.DataFrame:
    chosen = cases[(cases["metric"] == metric) & (cases["label"] == label)]
    if chosen.empty:
        known = sorted(set(zip(cases["metric"], cases["label"], strict=True)))
        raise ConfigError(f"no score is {metric} of {label}; there are {known}: choose of these")
    return chosen


def sideways(
    persons: "pd.Index[str]", everyone: "pd.Series[str] | pd.Index[str]"
) -> NDArray[np.float64]:
    """Sideways offsets that keep points apart; a person has the same one in every arm."""
    ordered = sorted(set(everyone))
    offsets = np.random.default_rng(0).permutation(np.linspace(-0.2, 0.2, len(ordered)))
    return offsets[np.searchsorted(ordered, persons)]


def _name(arm: str, n: int, without: int, why: str) -> str:
    return "\n".join([*name_lines(arm), f"n = {n}", *([f"{without} {why}"] if without else [])])
