"""What every task promises the launcher, kept by real workers on the phantom."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
from making import environment, run_folder

from spine_tasks.cell import Cell, Resources
from spine_tasks.configs import make_config
from spine_tasks.data.cases import box_cases_of, cases_of, cord_cases_of, grade_cases_of
from spine_tasks.data.nifti import load_image
from spine_tasks.environment import worker_variables
from spine_tasks.grade_predictions import load_grades
from spine_tasks.predictions import load_boxes
from spine_tasks.splits import load_split


@dataclass(frozen=True)
class Task:
    """A tiny training of one task, and what its framework leaves in the run's folder."""

    job: str
    knobs: dict
    split: str = "spine_phantom"
    framework: str = "torch"
    checkpoint: str = "last.pt"
    weights: str = "model.safetensors"


# timm's smallest network
DETECTION = {"backbone": "test_resnet", "image_px": 64, "epochs": 3, "batch_size": 16, "threads": 1}
DETR = {"hidden": 32, "feedforward": 32, "encoder_layers": 1, "decoder_layers": 1, "queries": 30}
PYRAMID = {"pyramid_channels": 16, "head_features": 32, "anchors_px": [4, 8, 16, 32, 64]}
TASKS = {
    "gm_segmentation": Task(
        "gm_segmentation",
        {
            "augment": True,
            "epochs": 4,
            "filters": 2,
            "image_px": 32,
            "spacing_mm": 0.5,
            "threads": 1,
            "threshold": 0.5,
        },
        split="gm_phantom",
        framework="tensorflow",
        checkpoint="last.npz",
        weights="model.weights.h5",
    ),
    "detr": Task("cord_signal_detr", DETECTION | DETR | {"accumulate": 2}),
    "fast_detr": Task(
        "cord_signal_detr",
        DETECTION | DETR | {"variant": "fast", "schedule": "one_cycle", "ema": 0.9},
    ),
    "faster_rcnn": Task("disc_faster_rcnn", DETECTION | PYRAMID | {"score": 0.001}),
    "grading": Task(
        "stenosis_grading",
        {"backbone": "test_resnet", "image_px": 32, "epochs": 3, "threads": 1}
        | {"across": "gru", "mixup": 0.4, "test_views": 2, "ema": 0.9, "loss": "ordinal"},
    ),
    "unet": Task(
        "cord_unet",
        {"image_px": 32, "spacing_mm": 1.0, "stages": 3, "features": 2, "epochs": 3, "threads": 1}
        | {"dropout": 0.2, "ema": 0.9},
        split="cords_phantom",
    ),
}
EPOCH_1 = '"epoch": 1'


def start(run):
    return subprocess.Popen(
        [sys.executable, "-m", "spine_tasks.worker", run.folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**worker_variables(run.cell())),
    )


def finish(worker):
    said, _ = worker.communicate(timeout=900)
    return worker.returncode, said


def new_run(results, task):
    """A run that saves at every step."""
    cell = Cell(
        job=task.job,
        config=make_config(task.job, task.knobs),
        split=task.split,
        split_sha256=load_split(task.split).digest,
        fold=0,
        seed=0,
        resources=Resources(checkpoint_s=0.001),
    )
    return run_folder(results, cell)


def same_data(of, results):
    """Let new results have the made-up data of a run: to make it takes longer than to train."""
    for folder in of.folder.parent.glob("phantom-*"):
        (results / folder.name).symlink_to(folder)


def stop_in_training(run, signum):
    """Send a signal once the second epoch is trained; return the exit code."""
    worker = start(run)
    history = run.folder / "history.jsonl"
    while worker.poll() is None and not (history.exists() and EPOCH_1 in history.read_text()):
        time.sleep(0.01)
    os.kill(worker.pid, signum)
    return finish(worker)[0]


def results_of(run):
    """Everything a run computed, without times."""
    times = ("seconds", "images_per_s")
    history = [{k: v for k, v in row.items() if k not in times} for row in run.history()]
    done = json.loads((run.folder / "done.json").read_text())
    return history, done["predictions_sha256"], run.scores.read_bytes()


@pytest.fixture(scope="module", params=list(TASKS))
def undisturbed(request, tmp_path_factory):
    task = TASKS[request.param]
    pytest.importorskip(task.framework, reason=f"{task.framework} is not installed")
    run = new_run(tmp_path_factory.mktemp("undisturbed"), task)
    code, said = finish(start(run))
    assert code == 0, said
    return task, run


def test_every_test_case_is_predicted_in_its_own_geometry(undisturbed):
    _, run = undisturbed
    check = {
        "masks": check_masks,
        "cords": check_cords,
        "boxes": check_boxes,
        "grades": check_grades,
    }[run.cell().config.predicts]
    check(run)


def check_masks(run):
    check_volumes(run, cases_of(run.cell(), "test", run.folder.parent), 12)


def check_cords(run):
    # Two of both sites' six persons in two contrasts, and all three of the unseen data set.
    check_volumes(run, cord_cases_of(run.cell(), "test", run.folder.parent), 2 * 2 * 2 + 3)


def check_volumes(run, cases, number):
    assert len(cases) == number
    assert {file.name for file in run.predictions.iterdir()} == {f"{c.id}.nii.gz" for c in cases}
    for case in cases:
        image, mask = load_image(case.image), nib.load(run.predictions / f"{case.id}.nii.gz")
        assert mask.shape == image.shape
        assert np.allclose(mask.affine, image.affine)
        assert mask.get_data_dtype() == np.uint8


def check_boxes(run):
    assert {file.name for file in run.predictions.iterdir()} == {"test.json", "val.json"}
    for part, images in {"test": 24, "val": 12}.items():
        cases, data = box_cases_of(run.cell(), part, run.folder.parent)
        assert len(cases) == images
        found = load_boxes(run.predictions / f"{part}.json", cases, data.category_ids)
        assert all(len(one.boxes) for one in found)
        for case, one in zip(cases, found, strict=True):
            assert (one.boxes >= 0).all()
            assert (one.boxes <= [case.width + 1e-5, case.height + 1e-5] * 2).all()
        edge = max(one.boxes.max() for one in found)
        assert edge > run.cell().config.image_px  # the pictures' pixels, not the network's


def check_grades(run):
    assert {file.name for file in run.predictions.iterdir()} == {"test.csv", "val.csv"}
    for part, studies in {"test": 12, "val": 6}.items():
        cases, data = grade_cases_of(run.cell(), part, run.folder.parent)
        assert len(cases) == 25 * studies
        found = load_grades(run.predictions / f"{part}.csv", cases, data.conditions)
        assert len({tuple(p) for p in found.values()}) > 20 * studies  # each from its own image


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_a_run_stopped_in_training_ends_as_one_never_stopped(undisturbed, tmp_path, signum, code):
    task, never_stopped = undisturbed
    run = new_run(tmp_path, task)
    same_data(never_stopped, tmp_path)
    assert stop_in_training(run, signum) == code
    assert not run.complete
    assert (run.checkpoint / task.checkpoint).exists()
    assert finish(start(run))[0] == 0
    assert results_of(run) == results_of(never_stopped)
    events = [record["event"] for record in run.attempts()]
    between = ["interrupted"] if signum == signal.SIGTERM else []
    assert events == ["started", *between, "started", "complete"]


def test_a_complete_run_is_not_trained_again(undisturbed):
    task, run = undisturbed
    before = results_of(run)
    weights = (run.folder / task.weights).stat().st_mtime_ns
    code, said = finish(start(run))
    assert code == 0
    assert "epoch" not in said
    assert (run.folder / task.weights).stat().st_mtime_ns == weights
    assert results_of(run) == before
