"""What runs on the node: it starts the worker, passes signals on, and gets the cell requeued.

submitit pickles the callable below: it is kept to strings, so that what waits in the queue does
not change its meaning. submitit itself ignores TERM and forgets a preempted task's work; here the
worker saves, and the job is requeued only when Slurm means to run it again, never after a cancel.
"""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from spine_tasks.environment import worker_variables
from spine_tasks.run import Run, slurm_job_id

log = logging.getLogger(__name__)


class Supervise:
    """One array task: `Supervise(python)(run folder)`."""

    def __init__(self, python: str) -> None:
        self.python = python

    def __call__(self, folder: str) -> None:
        """Make one attempt at the cell; requeue the task if it was stopped but not cancelled.

        Raises
        ------
        RuntimeError
            The worker failed: so the job's own state says FAILED.
        """
        heard: list[int] = []
        worker = start_worker(Path(folder), self.python)

        def pass_on(signum: int, _frame: FrameType | None) -> None:
            heard.append(signum)
            worker.send_signal(signum)

        for one in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            signal.signal(one, pass_on)
        code = worker.wait()
        if code == os.EX_TEMPFAIL:
            if signal.SIGTERM in heard and not _preempted():
                log.info("cancelled; launch the grid again to continue")
            else:
                _requeue()
        elif code != 0:
            raise RuntimeError(f"the worker ended with {code}; see {Run(Path(folder)).log}")


def start_worker(
    folder: Path, python: str = sys.executable, variables: dict[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a worker in a session of its own, its output appended to the run's log.txt.

    In a session of its own a worker hears only what its supervisor passes on, so that a Ctrl-C
    on the terminal does not reach it twice.
    """
    run = Run(folder)
    environment = os.environ | worker_variables(run.cell()) | (variables or {})
    with run.log.open("ab") as output:
        return subprocess.Popen(
            [python, "-m", "spine_tasks.worker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _preempted() -> bool:
    """Whether the TERM just heard was a preemption; a cancelled job has no time of preemption."""
    job = os.environ.get("SLURM_JOB_ID", "")
    answer = subprocess.run(
        ["scontrol", "show", "job", job], capture_output=True, text=True, check=False
    ).stdout
    return "PreemptTime=" in answer and "PreemptTime=None" not in answer


def _requeue() -> None:
    """Ask Slurm to run this task again, unless it has already decided so."""
    job = slurm_job_id()
    if job is None:
        return
    answer = subprocess.run(
        ["scontrol", "requeue", job], capture_output=True, text=True, check=False
    )
    log.info("requeue of %s: %s", job, answer.stderr.strip() or "accepted")
