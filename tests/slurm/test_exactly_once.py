"""However launchers are doubled, killed or lied to, every cell is handed to Slurm once."""

import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
from making import ROOT, command

TIMES = 10
SCRATCH = ("--only", "init=scratch", "--set", "resources.cpus=1")  # one array of two cells


@pytest.fixture
def launch(slurm_cluster, toy):
    """Begin `launch.py` of the toy grid under a name; returns its process."""

    def begin(results, name, *more, path=()):
        env = toy.env(SLURM_CONF=f"{slurm_cluster}/slurm.conf")
        env["PATH"] = os.pathsep.join([*map(str, path), env["PATH"]])
        flags = [*on_slurm(toy, results), "--name", name, *more]
        return subprocess.Popen(
            [sys.executable, ROOT / "jobs" / "launch.py", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )

    return begin


def on_slurm(toy, results, seeds=1):
    """The flags of a launch of two cells a seed."""
    changed = {"resources.mem_gb=0.1": "resources.mem_gb=1", "seeds=1": f"seeds={seeds}"}
    flags = [changed.get(word, word) for word in toy.flags(results)]
    return [*flags, "--site", "dev_cluster", *SCRATCH]


def ended(process):
    said = "".join(process.communicate(timeout=900))
    assert process.returncode == 0, said
    return said


def arrays(name):
    """The ids of all arrays of an experiment that Slurm's controller remembers."""
    shown = subprocess.run(
        ["scontrol", "-o", "show", "job"], capture_output=True, text=True, check=True
    ).stdout
    jobs = [line for line in shown.splitlines() if f" JobName={name}-" in line]
    return {re.search(r"ArrayJobId=(\d+)", line)[1] for line in jobs}


def complete(results, name):
    return {file.parent.name for file in (results / name).glob("*/done.json")}


def wait_for(what, seconds=900):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited for nothing"
        time.sleep(0.2)


def starts(results, name):
    """How many attempts began, by cell."""
    return {
        file.parent.name: file.read_text().count('"event": "started"')
        for file in (results / name).glob("*/attempts.jsonl")
    }


def test_two_launchers_at_once_make_one_array(launch, tmp_path):
    for time_ in range(TIMES):
        name = f"twice{time_}"
        for process in [launch(tmp_path, name), launch(tmp_path, name)]:
            ended(process)
        assert len(arrays(name)) == 1
    for time_ in range(TIMES):
        name = f"twice{time_}"
        wait_for(lambda name=name: len(complete(tmp_path, name)) == 2)
        assert set(starts(tmp_path, name).values()) == {1}


LIAR = """#!/bin/sh
{sbatch} "$@" > {said}
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""


def test_an_array_that_sbatch_accepted_and_denied_is_found(launch, tmp_path):
    liar = tmp_path / "bin" / "sbatch"
    liar.parent.mkdir()
    liar.write_text(LIAR.format(sbatch=shutil.which("sbatch"), said=tmp_path / "said"))
    liar.chmod(liar.stat().st_mode | stat.S_IXUSR)
    said = ended(launch(tmp_path, "denied", path=[liar.parent]))
    (job,) = arrays("denied")
    assert job == (tmp_path / "said").read_text().strip()
    assert f"submitted as Slurm job {job}" in said
    wait_for(lambda: len(complete(tmp_path, "denied")) == 2)
    assert set(starts(tmp_path, "denied").values()) == {1}


def test_a_launcher_killed_at_any_moment_loses_and_doubles_nothing(launch, tmp_path):
    moments = random.Random(1)
    for time_ in range(TIMES):
        name = f"killed{time_}"
        process = launch(tmp_path, name)
        # Until a lock is there it only plans; then it submits for some tenths of a second.
        wait_for(lambda name=name, p=process: submitting(tmp_path, name) or p.poll() is not None)
        time.sleep(moments.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    for time_ in range(TIMES):
        ended(launch(tmp_path, f"killed{time_}"))
    for time_ in range(TIMES):
        name = f"killed{time_}"
        wait_for(lambda name=name: len(complete(tmp_path, name)) == 2)
        assert set(starts(tmp_path, name).values()) == {1}
        released = [line for line in ledger(tmp_path, name) if line.get("released")]
        assert len({line["name"] for line in released}) == 1


def submitting(results, name):
    return (results / name / "launching.json").exists()


def ledger(results, name):
    return [
        json.loads(line) for line in (results / name / "submissions.jsonl").read_text().splitlines()
    ]


def test_a_grid_larger_than_the_site_takes_is_split_and_topped_up(
    dev_cluster, new_folder, toy, tmp_path
):
    folder = new_folder()
    started = dev_cluster("start", folder, "--conf-line", "MaxArraySize=4")
    assert started.wait(timeout=900) == 0, started.stderr.read()
    env = toy.env(SLURM_CONF=f"{folder}/slurm.conf")
    limit = ["sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=6"]
    subprocess.run(limit, env=env, check=True, capture_output=True)
    flags = on_slurm(toy, tmp_path, seeds=5)
    first = command("launch", *flags, env=env)
    assert first.returncode == 0, first.stderr
    assert "4 cells are left: the site takes no more" in first.stdout
    rest = command("launch", *flags, "--wait", env=env)
    assert rest.returncode == 0, rest.stderr + rest.stdout
    assert len(complete(tmp_path, "gm_transfer")) == 10
    assert set(starts(tmp_path, "gm_transfer").values()) == {1}
    sizes = [line["tasks"] for line in ledger(tmp_path, "gm_transfer") if "tasks" in line]
    assert sum(sizes) == 10
    assert max(sizes) <= 4
