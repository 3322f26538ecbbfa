"""A task with loader processes resumes bit for bit, and only its main process hears a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import witness
from making import cell, environment, run_folder

from spine_tasks.cell import Resources
from spine_tasks.environment import worker_variables

pytest.importorskip("torch", reason="PyTorch is not installed (extra `detection`)")

KNOBS = {"epochs": 40, "batch_size": 1, "threads": 1, "threshold": 0.9, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    from torch_task import ENTRY

    folder = tmp_path_factory.mktemp("torch")
    (folder / "sitecustomize.py").write_text(ENTRY)
    return environment(folder, Path(__file__).parent)


def new_run(folder, data, checkpoint_s):
    resources = Resources(cpus=1, checkpoint_s=checkpoint_s)
    return run_folder(folder, cell({**KNOBS, "data": str(data)}, resources=resources))


def start(run, env, **variables):
    return subprocess.Popen(
        [sys.executable, "-m", "spine_tasks.worker", run.folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env | worker_variables(run.cell()) | variables,
        start_new_session=True,
    )


def finish(worker):
    said, _ = worker.communicate(timeout=900)
    return worker.returncode, said


def results_of(run):
    done = json.loads((run.folder / "done.json").read_text())
    return run.history(), done["predictions_sha256"], run.scores.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data, env):
    run = new_run(tmp_path_factory.mktemp("undisturbed"), data, checkpoint_s=300)
    code, said = finish(start(run, env))
    assert code == 0, said
    return run


@pytest.mark.parametrize(
    ("signum", "code", "checkpoint_s"), [(signal.SIGTERM, 75, 300), (signal.SIGKILL, -9, 0.2)]
)
def test_its_whole_process_group_signalled_in_an_epoch_it_ends_as_one_never_stopped(
    undisturbed, tmp_path, data, env, signum, code, checkpoint_s
):
    run = new_run(tmp_path, data, checkpoint_s)
    slow = tmp_path / "slow"
    slow.write_text("0.1")
    told = tmp_path / "told"
    told.mkdir()
    env = env | {"TOY_WITNESS": str(told), "TOY_SLOW": str(slow)}

    worker = start(run, env)

    def far_enough():
        steps = [line.place for one in witness.attempts(told, run.cell().id) for line in one.lines]
        return steps and steps[-1] >= (3, 1)  # of four steps an epoch

    while worker.poll() is None and not far_enough():
        time.sleep(0.01)
    os.killpg(worker.pid, signum)
    assert finish(worker)[0] == code
    slow.unlink()
    code, said = finish(start(run, env))
    assert code == 0, said

    assert results_of(run) == results_of(undisturbed)
    between = ["interrupted"] if signum == signal.SIGTERM else []
    events = [record["event"] for record in run.attempts()]
    assert events == ["started", *between, "started", "complete"]
    attempts = witness.attempts(told, run.cell().id)
    assert len(attempts) == 2
    assert witness.problems(attempts) == []
    assert attempts[1].begun.place >= (3, 1) or signum == signal.SIGKILL  # a TERM costs no step
