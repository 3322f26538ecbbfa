"""Cancel: stop a grid's jobs and workers; every cell keeps its checkpoint and can be continued."""

import argparse
import os
import signal
import socket
import sys

from spine_tasks import slurm
from spine_tasks.command import launched_parser, run_command
from spine_tasks.experiment import Experiment, opened
from spine_tasks.local import launcher
from spine_tasks.submissions import submissions

MOST_AT_ONCE = 1000  # jobs named to one scancel


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
    if (by := launcher(experiment)) is not None and by["host"] == socket.gethostname():
        os.kill(by["pid"], signal.SIGTERM)  # it stops its workers, as on Ctrl-C
        stopped.append(f"process {by['pid']} on this machine asked to stop")
    elif by is not None:
        stopped.append(f"process {by['pid']} on {by['host']} goes on: cancel it there")
    sys.stdout.write(
        f"{experiment.name}: {', '.join(stopped)}; launch it again with the same settings to "
        "continue\n"
    )


def _cancel_jobs(experiment: Experiment) -> int:
    """Cancel what the queue has of the experiment; return how many array tasks that were."""
    names = {one.name for one in submissions(experiment.folder)}
    if not names or not slurm.installed():
        return 0
    jobs = [task.job for task in slurm.queue() if task.name in names]
    for at in range(0, len(jobs), MOST_AT_ONCE):
        slurm.ask("scancel", *jobs[at : at + MOST_AT_ONCE])
    return len(jobs)
