"""One cell on a real Slurm that is disturbed in training, and what became of it.

A trial has two nodes of a dev cluster for itself, so that several can be disturbed at once. What is
reported of it is seen from outside: from process ids, the checkpoints' times and Slurm's queue.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from making import ROOT, command, environment

from spine_tasks.run import Run

GUARD_S = 900  # how long anything is waited for; a guard, never a measure
NAME = "trial"
HERE = Path(__file__).resolve().parent
DEV_CLUSTER = ROOT / "slurm" / "dev_cluster" / "dev_cluster.py"


def wait_for(what, why, every_s=0.2):
    """Return once `what()` is true."""
    until = time.monotonic() + GUARD_S
    while not what():
        if time.monotonic() > until:
            raise AssertionError(f"waited {GUARD_S} s for nothing: {why}")
        time.sleep(every_s)


@dataclass(frozen=True)
class Task:
    """What a trial computes."""

    name: str
    entry: str  # lines of Python that every process of the trial begins with
    settings: tuple[str, ...]  # knobs


@dataclass(frozen=True)
class Half:
    """Two of the four nodes of a dev cluster."""

    cluster: Path
    feature: str  # of its nodes

    def slurm(self, *words):
        """The output of a command of Slurm, repeated while the controller is away."""
        env = environment(SLURM_CONF=f"{self.cluster}/slurm.conf")
        until = time.monotonic() + GUARD_S
        while True:
            answer = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
            if answer.returncode == 0:
                return answer.stdout
            if "controller" not in answer.stderr or time.monotonic() > until:
                raise AssertionError(f"{' '.join(words)}: {answer.stderr}")
            time.sleep(0.5)

    def queue(self):
        """What Slurm has for these nodes: job id -> (state, node)."""
        found = {}
        for line in self.slurm(
            "squeue", "--noheader", "--array", "--format=%i %T %f %N"
        ).splitlines():
            job, state, feature, *node = line.split()
            if feature == self.feature:
                found[job] = (state, node[0] if node else "")
        return found

    def daemon(self, *words):
        """A command of dev_cluster.py."""
        asked = [sys.executable, DEV_CLUSTER, *words, "--folder", str(self.cluster)]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr


@dataclass
class Trial:
    """A grid of one cell that is launched on a half of a cluster, disturbed and followed."""

    folder: Path
    half: Half
    task: Task
    partition: str = "gpu"
    resources: tuple[str, ...] = ()
    lead_s: int = 30
    variables: dict[str, str] = field(default_factory=dict)
    launches: int = 0

    def __post_init__(self):
        for name in ("site", "told"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "site" / "sitecustomize.py").write_text(
            f"{self.task.entry}\nimport inside_worker\n"
        )
        profile = {"partition": self.partition, "account": "spine"}
        profile |= {"constraint": self.half.feature, "signal_lead_s": self.lead_s}
        (self.folder / "site.yaml").write_text(yaml.safe_dump(profile))
        self.slow.write_text("1")

    @property
    def slow(self):
        """The file that makes the steps slow while it is there."""
        return self.folder / "slow"

    @property
    def told(self):
        """The folder of the workers' witnesses."""
        return self.folder / "told"

    @property
    def hog(self):
        """The file whose appearance makes the worker take memory."""
        return self.folder / "hog"

    def env(self):
        """The environment of the trial's commands."""
        told = {"TOY_WITNESS": str(self.told), "TOY_SLOW": str(self.slow)}
        told["SLURM_CONF"] = f"{self.half.cluster}/slurm.conf"
        return environment(self.folder / "site", ROOT / "tests", HERE, **told | self.variables)

    def flags(self):
        """The flags of a launch, but for its site."""
        flags = ["--grid", "gm_transfer", "--preset", "demo", "--name", NAME]
        flags += ["--results", self.folder, "--only", "init=scratch", "--only", "augment=false"]
        settings = ["seeds=1", *self.task.settings, *self.resources]
        return [*flags, *(word for one in settings for word in ("--set", one))]

    def launch(self, *more):
        """Launch, for the first time or again."""
        self.launches += 1
        flags = [*self.flags(), "--site", self.folder / "site.yaml", "--json", *more]
        answer = command("launch", *flags, env=self.env())
        assert answer.returncode == 0, answer.stderr + answer.stdout

    def launch_here(self):
        """Run the cell undisturbed on this machine."""
        self.slow.unlink(missing_ok=True)
        answer = command("launch", *self.flags(), "--site", "local", env=self.env())
        assert answer.returncode == 0, answer.stderr + answer.stdout

    def cancel(self):
        """Cancel by jobs/cancel.py."""
        answer = command("cancel", "--grid", NAME, "--results", self.folder, env=self.env())
        assert answer.returncode == 0, answer.stderr + answer.stdout

    @property
    def run(self):
        """The run of the only cell."""
        (file,) = (self.folder / NAME).glob("*/cell.json")
        return Run(file.parent)

    @property
    def complete(self):
        """Whether the cell is complete and scored."""
        return any((self.folder / NAME).glob("*/scores.csv"))

    def started(self):
        """The records of the attempts' beginnings."""
        if not any((self.folder / NAME).glob("*/attempts.jsonl")):
            return []
        return [record for record in self.run.attempts() if record["event"] == "started"]

    def events(self):
        """The events of attempts.jsonl, but for the refusals, which say nothing about the cell."""
        return [one["event"] for one in self.run.attempts() if one["event"] != "refused"]

    @property
    def job(self):
        """The Slurm job of the attempt that began last, `123_4`."""
        return self.started()[-1]["job_id"]

    @property
    def node(self):
        """The node of that job, as Slurm says."""
        return self.half.queue()[self.job][1]

    @property
    def worker(self):
        """The process id of the worker that began last."""
        return self.started()[-1]["pid"]

    def newest_checkpoint(self):
        """When it was written, as its file says; None without one."""
        files = [file for file in self.run.checkpoint.glob("*") if file.name[0] != "."]
        return max((file.stat().st_mtime for file in files), default=None)

    def wait_for_training(self):
        """Wait until the first attempt has saved."""
        wait_for(
            lambda: (self.started() and self.newest_checkpoint()) or not self.half.queue(),
            f"{self.folder}: the first checkpoint",
            every_s=1,
        )
        assert self.newest_checkpoint(), f"{self.folder}: it ended before its first checkpoint"
        time.sleep(1)  # so that there is work that a kill can cost

    def wait_for_attempt(self, number):
        """Wait until that many attempts have begun, and the steps are fast from then on."""
        wait_for(
            lambda: len(self.started()) >= number or not self.half.queue(),
            f"{self.folder}: attempt {number}",
            every_s=1,
        )
        self.slow.unlink(missing_ok=True)

    def finish(self):
        """Wait until the cell is complete and nothing of it is left in the queue."""
        wait_for(lambda: not self.half.queue(), f"{self.folder}: an empty queue", every_s=1)
        assert self.complete, (self.events(), self.run.log.read_text()[-2000:])

    def results(self):
        """Everything that the cell computed, without times."""
        done = json.loads((self.run.folder / "done.json").read_text())
        history = [{k: v for k, v in row.items() if k != "seconds"} for row in self.run.history()]
        return history, done["predictions_sha256"], self.run.scores.read_bytes()


