"""The state of a cell, from its real files and the real processes of this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm
from making import attempt_on_node as record
from making import cell, hand_over, run_folder

from spine_tasks import checkpoints
from spine_tasks.experiment import opened
from spine_tasks.run import Run
from spine_tasks.states import State, states
from spine_tasks.supervise import start_worker

ONE = cell()


@pytest.fixture(autouse=True)
def slurm(tmp_path_factory, monkeypatch):
    """Commands of Slurm on the PATH."""
    return FakeSlurm.on_path(tmp_path_factory.mktemp("slurm"), monkeypatch)


def state(results):
    return states(results, [ONE])[ONE.id]


def started(*command):
    """A process whose command line is there to be read, which takes a moment."""
    process = subprocess.Popen(command)
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    return process


def test_a_cell_without_folder_or_attempts_is_new(tmp_path, slurm):
    assert state(tmp_path) == State("new")
    run_folder(tmp_path, ONE)
    assert state(tmp_path) == State("new")
    assert slurm.calls() == []  # what was never submitted need not be asked for


def test_a_cell_whose_worker_runs_is_running(tmp_path):
    run_folder(tmp_path, ONE).record_attempt("started")
    assert state(tmp_path) == State("running", f"process {os.getpid()}")


def test_a_failed_cell_says_why_and_what_to_do(tmp_path):
    run = run_folder(tmp_path, ONE)
    run.record_attempt("started")
    run.record_attempt("failed", error="ValueError: bad at gm.py:7", cause="code")
    found = state(tmp_path)
    assert (found.kind, found.why) == ("failed", "ValueError: bad at gm.py:7")
    assert found.cause.kind == "code"


def test_an_interrupted_cell_has_a_checkpoint(tmp_path):
    run = run_folder(tmp_path, ONE)
    run.record_attempt("started")
    run.record_attempt("interrupted")
    assert state(tmp_path) == State("interrupted", "stopped with a checkpoint")


def test_a_cell_that_failed_and_is_tried_again_is_running(tmp_path):
    run = run_folder(tmp_path, ONE)
    run.record_attempt("started")
    run.record_attempt("failed", error="bad")
    run.record_attempt("started")
    assert state(tmp_path).kind == "running"


@pytest.mark.parametrize("last", ["started", "interrupted", "failed", "cancelled"])
def test_an_attempt_that_was_refused_says_nothing_about_the_cell(tmp_path, last):
    run = run_folder(tmp_path, ONE)
    run.record_attempt(last, error="bad")
    before = state(tmp_path)
    run.record_attempt("refused", error="being computed by process 1")
    assert state(tmp_path) == before


def test_a_complete_cell_is_complete_whatever_else_its_files_say(tmp_path, slurm):
    run = run_folder(tmp_path, ONE)
    run.record_attempt("failed", error="while scoring")
    hand_over(tmp_path, "grid-1", "7", [ONE])
    (run.folder / "done.json").write_text("{}")
    run.scores.touch()
    assert state(tmp_path) == State("complete")
    assert slurm.calls() == []


def test_a_cell_runs_until_it_is_scored(tmp_path):
    run = run_folder(tmp_path, ONE)
    run.record_attempt("started")
    (run.folder / "done.json").write_text("{}")
    assert state(tmp_path) == State("running", f"process {os.getpid()}")
    run.record_attempt("killed")  # collect scores it then
    assert state(tmp_path) == State("complete")


def test_a_cell_whose_process_has_gone_was_killed(tmp_path):
    process = started("sleep", "60")
    process.kill()
    process.wait()
    record(run_folder(tmp_path, ONE), "started", process.pid, socket.gethostname(), None)
    assert state(tmp_path) == State("interrupted", "ended without a word: killed, or its node died")


@pytest.mark.parametrize("words", [[], ["spine_tasks.worker", "another-cell"]])
def test_a_process_id_that_now_is_another_program_does_not_run_the_cell(tmp_path, words):
    # After a crash of the machine, process ids begin anew and workers get each other's.
    other = started(sys.executable, "-c", "import time; time.sleep(60)", *words)
    try:
        record(run_folder(tmp_path, ONE), "started", other.pid, socket.gethostname(), None)
        assert state(tmp_path).kind == "interrupted"
    finally:
        other.kill()
        other.wait()


def test_a_process_of_another_machine_is_not_looked_for_here(tmp_path):
    record(run_folder(tmp_path, ONE), "started", os.getpid(), job=None)
    assert state(tmp_path).kind == "interrupted"


def test_a_worker_killed_at_once_ended_without_a_word(tmp_path, toy, monkeypatch):
    for name, value in toy.env(TOY_EPOCH_S="0.1").items():
        monkeypatch.setenv(name, value)
    one = cell({"data": str(toy.data), "epochs": 1000})
    run = run_folder(tmp_path, one)
    worker = start_worker(run.folder)
    try:
        end = time.monotonic() + 900
        while not (run.checkpoint / "last.npz").exists():
            assert time.monotonic() < end, run.log.read_text()
            time.sleep(0.05)
        assert states(tmp_path, [one])[one.id] == State("running", f"process {worker.pid}")
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    found = states(tmp_path, [one])[one.id]
    assert found.kind == "interrupted"
    assert found.why.startswith("ended without a word")
    assert checkpoints.load(run.checkpoint)[1]["epochs_done"] >= 1


def test_states_are_those_of_the_cells_asked_for_in_their_order(tmp_path):
    cells = [cell(seed=seed) for seed in (2, 0, 1)]
    run_folder(tmp_path, cells[1]).record_attempt("started")
    found = states(tmp_path, cells)
    assert list(found) == [one.id for one in cells]
    assert [one.kind for one in found.values()] == ["new", "running", "new"]


@pytest.mark.parametrize("spoilt", ["history.jsonl", "attempts.jsonl"])
def test_a_line_cut_off_by_a_kill_changes_no_state(complete, spoilt):
    experiment = opened("gm_transfer", complete)
    run = Run(experiment.folder / experiment.cells[0].id)
    (run.folder / "done.json").unlink()
    before = states(experiment.folder, experiment.everything)
    with (run.folder / spoilt).open("a") as stream:
        stream.write('{"event": "fail')
    assert states(experiment.folder, experiment.everything) == before
