"""nnU-Net as a cell: preprocessed once, killed and continued, and the same network as its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from making import environment, run_folder
from nibabel.orientations import axcodes2ornt, ornt_transform
from safetensors import safe_open

from spine_tasks import torch_checkpoints
from spine_tasks.cell import Cell, Resources
from spine_tasks.configs import make_config
from spine_tasks.data.cases import cord_cases_of
from spine_tasks.data.nifti import load_image, load_mask
from spine_tasks.environment import worker_variables
from spine_tasks.files import sha256
from spine_tasks.nnunet.convert import write_dataset
from spine_tasks.nnunet.pairs import find_pairs
from spine_tasks.nnunet.sources import Source
from spine_tasks.splits import load_split
from spine_tasks.tasks.cord.folders import TRAINERS

pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (extra `nnunet`)")

DATA = {"train_on": ["siteB"], "configuration": "2d", "planner": "ExperimentPlanner", "threads": 1}
KNOBS = DATA | {
    "stages": 3,
    "features": 4,
    "patch": 32,
    "batch_size": 2,
    "epochs": 3,
    "iterations": 6,
    "val_iterations": 2,
    "foreground": 1.0,
    "mirror": False,
}
MODEL = "nnunet/Dataset001_cord/CordTrainer__nnUNetPlans__2d"


def cell(job="cord_nnunet", knobs=KNOBS, needs=(), **resources):
    return Cell(
        job=job,
        config=make_config(job, knobs),
        split="cords_phantom",
        split_sha256=load_split("cords_phantom").digest,
        fold=0,
        seed=0,
        needs=needs,
        resources=Resources(**{"cpus": 1, "checkpoint_s": 0.001} | resources),
    )


def start(run):
    return subprocess.Popen(
        [sys.executable, "-m", "spine_tasks.worker", run.folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**worker_variables(run.cell())),
        start_new_session=True,
    )


def finish(worker):
    said, _ = worker.communicate(timeout=900)
    return worker.returncode, said


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A complete cell of preprocessed data."""
    run = run_folder(tmp_path_factory.mktemp("cords"), cell("cord_preprocessing", DATA))
    code, said = finish(start(run))
    assert code == 0, said
    return run


def new_run(prepared, **changes):
    resources = changes.pop("resources", {})
    return run_folder(
        prepared.folder.parent,
        cell(knobs=KNOBS | changes, needs=(prepared.folder.name,), **resources),
    )


@pytest.fixture(scope="module")
def trained(prepared):
    run = new_run(prepared)
    code, said = finish(start(run))
    assert code == 0, said
    return run


