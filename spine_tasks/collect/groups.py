"""Arms group by group: by contrast, level, site, or any column that somebody noted of subjects."""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.notes import notes
from spine_tasks.command import listed
from spine_tasks.data.cases import grade_cases_of
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.metrics import METRICS
from spine_tasks.splits import bare
from spine_tasks.stats.comparisons import comparisons
from spine_tasks.stats.persons import MEASURE
from spine_tasks.stats.rank_tests import holm
from spine_tasks.stats.summary import summary

NONE = "(none)"  # the group of those of whom a column says nothing
CLASSES = 8  # values of a column of numbers that are taken for names of classes
LABELS = {"cords": "cord", "grades": "all"}  # where a group takes the place of the label
SUMMED = [*MEASURE, "arm", "n", "n_undefined", "mean", "sd", "low", "high"]
COMPARED = ["difference", "difference_low", "difference_high", "p", "p_holm"]
# Those of which one end is better; slices of a person are many, and say the same.
RANKED = [
    name
    for name, metric in METRICS.items()
    if metric.higher_is_better is not None and metric.scope != "slice"
]
FAMILY = ["by", *MEASURE, "arm"]

Column = Callable[[pd.DataFrame], "pd.Series[str]"]  # of cases -> their groups


def grouped(gathered: Gathered, columns: Sequence[str]) -> pd.DataFrame:
    """Each arm in each group of cases, and against the baseline within the group.

    Parameters
    ----------
    columns
        Each by itself makes groups. Of the cases themselves: `contrast` of masks and cords,
        `source` of cords, `condition`, `level` and `side` of grades. Any other is a column of the
        split's file or of the data's participants.tsv, by subject. Numbers are cut at edges:
        `age:40,60` makes `< 40`, `40 to < 60` and `>= 60`.

    Returns
    -------
    DataFrame
        Columns `by, group, label, metric, arm, n, n_undefined, mean, sd, low, high, difference,
        difference_low, difference_high, p, p_holm`: a row per column, group, label, metric and
        arm, as `stats.summary` and `stats.comparisons` have it of the group's cases alone.
        `difference` is arm minus baseline; it and what follows are NaN for the baseline, and where
        the group has no case of it. `p_holm` is corrected over the groups of one column, label,
        metric and arm. What no column says of a case is in the group `(none)`, whose persons are
        counted on stderr.

        Groups are of cases: a person whose subjects or cases differ in a column is in several
        groups, by those cases that belong there, and groups are then no independent samples.
        Cases of one contrast, source or condition have one label, `cord` or `all`, since the
        column takes the label's place. Metrics are those of which one end is better, slices apart.

    Raises
    ------
    ConfigError
        No such column; the message lists those there are, and where from. A column of numbers
        without edges, or edges of a column of text.
    DataError
        Two rows or tables contradict each other on a subject, or the column names none of them.
    """
    tables = [_by(gathered, asked) for asked in columns]
    table = pd.concat(tables, ignore_index=True)
    table["p_holm"] = table.groupby(FAMILY, dropna=False)["p"].transform(holm)
    return table[["by", "group", *SUMMED, *COMPARED]]


