#!/usr/bin/env python3
"""How long a worker takes until it learns, beside the bare import of its framework.

A worker is started as a launch on this machine starts it, on a snapshot of the code, for the
first cell of a grid in its preset for CPUs: gm_transfer (TensorFlow) and disc_faster_rcnn
(PyTorch). Timed is from the start of its process to the first step of training: imports, digests
of the data, the data read, the network built and the first batch made. To the end of that step,
in which TensorFlow traces the network, is a row of its own. The floor is a Python that imports
the framework and nothing else, timed to the end of the import; it looks for garbage meanwhile, as
Python does unless told not to, and the worker does not, so that the ratio can be less than 1.
Both have the same environment and warm files; the phantom is made before, and its digests are
remembered, as for all cells of an experiment but the first. Growth: 1, 10 and 100 persons to
learn from; the ratios are those of 10.

    python benchmarks/starting.py
    python benchmarks/starting.py --runs 2
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from side_by_side import Growth, report, times_the  # noqa: E402

from spine_tasks import snapshot  # noqa: E402
from spine_tasks.cell import Cell  # noqa: E402
from spine_tasks.data import phantom, phantom_sagittal  # noqa: E402
from spine_tasks.environment import worker_variables  # noqa: E402
from spine_tasks.experiment import planned  # noqa: E402
from spine_tasks.grid import configure, find_grid  # noqa: E402
from spine_tasks.run import Run  # noqa: E402
from spine_tasks.supervise import start_worker  # noqa: E402

PERSONS = (1, 10, 100)  # in the training part
AIM = 1.2
MOMENTS = "moments"  # in a run's folder: what WATCHED writes
# Before `-m spine_tasks.worker FOLDER`: the worker, which notes when its first step begins and
# ends, and ends there. perf_counter is one clock for all processes of a machine.
WATCHED = f"""
import importlib, os, runpy, sys, time

def note():
    with open(sys.argv[1] + "/{MOMENTS}", "a") as out:
        print(time.perf_counter(), file=out)

def noted_before(function):
    def run(*given):
        note()
        return function(*given)
    return run

def noted_after(function):
    def run(*given):
        function(*given)
        note()
        os._exit(0)
    return run

def watched(name, package=None):
    module = imported(name, package)
    if name.startswith("spine_tasks.tasks."):
        if loop := sys.modules.get("spine_tasks.loop_torch"):
            learner = loop.Learner
            learner.step, learner.update = noted_before(learner.step), noted_after(learner.update)
        elif loop := sys.modules.get("spine_tasks.loop_keras"):
            make = loop._training_step
            loop._training_step = lambda *given: noted_before(noted_after(make(*given)))
    return module

imported, importlib.import_module = importlib.import_module, watched
del sys.argv[:2]
runpy.run_module("spine_tasks.worker", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Task:
    """A grid whose first cell is started, and the least that it can be compared with."""

    what: str
    grid: str
    preset: str
    make_data: Callable[[Path, Sequence[str]], Path]
    subject: str  # before its number
    framework: str  # what is imported


TASKS = (
    Task("grey matter", "gm_transfer", "demo", phantom.ensure, "sub-paed", "tensorflow"),
    Task(
        "detection",
        "disc_faster_rcnn",
        "small",
        phantom_sagittal.ensure,
        "sub-s",
        "torch, torchvision",
    ),
)


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=5, help="at least 2; default: %(default)s")
    asked = flags.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as everybody's Python: compiled once
    folder = Path(tempfile.mkdtemp(prefix="starting-"))
    try:
        code = snapshot.take(folder / "code").variables()
        for task in TASKS:
            measure(task, folder, code, asked.runs)
    finally:
        shutil.rmtree(folder)


def measure(task: Task, folder: Path, code: dict[str, str], runs: int) -> None:
    """Report the rows of a task."""
    cells = cells_of(task, folder / task.grid)
    variables = code | {"CUDA_VISIBLE_DEVICES": ""}  # as a cell that asks for no GPU
    begin: dict[int, list[float]] = {persons: [] for persons in PERSONS}
    end, floor = [], []
    for number in range(runs + 1):
        for persons, cell in cells.items():
            if persons != PERSONS[1] and number % 2:
                continue  # growth needs fewer runs
            first, last = step_of(cell, folder / task.grid, variables)
            if number == 0:  # the first time only fills caches
                continue
            begin[persons].append(first)
            if persons == PERSONS[1]:
                end.append(last)
                floor.append(bare_import(task.framework, cell, variables))
    what, least = f"{task.what}: worker to", f"import {task.framework}"
    ours = begin[PERSONS[1]]
    report(
        times_the(f"{what} the first step", least, ours, floor, AIM),
        times_the(f"{what} the end of the first step", least, end, floor, None),
        Growth(
            what=f"{what} the first step",
            work=tuple(f"{persons} person{'s' * (persons > 1)}" for persons in PERSONS),
            seconds=tuple(median(seconds) for seconds in begin.values()),
            why="imports and the network take the same; only reading the images grows",
        ),
    )


def cells_of(task: Task, folder: Path) -> dict[int, Cell]:
    """The first cell of the grid for each number of persons, all on the same data."""
    ids = [f"{task.subject}{number:02d}" for number in range(1, max(PERSONS) + 3)]
    data = task.make_data(folder / "data", ids)
    return {persons: _cell(task, folder, data, ids, persons) for persons in PERSONS}


def _cell(task: Task, folder: Path, data: Path, ids: list[str], persons: int) -> Cell:
    *train, val, test = ids[: persons + 2]
    parts = dict.fromkeys(train, "train") | {val: "val", test: "test"}
    split = folder / f"{persons}_persons.csv"
    rows = [f"{name},{name},{part}\n" for name, part in parts.items()]
    split.write_text("subject,person,part\n" + "".join(rows))
    chosen = {"split": str(split), "data": str(data), "seeds": 1}
    grid = configure(find_grid(task.grid), task.preset, chosen)
    return planned("starting", grid, folder).cells[0]


def step_of(cell: Cell, folder: Path, variables: dict[str, str]) -> tuple[float, float]:
    """Seconds from the start of a worker to the begin and to the end of its first step."""
    run = Run(folder / cell.id)
    shutil.rmtree(run.folder, ignore_errors=True)
    run.create(cell)
    start = time.perf_counter()
    worker = start_worker(run.folder, (sys.executable, "-c", WATCHED), variables)
    if code := worker.wait():
        sys.exit(f"the worker ended with {code}:\n{run.log.read_text()[-3000:]}")
    first, last = map(float, (run.folder / MOMENTS).read_text().split())
    return first - start, last - start


def bare_import(modules: str, cell: Cell, variables: dict[str, str]) -> float:
    """Seconds from the start of a Python to the end of an import."""
    start = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", f"import {modules}, time; print(time.perf_counter())"],
        env=os.environ | worker_variables(cell) | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(answer.stdout) - start


if __name__ == "__main__":
    main()
