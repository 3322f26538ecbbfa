"""What every task promises the launcher, kept by real workers on the phantom."""

import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
from making import cell, environment, run_folder

from spine_tasks.cell import Resources
from spine_tasks.data.cases import cases_of
from spine_tasks.data.nifti import load_image
from spine_tasks.environment import worker_variables

TINY = {
    "gm_segmentation": {
        "augment": True,
        "epochs": 4,
        "filters": 2,
        "image_px": 32,
        "spacing_mm": 0.5,
        "threads": 1,
        "threshold": 0.5,
    },
}
FRAMEWORK = {"gm_segmentation": "tensorflow"}
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


def new_run(results, job):
    """A run that saves at every step."""
    return run_folder(results, cell(TINY[job], resources=Resources(checkpoint_s=0.001)))


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
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history()]
    done = json.loads((run.folder / "done.json").read_text())
    return history, done["predictions_sha256"], run.scores.read_bytes()


@pytest.fixture(scope="module", params=list(TINY))
def undisturbed(request, tmp_path_factory):
    job = request.param
    pytest.importorskip(FRAMEWORK[job], reason=f"{FRAMEWORK[job]} is not installed")
    run = new_run(tmp_path_factory.mktemp("undisturbed"), job)
    code, said = finish(start(run))
    assert code == 0, said
    return job, run


def test_every_test_case_is_predicted_in_its_own_geometry(undisturbed):
    _, run = undisturbed
    cases = cases_of(run.cell(), "test", run.folder.parent)
    assert len(cases) == 12
    assert {file.name for file in run.predictions.iterdir()} == {f"{c.id}.nii.gz" for c in cases}
    for case in cases:
        image, mask = load_image(case.image), nib.load(run.predictions / f"{case.id}.nii.gz")
        assert mask.shape == image.shape
        assert np.allclose(mask.affine, image.affine)
        assert mask.get_data_dtype() == np.uint8


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_a_run_stopped_in_training_ends_as_one_never_stopped(undisturbed, tmp_path, signum, code):
    job, never_stopped = undisturbed
    run = new_run(tmp_path, job)
    assert stop_in_training(run, signum) == code
    assert not run.complete
    assert (run.checkpoint / "last.npz").exists()
    assert finish(start(run))[0] == 0
    assert results_of(run) == results_of(never_stopped)
    events = [record["event"] for record in run.attempts()]
    between = ["interrupted"] if signum == signal.SIGTERM else []
    assert events == ["started", *between, "started", "complete"]


def test_a_complete_run_is_not_trained_again(undisturbed):
    _, run = undisturbed
    before = results_of(run)
    weights = (run.folder / "model.weights.h5").stat().st_mtime_ns
    code, said = finish(start(run))
    assert code == 0
    assert "epoch" not in said
    assert (run.folder / "model.weights.h5").stat().st_mtime_ns == weights
    assert results_of(run) == before
