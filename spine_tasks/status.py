"""Status: which cell waits, runs, failed and why, or is complete; live on request."""

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

from spine_tasks import board
from spine_tasks.command import launched_parser, run_command
from spine_tasks.eta import Watcher, totals
from spine_tasks.experiment import opened
from spine_tasks.states import UNDER_WAY, states
from spine_tasks.tensorboard import EventFiles


def main() -> None:
    """The command line of jobs/status.py."""
    flags = launched_parser(
        "Show where each cell of a launched grid stands, with epoch, loss and cause of failure, "
        "about how long is left, and what it took.",
        "python jobs/status.py --grid gm_transfer --watch",
    )
    flags.add_argument("--watch", action="store_true", help="follow until nothing is under way")
    flags.add_argument("--json", action="store_true", help="print for programs")
    flags.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="also write the losses and scores so far as event files there, with --watch as they "
        "come; look at them by: tensorboard --logdir DIR",
    )
    run_command(lambda: status(flags.parse_args()))


def status(asked: argparse.Namespace) -> None:
    """Print the state of every cell, or follow it.

    Raises
    ------
    ConfigError
        Nothing was launched under the name; or --tensorboard lacks its package.
    """
    experiment = opened(asked.grid, asked.results)
    cells = experiment.everything
    events = EventFiles(experiment, asked.tensorboard) if asked.tensorboard else None
    if asked.watch:
        with board.live(experiment, cells) as watch:
            while True:
                found = watch()
                if events is not None:
                    events.update(cells)
                if not any(state.kind in UNDER_WAY for state in found.values()):
                    return
                time.sleep(board.SLURM_POLL_S)
    found = states(experiment.folder, cells)
    if events is not None:
        events.update(cells)
    if asked.json:
        watcher = Watcher(experiment)
        rows = {"cells": board.as_json(experiment, found, watcher)}
        said = {"name": experiment.name} | totals(watcher.look(found)) | rows
        sys.stdout.write(json.dumps(said, indent=2) + "\n")
    else:
        Console().print(board.table(experiment, found))
