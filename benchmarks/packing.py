#!/usr/bin/env python3
"""How many small trainings a GPU ends in an hour, packed on it, beside one after the other.

Four cells of a kind, one a seed: grey-matter networks (TensorFlow) and graders with a small
backbone (PyTorch), on made-up data that is there before. Packed they are one array task
(`resources.pack`), side by side on one GPU; else four, each with the GPU to itself. Both are
started as on a node: `python -m spine_tasks.supervise` for an array task, which starts workers.
Timed is all of it up to the last score: imports, data, training, prediction, scoring. All cells
have the same number of epochs; side by side they want as many times the CPUs.

    python benchmarks/packing.py
    python benchmarks/packing.py --cpu --epochs 1 --runs 1    # whether it works; no figure
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from side_by_side import Row, faster, in_turn, report  # noqa: E402

from spine_tasks import slurm  # noqa: E402
from spine_tasks.cell import Cell  # noqa: E402
from spine_tasks.data.made_up import made_up  # noqa: E402
from spine_tasks.environment import gpu_names  # noqa: E402
from spine_tasks.experiment import Experiment, create, planned  # noqa: E402
from spine_tasks.grid import configure, find_grid  # noqa: E402
from spine_tasks.splits import load_split  # noqa: E402
from spine_tasks.submissions import Tasks, begin  # noqa: E402
from spine_tasks.submit import Array  # noqa: E402

AIM = 3.0  # times as many cells an hour
AGAINST = "one cell per GPU"
ASKED = {"gpus": 1, "cpus": 2, "mem_gb": 4}  # for a cell


@dataclass(frozen=True)
class Kind:
    """Cells that differ in their seed alone."""

    name: str
    grid: str
    reads: str  # as configs name what they read
    arm: dict[str, Any]
    knobs: dict[str, Any]


KINDS = (
    Kind(
        "grey-matter cells (TensorFlow)",
        "gm_transfer",
        "bids",
        {"init": "scratch", "augment": False},
        {"patience": 1000},
    ),
    Kind(
        "grading cells (PyTorch)",
        "stenosis_levels",
        "grades",
        {"level_embedding": "learned", "across": "none"},
        {"backbone": "resnet18", "threads": 1},
    ),
)


class Failed(Exception):
    """A cell failed; the message has its words."""


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--cells", type=int, default=4, help="of a kind; default: %(default)s")
    flags.add_argument("--epochs", type=int, default=20, help="of a cell; default: %(default)s")
    flags.add_argument("--runs", type=int, default=3, help="of each way; default: %(default)s")
    flags.add_argument("--cpu", action="store_true", help="on the CPU, to see that it works")
    asked = flags.parse_args()
    for kind in KINDS:
        row = Row(
            what=f"GPU with small models, {asked.cells} {kind.name} packed",
            against=AGAINST,
            aim=AIM,
            note="needs a GPU",
        )
        if gpu_names() or asked.cpu:
            with tempfile.TemporaryDirectory(prefix="packing-") as folder:
                cells = Cells(Path(folder), kind, asked.cells, asked.epochs, asked.cpu)
                row = measured(row, cells, asked.runs)
        report(row)


class Cells:
    """Cells of a kind, computed anew in each call."""

    def __init__(self, folder: Path, kind: Kind, number: int, epochs: int, cpu: bool) -> None:
        self.folder, self.kind, self.number = folder, kind, number
        self.data = folder / "data"
        made_up(kind.reads, self.data, list(load_split(find_grid(kind.grid).split).person_of))
        resources = ASKED | {"gpus": 0} if cpu else ASKED
        self.settings = kind.knobs | {"data": str(self.data), "epochs": epochs, "folds": [0]}
        self.settings |= {f"resources.{name}": value for name, value in resources.items()}
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        self.gpu = "" if cpu else given
        self.names = (f"run-{number}" for number in count())

    def run(self, pack: int) -> None:
        """Compute all, so many side by side on the GPU.

        Raises
        ------
        Failed
            A cell has no scores in the end.
        """
        settings = self.settings | {"seeds": self.number, "resources.pack": pack}
        grid = configure(find_grid(self.kind.grid), None, settings)
        experiment = planned(next(self.names), grid, self.folder)
        cells = [cell for cell in experiment.cells if cell.arm == self.kind.arm]
        create(experiment, cells)
        array = Array(cells[0].resources, cells[0].config.framework, cells)
        tasks = [[cell.id for cell in task] for task in array.tasks]
        submission = begin(
            experiment.folder,
            "packing",
            Tasks(cells=tasks, worker=[sys.executable], mem_gb=array.resources.mem_gb),
        )
        for index in range(len(tasks)):
            variables = {"SLURM_ARRAY_TASK_ID": str(index), "CUDA_VISIBLE_DEVICES": self.gpu}
            subprocess.run(
                [sys.executable, "-m", "spine_tasks.supervise", str(submission)],
                env=slurm.environment() | variables | {"PYTHONPATH": str(ROOT)},
                check=False,  # what failed is told by its attempts
                capture_output=True,
            )
        _check_scored(experiment, cells)


def measured(row: Row, cells: Cells, runs: int) -> Row:
    """The row with its ratios; without, and the cell's words, where one fails."""
    # Packed first, and nothing warm: cold caches are ours.
    ways = {"packed": lambda: cells.run(cells.number), "alone": lambda: cells.run(1)}
    try:
        taken = in_turn(ways, runs, warm=0)
    except Failed as error:
        return replace(row, note=str(error))
    packed, alone = taken["packed"], taken["alone"]
    found = faster(row.what, row.against, packed, alone, row.aim)
    hourly = [f"{cells.number * 3600 / median(seconds):.0f}" for seconds in (packed, alone)]
    return replace(found, note=f"{found.note}; {' against '.join(hourly)} cells an hour")


def _check_scored(experiment: Experiment, cells: Sequence[Cell]) -> None:
    for run in (experiment.run(cell) for cell in cells):
        if not run.scored:
            last = (run.attempts() or [{}])[-1]
            raise Failed(f"{run.folder.name} failed: {last.get('error', 'see its log.txt')}")


if __name__ == "__main__":
    main()
