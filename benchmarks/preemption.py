#!/usr/bin/env python3
"""What a preemption costs a run: one that continues, and one that begins anew.

A real worker of a grey-matter cell (gm_transfer, preset `demo`, on the phantom; a fixed number of
epochs, one batch each, early stopping off) is killed when it has trained half of its epochs, and
started again. Ours continues from its last checkpoint. The other side is what submitit does by
itself with a function that keeps no state: the job runs again from its beginning, here the same
worker, its run's folder emptied in between. Lost is the time from the signal until the second
attempt has trained one epoch more than the first had: the end of the first process, the start of
the second, the work done twice, and that epoch. Both go on to their end, and the scores must be
byte for byte those of an undisturbed run.

Killed is by SIGKILL, without notice; stopped is by SIGTERM, after which the worker saves and ends
with 75. Checkpoints are 2 s apart (`resources.checkpoint_s`, 300 s unless set): that, and the
start of a worker, is the most that can be lost, while what begins anew loses half of a run of any
length: the ratio is one of this length only. The time that Slurm itself takes to requeue is the
same for both, and left out. Growth is of runs of 1, 10 and 100 times as many epochs.

    python benchmarks/preemption.py
    python benchmarks/preemption.py --runs 3
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from side_by_side import Growth, faster, report  # noqa: E402

from spine_tasks import snapshot  # noqa: E402
from spine_tasks.cell import Cell  # noqa: E402
from spine_tasks.data import phantom  # noqa: E402
from spine_tasks.experiment import planned  # noqa: E402
from spine_tasks.grid import configure, find_grid  # noqa: E402
from spine_tasks.run import Run  # noqa: E402
from spine_tasks.splits import load_split  # noqa: E402
from spine_tasks.supervise import recorded, start_worker  # noqa: E402

CHECKPOINT_S = 2.0
LOOK_S = 0.02
# What ends the first attempt, with which exit code, and whether the second begins anew.
WAYS = {
    "killed": (signal.SIGKILL, -signal.SIGKILL, False),
    "stopped": (signal.SIGTERM, os.EX_TEMPFAIL, False),
    "anew": (signal.SIGKILL, -signal.SIGKILL, True),
}


@dataclass(frozen=True)
class Trial:
    """A cell that is computed again and again, in a folder that is empty each time."""

    cell: Cell
    folder: Path
    code: dict[str, str]  # variables of the worker

    def undisturbed(self) -> tuple[float, bytes]:
        """Seconds of a run and its scores."""
        run, start = self._new_run(), time.perf_counter()
        self._end(run, self._worker(run), os.EX_OK)
        return time.perf_counter() - start, run.scores.read_bytes()

    def disturbed(self, signum: signal.Signals, code: int, anew: bool) -> tuple[float, bytes]:
        """Seconds lost by a signal at half, and the scores of the attempt after."""
        run, half = self._new_run(), self.cell.config.epochs // 2
        first = self._worker(run)
        _wait_for(half, run, first)
        start = time.perf_counter()
        first.send_signal(signum)
        self._end(run, first, code)
        if anew:
            run = self._new_run()
        second = self._worker(run)
        _wait_for(half + 1, run, second)
        seconds = time.perf_counter() - start
        self._end(run, second, os.EX_OK)
        return seconds, run.scores.read_bytes()

    def _new_run(self) -> Run:
        run = Run(self.folder / self.cell.id)
        shutil.rmtree(run.folder, ignore_errors=True)
        run.create(self.cell)
        return run

    def _worker(self, run: Run) -> "subprocess.Popen[bytes]":
        return start_worker(run.folder, variables=self.code)

    def _end(self, run: Run, worker: "subprocess.Popen[bytes]", expected: int) -> None:
        """Wait for a worker as a launch does, which records its death."""
        code = recorded(run, worker.pid, worker.wait())
        if code != expected:
            sys.exit(f"a worker ended with {code}, not {expected}:\n{run.log.read_text()[-3000:]}")


def _wait_for(epochs: int, run: Run, worker: "subprocess.Popen[bytes]") -> None:
    """Wait until so many epochs are trained, or the worker has ended."""
    history = run.folder / "history.jsonl"
    while worker.poll() is None:
        if history.exists() and history.read_bytes().count(b"\n") >= epochs:
            return
        time.sleep(LOOK_S)


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=1, help="of each; default: %(default)s")
    flags.add_argument(
        "--epochs", type=int, default=200, help="of the longest; default: %(default)s"
    )
    asked = flags.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as everybody's Python: compiled once
    folder = Path(tempfile.mkdtemp(prefix="preemption-"))
    try:
        code = snapshot.take(folder / "code").variables() | {"CUDA_VISIBLE_DEVICES": ""}
        data = phantom.ensure(folder / "data", list(load_split("gm_phantom").person_of))
        lengths = [max(2, asked.epochs // part) for part in (100, 10, 1)]
        trials = [Trial(_cell(folder, data, epochs), folder, code) for epochs in lengths]
        trials[0].undisturbed()  # fills caches
        measure(trials, asked.runs)
    finally:
        shutil.rmtree(folder)


def measure(trials: list[Trial], runs: int) -> None:
    """Report what is lost, and that it does not grow with the run."""
    *short, longest = trials
    growing = [median(lost(trial, "killed")[1]["killed"] for _ in range(runs)) for trial in short]
    rounds = [lost(longest, *WAYS) for _ in range(runs)]
    of = {way: [found[way] for _, found in rounds] for way in WAYS}
    epochs = longest.cell.config.epochs
    whole = f"of {median(seconds for seconds, _ in rounds):.3g} s"
    for way in ("killed", "stopped"):
        row = faster(
            f"grey matter, {way} after {epochs // 2} of {epochs} epochs: lost",
            "begun anew, as submitit does",
            of[way],
            of["anew"],
            None,
        )
        report(replace(row, note=f"lost {row.note}, {whole}"))
    report(
        Growth(
            what="grey matter, killed at half: lost",
            work=tuple(f"{trial.cell.config.epochs} epochs" for trial in trials),
            seconds=(*growing, median(of["killed"])),
            why="a worker's start, and the work since the last checkpoint: both of any run alike",
        )
    )


def lost(trial: Trial, *ways: str) -> tuple[float, dict[str, float]]:
    """Seconds of an undisturbed run, and what is lost in each way."""
    whole, scores = trial.undisturbed()
    found = {}
    for way in ways:
        found[way], others = trial.disturbed(*WAYS[way])
        if others != scores:
            sys.exit(f"{way}: the scores are not those of an undisturbed run")
    return whole, found


def _cell(folder: Path, data: Path, epochs: int) -> Cell:
    chosen = {"data": str(data), "seeds": 1, "epochs": epochs, "patience": epochs}
    chosen |= {"batch_size": 16, "resources.checkpoint_s": CHECKPOINT_S}
    grid = configure(find_grid("gm_transfer"), "demo", chosen)
    return planned("preemption", grid, folder).cells[0]


if __name__ == "__main__":
    main()
