"""A cell on two nodes of a real Slurm trains as one, and survives what happens to either."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from making import ROOT, cell, command, environment, run_folder

from spine_tasks.run import Run

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

HERE = Path(__file__).resolve().parent
EPOCHS = 6
KNOBS = {
    "image_px": 64,
    "pyramid_channels": 16,
    "head_features": 32,
    "epochs": EPOCHS,
    "patience": EPOCHS,
    "batch_size": 8,
    "ema": 0.9,
    "seeds": 1,
    "resources.nodes": 2,
    "resources.mem_gb": 2,
    "resources.time": "'00:30:00'",
    "resources.checkpoint_s": 0.001,  # at every step
}
GRID = (
    *("--grid", "disc_faster_rcnn", "--preset", "small", "--name", "two"),
    *("--only", "backbone=tf_efficientnet_lite0", "--only", "init=none", "--only", "augment=none"),
    *(word for name, value in KNOBS.items() for word in ("--set", f"{name}={value}")),
)


@pytest.fixture
def env(slurm_cluster):
    return environment(SLURM_CONF=f"{slurm_cluster}/slurm.conf")


def launched(results, env):
    """The run of the grid's only cell, and its job."""
    flags = (*GRID, "--results", results, "--site", "dev_cluster", "--json")
    answer = command("launch", *flags, env=env)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    [(name, job)] = json.loads(answer.stdout)["jobs"].items()
    return Run(results / "two" / name), job


def wait_for(what, run, seconds=900):
    until = time.monotonic() + seconds
    while not what():
        said = run.log.read_text()[-3000:] if run.log.exists() else "nothing said"
        assert time.monotonic() < until, f"waited for nothing: {said}"
        assert "failed" not in events(run), said
        time.sleep(0.2)


def events(run):
    return [record["event"] for record in run.attempts()]


def trained_epochs(run):
    return len(run.history())


def results_of(run):
    """Everything a run computed, without times."""
    times = ("seconds", "images_per_s")
    history = [{k: v for k, v in row.items() if k not in times} for row in run.history()]
    done = json.loads((run.folder / "done.json").read_text())
    return history, done["predictions_sha256"], run.scores.read_bytes()


def rank_1_of(run):
    """The process id of the second rank."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if b"spine_tasks.meeting" in words and os.fsencode(run.folder) in words:
            return int(file.parent.name)
    raise AssertionError("there is no second rank")


@pytest.fixture(scope="module")
def undisturbed(slurm_cluster, tmp_path_factory):
    results = tmp_path_factory.mktemp("undisturbed")
    env = environment(SLURM_CONF=f"{slurm_cluster}/slurm.conf")
    run, job = launched(results, env)
    wait_for(lambda: run.scored, run)
    return run, job, env


def test_a_cell_trains_on_two_nodes_of_its_job(undisturbed):
    run, job, env = undisturbed
    assert events(run) == ["started", "complete"]
    said = run.log.read_text()
    assert "rank 0 of 2" in said
    assert "rank 1 of 2" in said
    assert trained_epochs(run) == EPOCHS  # not by each rank

    def accounted():
        words = ["sacct", "-nXP", "-j", job, "-o", "State,NNodes,NodeList"]
        return subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout

    wait_for(lambda: accounted().startswith("COMPLETED|2|node["), run)  # it hears it later


def test_a_cell_that_lost_a_rank_and_was_requeued_ends_as_one_undisturbed(
    undisturbed, tmp_path, env
):
    for folder in undisturbed[0].folder.parent.glob("phantom-*"):
        (tmp_path / "two").mkdir(exist_ok=True)
        (tmp_path / "two" / folder.name).symlink_to(folder)  # which takes long to make
    run, job = launched(tmp_path, env)
    wait_for(lambda: trained_epochs(run) >= 1, run)
    os.kill(rank_1_of(run), signal.SIGKILL)
    wait_for(lambda: events(run) == ["started", "interrupted", "started"], run)
    assert "another rank was lost" in run.log.read_text()
    saved = run.saved_ns()
    wait_for(lambda: run.saved_ns() > saved, run)
    assert not run.complete  # else there was nothing left to disturb
    subprocess.run(["scontrol", "requeue", job], check=True, env=env)
    wait_for(lambda: events(run).count("started") == 3, run)
    wait_for(lambda: run.scored, run)
    assert events(run)[-1] == "complete"
    assert results_of(run) == results_of(undisturbed[0])


def test_two_nodes_have_the_gradient_of_one_process_with_the_whole_batch(slurm_cluster, tmp_path):
    from rank_gradients import check_same, gradients_here

    run = run_folder(tmp_path, cell())
    answer = subprocess.run(
        [
            *("srun", "-N2", "-n2", "-p", "gpu", "-A", "spine", "--mem=2G", "--time=10"),
            *(sys.executable, HERE / "two_rank_gradients.py", run.folder),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=environment(ROOT / "tests", SLURM_CONF=f"{slurm_cluster}/slurm.conf"),
        timeout=900,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    torch.set_num_threads(1)
    alone = gradients_here()
    for rank in range(2):
        of_rank = pickle.loads((run.folder / f"rank{rank}.pickle").read_bytes())
        for name, gradient in alone.items():
            check_same(gradient, of_rank[name])
