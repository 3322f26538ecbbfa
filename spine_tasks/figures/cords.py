"""The figure of cord models: the Dice of every model on every test set, at home and unseen."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from spine_tasks.collect.generalization import TESTED
from spine_tasks.figures.plots import sideways
from spine_tasks.figures.style import INCH_A_LETTER, INCH_A_LINE, colour, drawn, in_lines, marker
from spine_tasks.metrics.grades import Floats
from spine_tasks.stats.persons import by_person

INCH_A_MODEL, INCH_BETWEEN = 0.13, 0.25  # along the test sets
MEAN: dict[str, Any] = {"markersize": 5.5, "markeredgewidth": 1.2, "elinewidth": 1.2, "capsize": 2}
UNSEEN = "white"  # what fills the dot of a mean


def draw_matrix(cases: pd.DataFrame, matrix: pd.DataFrame, file: Path) -> None:
    """Draw the mean Dice of each model on each test set, with the sd of persons as error bar.

    A full dot is at home, an open one unseen; a faint point is a person. Test sets that are home
    to a model stand before those that are home to none; one person has no error bar.

    Parameters
    ----------
    cases
        Their persons are drawn, as in `by_person`.
    matrix
        As `spine_tasks.generalization.matrix` makes it; models and test sets stand in its order.
    """
    table = matrix[matrix["metric"] == TESTED]
    models, test_sets = list(table["model"].unique()), _in_order(table)
    people = by_person(cases[cases["metric"] == TESTED]).set_index("person")
    a_set = INCH_A_MODEL * len(models) + INCH_BETWEEN
    slot = INCH_A_MODEL / a_set  # of a model, where a test set has a width of 1
    across = sideways(people.index, people.index) * slot * 1.5
    names = [_name(table[table["test_set"] == one], one) for one in test_sets]
    widest = max(len(line) for name in names for line in name.split("\n"))
    upright = widest * INCH_A_LETTER <= a_set
    width = max(4.5, 1 + a_set * len(test_sets))
    keys = _keys(models)
    longest = max(len(str(key.get_label())) for key in keys)
    columns = max(1, int(width / (INCH_A_LETTER * longest + 0.4)))  # of the legend
    height = 3.2 + INCH_A_LINE * math.ceil(len(keys) / columns)
    height += 0 if upright else INCH_A_LETTER * widest
    with drawn(file, width, height) as figure:
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        for place, model in enumerate(models):
            shift = (place - (len(models) - 1) / 2) * slot
            at = {one: x + shift for x, one in enumerate(test_sets)}
            mine = (people["arm"] == model).to_numpy()
            _draw_persons(axes, people[mine], across[mine], place, at)
            _draw_means(axes, table[table["model"] == model], place, at)
        for place, (one, other) in enumerate(pairwise(test_sets)):
            solid = one.partition(" ")[0] != other.partition(" ")[0]  # of another data set
            axes.axvline(place + 0.5, color="0.4" if solid else "0.85", linewidth=0.8, zorder=0)
        axes.set_xticks(range(len(test_sets)), names, rotation=0 if upright else 90)
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.5, len(test_sets) - 0.5)
        axes.set_ylim(top=1.01)  # a Dice ends at 1, whatever a mean and its sd add up to
        axes.set_ylabel(f"{TESTED}, mean ± sd of persons")
        figure.legend(handles=keys, loc="outside lower center", ncols=columns)


def _in_order(table: pd.DataFrame) -> list[str]:
    """The test sets, those that are home to a model first."""
    homes = set(table.loc[table["home"] == "yes", "test_set"])
    return sorted(table["test_set"].unique(), key=lambda one: one not in homes)


def _name(of_set: pd.DataFrame, test_set: str) -> str:
    least, most = of_set["n"].min(), of_set["n"].max()
    n = f"{most}" if least == most else f"{least} to {most}"
    return f"{test_set.replace(' ', chr(10), 1)}\nn = {n}"


def _draw_persons(
    axes: Axes, own: pd.DataFrame, across: Floats, place: int, at: Mapping[str, float]
) -> None:
    dots: dict[str, Any] = {"color": colour(place), "marker": marker(place)}
    x = own["label"].map(at) + across
    axes.scatter(x, own["value"], s=7, alpha=0.35, linewidth=0, **dots)


def _draw_means(axes: Axes, own: pd.DataFrame, place: int, at: Mapping[str, float]) -> None:
    own_colour = colour(place)
    for row in own.to_dict("records"):
        axes.errorbar(
            at[row["test_set"]],
            row["mean"],
            yerr=None if pd.isna(row["sd"]) else row["sd"],
            fmt=marker(place),
            color=own_colour,
            markerfacecolor=own_colour if row["home"] == "yes" else UNSEEN,
            zorder=3,
            **MEAN,
        )


def _keys(models: Sequence[str]) -> list[Line2D]:
    looks = [{"color": colour(i), "marker": marker(i)} for i in range(len(models))]
    keys = [_key(in_lines(model, 4), **own) for model, own in zip(models, looks, strict=True)]
    keys.append(_key("full: home"))
    keys.append(_key("open: unseen data set", markerfacecolor=UNSEEN))
    return [*keys, _key("person", markersize=3, markeredgewidth=0, alpha=0.5)]


def _key(label: str, **own: Any) -> Line2D:
    plain: dict[str, Any] = {"linestyle": "", "color": "0.4", "marker": "o", "markersize": 5.5}
    return Line2D([], [], label=label, **plain | {"markeredgewidth": 1.2} | own)
