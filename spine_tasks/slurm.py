"""Slurm's commands, asked with patience, and what Slurm means to do with a job."""

import getpass
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Literal

from spine_tasks.errors import SiteError

# Words of a controller that is busy, restarting or out of reach: the same command may go through
# a moment later.
UNREACHABLE = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Connection refused",
    "Communication connection failure",
    "controller in standby mode",
    "Resource temporarily unavailable",
    "Slurmctld is not responding",
    "Connection timed out",
)
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

Intention = Literal["cancelled", "requeued", "to stop", "ending", "going on"]


class SlurmError(SiteError):
    """A command of Slurm failed; the message has Slurm's own words."""

    def __init__(self, command: tuple[str, ...], words: str) -> None:
        self.words = words
        self.unreachable = any(one in words for one in UNREACHABLE)
        hint = ""
        if "unge" in words:  # Munge or munge
            hint = "; munge, which proves who you are, does not work here: tell the admins"
        elif self.unreachable:
            hint = "; the controller is out of reach: try again later, nothing is half done"
        super().__init__(f"{command[0]}: {words or 'failed without a word'}{hint}")


@dataclass(frozen=True)
class QueuedTask:
    """One array task (or job) in Slurm's queue."""

    job: str  # `123_4` in an array, `123` else
    state: str  # such as PENDING or RUNNING
    reason: str  # why it waits
    name: str  # the job's name


def installed() -> bool:
    """Whether this machine can submit to Slurm."""
    return shutil.which("sbatch") is not None


def patience_s() -> float:
    """How long a controller that does not answer is waited for."""
    return float(os.environ.get("SPINE_SLURM_PATIENCE_S", "90"))


def ask(*command: str) -> str:
    """The output of a command of Slurm that may be given twice, repeated with growing pauses.

    Raises
    ------
    SlurmError
        Slurm refuses, or its controller stays out of reach.
    SiteError
        The command is not there.
    """
    until = time.monotonic() + patience_s()
    pause = FIRST_PAUSE_S
    while True:
        try:
            return ask_once(*command)
        except SlurmError as error:
            if not error.unreachable or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def ask_of_array(*command: str) -> None:
    """Give a command for an array, of which it is no error that some tasks have ended.

    Raises
    ------
    SlurmError
        Slurm refuses it for another reason, or its controller stays out of reach.
    """
    try:
        ask(*command)
    except SlurmError as error:
        if "already finished" not in error.words:
            raise


def ask_once(*command: str, stdin: str = "") -> str:
    """The output of a command of Slurm, given once.

    Raises
    ------
    SlurmError
        Slurm refuses or does not answer; whether it did what was asked may then be unknown.
    SiteError
        The command is not there.
    """
    try:
        answer = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, env=environment()
        )
    except FileNotFoundError as error:
        raise SiteError(
            f"{command[0]} is not on this machine: run this on a login node of the cluster, or "
            "on this machine alone with --site local"
        ) from error
    if answer.returncode:
        raise SlurmError(command, answer.stderr.strip())
    return answer.stdout


def environment() -> dict[str, str]:
    """The environment without what describes the job that it may be in.

    A job submitted from inside another would take it for its own.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name in ("SLURM_CONF", "SLURM_CLUSTERS")
    }


def queue() -> list[QueuedTask]:
    """Everything that the user has in the queue, an array's tasks one by one.

    Raises
    ------
    SiteError
        Slurm does not answer: what is under way is then unknown.
    """
    # By user, not by job id: squeue fails when one of the ids is already forgotten.
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser()]
    lines = ask(*command, "--format", "%i|%T|%r|%j").splitlines()
    return [QueuedTask(*line.strip().split("|", 3)) for line in lines]


def this_job() -> str | None:
    """The Slurm job that this process is in, `123` or `123_4` in an array; None outside Slurm."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        # SLURM_JOB_ID will not do: the last task of an array has the id of the whole array.
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def node_of_job() -> int:
    """Which of its job's nodes this is, from 0."""
    return int(os.environ.get("SLURM_NODEID", "0"))


def restart_count() -> int:
    """How often Slurm has started this job again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def intention(job: str, restart: int) -> Intention:
    """What Slurm means to do with a job that was signalled; `restart` is its count of restarts.

    Returns
    -------
    str
        `cancelled`: somebody cancelled it, it must not run again; `requeued`: Slurm runs it again
        by itself. After a preemption, at its time limit or without its script it runs again only
        if asked for: `to stop` while it has its grace time, `ending` when it is about to be killed.
        `going on`: it was merely signalled.

    Raises
    ------
    SiteError
        Slurm does not answer.
    """
    fields = dict(
        word.split("=", 1) for word in ask("scontrol", "show", "job", job).split() if "=" in word
    )
    if int(fields.get("Restarts", 0)) > restart:
        return "requeued"
    running = fields.get("JobState") == "RUNNING"
    # A script that ended by itself, such as an srun that lost its node; scancel makes it 0:15.
    failed = fields.get("ExitCode", "0:0").partition(":")[0] != "0"
    preempted = fields.get("PreemptTime", "None") != "None"
    if preempted or failed or fields.get("Reason") == "TimeLimit":
        return "to stop" if running else "ending"
    return "going on" if running else "cancelled"


def requeue(job: str, restart: int) -> str:
    """Have this job run again, unless Slurm has decided so already; what became of it, in words."""
    # A job that is not ours any more (a later attempt runs elsewhere) must not be touched.
    if intention(job, restart) == "requeued":
        return "Slurm runs it again"
    try:
        ask("scontrol", "requeue", job)
    except SlurmError as error:
        if "pending execution" not in error.words:
            return f"Slurm does not requeue it ({error.words}); launch the grid again to continue"
    return "requeued"
