"""Metrics that are defined for a set only, such as AP50 or AUROC, over the cells of an arm.

Such a metric has no value for a person, so the persons of each fold's test part are resampled from
the predictions. The same persons are drawn for every arm, so that differences are paired.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spine_tasks.cell import Cell
from spine_tasks.data.cases import box_cases_of, grade_cases_of
from spine_tasks.data.grade_cases import GradeData
from spine_tasks.experiment import Experiment
from spine_tasks.grade_predictions import load_grades
from spine_tasks.metrics.box_rates import confusions, counts_at
from spine_tasks.metrics.box_scores import ALL, NO_CHOICE, SET
from spine_tasks.metrics.boxes import matched
from spine_tasks.metrics.cord_grades import cord_grades
from spine_tasks.metrics.cord_published import GRADES
from spine_tasks.metrics.grade_scores import Places, grades_known, places_of, set_metrics
from spine_tasks.metrics.resampling import (
    ap50_replicates,
    f1_replicates,
    interval_of,
    person_weights,
)
from spine_tasks.predictions import load_boxes
from spine_tasks.splits import load_split

REPLICATES = 2000
COLUMNS = ["label", "metric", "arm", "cells", "n_undefined", "mean", "sd", "low", "high"]
COLUMNS += ["difference", "difference_low", "difference_high"]

Replicates = dict[tuple[str, str], NDArray[np.float64]]  # (label, metric) -> (B,)


def of_sets(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of scores that belong to all images of a cell together."""
    return cases[cases["case"] == SET]


def set_summary(
    experiment: Experiment, arms: Sequence[Cell], cases: pd.DataFrame, baseline: str | None
) -> pd.DataFrame:
    """Mean over the cells of each arm, with intervals over persons.

    Parameters
    ----------
    arms
        Complete cells.
    cases
        All their scores.
    baseline
        The arm that others are compared with; None: no differences.

    Returns
    -------
    DataFrame
        Columns `label, metric, arm, cells, n_undefined, mean, sd, low, high, difference,
        difference_low, difference_high`. `mean` and `sd` (n - 1) are over the cells (folds and
        seeds) with a defined value, `n_undefined` counts the others. For AP50, F1_set, the
        agreement on grades of cervical stenosis and what is said of grades `low, high` is the 95 %
        percentile interval over
        2,000 resamples of the persons of each fold, and `difference` that of the arm's and the
        baseline's means with its interval; other metrics have NaN there.
    """
    groups = of_sets(cases).groupby(["label", "metric", "arm"], sort=False)["value"]
    table = groups.agg(cells="size", defined="count", mean="mean", sd="std").reset_index()
    table["n_undefined"] = table["cells"] - table.pop("defined")
    replicates = {name: _replicates(experiment, cells) for name, cells in by_arm(arms).items()}
    for column in COLUMNS[-5:]:
        table[column] = np.nan
    means = table.set_index(["arm", "label", "metric"])["mean"]
    for at, row in table.iterrows():
        name = (row["label"], row["metric"])
        if name not in replicates[row["arm"]]:
            continue
        own = replicates[row["arm"]][name]
        table.loc[at, ["low", "high"]] = interval_of(own)
        if baseline not in (None, row["arm"]) and baseline in replicates:
            table.loc[at, "difference"] = row["mean"] - means[baseline, *name]
            ends = interval_of(own - replicates[baseline][name])
            table.loc[at, ["difference_low", "difference_high"]] = ends
    return table[COLUMNS]


def by_arm(arms: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells of each arm, in the order of the grid."""
    found: dict[str, list[Cell]] = {}
    for cell in arms:
        found.setdefault(cell.arm_name, []).append(cell)
    return found


def _replicates(experiment: Experiment, cells: Sequence[Cell]) -> Replicates:
    """The mean over an arm's cells in each resample of persons; cells without a value left out."""
    of_cells = [_of_cell(experiment, cell) for cell in cells]
    return {name: _mean([one[name] for one in of_cells]) for name in of_cells[0]}


def _of_cell(experiment: Experiment, cell: Cell) -> Replicates:
    return {"boxes": _of_boxes, "grades": _of_grades}[cell.config.predicts](experiment, cell)


def _of_grades(experiment: Experiment, cell: Cell) -> Replicates:
    run, results = experiment.run(cell), experiment.folder
    places, data = graded_places(experiment, cell)
    person_of = load_split(cell.split).person_of
    persons = [person_of.get(case.subject, case.subject) for case in data.cases]
    # Of all places at once: a person drawn for one condition is drawn for the others.
    weights = person_weights(persons, REPLICATES, seed=cell.fold)
    at = {case.id: number for number, case in enumerate(data.cases)}
    of_places = {
        name: weights[:, [at[case.id] for case in those.cases]] for name, those in places.items()
    }
    train, _ = grade_cases_of(cell, "train", results)
    scores = pd.read_csv(run.scores)
    temperature = scores[scores["metric"] == "temperature"].set_index("label")["value"]
    return set_metrics(
        places,
        of_places,
        dict(temperature),
        grades_known(train, data.conditions),
        data.conditions,
    )


def graded_places(experiment: Experiment, cell: Cell) -> tuple[dict[str, Places], GradeData]:
    """What a complete cell found at the graded places of its test part, and the data of that part.

    Returns
    -------
    dict of str to Places
        By condition.
    GradeData
        Its cases are those of the test part.
    """
    cases, data = grade_cases_of(cell, "test", experiment.folder)
    found = load_grades(experiment.run(cell).predictions / "test.csv", cases, data.conditions)
    places = places_of(cases, found, data.conditions)
    return places, replace(data, cases=tuple(cases))


def _of_boxes(experiment: Experiment, cell: Cell) -> Replicates:
    run = experiment.run(cell)
    cases, data = box_cases_of(cell, "test", experiment.folder)
    found = load_boxes(run.predictions / "test.json", cases, data.category_ids)
    person_of = load_split(cell.split).person_of
    persons = [person_of.get(case.subject, case.subject) for case in cases]
    weights = person_weights(persons, REPLICATES, seed=cell.fold)
    matches = matched(cases, found, len(data.categories))
    scores = pd.read_csv(run.scores)
    chosen = scores[scores["metric"] == "threshold"].set_index("label")["value"]
    thresholds = chosen.loc[list(data.categories)].fillna(NO_CHOICE).to_numpy()
    counts = counts_at(matches, thresholds)
    replicates: Replicates = {}
    for label, name in [*enumerate(data.categories), (None, ALL)]:
        replicates[name, "AP50"] = ap50_replicates(matches, weights, label)
        replicates[name, "F1_set"] = f1_replicates(counts, weights, label)
    if data.categories == GRADES:
        tables = np.tensordot(weights, confusions(cases, found, thresholds), axes=1)
        replicates |= {(ALL, name): values for name, values in cord_grades(tables).items()}
    return replicates


def _mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean in each replicate of the values that are defined; NaN where none is."""
    stacked = np.stack(values)
    defined = ~np.isnan(stacked)
    number = defined.sum(axis=0)
    total = np.where(defined, stacked, 0.0).sum(axis=0)
    mean = np.full(len(total), np.nan)
    np.divide(total, number, out=mean, where=number > 0)
    return mean
