"""The command line of the thin scripts in jobs/: one cell, by hand."""

import argparse
import os
import sys
from pathlib import Path

from spine_tasks.cell import Cell
from spine_tasks.command import RESULTS, run_command, yaml_value
from spine_tasks.configs import config_class, defaults_of, make_config
from spine_tasks.environment import worker_variables
from spine_tasks.run import Run
from spine_tasks.splits import load_split


def main(job: str) -> None:
    """Train and score one cell here, on a laptop or a compute node, as an array task does."""
    run_command(lambda: _run(job))


def _run(job: str) -> None:
    given = vars(_parser(job).parse_args())
    knobs = {name: given[name] for name in defaults_of(job) if name in given}
    cell = Cell(
        job=job,
        config=make_config(job, knobs),
        split=given["split"],
        split_sha256=load_split(given["split"]).digest,
        fold=given["fold"],
        seed=given["seed"],
    )
    run = Run(given["results"].resolve() / cell.id)
    run.create(cell)
    sys.stderr.write(f"results in {run.folder}\n")
    # In place of this process: a worker's variables must be there before its first import.
    command = [sys.executable, "-m", "spine_tasks.worker", str(run.folder)]
    os.execve(sys.executable, command, os.environ | worker_variables(cell))


def _parser(job: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=config_class(job).__doc__,
        epilog=f"example:\n  python jobs/{job}.py --split gm_phantom --seed 1 --epochs 5",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--split", required=True, help="name in data_splits/, or a CSV file")
    parser.add_argument("--fold", type=int, default=0, help="default: 0")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--results", type=Path, default=RESULTS / "by_hand", metavar="DIR")
    knobs = parser.add_argument_group("knobs (spine_tasks/configs/ says what they mean)")
    for name, default in defaults_of(job).items():
        knobs.add_argument(
            f"--{name}", type=yaml_value, metavar="VALUE", help=f"default: {default}"
        )
    return parser
