"""Status: which cell waits, runs, failed and why, or is complete; live on request."""

import argparse
import json
import sys
import time

from rich.console import Console

from spine_tasks import board
from spine_tasks.command import launched_parser, run_command
from spine_tasks.experiment import opened
from spine_tasks.states import UNDER_WAY, states


def main() -> None:
    """The command line of jobs/status.py."""
    flags = launched_parser(
        "Show where each cell of a launched grid stands, with epoch, loss and cause of failure.",
        "python jobs/status.py --grid gm_transfer --watch",
    )
    flags.add_argument("--watch", action="store_true", help="follow until nothing is under way")
    flags.add_argument("--json", action="store_true", help="print for programs")
    run_command(lambda: status(flags.parse_args()))


def status(asked: argparse.Namespace) -> None:
    """Print the state of every cell, or follow it."""
    experiment = opened(asked.grid, asked.results)
    cells = experiment.everything
    if asked.watch:
        with board.live(experiment, cells) as watch:
            while any(s.kind in UNDER_WAY for s in states(experiment.folder, cells).values()):
                watch()
                time.sleep(board.SLURM_POLL_S)
        return
    found = states(experiment.folder, cells)
    if asked.json:
        sys.stdout.write(json.dumps(board.as_json(experiment, found), indent=2) + "\n")
    else:
        Console().print(board.table(experiment, found))
