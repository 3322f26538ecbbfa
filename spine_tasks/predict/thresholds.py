"""From which score on a found box counts: what the validation parts of runs chose."""

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from spine_tasks.errors import RunError
from spine_tasks.metrics.box_scores import NO_CHOICE
from spine_tasks.run import Run
from spine_tasks.score import spoilt


def thresholds_of(runs: Sequence[Path]) -> dict[str, float]:
    """The threshold of each category, from the runs' scores.csv; of several runs the mean.

    Where a run's validation part could not choose one, it is .5, which is said.

    Raises
    ------
    RunError
        A run has no scores, or they are not of its predictions.
    """
    of_runs = [_of_run(Run(folder)) for folder in runs]
    thresholds = {}
    for name in of_runs[0]:
        own = [of_run.get(name, math.nan) for of_run in of_runs]
        if any(map(math.isnan, own)):
            sys.stderr.write(f"{name}: no threshold was chosen by validation, {NO_CHOICE} is\n")
        thresholds[name] = fmean(NO_CHOICE if math.isnan(one) else one for one in own)
    return thresholds


def _of_run(run: Run) -> dict[str, float]:
    if reason := spoilt(run):
        raise RunError(
            f"{run.folder}: {reason}, so no thresholds chosen by validation; run "
            "jobs/collect.py, which scores it again, or give --score"
        )
    with run.scores.open(newline="", encoding="utf-8") as lines:
        return {
            row["label"]: float(row["value"])
            for row in csv.DictReader(lines)
            if row["metric"] == "threshold"
        }
