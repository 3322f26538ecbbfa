"""A grid under random faults: one every few seconds, and a launcher that is killed twice."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import witness
import yaml
from making import ROOT, command

DEV_CLUSTER = ROOT / "slurm" / "dev_cluster" / "dev_cluster.py"
NODES = ("node1", "node2", "node3", "node4")
EVERY_S = 3.0
AT_ONCE = 6
SEEDS = 30  # times two arms: 60 cells
NAME = "gm_transfer"


class Soak:
    """One grid of 60 tiny cells on a cluster of its own."""

    def __init__(self, cluster, toy, folder, seconds):
        self.cluster, self.folder, self.seconds = cluster, folder, seconds
        self.chance = random.Random(1)
        self.done = []  # the faults, in order
        self.threads = []
        self.witnesses = folder / "witnesses"
        self.witnesses.mkdir()
        # Enough work for the faults to last, however many are undone by them.
        epochs = max(4, round(seconds * AT_ONCE / (2 * SEEDS)))
        self.env = toy.env(
            SLURM_CONF=f"{cluster}/slurm.conf", TOY_WITNESS=str(self.witnesses), TOY_EPOCH_S="1"
        )
        site = folder / "soak.yaml"
        partitions = ["low", "low_nograce", "low_cancel", "low_cancel_nograce"]
        profile = {"partition": partitions, "account": "spine", "max_parallel": AT_ONCE}
        site.write_text(yaml.safe_dump(profile))
        changed = {"resources.mem_gb=0.1": "resources.mem_gb=1", "seeds=1": f"seeds={SEEDS}"}
        self.flags = [changed.get(word, word) for word in toy.flags(folder / "soaked", epochs)]
        self.flags += ["--only", "init=scratch", "--set", "resources.cpus=1"]
        self.flags += ["--set", "resources.checkpoint_s=1", "--site", str(site)]
        self.undisturbed = [str(folder / "calm") if word.endswith("soaked") else word
                            for word in self.flags] + ["--site", "local"]  # fmt: skip
        self.calm_env = toy.env()

    def run(self):
        """Disturb the grid for the time, then launch it until it is complete; the launches."""
        launcher = self.launch()
        ends = time.monotonic() + self.seconds
        killed = 0
        while time.monotonic() < ends:
            time.sleep(EVERY_S)
            self.fault()
            share = 1 - (ends - time.monotonic()) / self.seconds
            if killed < 2 and share > (killed + 1) / 3:
                launcher.kill()
                launcher.wait()
                killed += 1
                self.done.append("launcher killed and started again")
                launcher = self.launch()
        for thread in self.threads:
            thread.join()
        self.daemons("start")
        launcher.wait(timeout=1800)
        launches = 3
        while (again := command("launch", *self.flags, "--wait", env=self.env)).returncode:
            launches += 1
            if launches > 10:
                raise AssertionError(again.stdout + again.stderr)
        return launches

    def launch(self):
        """A launcher that follows the grid."""
        with (self.folder / "launcher.txt").open("ab") as out:
            return subprocess.Popen(
                [sys.executable, ROOT / "jobs" / "launch.py", *self.flags, "--wait"],
                stdout=out,
                stderr=out,
                env=self.env,
            )

    def fault(self):
        """One thing that goes wrong, chosen at random."""
        kinds = [self.kill_worker, self.kill_supervisor, self.preempt, self.requeue, self.lose_node]
        kind = self.chance.choice(kinds)
        with suppress(subprocess.CalledProcessError, ProcessLookupError):  # it has just ended
            if kind():
                self.done.append(kind.__name__.replace("_", " "))

    def kill_worker(self):
        """SIGKILL to the worker of a cell."""
        return self.kill_one(b"spine_tasks.worker")

    def kill_supervisor(self):
        """SIGKILL to a supervisor, whose worker is then to end by itself."""
        return self.kill_one(b"submitit.core._submit")

    def kill_one(self, word):
        """SIGKILL to one process of this soak with a word in its command line."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line = (process / "cmdline").read_bytes()
                if word in line and os.fsencode(self.folder) in line and b"srun" not in line:
                    found.append(int(process.name))
        if found:
            os.kill(self.chance.choice(sorted(found)), signal.SIGKILL)
        return bool(found)

    def preempt(self):
        """A job of a higher partition takes a node or two for a moment."""
        wide = f"--nodes={self.chance.choice([1, 2])}"
        flags = ["--partition=high", "--exclusive", wide, "--output=/dev/null"]
        self.slurm("sbatch", *flags, "--wrap", "sleep 1")
        return True

    def requeue(self):
        """An administrator requeues a running task."""
        running = self.slurm("squeue", "-h", "-r", "-t", "R", "-o", "%i|%j").split()
        jobs = [job for job, name in (one.split("|") for one in running) if name.startswith(NAME)]
        if jobs:
            self.slurm("scontrol", "requeue", self.chance.choice(jobs))
        return bool(jobs)

    def lose_node(self):
        """A slurmd dies, with its jobs or without, and comes back before or after Slurm notices."""
        node = self.chance.choice(NODES)
        jobs = self.chance.choice([["--jobs"], []])
        self.daemons("kill", node, *jobs)

        def come_back():
            time.sleep(away_s)
            self.daemons("start")

        away_s = self.chance.uniform(1, 15)
        self.threads.append(threading.Thread(target=come_back))
        self.threads[-1].start()
        return True

    def daemons(self, *words):
        """A command of dev_cluster.py."""
        asked = [sys.executable, DEV_CLUSTER, *words, "--folder", self.cluster]
        subprocess.run(asked, capture_output=True, check=False)

    def slurm(self, *words):
        """The output of a command of Slurm."""
        answer = subprocess.run(words, capture_output=True, text=True, check=True, env=self.env)
        return answer.stdout

    def scores(self, name="soaked"):
        """The scores of every cell, by its id."""
        runs = (self.folder / name / NAME).glob("*/scores.csv")
        return {file.parent.name: file.read_bytes() for file in runs}

    def calm(self):
        """The scores of the same cells where nothing disturbs them."""
        answer = command("launch", *self.undisturbed, env=self.calm_env)
        assert answer.returncode == 0, answer.stderr
        return self.scores("calm")

    def problems(self):
        """What the witnesses saw that must not be: two attempts of a cell that write at once."""
        cells = self.scores()
        told = {cell: witness.attempts(self.witnesses, cell) for cell in cells}
        return [problem for attempts in told.values() for problem in witness.problems(attempts)]

    def summary(self):
        """What happened, in one line."""
        kinds = {kind: self.done.count(kind) for kind in sorted(set(self.done))}
        runs = (self.folder / "soaked" / NAME).glob("*/attempts.jsonl")
        events = [json.loads(line)["event"] for run in runs for line in run.open()]
        counts = {event: events.count(event) for event in sorted(set(events))}
        return f"{len(self.done)} faults {kinds}; attempts {counts}"
