"""A grid on a real Slurm gives what it gives on this machine."""

import json
import subprocess
import time

import pytest
from making import command, environment

from spine_tasks.files import sha256
from spine_tasks.submissions import Tasks, begin

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra `gm`)")

TINY = (
    *("--grid", "gm_transfer", "--preset", "demo", "--name", "tiny", "--only", "augment=false"),
    *("--set", "seeds=1", "--set", "image_px=32", "--set", "filters=2"),
    *("--set", "resources.time='00:10:00'", "--set", "resources.checkpoint_s=1"),
)
SHORT = (*TINY, "--set", "epochs=2", "--set", "needs.epochs=2")
LONG = (*TINY, "--set", "epochs=400", "--set", "needs.epochs=400", "--set", "patience=400")
ON_SLURM = ("--site", "dev_cluster")


def slurm_environment(folder):
    return environment(SLURM_CONF=f"{folder}/slurm.conf")


def launch(results, *flags, env):
    answer = command("launch", "--results", results, *flags, env=env)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    return answer.stdout


def slurm(*words, env):
    return subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout


def accounted(jobs, env):
    """What slurmdbd knows of jobs, `id|state` a line."""
    return slurm("sacct", "-nXP", "-j", jobs, "-o", "JobID,State", env=env).splitlines()


def scores(results):
    """The digest of each cell's scores.csv."""
    return {file.parent.name: sha256(file) for file in results.glob("tiny/*/scores.csv")}


def wait_for(what, seconds=120):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited for nothing"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def local_scores(tmp_path_factory):
    results = tmp_path_factory.mktemp("local")
    launch(results, *SHORT, "--site", "local", env=environment())
    return scores(results)


def test_the_grid_runs_as_arrays_and_scores_as_on_this_machine(
    slurm_cluster, tmp_path, local_scores
):
    env = slurm_environment(slurm_cluster)
    planned = launch(tmp_path, *SHORT, *ON_SLURM, "--dry-run", env=env)
    said = json.loads(launch(tmp_path, *SHORT, *ON_SLURM, "--wait", "--json", env=env))
    assert {cell["state"] for cell in said["cells"]} == {"complete"}
    assert len(local_scores) == 3
    assert scores(tmp_path) == local_scores

    arrays = sorted({job.partition("_")[0] for job in said["jobs"].values()})
    assert len(arrays) == 2  # one array at once, one after it
    expected = sorted(f"{job}|COMPLETED" for job in said["jobs"].values())
    # slurmdbd hears it later
    wait_for(lambda: sorted(accounted(",".join(arrays), env=env)) == expected)
    for file in tmp_path.glob("tiny/slurm/*/submission.sh"):
        if "--dependency" not in file.read_text():  # what --dry-run showed is what was submitted
            script = file.read_text().replace(file.parent.name, "tiny-<launch>")
            assert _body(script) in _body(planned)

    again = launch(tmp_path, *SHORT, *ON_SLURM, env=env)
    assert "nothing to start" in again


def _body(script):
    """The lines without quotes, which depend on the letters of a name."""
    return "\n".join(line for line in script.replace("'", "").splitlines() if line.strip())


def test_cancel_stops_the_jobs_and_keeps_their_work(slurm_cluster, tmp_path):
    env = slurm_environment(slurm_cluster)
    said = json.loads(launch(tmp_path, *LONG, *ON_SLURM, "--json", env=env))
    tiny = tmp_path / "tiny"
    wait_for(lambda: len(list(tiny.glob("*/history.jsonl"))) == 2)

    flags = ("--grid", "tiny", "--results", tmp_path)
    assert command("cancel", *flags, env=env).returncode == 0
    jobs = ",".join(job.partition("_")[0] for job in said["jobs"].values())
    wait_for(lambda: not slurm("squeue", "-h", "--me", env=env).strip(), seconds=30)
    wait_for(lambda: all("CANCELLED" in line for line in accounted(jobs, env=env)), seconds=30)

    states = json.loads(command("status", *flags, "--json", env=env).stdout)["cells"]
    assert sorted(cell["state"] for cell in states) == [
        *("interrupted", "interrupted"),
        *("new", "new", "new"),  # the one that waited for another, and two that --only left out
    ]
    for run in tiny.glob("gm_*"):
        if (run / "history.jsonl").exists():
            assert (run / "checkpoint" / "last.npz").exists()


def test_a_job_that_slurm_does_not_take_is_said_and_leaves_nothing_waiting(slurm_cluster, tmp_path):
    env = slurm_environment(slurm_cluster)
    much = ("--set", "resources.mem_gb=4000")
    answer = command("launch", "--results", tmp_path, *SHORT, *ON_SLURM, *much, env=env)
    assert answer.returncode == 2
    assert "4000" in answer.stderr
    assert "16 GB" in answer.stderr  # what a node has
    assert "Traceback" not in answer.stderr
    assert not slurm("squeue", "-h", "--me", env=env).strip()


def test_without_an_answer_from_slurm_nothing_is_started_a_second_time(slurm_cluster, tmp_path):
    begin(tmp_path / "tiny", "tiny-0", Tasks(cells=[["a-cell"]], worker=["python"], mem_gb=1))
    env = environment(SLURM_CONF="/nowhere/slurm.conf", SPINE_SLURM_PATIENCE_S="1")
    answer = command("launch", "--results", tmp_path, *SHORT, *ON_SLURM, env=env)
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: squeue: ")
    assert not list(tmp_path.glob("tiny/gm_*"))
