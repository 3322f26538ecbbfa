"""Tables of one general cord model against specific ones: at home, and where they are unseen.

A model is an arm of the grid; the general one is the baseline. A test set is one contrast of one
data set. It is home to a model that was trained on other persons of its data set, unseen to others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from spine_tasks.cell import Cell
from spine_tasks.collect.set_scores import by_arm
from spine_tasks.data.cases import cord_cases_of
from spine_tasks.experiment import Experiment
from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.persons import DIGITS, by_person
from spine_tasks.stats.rank_tests import holm
from spine_tasks.stats.unpaired import difference_interval, rank_sum_p

OF_MATRIX = ("DSC", "RVE", "MSD", "HSD", "HD95", "CSA_error")  # of volumes
MATRIX = ["model", "test_set", "home", "seen_contrast", "metric", "n", "n_undefined"]
MATRIX += ["mean", "sd", "low", "high"]
TESTED = "DSC"
PAIRED, UNPAIRED = "general - model", "home - unseen"
GENERALIZATION = ["comparison", "model", "where", "test_sets", "metric", "n", "n_other"]
GENERALIZATION += [
    "n_dropped",
    "dropped",
    "mean",
    "mean_other",
    "difference",
    "low",
    "high",
    "interval",
]
GENERALIZATION += ["p", "p_holm", "smallest_p"]


@dataclass(frozen=True)
class Trained:
    """What a model was trained on, by all its cells together."""

    sources: frozenset[str]  # names of data sets
    contrasts: frozenset[str]  # of any of them, as the file of data sets names them

    def home(self, test_set: str) -> bool:
        """Whether the model was trained on the data set of a test set."""
        return test_set.partition(" ")[0] in self.sources

    def seen_contrast(self, test_set: str) -> bool:
        """Whether the model was trained on the contrast of a test set, in whatever data set."""
        return test_set.partition(" ")[2] in self.contrasts


def trained_on(experiment: Experiment, arms: Sequence[Cell]) -> dict[str, Trained]:
    """What each model was trained on, from the images in its cells' train parts.

    Raises
    ------
    ConfigError, SplitError, DataError
        As in `cord_cases_of`.
    """
    found = {}
    for model, cells in by_arm(arms).items():
        pairs = [one for cell in cells for one in cord_cases_of(cell, "train", experiment.folder)]
        sources = frozenset(pair.source.name for pair in pairs)
        found[model] = Trained(sources, frozenset(pair.contrast for pair in pairs))
    return found


def matrix(
    summary: pd.DataFrame, trained: Mapping[str, Trained], test_sets: Sequence[str]
) -> pd.DataFrame:
    """Every model on every test set: the rows of `stats.summary` that the question is about.

    Returns
    -------
    DataFrame
        Columns `model, test_set, home, seen_contrast, metric, n, n_undefined, mean, sd, low, high`,
        in the order of `trained`, of `test_sets` and of `OF_MATRIX`. `home` and `seen_contrast` are
        `yes` or `no`; `n` persons have a defined value, whose mean, sd (NaN for one person) and 95
        % interval of the mean follow.
    """
    table = summary[summary["metric"].isin(OF_MATRIX)]
    table = table.rename(columns={"arm": "model", "label": "test_set"})
    named = [*zip(table["model"], table["test_set"], strict=True)]
    table["home"] = [_word(trained[model].home(one)) for model, one in named]
    table["seen_contrast"] = [_word(trained[model].seen_contrast(one)) for model, one in named]
    table = table.set_index(["model", "test_set", "metric"])
    order = product(trained, test_sets, OF_MATRIX)
    return table.loc[[key for key in order if key in table.index]].reset_index()[MATRIX]


def _word(true: bool) -> str:
    return "yes" if true else "no"


def generalization(
    cases: pd.DataFrame, trained: Mapping[str, Trained], general: str | None
) -> pd.DataFrame:
    """The general model against each other one, and each model's home against what is unseen.

    Parameters
    ----------
    cases
        As in `stats`; the label is the test set.
    general
        The general model's name; None: only the second kind of comparison.

    Returns
    -------
    DataFrame
        Columns `comparison, model, where, test_sets, metric, n, n_other, n_dropped, dropped, mean,
        mean_other, difference, low, high, interval, p,
        p_holm, smallest_p`; difference = mean - mean_other.

        `general - model`: the same persons segmented by both, n = n_other pairs, tested by
        `signed_rank_p`. `where` is `home` or `unseen` to the model; `unseen by both` is what of
        `unseen` the general model was not trained on either, with a row if that is a part of it.
        No row where there is no test set.

        `home - unseen`: a model's persons of home test sets and other persons of unseen ones,
        tested by `rank_sum_p`. Persons who are in both are dropped, as their values are no
        independent ones; so are those without a defined value.

        A person's mean is over all its cases of those test sets, so that persons weigh alike and
        not test sets. `low, high` is the 95 % interval of the difference and `interval` the
        method of it, as in `stats.interval` and `difference_interval`; `p_holm` is corrected over
        all rows of one comparison, and `smallest_p` the smallest p of such n.
    """
    values = cases[cases["metric"] == TESTED]
    rows = []
    for model in trained if general is not None else ():
        if model != general:
            rows += _against_general(values, trained, str(general), model)
    rows += [_home_against_unseen(values, own, model) for model, own in trained.items()]
    table = pd.DataFrame(rows).assign(metric=TESTED)
    table["p_holm"] = table.groupby("comparison")["p"].transform(holm)
    return table[GENERALIZATION]


def _against_general(
    values: pd.DataFrame, trained: Mapping[str, Trained], general: str, model: str
) -> list[dict[str, Any]]:
    """Rows of the general model minus another one, a row a place."""
    rows = []
    for where, test_sets in _places(values, trained[model], trained[general]).items():
        ours = values["arm"].isin([general, model]) & values["label"].isin(test_sets)
        of_both = values[ours].assign(label=where)
        if of_both["arm"].nunique() < 2:
            continue  # in a partial view
        [found] = comparisons(of_both, model).to_dict("records")
        means = by_person(of_both).pivot(index="person", columns="arm", values="value").dropna()
        row = {str(name): value for name, value in found.items()}
        row |= {"comparison": PAIRED, "model": model, "where": where}
        row |= {"test_sets": "; ".join(test_sets), "n_other": row["n"]}
        row |= {"mean": means[general].mean(), "mean_other": means[model].mean()}
        rows.append(row | {"difference": row["mean_difference"]})
    return rows


def _places(values: pd.DataFrame, own: Trained, general: Trained) -> dict[str, list[str]]:
    test_sets = list(values["label"].unique())
    home = [one for one in test_sets if own.home(one)]
    unseen = [one for one in test_sets if not own.home(one)]
    by_both = [one for one in unseen if not general.home(one)]
    places = {"home": home, "unseen": unseen}
    if by_both != unseen:
        places["unseen by both"] = by_both
    return {where: those for where, those in places.items() if those}


def _home_against_unseen(values: pd.DataFrame, own: Trained, model: str) -> dict[str, Any]:
    of_model = values[values["arm"] == model]
    where = ["home" if own.home(one) else "unseen" for one in of_model["label"]]
    people = by_person(of_model.assign(label=where))
    table = people.pivot(index="person", columns="label", values="value")
    table = table.reindex(columns=["home", "unseen"]).round(DIGITS)  # round-off would break ties
    kept = table.notna().sum(axis=1) == 1
    home, unseen = (table[kept][one].dropna().to_numpy() for one in ("home", "unseen"))
    low, high, method = difference_interval(home, unseen)
    n, n_other = len(home), len(unseen)
    mean, mean_other = (one.mean() if len(one) else np.nan for one in (home, unseen))
    return {
        **{"comparison": UNPAIRED, "model": model, "where": "home against unseen"},
        **{"test_sets": "; ".join(of_model["label"].unique()), "n": n, "n_other": n_other},
        **{"n_dropped": int((~kept).sum()), "dropped": ";".join(table.index[~kept])},
        **{"mean": mean, "mean_other": mean_other, "difference": mean - mean_other},
        **{"low": low, "high": high, "interval": method, "p": rank_sum_p(home, unseen)},
        "smallest_p": 2 / math.comb(n + n_other, n) if n and n_other else np.nan,
    }