def beside_baseline(cases: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """What `stats.summary` and `stats.comparisons` have of some cases, in one table.

    Returns
    -------
    DataFrame
        Columns `label, metric, arm, n, n_undefined, mean, sd, low, high, difference,
        difference_low, difference_high, p, p_holm`; the last five are NaN for the baseline, and
        for all where it is None or has none of the cases.
    """
    table = summary(cases)[SUMMED]
    if baseline is None or baseline not in set(cases["arm"]):
        return table.assign(**dict.fromkeys(COMPARED, float("nan")))
    names = {"mean_difference": "difference", "low": "difference_low", "high": "difference_high"}
    compared = comparisons(cases, baseline).rename(columns=names)
    return table.merge(compared[[*MEASURE, "arm", *COMPARED]], how="left", on=[*MEASURE, "arm"])


def _by(gathered: Gathered, asked: str) -> pd.DataFrame:
    """The rows of one column."""
    name, _, edges = asked.partition(":")
    cases, of_cases = gathered.of_persons, _of_cases(gathered)
    cases = cases[cases["metric"].isin(RANKED)]
    if name in of_cases:
        groups = of_cases[name](cases)
        if name in ("contrast", "source", "condition"):
            cases = cases.assign(label=LABELS.get(gathered.predicts, cases["label"]))
    else:
        noted = notes(gathered.arms, gathered.experiment.folder, name, [*of_cases])
        groups = cases["subject"].map(lambda subject: noted.get(bare(subject), NONE))
    groups = groups.astype(str)  # they may be categories, of all cases
    groups = _cut(name, groups, edges) if edges else _classes(name, groups)
    _tell(name, cases, groups)
    found = [
        beside_baseline(cases[groups == group], gathered.baseline).assign(by=name, group=group)
        for group in groups.cat.categories
    ]
    return pd.concat(found, ignore_index=True)


def _of_cases(gathered: Gathered) -> dict[str, Column]:
    """What cases say themselves, by column."""
    if gathered.predicts == "masks":  # images are called by BIDS: sub-X_..._T2w
        return {"contrast": lambda cases: cases["case"].astype(str).str.rpartition("_")[2]}
    if gathered.predicts == "cords":  # test sets are called by source and contrast
        return {
            "contrast": lambda cases: cases["label"].astype(str).str.partition(" ")[2],
            "source": lambda cases: cases["label"].astype(str).str.partition(" ")[0],
        }
    if gathered.predicts == "grades":
        return {
            "condition": lambda cases: cases["label"],
            "level": lambda cases: _of_places(gathered, cases, "level"),
            "side": lambda cases: _of_places(gathered, cases, "side"),
        }
    return {}


def _of_places(gathered: Gathered, cases: pd.DataFrame, name: str) -> "pd.Series[str]":
    results = gathered.experiment.folder
    read = {(cell.config.data, cell.config.test_data): cell for cell in gathered.arms}
    data = [grade_cases_of(cell, "test", results)[1] for cell in read.values()]
    values = {case.id: getattr(case, name) or NONE for one in data for case in one.cases}
    return cases["case"].map(values)


def _classes(name: str, groups: "pd.Series[str]") -> "pd.Series[Any]":
    """Groups as they are called, numbers in their order, and those without a value last."""
    named = groups[groups != NONE].unique()
    numbers = pd.Series(pd.to_numeric(named, errors="coerce"), index=named)
    if numbers.notna().all() and len(numbers) > CLASSES:
        raise ConfigError(
            f"--by {name}: {len(numbers)} numbers from {numbers.min():g} to {numbers.max():g} are "
            f"no groups; give edges, such as --by {name}:{numbers.median():g}, or a column of "
            "classes"
        )
    order = [*(sorted(named) if numbers.isna().any() else numbers.sort_values().index), NONE]
    return _categories(groups, order)


def _cut(name: str, groups: "pd.Series[str]", text: str) -> "pd.Series[Any]":
    """Groups of numbers between edges, each with its lower edge."""
    try:
        edges = [float(edge) for edge in text.split(",")]
        numbers = pd.to_numeric(groups.where(groups != NONE))
    except ValueError as error:
        raise ConfigError(f"--by {name}:{text}: edges cut numbers ({error})") from error
    if edges != sorted(set(edges)):
        raise ConfigError(f"--by {name}:{text}: edges ascend, each once")
    between = [f"{low:g} to < {high:g}" for low, high in pairwise(edges)]
    labels = [f"< {edges[0]:g}", *between, f">= {edges[-1]:g}"]
    bins = [float("-inf"), *edges, float("inf")]
    cut = pd.cut(numbers, bins, right=False, labels=labels).astype(object)
    return _categories(cut.where(numbers.notna(), NONE), [*labels, NONE])


def _categories(groups: "pd.Series[str]", order: Sequence[str]) -> "pd.Series[Any]":
    there = set(groups)
    return groups.astype(pd.CategoricalDtype([one for one in order if one in there]))


def _tell(name: str, cases: pd.DataFrame, groups: "pd.Series[str]") -> None:
    """Count and name on stderr who has no value."""
    persons = sorted(cases.loc[groups == NONE, "person"].unique())
    everyone = cases["person"].nunique()
    if (groups == NONE).all():
        raise DataError(
            f"--by {name}: it has no value for any of the {everyone} persons, such as "
            f"{persons[0]}; are the subjects called alike in the table and in the split?"
        )
    if persons:
        sys.stderr.write(
            f"--by {name}: {len(persons)} of {everyone} persons have cases without a value, which "
            f"are the group {NONE}: {listed(persons)}\n"
        )
