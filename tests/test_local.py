"""Cells on this machine: order, failures, Ctrl-C, one launcher at a time."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from making import ROOT, cell, command, run_folder

from spine_tasks import checkpoints, local
from spine_tasks.cell import Resources
from spine_tasks.experiment import opened
from spine_tasks.files import write_json
from spine_tasks.local import capacity
from spine_tasks.states import states

ADULT = "gm_phantom_adult"


def kinds(results):
    experiment = opened("gm_transfer", results)
    found = states(experiment.folder, experiment.everything)
    return {cell.arm_name or cell.split: found[cell.id].kind for cell in experiment.everything}


def started_at(run):
    return next(one["time"] for one in run.attempts() if one["event"] == "started")


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def under_way(toy, tmp_path):
    """A launcher in a process of its own that is well within its first cell."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "jobs" / "launch.py", *toy.flags(tmp_path, epochs=40)],
        env=toy.env(TOY_EPOCH_S="0.2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: list(tmp_path.glob("*/*/checkpoint/previous.npz")))
    yield process
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_a_needed_cell_is_complete_before_the_cells_that_start_from_it(launched_once):
    experiment = opened("gm_transfer", launched_once[0])
    first = json.loads((experiment.run(experiment.needed[0]).folder / "done.json").read_text())
    for one in experiment.cells:
        if one.needs:
            assert started_at(experiment.run(one)) >= first["time"]


def test_every_cell_of_a_launch_becomes_complete_and_is_scored(launched_once):
    results, answer = launched_once
    assert "5 complete" in answer.stdout
    assert set(kinds(results).values()) == {"complete"}
    assert len(list(results.glob("gm_transfer/*/scores.csv"))) == 5


def test_a_failing_cell_does_not_stop_the_others(toy, tmp_path):
    answer = toy.launch(tmp_path, TOY_FAILS="augment=False init=scratch")  # as cell.json sorts it
    assert answer.returncode == 1
    assert kinds(tmp_path) == {
        ADULT: "complete",
        "init=scratch augment=False": "failed",
        "init=scratch augment=True": "complete",
        "init=pretrained augment=False": "complete",
        "init=pretrained augment=True": "complete",
    }
    assert "made to fail" in answer.stderr
    assert "log.txt" in answer.stderr


def test_cells_whose_needed_cell_failed_are_not_started_and_are_named(toy, tmp_path):
    answer = toy.launch(tmp_path, "--only", "augment=true", TOY_FAILS=ADULT)
    assert answer.returncode == 1
    found = kinds(tmp_path)
    assert (found[ADULT], found["init=pretrained augment=True"]) == ("failed", "new")
    assert found["init=scratch augment=True"] == "complete"
    waiting = next(c for c in opened("gm_transfer", tmp_path).cells if c.needs and c.arm["augment"])
    assert f"new: {waiting.id}: a cell that it needs is not complete" in answer.stderr
    assert not (tmp_path / "gm_transfer" / waiting.id / "attempts.jsonl").exists()

    again = toy.launch(tmp_path, "--only", "augment=true")
    assert again.returncode == 1
    assert "nothing to start" in again.stdout
    assert "--retry-failed starts them again" in again.stdout
    again = toy.launch(tmp_path, "--only", "augment=true", "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert kinds(tmp_path)["init=pretrained augment=True"] == "complete"


def test_ctrl_c_saves_and_the_next_launch_continues_from_there(toy, tmp_path, under_way):
    under_way.send_signal(signal.SIGINT)
    assert under_way.wait(30) == 130
    assert "run the same command again" in under_way.stderr.read()
    assert not (tmp_path / "gm_transfer" / local.LAUNCHER).exists()
    stopped = next(tmp_path.glob("*/*/attempts.jsonl")).parent
    assert "interrupted" in (stopped / "attempts.jsonl").read_text()
    epochs_done = checkpoints.load(stopped / "checkpoint")[1]["epochs_done"]
    assert 0 < epochs_done < 40

    again = toy.launch(tmp_path, epochs=40)
    assert again.returncode == 0, again.stderr
    assert set(kinds(tmp_path).values()) == {"complete"}
    history = [json.loads(line) for line in (stopped / "history.jsonl").open()]
    assert [record["epoch"] for record in history] == list(range(40))


def test_a_second_launcher_at_the_same_time_is_refused(toy, tmp_path, under_way):
    # What is under way is never started twice: the second would take the cells that wait.
    second = toy.launch(tmp_path, epochs=40)
    assert second.returncode == 2
    assert f"is being run here by process {under_way.pid}" in second.stderr
    assert under_way.poll() is None


def test_cancel_stops_the_launcher_and_its_workers_save(toy, tmp_path, under_way):
    answer = command("cancel", "--grid", "gm_transfer", "--results", tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert f"process {under_way.pid} on this machine asked to stop" in answer.stdout
    assert under_way.wait(30) == 130
    assert "interrupted" in set(kinds(tmp_path).values())
    assert "running" not in set(kinds(tmp_path).values())


def test_a_launcher_that_was_killed_does_not_lock_the_grid(tmp_path, complete):
    experiment = opened("gm_transfer", complete)
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = os.uname().nodename
    write_json(experiment.folder / local.LAUNCHER, {"host": host, "pid": ended.pid})
    assert local.launcher(experiment) is None
    # The id was given to another program since.
    write_json(experiment.folder / local.LAUNCHER, {"host": host, "pid": 1})
    assert local.launcher(experiment) is None


def test_a_worker_that_was_asked_to_stop_alone_is_started_again(toy, tmp_path, under_way):
    run = next(tmp_path.glob("*/*/attempts.jsonl")).parent
    pid = json.loads((run / "attempts.jsonl").read_text().splitlines()[-1])["pid"]
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: (run / "attempts.jsonl").read_text().count('"started"') == 2)
    assert (run / "attempts.jsonl").read_text().count('"interrupted"') == 1


@pytest.mark.parametrize(
    ("resources", "gpus", "at_once"),
    [
        ({"cpus": 4096}, 0, 1),  # more than there is: still one
        ({"mem_gb": 1e6}, 0, 1),
        ({"cpus": 1, "mem_gb": 1e-9}, 0, os.cpu_count()),
        ({"cpus": 1, "mem_gb": 1e-9, "gpus": 1}, 1, 1),
        ({"cpus": 1, "mem_gb": 1e-9, "gpus": 2}, 3, 1),  # two each: a third GPU is of no use
        ({"cpus": 1, "mem_gb": 1e-9, "gpus": 2}, 0, os.cpu_count()),  # no GPU: on the CPU
    ],
)
def test_as_many_cells_run_at_once_as_the_scarcest_resource_carries(resources, gpus, at_once):
    assert capacity([cell(resources=Resources(**resources))], gpus) == at_once


def test_the_largest_cell_decides_how_many_run_at_once():
    small, large = Resources(cpus=1, mem_gb=1e-9), Resources(cpus=4096, mem_gb=1e-9)
    assert capacity([cell(resources=small), cell(resources=large)], 0) == 1


def test_memory_that_is_available_is_counted_in_gigabytes():
    assert 0.05 < local.available_gb() < 1e5


def test_a_run_folder_holds_its_cell_alone_before_the_first_attempt(tmp_path):
    run = run_folder(tmp_path)
    assert [file.name for file in run.folder.iterdir()] == ["cell.json"]
