"""A grid of sixty small cells in a storm: every few seconds something on the cluster goes wrong."""

import json
import math
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import witness
import yaml
from making import ROOT, command, environment
from toy_task import ENTRY
from trials import GUARD_S, Half, kill

from spine_tasks.files import read_json, sha256
from spine_tasks.run import Run
from spine_tasks.score import score

NAME = "soak"
SEEDS, CELLS = 12, 60  # four arms a seed, and the cell that two of them start from
AT_ONCE = 8  # array tasks
STEP_S = 0.5  # of a cell, during the storm
PAUSE_S = 3  # between two faults
NODES = ("node1", "node2", "node3", "node4")
SITE = {
    "partition": ["low", "low_nograce", "low_cancel", "low_cancel_nograce"],
    "account": "spine",
    "max_parallel": AT_ONCE,
    "signal_lead_s": 30,
}


@dataclass
class Report:
    """What a soak saw."""

    faults: Counter[str] = field(default_factory=Counter)
    launches: int = 0  # after the storm, until everything was complete
    incomplete: list[str] = field(default_factory=list)  # cells, their states and why
    wrong: list[str] = field(default_factory=list)  # cells with other results
    problems: list[str] = field(default_factory=list)  # cells that two attempts wrote at once
    complete: int = 0
    attempts: int = 0
    steps: int = 0
    repeated_steps: int = 0


