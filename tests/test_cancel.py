"""Cancel, where nothing runs; with a launcher that runs: test_local; with Slurm: tests/slurm."""

import os
import subprocess

from making import command

from spine_tasks.experiment import opened
from spine_tasks.files import write_json
from spine_tasks.local import LAUNCHER


def cancel(results, name="gm_transfer"):
    return command("cancel", "--grid", name, "--results", results)


def test_nothing_to_stop_is_said_and_changes_nothing(complete):
    before = {file: file.read_bytes() for file in complete.rglob("*") if file.is_file()}
    answer = cancel(complete)
    assert answer.returncode == 0, answer.stderr
    assert "gm_transfer: 0 jobs cancelled; launch it again" in answer.stdout
    assert {file: file.read_bytes() for file in complete.rglob("*") if file.is_file()} == before


def test_what_was_never_launched_cannot_be_cancelled(complete):
    answer = cancel(complete, "other")
    assert answer.returncode == 2
    assert "launched there: gm_transfer" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_process_that_is_no_launcher_is_never_stopped(complete):
    # The launcher was killed and its process id given to another program.
    other = subprocess.Popen(["sleep", "60"])
    try:
        file = opened("gm_transfer", complete).folder / LAUNCHER
        write_json(file, {"host": os.uname().nodename, "pid": other.pid})
        assert "asked to stop" not in cancel(complete).stdout
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_launcher_of_another_machine_is_left_alone(complete):
    file = opened("gm_transfer", complete).folder / LAUNCHER
    write_json(file, {"host": "another-machine", "pid": os.getpid()})
    said = cancel(complete).stdout
    assert f"process {os.getpid()} on another-machine goes on: cancel it there" in said
    assert "asked to stop" not in said