def test_only_what_is_trained_on_reaches_nnunets_planning(prepared):
    preprocessed = prepared.folder / "nnunet/preprocessed/Dataset001_cord"
    (fold,) = json.loads((preprocessed / "splits_final.json").read_text())
    there = {
        file.name.partition(".")[0] for file in (preprocessed / "nnUNetPlans_2d").glob("*.pkl")
    }
    assert there == {*fold["train"], *fold["val"]}
    assert {name.partition("_")[0] for name in there} == {"siteB"}
    with (prepared.folder / "nnunet/raw/Dataset001_cord/cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    split = load_split("cords_phantom")
    for row in rows:
        assert row["subject"] in split.part(0, row["part"])


def test_nobody_is_named_in_the_weights_file(trained):
    with safe_open(trained.folder / "model.safetensors", framework="pt") as opened:
        assert "sub-" not in str(opened.metadata())


def test_every_test_set_is_predicted_and_scored_by_its_name(trained):
    cases = cord_cases_of(trained.cell(), "test", trained.folder.parent)
    assert {case.test_set for case in cases} == {
        "siteA T1w",
        "siteA T2w",
        "siteB T2w",
        "siteB T2starw",
        "unseen T2starw",
    }
    with trained.scores.open() as stream:
        labels = {(row["case"], row["label"]) for row in csv.DictReader(stream)}
    assert labels == {(case.id, case.test_set) for case in cases}
    for case in cases:
        image, mask = load_image(case.image), nib.load(trained.predictions / f"{case.id}.nii.gz")
        assert mask.shape == image.shape
        assert np.allclose(mask.affine, image.affine)


def test_predicting_goes_on_with_the_trained_weights(trained):
    """As after a stop while predicting: nothing is trained again, nothing untrained predicts."""
    before = {file.name: file.read_bytes() for file in trained.predictions.glob("*.nii.gz")}
    history = (trained.folder / "history.jsonl").read_bytes()
    weights = (trained.folder / "model.safetensors").stat().st_mtime_ns
    (trained.folder / "done.json").unlink()
    for file in list(trained.predictions.glob("*.nii.gz"))[1:]:
        file.unlink()
    code, said = finish(start(trained))
    assert code == 0, said
    assert {f.name: f.read_bytes() for f in trained.predictions.glob("*.nii.gz")} == before
    assert (trained.folder / "history.jsonl").read_bytes() == history
    assert (trained.folder / "model.safetensors").stat().st_mtime_ns == weights


def test_nnunets_own_predictor_finds_the_trainer_and_makes_the_same_mask(trained, tmp_path):
    """Reads, turns and resamples by itself, from the file in its own layout."""
    case = cord_cases_of(trained.cell(), "test", trained.folder.parent)[0]
    image = load_image(case.image)
    turn = ornt_transform(nib.io_orientation(image.affine), axcodes2ornt("LAS"))
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    image.as_reoriented(turn).to_filename(tmp_path / "in" / "x_0000.nii.gz")
    code = (
        "import sys, torch\n"
        "from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor\n"
        "if __name__ == '__main__':\n"
        "    one = nnUNetPredictor(use_mirroring=False, device=torch.device('cpu'))\n"
        "    one.initialize_from_trained_model_folder(sys.argv[1], (0,), 'checkpoint_final.pth')\n"
        "    one.predict_from_files_sequential(sys.argv[2], sys.argv[3])\n"
    )
    script = tmp_path / "predict.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script, trained.folder / MODEL, tmp_path / "in", tmp_path / "out"],
        env=environment(nnUNet_extTrainer=str(TRAINERS)),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = nib.load(tmp_path / "out" / "x.nii.gz")
    turn = ornt_transform(nib.io_orientation(theirs.affine), nib.io_orientation(image.affine))
    back = theirs.as_reoriented(turn)
    found = load_mask(trained.predictions / f"{case.id}.nii.gz", image)
    assert found.any()
    assert (np.asarray(back.dataobj).astype(bool) == found).all()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_a_stopped_training_continues_within_its_epoch(prepared, signum, code):
    run = new_run(prepared, epochs=4, learning_rate=0.01 + 0.001 * signum)
    worker = start(run)
    while worker.poll() is None and len(run.history()) < 1:
        time.sleep(0.01)
    os.kill(worker.pid, signum)
    assert finish(worker)[0] == code
    saved = torch_checkpoints.load(run.checkpoint)
    before = run.history()
    assert len(before) < 4, "it was through before the signal"
    code, said = finish(start(run))
    assert code == 0, said
    assert [row["epoch"] for row in run.history()] == [0, 1, 2, 3]
    assert run.history()[: saved["epoch"]] == before[: saved["epoch"]]  # not trained again
    rates = [row["learning_rate"] for row in run.history()]
    assert rates == sorted(rates, reverse=True)


def children_of(pid):
    """Processes that a process forked: they have its command line."""
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found if Path(f"/proc/{one}/cmdline").read_bytes() == own]


def test_the_death_of_a_process_that_augments_is_said_with_the_remedy(prepared):
    run = new_run(prepared, epochs=1000, resources={"cpus": 3, "checkpoint_s": 300})
    worker = start(run)
    while worker.poll() is None and not run.history():
        time.sleep(0.01)
    for child in children_of(worker.pid):
        os.kill(child, signal.SIGKILL)
    code, said = finish(worker)
    assert code == 2
    assert "a process that augments for nnU-Net was killed, most likely for want of memory" in said
    assert "--set resources.mem_gb=" in said