def kill(*pids, signum=signal.SIGKILL):
    """Send a signal to processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


def stat(pid):
    """State letter and parent of a process: `Z` for a zombie, `T` for a frozen one, `` for none."""
    try:
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


def works(pid):
    """Whether a process is there, and neither a zombie nor frozen."""
    return stat(pid)[0] not in ("", "Z", "T")


class Watch(threading.Thread):
    """Looks at a trial from outside, ten times a second: how much work did each end cost?"""

    def __init__(self, trial):
        super().__init__(daemon=True)
        self.trial = trial
        self.begun = time.time()
        self.worked = {}  # process id -> when it last worked
        self.saved = {}  # process id -> time of the newest checkpoint when it started
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            if not self.trial.started():
                continue
            records = self.trial.run.attempts()
            # One that was stopped has saved its last step, and takes a while to end.
            stopped = [one["pid"] for one in records if one["event"] == "interrupted"]
            for pid in [one["pid"] for one in records if one["event"] == "started"]:
                self.saved.setdefault(pid, self.trial.newest_checkpoint() or self.begun)
            # What an attempt does behind the beginning of the next one is no work of the cell's.
            if works(pid) and pid not in stopped:
                self.worked[pid] = time.time()

    def lost_s(self):
        """Seconds of work that were done again: from each last checkpoint to the attempt's end."""
        self.over.set()
        self.join()
        ends = [self.worked.get(pid, 0.0) for pid in self.saved]
        return sum(
            max(0.0, end - saved)
            for end, saved in zip(ends, list(self.saved.values())[1:], strict=False)
        )
