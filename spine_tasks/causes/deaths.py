"""Why a worker was killed that could not say so itself: from its job's log and from Slurm.

A death is a failure only if the next attempt would die the same way. After a preemption, a time
limit, a lost node or a plain kill the next attempt continues from the checkpoint.
"""

import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from spine_tasks.causes.cause import Cause, Kind
from spine_tasks.errors import SiteError
from spine_tasks.slurm import ask_once

# What Slurm writes into a job's log, its surest word first: a job over its memory or over its time
# is "CANCELLED AT" too. Lines by others are not believed.
_SLURM_LINE = r"^(?:slurmstepd\S*|srun): .*"
_LOG_SIGNS: tuple[tuple[str, str], ...] = (
    ("OUT_OF_MEMORY", r"exceeded (job |step )?memory limit|oom[-_ ]?kill|: Out Of Memory"),
    ("TIMEOUT", "DUE TO TIME LIMIT"),
    ("NODE_FAIL", "DUE TO NODE FAILURE|Node failure on"),
    ("PREEMPTED", "DUE TO PREEMPTION"),
    ("CANCELLED", "CANCELLED AT"),
)
_WHY = {
    "OUT_OF_MEMORY": "killed for using more memory than resources.mem_gb",
    "TIMEOUT": "stopped at its time limit",
    "DEADLINE": "stopped at its deadline",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
}
_ENDS = {*_WHY, "COMPLETED", "FAILED"}
# Signals that a program brings on itself, so that it would do so again. Of a bus error the
# machine is suspected: a file mapped from a dead disk or server, or no shared memory left.
_CRASHES: dict[signal.Signals, Kind] = {
    signal.SIGSEGV: "code",
    signal.SIGABRT: "code",
    signal.SIGILL: "code",
    signal.SIGFPE: "code",
    signal.SIGSYS: "code",
    signal.SIGBUS: "node",
}


@dataclass(frozen=True)
class Death:
    """How a worker ended that left no word."""

    why: str
    cause: Cause | None = None  # None: an interruption, the next launch continues


def cause_of_death(
    log_tail: str, signum: int | None, exit_state: str | None, saved: bool = True
) -> Death:
    """What ended a worker that left no word.

    Parameters
    ----------
    log_tail
        The end of the Slurm job's log; may be empty.
    signum
        The signal that the supervisor saw its worker die of; None if nobody saw it.
    exit_state
        Slurm's word for the end of the job, such as TIMEOUT; None if unknown.
    saved
        Whether there is a checkpoint; a time limit before the first one would be met again.

    Examples
    --------
    >>> cause_of_death("", signal.SIGKILL, "PREEMPTED")
    Death(why='preempted', cause=None)
    >>> cause_of_death("slurmstepd: error: Exceeded job memory limit", None, "FAILED").cause.kind
    'host memory'
    """
    word = (exit_state or "FAILED").split()[0]  # of "CANCELLED by 1000"
    # The log may go back to earlier starts of the job, so that it only says what the word leaves
    # open; a kill for memory may be recorded as FAILED or CANCELLED.
    ends = [word] if word in _WHY else []
    ends += _in_log(log_tail) if word in ("FAILED", "CANCELLED", "COMPLETED") else []
    if "OUT_OF_MEMORY" in ends:
        return _failure("host memory", _WHY["OUT_OF_MEMORY"])
    if signum is None and not ends:
        signum = _signal_in_log(log_tail)
    if signum in _CRASHES:
        return _failure(_CRASHES[signal.Signals(signum)], f"killed by {_name(signum)}")
    if ends[:1] == ["TIMEOUT"] and not saved:
        return _failure("time", "stopped at its time limit before its first checkpoint")
    if ends:
        return Death(_WHY[ends[0]])
    if signum is not None:
        return Death(f"killed by {_name(signum)}")
    return Death("ended without a word: killed, or its node died")


def slurm_ends(jobs: Sequence[str]) -> dict[str, str]:
    """Slurm's word for the end of each job (`123` or `123_4`), such as TIMEOUT or OUT_OF_MEMORY.

    Jobs that have not ended, or that Slurm has forgotten or cannot be asked about, are left out.
    """
    found: dict[str, str] = {}
    arrays = list(dict.fromkeys(job.partition("_")[0] for job in jobs))
    if arrays:
        with suppress(SiteError):  # without accounting
            answer = ask_once("sacct", "-nXP", "-j", ",".join(arrays), "-o", "JobID,State")
            found |= _ended(line.split("|") for line in answer.splitlines())
    # The controller knows an end before the accounting does, and forgets it after some minutes.
    for array in dict.fromkeys(job.partition("_")[0] for job in jobs if job not in found):
        with suppress(SiteError):
            answer = ask_once("scontrol", "-o", "show", "job", array)
            found |= _ended(_job_and_state(line) for line in answer.splitlines())
    return {job: found[job] for job in jobs if job in found}


def _failure(kind: Kind, why: str) -> Death:
    return Death(why, Cause(kind, why))


def _in_log(text: str) -> Iterator[str]:
    for end, sign in _LOG_SIGNS:
        if re.search(f"{_SLURM_LINE}(?:{sign})", text, re.MULTILINE | re.IGNORECASE):
            yield end


def _signal_in_log(text: str) -> int | None:
    """The signal that srun says its task died of, as in `srun: error: n1: task 0: Aborted`."""
    said = re.findall(r"^srun: error: \S+: task 0: ([^(\n]+?)(?: \(core dumped\))?$", text, re.M)
    known = {signal.strsignal(one): one for one in signal.valid_signals()}
    return known.get(said[-1]) if said else None


def _name(signum: int) -> str:
    return f"{signal.Signals(signum).name} ({signal.strsignal(signum)})"


def _ended(states: Iterable[Sequence[str]]) -> dict[str, str]:
    words = {job: state.split()[0] for job, state in states if state}
    return {job: word for job, word in words.items() if word in _ENDS}


def _job_and_state(line: str) -> tuple[str, str]:
    """The job and its state in a line of `scontrol -o show job`."""
    fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
    job = fields.get("JobId", "")
    if "ArrayTaskId" in fields:
        job = f"{fields['ArrayJobId']}_{fields['ArrayTaskId']}"
    return job, fields.get("JobState", "")