def test_a_lost_checkpoint_is_an_error(prepared):
    run = new_run(prepared, epochs=9)
    worker = start(run)
    while worker.poll() is None and not (run.checkpoint / "last.pt").exists():
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    finish(worker)
    for file in run.checkpoint.iterdir():
        file.write_bytes(b"cut off")
    code, said = finish(start(run))
    assert code == 2
    assert "checkpoint" in said


def test_a_cell_whose_data_is_gone_says_what_to_do(prepared, tmp_path):
    first = run_folder(tmp_path, prepared.cell())
    (first.folder / "done.json").write_text("{}")
    run = run_folder(tmp_path, cell(needs=(first.folder.name,)))
    code, said = finish(start(run))
    assert code == 2
    assert "its preprocessed data is gone; delete" in said


def test_nnunet_trains_on_one_gpu_only(prepared):
    code, said = finish(start(new_run(prepared, features=5, resources={"gpus": 2})))
    assert code == 2
    assert "trains on one GPU, got 2" in said


def test_weights_of_a_run_are_a_start_and_those_of_another_network_are_refused(prepared, trained):
    weights = {"init": "pretrained", "weights": str(trained.folder / "model.safetensors")}
    run = new_run(prepared, epochs=1, learning_rate=1e-9, **weights)
    code, said = finish(start(run))
    assert code == 0, said
    by_case = [
        {row["case"]: float(row["value"]) for row in csv.DictReader(one.scores.open())
         if row["metric"] == "DSC"}
        for one in (run, trained)
    ]  # fmt: skip
    start_of_scratch = trained.history()[0]["loss"]
    assert run.history()[0]["loss"] < start_of_scratch
    assert by_case[0].keys() == by_case[1].keys()
    code, said = finish(start(new_run(prepared, features=6, **weights)))
    assert code == 2
    assert "of another network than the plans'" in said


def test_nnunets_checkpoint_is_a_start_too(prepared, trained):
    weights = str(trained.folder / MODEL / "fold_0" / "checkpoint_final.pth")
    run = new_run(prepared, epochs=1, init="pretrained", weights=weights)
    code, said = finish(start(run))
    assert code == 0, said
    assert run.history()[0]["loss"] < trained.history()[0]["loss"]


def test_a_file_that_runs_code_is_not_loaded(prepared, tmp_path):
    import torch

    file = tmp_path / "checkpoint.pth"
    torch.save({"network_weights": subprocess.run}, file)
    run = new_run(prepared, features=7, init="pretrained", weights=str(file))
    code, said = finish(start(run))
    assert code == 2
    assert "not a checkpoint of nnU-Net that can be read without running code" in said


def test_default_folds_are_those_that_nnunet_is_known_for():
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    folds = generate_crossval_split([f"case_{n:03d}" for n in range(10)], seed=12345, n_splits=5)
    found = [[int(name[-3:]) for name in fold["val"]] for fold in folds]
    assert found == [[0, 7], [3, 9], [4, 6], [1, 8], [2, 5]]


@pytest.mark.skipif("SPINE_TEST_DATA" not in os.environ, reason="SPINE_TEST_DATA names no folder")
def test_real_images_pass_nnunets_own_check_and_stay_as_they_are(tmp_path, capfd):
    """Five images of four persons, in other orientations and voxel sizes."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    folder = Path(os.environ["SPINE_TEST_DATA"]) / "gm-challenge"
    before = {file: sha256(file) for file in folder.rglob("*.nii.gz")}
    source = Source(name="gm", path=folder, contrasts=("T2starw",), suffix="seg-manual")
    pairs, _ = find_pairs(source)
    assert len(pairs) == 5
    made = write_dataset(
        tmp_path, 1, "gm", {"train": pairs[:3], "val": pairs[3:4], "test": pairs[4:]}
    )
    verify_dataset_integrity(str(made), 1)
    assert "Error" not in capfd.readouterr().out
    assert {file: sha256(file) for file in before} == before
    for file in made.rglob("*.nii.gz"):
        assert nib.aff2axcodes(nib.load(file).affine) == ("L", "A", "S")
