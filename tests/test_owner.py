"""Who computes a cell: real processes that claim one folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from making import environment

from spine_tasks import owner
from spine_tasks.errors import NotOwner
from spine_tasks.files import write_json
from spine_tasks.owner import Owner, claim, owner_of

# Claims the folder, says so, and computes until it is told that the folder is not its own.
WORKER = """
import sys, time
from pathlib import Path
from spine_tasks.owner import claim, watch
folder = Path(sys.argv[1])
watch(folder, claim(folder, []))
print("mine", flush=True)
time.sleep(60)
"""


def attempt(folder, job=None, restart=0, **variables):
    """A process that claims the folder, as an attempt of a Slurm job."""
    slurm = {} if job is None else {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restart)}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**slurm, **variables),
        start_new_session=True,
    )


def claimed(process):
    return process.stdout.readline() == "mine\n"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "a-cell"
    folder.mkdir()
    return folder


@pytest.fixture
def attempts(run):
    """Begin attempts at the run; all are ended with the test."""
    begun = []

    def begin(*of, **variables):
        begun.append(attempt(run, *of, **variables))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def test_the_first_attempt_owns_the_folder(run):
    mine = claim(run, [])
    assert owner_of(run) == mine
    owner.check(run, mine)


def test_a_second_attempt_is_refused_while_the_first_is_alive(run, attempts):
    first = attempts("7")
    assert claimed(first)
    second = attempts("8")
    assert not claimed(second)
    assert "being computed by process" in second.communicate()[1]
    assert first.poll() is None


def test_the_folder_of_a_killed_attempt_is_free_at_once(run, attempts):
    first = attempts("7")
    assert claimed(first)
    first.kill()
    first.wait()
    assert claimed(attempts("8"))


def test_a_later_start_of_the_same_job_takes_over_and_the_earlier_ends(run, attempts):
    first = attempts("7")
    assert claimed(first)
    second = attempts("7", 1)
    assert claimed(second)
    assert first.wait(timeout=900) != 0
    assert second.poll() is None


def test_an_earlier_start_of_the_same_job_does_not_come_back(run, attempts):
    assert claimed(attempts("7", 2))
    late = attempts("7", 1)
    assert not claimed(late)
    assert "Slurm has started job 7 again" in late.communicate()[1]


def test_an_attempt_whose_folder_was_taken_ends_with_its_children(run, tmp_path):
    child = f"{WORKER.replace('time.sleep(60)', '')}\nimport subprocess\n"
    child += "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\ntime.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", child, run],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    assert claimed(process)
    pid = int(process.stdout.readline())
    write_json(run / "owner.json", {**json.loads((run / "owner.json").read_text()), "token": "x"})
    process.wait(timeout=900)
    until = time.monotonic() + 900
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not runs(pid)


def runs(pid):
    """Whether a process is there and is more than an entry that nobody has collected."""
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    state = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_a_worker_ends_when_its_supervisor_has_died(run, attempts):
    supervisor = subprocess.Popen(["sleep", "600"])
    worker = attempts("7", 0, SPINE_SUPERVISOR=str(supervisor.pid))
    assert claimed(worker)
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    assert worker.wait(timeout=900) != 0


def elsewhere(run, **changes):
    """The record of an owner on another machine."""
    record = {"host": "another", "pid": 1, "job": "7", "restart": 0, "token": "t"} | changes
    write_json(run / "owner.json", record)
    return Owner(**record)


def test_an_owner_elsewhere_that_goes_on_beating_is_left_alone(run, monkeypatch):
    monkeypatch.setattr(owner, "LOOK_S", 0.05)
    elsewhere(run)
    beats = iter(range(1, 100))
    sleep = time.sleep

    def beat(seconds):
        os.utime(run / "owner.json", ns=(0, time.time_ns() + next(beats)))
        sleep(seconds)

    monkeypatch.setattr(owner.time, "sleep", beat)
    with pytest.raises(NotOwner, match=r"process 1 on another \(Slurm job 7\)"):
        claim(run, [])


def test_an_owner_elsewhere_that_fell_silent_is_dead(run):
    elsewhere(run)
    past = time.time() - owner.SILENT_S - 1
    os.utime(run / "owner.json", (past, past))
    assert claim(run, []).host == socket.gethostname()


def test_an_owner_elsewhere_whose_end_is_recorded_is_not_waited_for(run, monkeypatch):
    elsewhere(run)
    ended = {"host": "another", "pid": 1, "job_id": "7"}
    records = [ended | {"event": "started"}, ended | {"event": "interrupted"}]
    monkeypatch.setattr(owner.time, "sleep", lambda _: pytest.fail("it waited"))
    assert claim(run, records).pid == os.getpid()


def test_an_owner_beats_until_it_has_been_silent_for_long(run):
    assert not owner.beats(run)
    elsewhere(run)
    assert owner.beats(run)
    os.utime(run / "owner.json", (time.time() - owner.SILENT_S - 1,) * 2)
    assert not owner.beats(run)


def test_a_spoilt_owner_file_is_nobodys(run):
    (run / "owner.json").write_text('{"host": ')
    assert claim(run, []).pid == os.getpid()
