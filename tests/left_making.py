"""Complete runs for the collector's tests: the files that a worker leaves, but for predictions."""

import hashlib

from making import attempt_on_node, planned_grid

from spine_tasks.experiment import create
from spine_tasks.files import append_line, write_json
from spine_tasks.score import to_csv

PERSONS = ("p1", "p2", "p3")
DONE = {"time": "2026-01-01T00:00:00+00:00", "commit": "c" * 40, "code_sha256": "a" * 64}


def experiment_of(results, name="grid", seeds=2, **settings):
    """gm_transfer with two seeds, every cell complete."""
    experiment = planned_grid(results, name, seeds=seeds, **settings)
    create(experiment, experiment.everything)
    for number, cell in enumerate(experiment.everything):
        finish(experiment.run(cell), number)
    return experiment


def rows_of(number=0, label="cord", persons=PERSONS):
    """Rows of a scores.csv that differ from run to run; a Dice is undefined."""
    rows = []
    for place, person in enumerate(persons):
        names = (person, f"{person}-1", f"{person}-1_T2w")
        dice = float("nan") if place == 2 else (number + place + 0.1) / 1000
        rows += [(*names, "", label, "DSC", dice), (*names, "", label, "MSD", 0.1 + number)]
        rows += [(*names, index, label, "DSC_slice", 0.1 + 0.2) for index in range(2)]
    return rows


def finish(run, number=0, rows=None):
    """Make a run complete: scores with their digest, two epochs, an attempt, and done.json."""
    for epoch, score in enumerate((0.5, 0.25)):
        append_line(
            run.folder / "history.jsonl",
            {"epoch": epoch, "loss": 1.0, "val_dice": score + number / 100, "best_epoch": 0},
        )
    attempt_on_node(run, "started")
    attempt_on_node(run, "complete", seconds=7200.0)
    write_scores(run, to_csv(rows_of(number) if rows is None else rows).encode())
    write_json(run.folder / "done.json", DONE | {"predictions_sha256": {}}, durable=False)


def write_scores(run, content):
    """A scores.csv that is as it was written, whatever is in it."""
    run.scores.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    record = {"scores_sha256": digest, "predictions_sha256": {}}
    write_json(run.scores.with_suffix(".json"), record, durable=False)
