"""Ensembles: the mean of the probabilities that all runs of a fold predicted, as one more arm.

An ensemble is a run of its own in the experiment's folder: a cell that needs its members, their
mean predictions, and scores made from these by the same lines.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spine_tasks.cell import Cell
from spine_tasks.configs import suggestion
from spine_tasks.data.cases import grade_cases_of
from spine_tasks.errors import ConfigError
from spine_tasks.experiment import Experiment
from spine_tasks.files import read_json
from spine_tasks.grade_predictions import load_grades, save_grades
from spine_tasks.run import Run
from spine_tasks.score import score, spoilt

NAME = {"arm": "ensemble"}


def ensembles(
    experiment: Experiment, cells: Sequence[Cell], arms: Sequence[str] = ()
) -> list[Cell]:
    """One complete and scored cell a fold, of which the fold's cells are the members.

    Parameters
    ----------
    cells
        Complete cells, of which each fold has two or more.
    arms
        Names of the arms whose cells are the members; none: all are.

    Raises
    ------
    ConfigError
        There is no such arm, predictions cannot be averaged, or a fold has one cell only.
    """
    names = {cell.arm_name for cell in cells}
    for name in arms:
        if name not in names:
            raise ConfigError(f"--ensemble: no arm {name!r}{suggestion(name, names)}")
    folds: dict[int, list[Cell]] = {}
    for cell in (cell for cell in cells if not arms or cell.arm_name in arms):
        if cell.config.predicts != "grades":
            raise ConfigError(
                f"--ensemble averages probabilities of grades, not {cell.config.predicts}; boxes "
                "of several runs are fused by predict.py"
            )
        folds.setdefault(cell.fold, []).append(cell)
    if lonely := [fold for fold, members in folds.items() if len(members) < 2]:
        raise ConfigError(f"--ensemble needs two cells a fold or more; fold {lonely[0]} has one")
    return [_ensemble(experiment, members) for members in folds.values()]


def _ensemble(experiment: Experiment, members: Sequence[Cell]) -> Cell:
    cell = replace(members[0], needs=tuple(one.id for one in members), arm=NAME)
    run, runs = experiment.run(cell), [experiment.run(one) for one in members]
    predicted = {one.id: _predictions_sha256(of) for one, of in zip(members, runs, strict=True)}
    if not run.complete or read_json(run.folder / "done.json").get("members") != predicted:
        run.create(cell)
        for part in ("val", "test"):
            cases, data = grade_cases_of(cell, part, experiment.folder)
            files = [one.predictions / f"{part}.csv" for one in runs]
            found = [load_grades(file, cases, data.conditions) for file in files]
            mean = {place: np.mean([one[place] for one in found], axis=0) for place in found[0]}
            save_grades(run.predictions / f"{part}.csv", cases, mean, data.conditions)
        run.finish(members=predicted)
    if spoilt(run):
        score(run)
    return cell


def _predictions_sha256(run: Run) -> dict[str, str]:
    return dict(read_json(run.folder / "done.json")["predictions_sha256"])
