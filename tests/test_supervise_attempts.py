"""Attempts at a cell under a real supervisor: what is recorded of them, and that none is lost."""

import json
import os
import signal
import sys
from contextlib import contextmanager, suppress

import pytest
from array_task import Task, end_all, wait_for
from fake_slurm import FakeSlurm
from making import cell

from spine_tasks import states
from spine_tasks.checkpoints import load
from spine_tasks.files import read_json, write_json
from spine_tasks.supervise import start_worker


class ToyTask(Task):
    """An array task whose workers train the toy task, slowly while `slow` is there."""

    def __init__(self, folder, slurm, toy, epochs, *seeds):
        cells = [cell({"data": str(toy.data), "epochs": epochs}, seed=seed) for seed in seeds]
        super().__init__(folder, slurm, cells, worker=[sys.executable])
        self.slow = folder / "slow"
        self.env = toy.env(TOY_SLOW=str(self.slow))

    def start(self, restart=0):
        return super().start(restart, self.env)

    def training(self, epoch=1):
        """Begin the supervisor; return it once its worker has saved an epoch."""
        self.slow.write_text("0.1")
        process = self.start()
        wait_for(lambda: self.epochs_done() >= epoch or process.poll() is not None)
        assert process.poll() is None, process.stderr.read() + self.runs[0].log.read_text()
        return process

    def epochs_done(self):
        saved = load(self.runs[0].checkpoint)
        return saved[1]["epochs_done"] if saved else 0

    @contextmanager
    def endless_step(self):
        """Let the worker be in a step that does not end during the block."""
        self.slow.unlink()
        os.mkfifo(self.slow)  # its reader waits for words that never come
        opened = []

        def is_read():
            with suppress(OSError):
                opened.append(os.open(self.slow, os.O_WRONLY | os.O_NONBLOCK))
            return opened

        wait_for(is_read)
        yield
        os.close(opened[0])

    @property
    def worker(self):
        """The process id of the cell's worker."""
        return read_json(self.runs[0].folder / "owner.json")["pid"]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of Slurm on the PATH, which say that the job runs."""
    fake = FakeSlurm.on_path(tmp_path, monkeypatch)
    fake.show()
    yield fake
    end_all()


@pytest.fixture
def task(tmp_path, slurm, toy):
    """An array task of one cell, in which there is time for something to happen."""
    return ToyTask(tmp_path, slurm, toy, 1000, 0)


def test_two_packed_cells_become_complete_each_in_its_own_folder(tmp_path, slurm, toy):
    pair = ToyTask(tmp_path, slurm, toy, 2, 0, 1)
    pair.run()
    for number, run in enumerate(pair.runs):
        assert pair.events(number) == ["started", "complete"]
        assert run.complete
        assert run.scores.exists()
        assert f"cell {run.folder.name}, attempt 1" in run.log.read_text()
        assert {record["job_id"] for record in run.attempts()} == {"7_0"}


def test_a_preempted_attempt_saves_and_the_next_start_of_the_job_goes_on(tmp_path, slurm, toy):
    task = ToyTask(tmp_path, slurm, toy, 100, 0)
    process = task.training(3)
    slurm.show(PreemptTime="2026-11-22T13:56:10")
    process.send_signal(signal.SIGTERM)
    task.end(process)
    assert task.events() == ["started", "interrupted"]
    assert len(task.requeues()) == 1
    assert task.epochs_done() >= 3
    task.slow.unlink()
    task.run(restart=1)
    assert task.events() == ["started", "interrupted", "started", "complete"]
    assert [record["epoch"] for record in task.runs[0].history()] == list(range(100))
    assert [record["restart"] for record in task.runs[0].attempts()] == [0, 0, 1, 1]


def test_a_killed_worker_is_recorded_and_its_task_requeued(task):
    process = task.training()
    pid = task.worker
    os.kill(pid, signal.SIGKILL)
    task.end(process)
    assert task.events() == ["started", "killed"]
    last = task.runs[0].attempts()[-1]
    assert (last["pid"], last["signal"], last["job_id"]) == (pid, signal.SIGKILL, "7_0")
    assert len(task.requeues()) == 1


def test_a_worker_that_crashed_would_do_so_again_and_has_failed(task):
    process = task.training()
    os.kill(task.worker, signal.SIGSEGV)
    task.end(process, 1)
    assert task.events() == ["started", "failed"]
    last = task.runs[0].attempts()[-1]
    assert (last["cause"], last["error"][:17]) == ("code", "killed by SIGSEGV")
    assert task.requeues() == []


def test_a_worker_whose_place_was_taken_ends_and_leaves_no_record(task, slurm):
    process = task.training()
    owner = task.runs[0].folder / "owner.json"
    later = read_json(owner) | {"restart": 1, "host": "another", "token": "t"}
    write_json(owner, later)
    slurm.show(Restarts=1)
    task.end(process)
    assert task.events() == ["started"]
    assert task.requeues() == []
    assert read_json(owner) == later


def test_a_worker_in_a_long_step_is_killed_after_a_cancel_and_keeps_its_checkpoint(task, slurm):
    process = task.training()
    with task.endless_step():
        before = task.epochs_done()
        slurm.show(JobState="COMPLETING")
        process.send_signal(signal.SIGTERM)
        task.end(process)
    assert task.events() == ["started", "cancelled"]
    assert task.epochs_done() == before
    assert task.requeues() == []
    run = task.runs[0]
    found = states.states(task.experiment, [run.cell()])[run.folder.name]
    assert (found.kind, found.cancelled) == ("interrupted", True)


def test_a_cancelled_worker_that_saves_in_time_was_cancelled(task, slurm):
    process = task.training()
    slurm.show(JobState="COMPLETING")
    process.send_signal(signal.SIGTERM)
    task.end(process)
    assert task.events() == ["started", "interrupted", "cancelled"]
    assert task.requeues() == []


def test_a_worker_is_in_a_session_of_its_own_and_knows_its_supervisor(tmp_path, task):
    told = tmp_path / "told.json"
    code = "import json, os, sys; from pathlib import Path; "
    code += "Path(sys.argv[1]).write_text(json.dumps([os.getsid(0), os.environ['SPINE_SUPERVISOR']"
    code += ", os.environ['MORE']]))"
    worker = start_worker(
        task.runs[0].folder, [sys.executable, "-c", code, str(told)], {"MORE": "more"}
    )
    assert worker.wait(timeout=900) == 0
    assert json.loads(told.read_text()) == [worker.pid, str(os.getpid()), "more"]
