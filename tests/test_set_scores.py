"""Metrics of all images together: means over cells, intervals over persons, paired differences."""

import json

import numpy as np
import pandas as pd
import pytest
from making import command

from spine_tasks.data.cases import box_cases_of
from spine_tasks.experiment import create, planned
from spine_tasks.grid import Grid
from spine_tasks.predictions import Detections, save_boxes
from spine_tasks.score import score

ARMS = {"none": 0.4, "flip": 0.0}  # augment -> share of the boxes that its cells miss


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """The folder of a grid of made-up predictions: one arm misses boxes, the other none."""
    results = tmp_path_factory.mktemp("results")
    grid = Grid(
        job="disc_faster_rcnn",
        split="spine_phantom",
        axes={"augment": list(ARMS)},
        seeds=2,
        knobs={"categories": ["healthy", "sick"]},
        baseline={"augment": "none"},
    )
    experiment = planned("boxes", grid, results)
    create(experiment, experiment.cells)
    for cell in experiment.cells:
        run = experiment.run(cell)
        missed = np.random.default_rng(cell.seed)
        for part in ("test", "val"):
            cases, data = box_cases_of(cell, part, experiment.folder)
            kept = [missed.random(len(case.boxes)) >= ARMS[cell.arm["augment"]] for case in cases]
            found = [
                Detections(case.boxes[keep], case.labels[keep], np.full(keep.sum(), 0.9))
                for case, keep in zip(cases, kept, strict=True)
            ]
            save_boxes(run.predictions / f"{part}.json", cases, found, data.category_ids)
        run.add_history(epoch=0, loss=1.0, val_AP50=0.5, seconds=1.0, best_epoch=0)
        run.record_attempt("started")
        run.finish()
        score(run)
    done = command("collect", "--grid", "boxes", "--results", results)
    assert done.returncode == 0, done.stderr
    return experiment, done.stdout


def sets(experiment):
    table = pd.read_csv(experiment.folder / "sets.csv")
    return table.set_index(["label", "metric", "arm"])


def test_means_are_over_the_cells_of_an_arm(collected):
    experiment, _ = collected
    table = sets(experiment)
    values = [
        pd.read_csv(experiment.run(cell).scores).query("label == 'sick' and metric == 'AP50'")
        for cell in experiment.cells
        if cell.arm["augment"] == "none"
    ]
    own = [float(one["value"].iloc[0]) for one in values]
    row = table.loc["sick", "AP50", "augment=none"]
    assert row["mean"] == pytest.approx(np.mean(own))
    assert row["sd"] == pytest.approx(np.std(own, ddof=1))
    assert row["cells"] == 2


def test_all_that_is_found_scores_1_without_an_interval_of_any_width(collected):
    row = sets(collected[0]).loc["all", "F1_set", "augment=flip"]
    assert (row["mean"], row["low"], row["high"]) == (1, 1, 1)


def test_differences_are_paired_by_person_and_hold_the_mean(collected):
    table = sets(collected[0])
    base = table.loc["all", "AP50", "augment=none"]
    row = table.loc["all", "AP50", "augment=flip"]
    assert row["difference"] == pytest.approx(1 - base["mean"])
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["difference_low"] == pytest.approx(1 - base["high"])  # the other arm is always 1
    assert pd.isna(base["difference"])


def test_a_metric_that_is_not_resampled_has_no_interval(collected):
    row = sets(collected[0]).loc["healthy", "AP75", "augment=none"]
    assert pd.isna(row["low"])
    assert not pd.isna(row["mean"])


def test_rows_of_sets_are_no_persons(collected):
    experiment, said = collected
    summary = pd.read_csv(experiment.folder / "summary.csv")
    assert set(summary["metric"]) == {"precision", "recall", "F1"}
    assert summary["n"].max() == 12
    assert "12 persons tested" in said
    runs = pd.read_csv(experiment.folder / "runs.csv")
    assert {"all_AP50", "sick_F1", "healthy_F1_set", "sick_found_as_healthy"} <= set(runs)


def test_what_is_said_names_the_labels(collected):
    _, said = collected
    assert "sick AP50" in said.replace("  ", " ")
    assert "augment=flip, sick: " in said


def test_predictions_of_other_images_are_refused(collected):
    experiment, _ = collected
    run = experiment.run(experiment.cells[0])
    file = run.predictions / "test.json"
    before = file.read_bytes()
    try:
        file.write_text(
            json.dumps([{"image_id": 1, "category_id": 1, "bbox": [0] * 4, "score": 1}])
        )
        run.scores.unlink()
        done = command("collect", "--grid", "boxes", "--results", experiment.folder.parent)
        assert done.returncode == 2
        assert "is not the file that made the run complete" in done.stderr
    finally:
        file.write_bytes(before)
        score(run)
