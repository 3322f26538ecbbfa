"""What runs on the node for one array task: workers side by side, and a requeue where one is due.

A worker is a process of its own, so that whatever happens to it somebody is left to record it.
submitit pickles the callable below: it is kept to strings, so that what waits in the queue does
not change its meaning. submitit itself ignores TERM and forgets a preempted task's work; here the
workers save, and the task runs again only where Slurm means it to, never after a cancel.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from spine_tasks import causes, slurm
from spine_tasks.environment import ATTEMPT, NODE, NODES, worker_variables
from spine_tasks.errors import SiteError, SpineError
from spine_tasks.exit_codes import FAILED, NO_FAILURES, OUT_OF_MEMORY, SUPERSEDED
from spine_tasks.owner import SUPERVISOR, owner_of
from spine_tasks.run import Run
from spine_tasks.staging import staged_variables
from spine_tasks.submissions import read_tasks

log = logging.getLogger(__name__)

POLL_S = 0.1
SIGNALLED = 128  # and the signal: exit code of a shell or container whose program was killed
UNBORN = 3  # workers killed in a row before their first word, after which a person must look
CANCEL_PATIENCE_S = 2.5  # for saving after a cancel; then the GPU is given back


class Supervise:
    """What submitit calls in an array task: `Supervise()(folder of the submission)`."""

    def __call__(self, folder: str) -> None:
        """Compute this task's cells.

        Raises
        ------
        RuntimeError
            A cell failed: so the job's own state says FAILED.
        """
        index = int(os.environ["SLURM_ARRAY_TASK_ID"])
        if node := slurm.node_of_job():
            follow(Path(folder), index, node)
        elif failed := supervise(Path(folder), index):
            raise RuntimeError(f"failed: {', '.join(failed)}; see log.txt in their folders")


@dataclass
class Signals:
    """The signals that the supervisor has heard; they are acted on in its loop, not here."""

    heard: list[int] = field(default_factory=list)

    def listen(self) -> None:
        """Hear TERM, USR2 and INT from now on."""
        for one in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            signal.signal(one, self._hear)

    def _hear(self, signum: int, _frame: FrameType | None) -> None:
        self.heard.append(signum)


def supervise(folder: Path, index: int) -> list[str]:
    """Compute the cells of one array task side by side; return the names of those that failed.

    Parameters
    ----------
    folder
        Of the submission, with tasks.json.
    index
        Of the array task.
    """
    signals = Signals()
    signals.listen()
    tasks = read_tasks(folder)
    if tasks.umask is not None:
        os.umask(tasks.umask)
    experiment = folder.parents[1]
    runs = [run for cell in tasks.cells[index] if _is_due(run := Run(experiment / cell))]
    if (why := causes.stopped(experiment)) is not None:
        runs = [run for run in runs if run.attempts()]  # what has begun goes on
        log.warning("no further cell is started: %s", why)
    if not runs:
        return []
    try:
        variables = staged_variables(runs, tasks.stage_to)
    except SpineError as error:  # no worker will say it
        for run in runs:
            words = {"error": causes.last_line(error), "cause": causes.kind_of(error)}
            run.record_attempt("failed", **words)
        raise
    codes = _side_by_side(runs, tasks.worker, variables, signals)
    if len(runs) > 1 and not signals.heard:
        for run in [run for run, code in codes.items() if code == OUT_OF_MEMORY]:
            log.warning("%s was out of memory beside others; now alone", run.folder.name)
            codes |= _side_by_side([run], tasks.worker, variables, signals)
    stopped = [run for run, code in codes.items() if code == os.EX_TEMPFAIL or code < 0]
    if stopped:
        _run_again(signals)
    failed = (run for run, code in codes.items() if code > 0 and code not in NO_FAILURES)
    return [run.folder.name for run in failed]


def follow(folder: Path, index: int, node: int) -> None:
    """Keep a further rank of the array task's cell going on another node than the first.

    The first node's supervisor alone records, requeues and says what failed.
    """
    signals = Signals()
    signals.listen()
    tasks = read_tasks(folder)
    [cell] = tasks.cells[index]
    if not _is_due(run := Run(folder.parents[1] / cell)):
        return
    variables = staged_variables([run], tasks.stage_to)
    worker = start_worker(run.folder, tasks.worker, variables, node)
    passed_on = 0
    while worker.poll() is None:
        for signum in signals.heard[passed_on:]:
            worker.send_signal(signum)
            passed_on += 1
        time.sleep(POLL_S)


def start_worker(
    folder: Path,
    command: Sequence[str] = (sys.executable,),
    variables: dict[str, str] | None = None,
    node: int = 0,
) -> "subprocess.Popen[bytes]":
    """Start a worker in a session of its own, its output appended to the run's log.txt.

    In a session of its own a worker hears only what its supervisor passes on, so that a Ctrl-C
    on the terminal does not reach it twice.

    Parameters
    ----------
    command
        Of the Python that starts it.
    node
        Which of the job's; from 1 on it is a rank that follows the worker on node 0.
    """
    run = Run(folder)
    cell = run.cell()
    environment = os.environ | worker_variables(cell) | (variables or {})
    if (job := slurm.this_job()) is not None:
        environment |= {NODE: str(node), NODES: str(cell.resources.nodes)}
        environment[ATTEMPT] = f"{job}.{slurm.restart_count()}"
    module = "spine_tasks.meeting" if node else "spine_tasks.worker"
    with run.log.open("ab") as output:
        return subprocess.Popen(
            [*command, "-m", module, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment | {SUPERVISOR: str(os.getpid())},
            start_new_session=True,
        )


def _is_due(run: Run) -> bool:
    """Whether a cell is still to be computed; a task that runs again skips what failed in it."""
    if run.scored:
        return False
    last = (run.attempts() or [{}])[-1]
    failed_here = last.get("event") == "failed" and last.get("job_id") == slurm.this_job()
    return not failed_here or "memory" in last.get("cause", "")


def _side_by_side(
    runs: list[Run], command: list[str], variables: dict[str, str], signals: Signals
) -> dict[Run, int]:
    """Run one worker a cell until all have ended; return their exit codes."""
    workers = {run: start_worker(run.folder, command, variables) for run in runs}
    codes: dict[Run, int] = {}
    passed_on = 0
    kill_at: float | None = None
    kills_before = out_of_memory_kills()
    while workers:
        for signum in signals.heard[passed_on:]:
            for worker in workers.values():
                worker.send_signal(signum)
            passed_on += 1
            if signum == signal.SIGTERM and kill_at is None:
                intention = _intention()
                if intention == "cancelled":
                    kill_at = time.monotonic() + CANCEL_PATIENCE_S
                elif intention == "ending":  # before the workers have saved: they may be killed
                    _run_again(signals)
        if kill_at is not None and time.monotonic() > kill_at:
            for worker in workers.values():
                with suppress(ProcessLookupError):  # it has just ended
                    os.killpg(worker.pid, signal.SIGKILL)
        time.sleep(POLL_S)
        for run, worker in list(workers.items()):
            if (code := worker.poll()) is not None:
                del workers[run]
                if SIGNALLED < code < SIGNALLED + signal.NSIG:  # a container's way to say it
                    code = SIGNALLED - code
                if kill_at is not None and (code < 0 or code == os.EX_TEMPFAIL):
                    run.record_attempt("cancelled", pid=worker.pid)
                    codes[run] = os.EX_TEMPFAIL
                else:
                    codes[run] = recorded(run, worker.pid, code, kills_before)
    return codes


def recorded(run: Run, pid: int, code: int, kills_before: int | None = None) -> int:
    """The exit code of a worker; the death of one that could not say so itself is recorded.

    Parameters
    ----------
    kills_before
        `out_of_memory_kills()` before it was started; None: this machine's are not its own.
    """
    if code >= 0:
        return code
    owner, job, restart = owner_of(run.folder), slurm.this_job(), slurm.restart_count()
    if owner is not None and owner.job == job:
        if owner.restart > restart:
            return SUPERSEDED
        if owner.restart == restart:
            pid = owner.pid  # in a container it is another than the one that was started
    if kills_before is not None and out_of_memory_kills() > kills_before:
        why = "host memory: the kernel killed the worker, which wanted more than resources.mem_gb"
        run.record_attempt("failed", pid=pid, error=why, cause="host memory")
        return OUT_OF_MEMORY
    death = causes.cause_of_death("", -code, None)
    if death.cause is not None:  # it would die the same way again
        words = {"error": death.why, "cause": death.cause.kind}
        run.record_attempt("failed", pid=pid, **words)
        return FAILED
    run.record_attempt("killed", pid=pid, signal=-code)
    if [one["event"] for one in run.attempts()[-UNBORN:]] == ["killed"] * UNBORN:
        why = f"{UNBORN} workers in a row were killed before they began"
        run.record_attempt("failed", pid=pid, error=why, cause="node")
        return FAILED
    return code


def out_of_memory_kills() -> int:
    """How many processes of this job's cgroup the kernel has killed for want of memory."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        base = "memory" if controllers else ""
        for name in ("memory.events", "memory.oom_control"):
            file = Path("/sys/fs/cgroup") / base / place.lstrip("/") / name
            words = file.read_text().split() if file.is_file() else []
            if controllers in ("", "memory") and "oom_kill" in words:
                return int(words[words.index("oom_kill") + 1])
    return 0


def _intention() -> slurm.Intention | None:
    """What Slurm means to do with this job; None outside Slurm, or where it does not answer."""
    if (job := slurm.this_job()) is None:
        return None
    try:
        return slurm.intention(job, slurm.restart_count())
    except SiteError as error:
        log.warning("%s", error)
        return None


def _run_again(signals: Signals) -> None:
    """Have Slurm run this task again, unless somebody cancelled it."""
    if (job := slurm.this_job()) is None:
        return
    if signal.SIGTERM in signals.heard and _intention() == "cancelled":
        log.info("cancelled; launch the grid again to continue")
        return
    try:
        log.info("%s: %s", job, slurm.requeue(job, slurm.restart_count()))
    except SiteError as error:
        log.warning("%s; launch the grid again to continue", error)


def main() -> None:
    """The command of a script that was submitted by hand: `python -m spine_tasks.supervise DIR`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    Supervise()(sys.argv[1])


if __name__ == "__main__":
    main()