class Soak:
    """One grid of the toy task on a cluster of its own, and what goes wrong there."""

    def __init__(self, cluster: Path, data: Path, folder: Path, seconds: float, seed: int) -> None:
        self.folder, self.data, self.seconds = folder, data, seconds
        # Enough work for the storm to last, whatever of it is done twice.
        self.epochs = max(4, round(seconds * AT_ONCE / CELLS / STEP_S))
        self.random = random.Random(seed)
        self.half = Half(cluster, "")  # both halves
        self.slow, self.told = folder / "slow", folder / "told"
        self.down: dict[str, float] = {}  # daemon that is dead -> when it comes back
        for name in ("site", "told", "undisturbed"):
            (folder / name).mkdir()
        (folder / "site" / "sitecustomize.py").write_text(ENTRY)
        (folder / "site.yaml").write_text(yaml.safe_dump(SITE))

    def run(self) -> Report:
        """Launch, disturb for the time, bring the grid to its end, and look at what there is."""
        report = Report()
        self.slow.write_text(str(STEP_S))
        launcher = self._start_launcher()
        begun = time.monotonic()
        kill_launcher_at = [begun + self.seconds / 3, begun + 2 * self.seconds / 3]
        while time.monotonic() < begun + self.seconds:
            time.sleep(PAUSE_S)
            self._revive(time.monotonic())
            if kill_launcher_at and time.monotonic() > kill_launcher_at[0]:
                kill_launcher_at.pop(0)
                launcher.kill()
                launcher.wait()
                launcher = self._start_launcher()
                report.faults["launcher killed and started again"] += 1
            if fault := self._fault():
                report.faults[fault] += 1
        self._revive(math.inf)
        self.slow.unlink()
        launcher.wait(timeout=GUARD_S)
        self._finish(report)
        self._look(report)
        return report

    def _flags(self, results, seeds):
        flags = ["--grid", "gm_transfer", "--name", NAME, "--results", results]
        flags += ["--preset", "demo"]
        knobs = [f"data={self.data}", f"seeds={seeds}", "resources.mem_gb=1"]
        knobs += [f"epochs={self.epochs}", f"needs.epochs={self.epochs}"]
        return [*flags, *(word for knob in knobs for word in ("--set", knob))]

    def _env(self):
        told = {"TOY_WITNESS": str(self.told), "TOY_SLOW": str(self.slow)}
        told["SLURM_CONF"] = f"{self.half.cluster}/slurm.conf"
        return environment(self.folder / "site", ROOT / "tests", **told)

    def _launch(self):
        """The flags of a launch that waits for the grid's end."""
        site = ("--site", self.folder / "site.yaml", "--wait", "--json")
        return [*self._flags(self.folder, SEEDS), *site]

    def _start_launcher(self):
        with (self.folder / "launcher.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, ROOT / "jobs" / "launch.py", *map(str, self._launch())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._env(),
            )

    def _fault(self):
        """Do something at random; return what, if there was anything to do it to."""
        faults = [self._kill_worker, self._kill_supervisor, self._preempt, self._requeue]
        return self.random.choice([*faults, self._kill_daemon])()

    def _kill_worker(self):
        return self._kill_one_of("spine_tasks.worker", "worker killed")

    def _kill_supervisor(self):
        return self._kill_one_of("submitit.core._submit", "supervisor killed")

    def _kill_one_of(self, module, said):
        if not (found := sorted(self._processes(module))):
            return None
        kill(self.random.choice(found))
        return said

    def _processes(self, module):
        """The Python processes of the grid that run a module."""
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = file.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "python" in words[0] and module in words and str(self.folder) in words[-2]:
                yield int(file.parent.name)

    def _preempt(self):
        where = ["--partition=high", "--exclusive", f"--nodelist={self.random.choice(NODES)}"]
        self.half.slurm("sbatch", *where, "--output=/dev/null", "--wrap=sleep 1")
        return "preempted"

    def _requeue(self):
        asked = ["squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i %j"]
        running = [line.split() for line in self.half.slurm(*asked).splitlines()]
        jobs = [job for job, name in running if name.startswith(NAME)]
        if not jobs:
            return None
        with suppress(AssertionError):  # it has ended meanwhile
            self.half.slurm("scontrol", "requeue", self.random.choice(jobs))
        return "requeued"

    def _kill_daemon(self):
        """Kill a node's slurmd, with or without its jobs, or the controller; one at a time."""
        if self.down:
            return self._requeue()
        name = self.random.choice([*NODES, "slurmctld"])
        jobs = ["--jobs"] if name in NODES and self.random.random() < 0.5 else []
        self.half.daemon("kill", name, *jobs)
        # A node is given up after 10 s: sometimes it comes back before, sometimes later.
        away_s = 2 if name == "slurmctld" else self.random.choice([2, 20])
        self.down[name] = time.monotonic() + away_s
        lost = "controller" if name not in NODES else "node" if jobs else "slurmd"
        return f"{lost} lost for {away_s} s"

    def _revive(self, now):
        for name in [name for name, back in self.down.items() if back <= now]:
            self.half.daemon("revive", name)
            del self.down[name]

    def _finish(self, report):
        """Launch again until everything is complete, as a person would."""
        for _ in range(3):
            report.launches += 1
            answer = command("launch", *self._launch(), env=self._env())
            assert answer.stdout, answer.stderr
            cells = json.loads(answer.stdout)["cells"]
            left = [cell for cell in cells if cell["state"] != "complete"]
            report.incomplete = [f"{cell['cell']}: {cell['state']}, {cell['why']}" for cell in left]
            if not left:
                return

    def _look(self, report):
        expected = self._expected()
        for file in sorted((self.folder / NAME).glob("*/cell.json")):
            run = Run(file.parent)
            told = witness.attempts(self.told, run.folder.name)
            report.problems += [f"{run.folder.name}: {one}" for one in witness.problems(told)]
            steps = [line.place for one in told for line in one.all("step")]
            report.attempts += len(told)
            report.steps += len(steps)
            report.repeated_steps += len(steps) - len(set(steps))
            if run.complete:
                report.complete += 1
                if results_of(run) != expected[kind_of(run)]:
                    report.wrong.append(run.folder.name)

    def _expected(self):
        """The results of undisturbed cells: they follow from split and start, not from the seed."""
        results = self.folder / "undisturbed"
        env = self._env() | {"TOY_WITNESS": str(results)}
        answer = command("launch", *self._flags(results, 1), "--site", "local", env=env)
        assert answer.returncode == 0, answer.stderr
        runs = [Run(file.parent) for file in (results / NAME).glob("*/cell.json")]
        return {kind_of(run): results_of(run) for run in runs}


def kind_of(run):
    """What the toy's results follow from."""
    cell = run.cell()
    return cell.split, cell.config.init


def results_of(run):
    """Digests of predictions and scores, and the history."""
    done = read_json(run.folder / "done.json")
    if not run.scored:  # killed, or looked at, between its last prediction and its scores
        score(run)  # as `collect` does
    return done["predictions_sha256"], sha256(run.scores), run.history()
