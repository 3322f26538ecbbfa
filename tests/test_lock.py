"""One launcher at a time: real processes that want one lock."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from making import environment

from spine_tasks.errors import RunError
from spine_tasks.lock import STALE_S, held, holder

# `launch` in the command line is what tells a launcher from another process of its number.
LAUNCHERS = """
import sys, time
from pathlib import Path
from spine_tasks.lock import held
lock, log = Path(sys.argv[1]), Path(sys.argv[2])
with held(lock, "held by {pid}", patience_s=600):
    with log.open("a") as out: out.write("in\\n")
    time.sleep(0.05)
    with log.open("a") as out: out.write("out\\n")
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *arguments, "launch"]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)


def test_of_many_at_once_each_has_it_alone(tmp_path):
    lock, log = tmp_path / "lock", tmp_path / "log"
    many = [start(LAUNCHERS, lock, log) for _ in range(8)]
    assert [one.wait(timeout=900) for one in many] == [0] * 8
    assert log.read_text() == "in\nout\n" * 8
    assert not lock.exists()


def test_a_second_one_is_told_who_holds_it(tmp_path):
    lock = tmp_path / "lock"
    with held(lock, "held by {pid} on {host}"):
        assert holder(lock)["pid"] == os.getpid()
        with pytest.raises(RunError) as refused, held(lock, "held by {pid} on {host}"):
            pass
        assert str(refused.value) == f"held by {os.getpid()} on {socket.gethostname()}"
    assert holder(lock) is None


def test_the_lock_of_a_killed_holder_is_taken_over_by_one(tmp_path):
    lock, log = tmp_path / "lock", tmp_path / "log"
    dead = start(LAUNCHERS.replace("time.sleep(0.05)", "time.sleep(600)"), lock, log)
    until = time.monotonic() + 900
    while not log.exists() and time.monotonic() < until:
        time.sleep(0.01)
    dead.kill()
    dead.wait()
    assert lock.exists()
    many = [start(LAUNCHERS, lock, log) for _ in range(6)]
    assert [one.wait(timeout=900) for one in many] == [0] * 6
    assert log.read_text() == "in\n" + "in\nout\n" * 6


@pytest.mark.parametrize(("age_s", "holds"), [(0, True), (STALE_S + 60, False)])
def test_elsewhere_only_age_tells_whether_the_holder_lives(tmp_path, age_s, holds):
    lock = tmp_path / "lock"
    lock.write_text(json.dumps({"host": "another", "pid": 1, "token": "t"}))
    os.utime(lock, (time.time() - age_s,) * 2)
    assert (holder(lock) is not None) == holds


def test_a_holder_whose_lock_was_taken_over_is_told_before_it_goes_on(tmp_path):
    lock = tmp_path / "lock"
    with held(lock, "") as still_mine:
        still_mine()
        lock.write_text(json.dumps({"host": "another", "pid": 1, "token": "t"}))
        with pytest.raises(RunError, match="taken over by another process"):
            still_mine()
    assert json.loads(lock.read_text())["host"] == "another"
