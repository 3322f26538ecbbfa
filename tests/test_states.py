"""The state of a cell, from real files and real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from making import cell, run_folder

from spine_tasks import checkpoints
from spine_tasks.experiment import opened
from spine_tasks.files import append_line
from spine_tasks.run import Run
from spine_tasks.states import SUBMISSIONS, State, alive, job_cells, states
from spine_tasks.supervise import start_worker

ONE = cell()


def state(results):
    return states(results, [ONE])[ONE.id]


def a_process_that_ended():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def started(*command):
    """A process whose command line is there to be read, which takes a moment."""
    process = subprocess.Popen(command)
    while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
        time.sleep(0.01)
    return process


def record(run, event, pid, host=None, **details):
    where = {"host": host or socket.gethostname(), "pid": pid}
    append_line(run.folder / "attempts.jsonl", {"event": event} | where | details)


def test_a_cell_without_folder_or_attempts_is_new(tmp_path):
    assert state(tmp_path) == State("new")
    run_folder(tmp_path, ONE)
    assert state(tmp_path) == State("new")


def test_a_cell_whose_worker_runs_is_running(tmp_path):
    run_folder(tmp_path, ONE).record_attempt("started")
    assert state(tmp_path) == State("running", f"process {os.getpid()}")


def test_a_failed_cell_says_why_and_where(tmp_path):
    run = run_folder(tmp_path, ONE)
    run.record_attempt("started")
    run.record_attempt("failed", error="ValueError: bad", at="gm.py:7")
    assert state(tmp_path) == State("failed", "ValueError: bad gm.py:7")


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


def test_a_complete_cell_is_complete_whatever_else_its_files_say(tmp_path):
    run = run_folder(tmp_path, ONE)
    run.record_attempt("failed", error="while scoring")
    (run.folder / "done.json").write_text("{}")
    assert state(tmp_path) == State("complete")


def test_a_cell_whose_process_has_gone_was_killed(tmp_path):
    run = run_folder(tmp_path, ONE)
    record(run, "started", a_process_that_ended())
    assert state(tmp_path) == State("interrupted", "ended without a word: killed, or its node died")


def test_a_process_id_that_now_is_another_program_does_not_run_the_cell(tmp_path):
    run = run_folder(tmp_path, ONE)
    other = started("sleep", "60")
    try:
        record(run, "started", other.pid)
        assert state(tmp_path).kind == "interrupted"
        here = {"host": socket.gethostname(), "pid": other.pid}
        assert alive(here, "sleep")
        assert not alive(here, ONE.id)
    finally:
        other.kill()
        other.wait()


def test_a_process_of_another_machine_is_not_looked_for_here(tmp_path):
    run = run_folder(tmp_path, ONE)
    record(run, "started", os.getpid(), host="another-node")
    assert state(tmp_path).kind == "interrupted"


def test_a_worker_killed_at_once_ended_without_a_word(tmp_path, toy, monkeypatch):
    for name, value in toy.env(TOY_EPOCH_S="0.1").items():
        monkeypatch.setenv(name, value)
    one = cell({"data": str(toy.data), "epochs": 1000})
    run = run_folder(tmp_path, one)
    worker = start_worker(run.folder)
    try:
        end = time.monotonic() + 60
        while not (run.checkpoint / "last.npz").exists():
            assert time.monotonic() < end, run.log.read_text()
            time.sleep(0.05)
        assert states(tmp_path, [one])[one.id] == State("running", f"process {worker.pid}")
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert states(tmp_path, [one])[one.id].kind == "interrupted"
    assert states(tmp_path, [one])[one.id].why.startswith("ended without a word")
    assert checkpoints.load(run.checkpoint)[1]["epochs_done"] >= 1


def test_a_process_of_another_cells_worker_does_not_run_this_one(tmp_path):
    # After a crash of the machine, process ids begin anew and workers get each other's.
    run = run_folder(tmp_path, ONE)
    code = "import time; time.sleep(60)"
    other = started(sys.executable, "-c", code, "spine_tasks.worker", "another-cell")
    try:
        record(run, "started", other.pid)
        assert state(tmp_path).kind == "interrupted"
    finally:
        other.kill()
        other.wait()


def test_states_are_those_of_the_cells_asked_for_in_their_order(tmp_path):
    cells = [cell(seed=seed) for seed in (2, 0, 1)]
    run_folder(tmp_path, cells[1]).record_attempt("started")
    found = states(tmp_path, cells)
    assert list(found) == [one.id for one in cells]
    assert [one.kind for one in found.values()] == ["new", "running", "new"]


def test_a_cell_submitted_twice_is_known_by_both_jobs(tmp_path):
    append_line(tmp_path / SUBMISSIONS, {"jobs": {"1_0": "a", "1_1": "b"}})
    append_line(tmp_path / SUBMISSIONS, {"jobs": {"2": "b"}})
    assert job_cells(tmp_path) == {"1_0": "a", "1_1": "b", "2": "b"}
    assert job_cells(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("spoilt", ["history.jsonl", "attempts.jsonl"])
def test_a_line_cut_off_by_a_kill_changes_no_state(complete, spoilt):
    experiment = opened("gm_transfer", complete)
    run = Run(experiment.folder / experiment.cells[0].id)
    (run.folder / "done.json").unlink()
    before = states(experiment.folder, experiment.everything)
    with (run.folder / spoilt).open("a") as stream:
        stream.write('{"event": "fail')
    assert states(experiment.folder, experiment.everything) == before
