"""Predict grades: places of one's own, as a table, and as a submission to the challenge."""

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spine_tasks.data.grade_cases import GradeCase, GradeData
from spine_tasks.data.grades import read_grades
from spine_tasks.data.rsna_names import GRADES
from spine_tasks.data.rsna_tables import read_places
from spine_tasks.errors import ConfigError
from spine_tasks.files import write_text
from spine_tasks.grade_predictions import Probabilities, save_grades
from spine_tasks.predict.places import refuse_inputs_and_runs, task_module

TASK = "spine_tasks.tasks.grading.predict"
SUBMISSION = ("row_id", "normal_mild", "moderate", "severe")


def predict_grades(asked: argparse.Namespace, models: Sequence[tuple[Any, Path]]) -> int:
    """Grade all places; of several runs the mean probabilities are written. Return the exit code.

    Raises
    ------
    SpineError
        As `spine_tasks.predict.predict`.
    """
    _check_flags(asked)
    output = asked.output
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output} is a file; name a folder")
    grades, submission = output / "grades.csv", output / "submission.csv"
    data = _data(asked)
    refuse_inputs_and_runs(output, [grades, submission], data.tables)
    predictor = task_module(TASK, "torch").predictor(models)
    conditions: Mapping[str, Sequence[str]] = predictor.conditions
    cases = [case for case in data.cases if set(case.grades) & set(conditions)]
    if left := len(data.cases) - len(cases):
        sys.stderr.write(f"{left} places of conditions that the run does not grade left out\n")
    if not cases:
        raise ConfigError(f"{asked.input}: no place of {', '.join(conditions)}")
    found = predictor(cases)
    save_grades(grades, cases, found, conditions)
    written = [grades]
    if all(tuple(names) == GRADES for names in conditions.values()):
        write_text(submission, _submission(cases, found))
        written.append(submission)
    studies = len({case.study for case in cases})
    sys.stdout.write(
        f"{len(cases)} places of {studies} studies graded; see {' and '.join(map(str, written))}\n"
    )
    return 0


def _check_flags(asked: argparse.Namespace) -> None:
    for flag, what in (("reference", "boxes and masks"), ("mask_suffix", "masks")):
        if getattr(asked, flag) is not None:
            raise ConfigError(f"--{flag.replace('_', '-')} is for {what}")
    if asked.score is not None:
        raise ConfigError("--score is for boxes")
    folders = [folder.resolve() for folder in asked.run or ()]
    if len(set(folders)) < len(folders):
        raise ConfigError("a --run is given twice; each run counts once")


def _data(asked: argparse.Namespace) -> GradeData:
    if asked.places is not None:
        return read_places(asked.places, asked.input)
    return read_grades(asked.input)


def _submission(cases: Sequence[GradeCase], found: Probabilities) -> str:
    """The challenge's table: a row a place, sorted as its own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SUBMISSION)
    for case in sorted(cases, key=lambda one: one.id):
        [condition] = case.grades
        writer.writerow([case.id, *(f"{p:.8g}" for p in found[case.id, condition])])
    return text.getvalue()
