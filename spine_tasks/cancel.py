"""Cancel: stop a grid's jobs and workers; every cell keeps its checkpoint and can be continued."""

import argparse
import os
import signal
import subprocess
import sys

from spine_tasks.command import launched_parser, run_command
from spine_tasks.errors import SiteError
from spine_tasks.experiment import Experiment, opened
from spine_tasks.local import launcher
from spine_tasks.states import job_cells, queued


def main() -> None:
    """The command line of jobs/cancel.py."""
    flags = launched_parser(
        "Stop the jobs of a launched grid. Running cells save first; launch again to continue.",
        "python jobs/cancel.py --grid gm_transfer",
    )
    run_command(lambda: cancel(flags.parse_args()))


def cancel(asked: argparse.Namespace) -> None:
    """Stop everything of an experiment that runs or waits.

    Raises
    ------
    SiteError
        Slurm does not cancel the jobs.
    """
    experiment = opened(asked.grid, asked.results)
    stopped = [f"{_cancel_jobs(experiment)} jobs cancelled"]
    if (here := launcher(experiment)) is not None:
        os.kill(here["pid"], signal.SIGTERM)  # it stops its workers, as on Ctrl-C
        stopped.append(f"process {here['pid']} on this machine asked to stop")
    sys.stdout.write(
        f"{experiment.name}: {', '.join(stopped)}; launch it again with the same settings to "
        "continue\n"
    )


def _cancel_jobs(experiment: Experiment) -> int:
    under_way = queued(experiment.folder)
    jobs = [job for job, cell in job_cells(experiment.folder).items() if cell in under_way]
    if not jobs:
        return 0
    answer = subprocess.run(["scancel", *jobs], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SiteError(f"scancel of {' '.join(jobs)}: {answer.stderr.strip()}")
    return len(jobs)
