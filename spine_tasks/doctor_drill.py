"""A drill: two small cells go the way of all cells; one is cancelled, the other is stopped."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from spine_tasks import checkpoints, slurm, snapshot
from spine_tasks.cell import Cell
from spine_tasks.cluster import Cluster
from spine_tasks.diagnosis import Finding, tried
from spine_tasks.errors import RunError, SiteError
from spine_tasks.expand import expand
from spine_tasks.experiment import GRID_FILE, Experiment, create
from spine_tasks.feed import feed
from spine_tasks.grid import Grid, load_grid
from spine_tasks.sites import Site
from spine_tasks.states import UNDER_WAY, states
from spine_tasks.submissions import FOLDER, submissions
from spine_tasks.submit import Setting

SAVING_S = 60.0  # the longest wait for a cell that was asked to save, or for a cancel
POLL_S = 0.5
LOOK_S = 5.0  # between two looks into the queue: the controller serves everybody


def drill_experiment(site: str, gpus: int, results: Path) -> Experiment:
    """Two cells that count until they are stopped, and then a little more.

    Raises
    ------
    RunError
        Its folder holds something else.
    """
    grid = Grid(
        job="drill",
        split="gm_phantom",  # a cell has one; these do not read it
        axes={"attempts": [2]},
        seeds=2,
        folds=[0],
        resources={"gpus": gpus, "cpus": 1, "mem_gb": 1.0, "time": "00:10:00", "checkpoint_s": 1.0},
    )
    folder = results.resolve() / f"doctor-{site}"
    before = folder / GRID_FILE
    if folder.exists() and not (before.exists() and load_grid(before).job == grid.job):
        raise RunError(f"{folder} is to hold a drill, but holds something else: move it away")
    return Experiment(folder.name, folder, grid, *expand(grid))


@dataclass
class Drill:
    """One drill on one site."""

    experiment: Experiment
    site: Site
    cluster: Cluster
    tell: Callable[[str], None]  # called with what is waited for
    patience_s: float  # with a queue; a second start may take two minutes by itself
    preempt_from: str | None = None  # partition of a job that takes the cell's node; None: USR2
    jobs: dict[str, str] = field(default_factory=dict)  # cell id -> array task
    stopped_at: float = 0.0

    def run(self) -> list[Finding]:
        """Submit, cancel, stop, and see what becomes of it; leave nothing where all went well."""
        self._end()
        shutil.rmtree(self.experiment.folder, ignore_errors=True)
        found: list[Finding] = []
        try:
            for topic, act in {
                "submit": self._submit,
                "cancel": self._cancel,
                "stop": self._stop,
                "go on": self._go_on,
                "no return": self._no_return,
            }.items():
                found.append(tried(f"drill: {topic}", act))
                if topic in ("submit", "stop") and found[-1].kind == "mend":
                    break  # there is nothing to see of what follows
        finally:
            self._end()
        if all(one.kind == "fact" for one in found):
            shutil.rmtree(self.experiment.folder)
        return found

    def _submit(self) -> str:
        """Submit both cells the way a launch does."""
        create(self.experiment, self.experiment.cells)
        taken = snapshot.take(self.experiment.folder / "code")
        setting = Setting(experiment=self.experiment, site=self.site, variables=taken.variables())
        fed = feed(setting, self.cluster, self.experiment.cells, {}, None)
        if fed.left:
            raise SiteError(f"Slurm takes only {len(fed.jobs)} of two cells: {fed.why}")
        self.jobs = fed.jobs
        return f"array tasks {', '.join(self.jobs.values())}"

    def _cancel(self) -> str:
        """Cancel the second cell's job, and see how long it stays."""
        cell = self.experiment.cells[1]
        job = self.jobs[cell.id]
        self._wait_for_checkpoint(cell)
        began = time.monotonic()
        slurm.ask("scancel", job)
        self._wait(f"job {job} has left the queue", cell, lambda: not self._queued(job), SAVING_S)
        return f"the job left the queue {time.monotonic() - began:.0f} s after scancel"

    def _stop(self) -> str:
        """Stop the first cell, and see it save."""
        cell = self.experiment.cells[0]
        self._wait_for_checkpoint(cell)
        self.stopped_at = time.monotonic()
        if self.preempt_from is None:
            how = "USR2"
            slurm.ask("scancel", "--signal=USR2", self.jobs[cell.id])
        else:
            how = f"a job in {self.preempt_from} was submitted"
            self._take_node(self.preempt_from, self._attempts(cell)[-1]["node"])
        self._wait("the cell has saved", cell, lambda: self._count("interrupted", cell) > 0)
        slurm.ask("scancel", f"--name={self._preemptor}")
        return f"the cell had saved {time.monotonic() - self.stopped_at:.0f} s after {how}"

    def _go_on(self) -> str:
        """See the first cell start again, from its checkpoint, and become complete."""
        cell = self.experiment.cells[0]
        run = self.experiment.run(cell)
        what = "Slurm starts the stopped cell again, which may take it two minutes"
        self._wait(what, cell, lambda: self._count("started", cell) > 1)
        again_s = time.monotonic() - self.stopped_at
        self._wait("the cell is complete", cell, lambda: self._count("complete", cell) > 0)
        saved = checkpoints.load(run.checkpoint)
        began_at = saved[1]["began_at"] if saved else []
        if not any(began_at):
            raise SiteError(f"the cell counted anew, not from its checkpoint; see {run.log}")
        return (
            f"the stopped cell ran again {again_s:.0f} s later, from step {began_at[-1]}, and is "
            "complete"
        )

    def _no_return(self) -> str:
        """See that the cancelled cell stays cancelled."""
        cell = self.experiment.cells[1]
        if self._count("started", cell) > 1 or self._queued(self.jobs[cell.id]):
            raise SiteError(f"job {self.jobs[cell.id]} was cancelled, and yet runs again")
        return "the cancelled cell was not started again"

    def _wait_for_checkpoint(self, cell: Cell) -> None:
        run = self.experiment.run(cell)
        what = f"job {self.jobs[cell.id]} runs and has saved something"
        self._wait(what, cell, lambda: run.saved_ns() is not None)

    def _wait(
        self, what: str, cell: Cell, holds: Callable[[], bool], patience_s: float | None = None
    ) -> None:
        """Wait until something holds.

        Raises
        ------
        SiteError
            It does not in time, or never will since the cell's job is gone; the message says where
            the cell stands.
        """
        patience_s = self.patience_s if patience_s is None else patience_s
        self.tell(f"waiting until {what}, at most {patience_s:.0f} s")
        looked = time.monotonic()
        until = looked + patience_s
        while not holds():
            time.sleep(POLL_S)
            now = time.monotonic()
            if now < until and now - looked < LOOK_S:
                continue
            looked = now
            state = states(self.experiment.folder, [cell])[cell.id]
            late = now >= until
            never = state.kind not in (*UNDER_WAY, "complete")
            if (late or never) and not holds():
                raise SiteError(
                    f"{'not in time' if late else 'never'}: {what}; "
                    f"its cell: {', '.join(filter(None, [state.kind, state.why]))}; "
                    f"logs: {self.experiment.run(cell).log} and {self.experiment.folder / FOLDER}"
                )

    def _take_node(self, partition: str, node: str) -> None:
        """Submit a job that needs the whole node, so that the cell's job must leave it."""
        asked = {"account": self.site.account, "qos": self.site.qos}
        flags = [f"--{name}={value}" for name, value in asked.items() if value is not None]
        flags += [f"--partition={partition}", f"--nodelist={node}", "--exclusive", "--time=2"]
        flags += [f"--job-name={self._preemptor}", "--output=/dev/null"]
        slurm.ask_once("sbatch", *flags, stdin="#!/bin/bash\nsleep 60\n")

    @property
    def _preemptor(self) -> str:
        """The name of the job that takes a node."""
        return f"{self.experiment.name}-takes-the-node"

    def _attempts(self, cell: Cell) -> list[dict[str, str]]:
        return self.experiment.run(cell).attempts()

    def _count(self, event: str, cell: Cell) -> int:
        return sum(record["event"] == event for record in self._attempts(cell))

    def _queued(self, job: str) -> bool:
        return any(task.job == job for task in slurm.queue())

    def _end(self) -> None:
        """Cancel what a drill has in the queue; wait until its cells have let go of the folder."""
        names = {one.name for one in submissions(self.experiment.folder)} | {self._preemptor}
        asked: set[str] = set()
        until = time.monotonic() + SAVING_S
        while left := {task.job for task in slurm.queue() if task.name in names}:
            if left - asked:
                slurm.ask("scancel", *sorted(left - asked))
                asked |= left
            if time.monotonic() > until:
                return
            time.sleep(POLL_S)
