"""nnU-Net on a real Slurm: preprocessing first, a node lost in training, and on from there."""

import json
import time

import pytest
from making import command, environment

from spine_tasks.experiment import opened
from spine_tasks.files import read_lines

pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (extra `nnunet`)")

GRID = (
    *("--grid", "cord_generalization", "--preset", "demo", "--name", "cords"),
    *("--only", "arm=siteB", "--site", "dev_cluster"),
    *("--set", "epochs=5", "--set", "iterations=12", "--set", "val_iterations=2"),
    *("--set", "features=4", "--set", "stages=3", "--set", "batch_size=2"),
    *("--set", "resources.time='00:20:00'", "--set", "resources.checkpoint_s=1"),
)
LOST_AT_MOST_S = 120


def wait_for(what, seconds=300):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited for nothing"
        time.sleep(0.2)


def started(run):
    return [record for record in run.attempts() if record["event"] == "started"]


def test_training_waits_for_preprocessing_and_survives_the_loss_of_its_node(
    new_cluster, dev_cluster, tmp_path
):
    cluster = new_cluster()
    env = environment(SLURM_CONF=f"{cluster}/slurm.conf")
    answer = command("launch", "--results", tmp_path, *GRID, "--json", env=env)
    assert answer.returncode == 0, answer.stderr
    jobs = json.loads(answer.stdout)["jobs"]
    training = next(cell for cell in jobs if cell.startswith("cord_nnunet"))
    first = next(cell for cell in jobs if cell.startswith("cord_preprocessing"))
    experiment = opened("cords", tmp_path)
    run, prepared = (
        experiment.run(next(one for one in experiment.everything if one.id == name))
        for name in (training, first)
    )
    scripts = [file.read_text() for file in tmp_path.glob("cords/slurm/*/submission.sh")]
    assert sum(f"afterany:{jobs[first]}" in script for script in scripts) == 1

    wait_for(lambda: len(run.history()) >= 2)
    assert prepared.complete
    before, node = run.history(), started(run)[0]["node"]
    saved_s = run.saved_ns() / 1e9
    lost_s = time.time() - saved_s
    dev_cluster("kill", cluster, node, "--jobs").communicate()
    wait_for(lambda: len(started(run)) == 2)
    dev_cluster("revive", cluster, node).communicate()
    wait_for(lambda: run.complete and run.scores.exists())

    assert lost_s < LOST_AT_MOST_S
    assert started(run)[1]["saved_ns"] is not None
    after = run.history()
    assert [row["epoch"] for row in after] == [0, 1, 2, 3, 4]
    assert after[: len(before) - 1] == before[:-1]  # what a checkpoint had seen is not done again
    assert len(read_lines(prepared.folder / "attempts.jsonl")) == 2  # started, complete: once
