"""An array task on a node: a real supervisor, with workers that do as they are told."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from making import environment, run_folder

from spine_tasks.submissions import Tasks, begin

# A worker that does what tells.json says of its cell: a list, of which each start takes one.
WORKER = """\
#!{python} -IS
import json, os, signal, sys, time
from pathlib import Path
run = Path(sys.argv[-1])
here = Path(__file__).parent
tells = json.loads((here / "tells.json").read_text())[run.name]
before = len([one for one in here.glob(f"begun-{{run.name}}-*")])
tell = tells[min(before, len(tells) - 1)]
def save(*_):
    while tell == "slow" and not (here / "saved").exists():
        time.sleep(0.01)
    sys.exit(75)
for one in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(one, signal.SIG_IGN if tell == "deaf" else save)
begun = here / f"begun-{{run.name}}-{{time.monotonic_ns()}}"
begun.write_text(str(os.getpid()))
print("the worker of", run.name)
until = time.monotonic() + 600
if tell == "together":
    while len(list(here.glob("begun-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    sys.exit(0 if time.monotonic() < until else 1)
if tell == "touch":
    (run / "touched").write_text("")
    sys.exit(0)
if tell == "later":
    time.sleep(0.3)
    sys.exit(0)
if tell == "alone":
    others = [one.read_text() for one in here.glob("begun-*") if one != begun]
    sys.exit(any(Path(f"/proc/{{pid}}").exists() for pid in others))
if tell in ("stop", "slow", "deaf"):
    time.sleep(600)
    sys.exit(1)
if tell < 0:
    os.kill(os.getpid(), -tell)
    time.sleep(600)
sys.exit(tell)
"""


TASKS = []  # of the test that runs


class Task:
    """One array task: its cells, what their workers are told to do, and Slurm around it."""

    def __init__(self, folder, slurm, cells, **changes):
        self.slurm = slurm
        self.started = []
        TASKS.append(self)
        self.here = folder / "workers"
        self.here.mkdir()
        worker = self.here / "worker"
        worker.write_text(WORKER.format(python=sys.executable))
        worker.chmod(0o755)
        self.experiment = folder / "grid"
        self.runs = [run_folder(self.experiment, one) for one in cells]
        tasks = {"cells": [[one.id for one in cells]], "worker": [str(worker)], "mem_gb": 1}
        self.folder = begin(self.experiment, "grid-1", Tasks(**tasks | changes))

    def tell(self, *tells):
        """Say what the worker of each cell does, at each of its starts."""
        told = [tell if isinstance(tell, list) else [tell] for tell in tells]
        names = [run.folder.name for run in self.runs]
        (self.here / "tells.json").write_text(json.dumps(dict(zip(names, told, strict=True))))

    def start(self, restart=0, env=None):
        """Begin the supervisor, as job 7_0, whose own number is another."""
        job = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "8"}
        process = subprocess.Popen(
            [sys.executable, "-m", "spine_tasks.supervise", self.folder],
            env=(env or environment()) | job | {"SLURM_RESTART_COUNT": str(restart)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self, process, code=0):
        """Wait for a supervisor's end; return what it wrote."""
        _, said = process.communicate(timeout=900)
        assert process.returncode == code, said
        return said

    def run(self, code=0, **more):
        """Run a supervisor from start to end."""
        return self.end(self.start(**more), code)

    def begun(self, number=0):
        """The process ids of the workers that a cell has had so far."""
        files = sorted(self.here.glob(f"begun-{self.runs[number].folder.name}-*"))
        return [int(file.read_text()) for file in files if file.read_text()]

    def requeues(self):
        return self.slurm.calls("scontrol", "requeue")

    def events(self, number=0):
        return [record["event"] for record in self.runs[number].attempts()]


def end_all():
    """End what a failed test has left."""
    while TASKS:
        task = TASKS.pop()
        for process in [one for one in task.started if one.poll() is None]:
            process.kill()
            process.communicate()
            for pid in (pid for number in range(len(task.runs)) for pid in task.begun(number)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def wait_for(what):
    """Return once `what()` is true."""
    until = time.monotonic() + 900
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)
