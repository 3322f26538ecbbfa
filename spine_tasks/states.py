"""The state of each cell, derived from its folder and from Slurm's queue; never stored."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

from spine_tasks import slurm
from spine_tasks.causes import Cause, cause_of_death, of_record, slurm_ends
from spine_tasks.cell import Cell
from spine_tasks.owner import alive, beats
from spine_tasks.run import Run
from spine_tasks.submissions import Submission, folder_of, submissions

Kind = Literal["new", "waiting", "running", "interrupted", "failed", "complete"]
UNDER_WAY: tuple[Kind, ...] = ("waiting", "running")
RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT")
KILLED = re.compile(r"^srun: error: \S+ tasks? [\d,-]+: Killed\s*$", re.MULTILINE)  # by SIGKILL
LOG_TAIL = 8192  # bytes of a log that may hold Slurm's last words


@dataclass(frozen=True)
class State:
    """Where a cell stands, and why."""

    kind: Kind
    why: str = ""
    job: str | None = None  # the Slurm job that waits or runs, `123_4`
    cause: Cause | None = None  # of a failure
    cancelled: bool = False  # by somebody, so that only somebody starts it again


def states(folder: Path, cells: Iterable[Cell]) -> dict[str, State]:
    """The state of each cell of an experiment, by cell id.

    Parameters
    ----------
    folder
        The experiment's folder, `results/<name>/`.

    Raises
    ------
    SiteError
        Slurm does not answer, so that what is under way is unknown.
    """
    ids = [cell.id for cell in cells]
    begun = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    open_ids = [cell for cell in ids if cell not in begun or not _scored(f"{folder}/{cell}")]
    found = dict.fromkeys(ids, State("complete"))
    if open_ids:
        handed_over = submissions(folder)
        queue = queued(handed_over)
        found |= {
            cell: _open(Run(folder / cell), queue)
            if cell in begun
            else queue.get(cell, State("new"))
            for cell in open_ids
        }
        found |= _deaths(folder, found, handed_over)
    return found


def _scored(run: str) -> bool:
    """As `Run.scored`; to make paths of 10,000 names takes longer than to look for the files."""
    return all(os.path.exists(f"{run}/{name}") for name in ("done.json", "scores.csv"))  # noqa: PTH110


def _open(run: Run, queue: dict[str, State]) -> State:
    """The state of a cell that has no scores yet: it may have every prediction all the same."""
    state = _unfinished(run, queue)
    # Complete, and its worker is scoring; where that was cut short, collect scores it.
    return State("complete") if run.complete and state.kind not in UNDER_WAY else state


def queued(handed_over: Sequence[Submission]) -> dict[str, State]:
    """The cells that Slurm has in its queue, waiting or running, by cell id.

    Raises
    ------
    SiteError
        Slurm does not answer.
    """
    # What Slurm denied and has all the same is held for ever, until a launch cancels it.
    known = {one.name: one for one in handed_over if not one.gone}
    if not known or not slurm.installed():
        return {}
    found: dict[str, State] = {}
    for task in slurm.queue():
        if (submission := known.get(task.name)) is None:
            continue
        array, _, index = task.job.partition("_")
        why = f"job {array}" + ("" if task.reason == "None" else f", {task.reason}")
        state = State("running" if task.state in RUNNING else "waiting", why, task.job)
        for cell in submission.tasks.cells[int(index or 0)]:
            if found.get(cell, state).kind != "running" or state.kind == "running":
                found[cell] = state
    return found


def _unfinished(run: Run, queue: dict[str, State]) -> State:
    cell = run.folder.name
    last = _last_word(run)
    in_queue = queue.get(cell)
    if last is not None and last["event"] == "failed":
        failed = State("failed", last["error"], cause=of_record(last))
        # A task that runs again skips the cells that failed in it; another job tries them anew.
        if in_queue is None or in_queue.job == last["job_id"]:
            return failed
    if in_queue is not None:
        return in_queue
    if last is None:
        return State("new")
    if last["event"] == "cancelled":
        return State("interrupted", "cancelled", cancelled=True)
    if last["event"] == "interrupted":
        return State("interrupted", "stopped with a checkpoint")
    if last["event"] == "started" and alive(last, cell):
        return State("running", f"process {last['pid']}")
    if last["event"] == "started" and last["host"] != gethostname() and beats(run.folder):
        return State("running", f"process {last['pid']} on {last['host']}")
    return State("interrupted", "ended without a word: killed, or its node died")


def _last_word(run: Run) -> dict[str, Any] | None:
    """The last record of the cell itself; an attempt that was refused says nothing about it."""
    records = [record for record in run.attempts() if record["event"] != "refused"]
    return records[-1] if records else None


def _deaths(
    folder: Path, found: dict[str, State], handed_over: Sequence[Submission]
) -> dict[str, State]:
    """Why the cells whose jobs ended without a word did so, from the jobs' logs and from Slurm."""
    jobs_of = _last_jobs(handed_over)
    silent: dict[str, tuple[str | None, dict[str, Any] | None]] = {}
    for cell, state in found.items():
        if state.kind == "new" and cell in jobs_of:
            silent[cell] = jobs_of[cell], None
        elif state.kind == "interrupted" and not state.cancelled:
            last = _last_word(Run(folder / cell))
            if _number(jobs_of.get(cell)) > _number(last["job_id"] if last else None):
                silent[cell] = jobs_of[cell], None  # handed over again since it last spoke
            elif last is not None:
                silent[cell] = last["job_id"], last
    jobs = sorted({job for job, _ in silent.values() if job})
    ends = slurm_ends(jobs) if jobs else {}
    told = {}
    for cell, (job, last) in silent.items():
        text = _end_of_log(folder, job, handed_over)
        end = ends.get(job or "")
        if last is None:
            told[cell] = _never_started(found[cell].kind, job or "", end, text)
            continue
        if last["event"] == "interrupted":  # it may have been cancelled while it waited to go on
            if end == "CANCELLED":
                told[cell] = State("interrupted", "cancelled", cancelled=True)
            continue
        saved = Run(folder / cell).saved_ns() is not None
        death = cause_of_death(text, last.get("signal"), end, saved)
        told[cell] = State(
            "failed" if death.cause else "interrupted",
            death.why,
            cause=death.cause,
            cancelled=end == "CANCELLED",
        )
    return told


def _last_jobs(handed_over: Sequence[Submission]) -> dict[str, str]:
    """The array task that each cell was last handed over in."""
    return {
        cell: f"{one.job}_{index}"
        for one in handed_over
        if one.job is not None and one.released
        for index, cells in enumerate(one.tasks.cells)
        for cell in cells
    }


def _number(job: str | None) -> int:
    """The number of a job's array, by which later ones are told; 0 without a job."""
    return int((job or "0").partition("_")[0])


def _never_started(kind: Kind, job: str, end: str | None, text: str) -> State:
    """The state of a new or interrupted cell whose last job never started a worker."""
    if end == "CANCELLED":
        return State(kind, f"job {job} was cancelled", cancelled=True)
    if end in (None, "COMPLETED", "PREEMPTED"):  # it was not to start: see `stopped.json`
        return State(kind, f"job {job} ended before it began")
    if end == "NODE_FAIL" or (end == "FAILED" and KILLED.search(text)):
        how = "lost its node" if end == "NODE_FAIL" else "was killed"
        return State(kind, f"job {job} {how} before a worker started")
    line = (text.strip().splitlines() or ["its log is empty"])[-1]
    cause = Cause(
        "node",
        f"job {job} ended ({end}) before a worker started: {line}; do the compute nodes see the "
        "results folder and the Python of the site's profile? jobs/doctor.py tries it",
    )
    return State("failed", cause.why, cause=cause)


def _end_of_log(folder: Path, job: str | None, handed_over: Sequence[Submission]) -> str:
    """The end of a job's log, where Slurm says why it ended it."""
    for one in handed_over:
        log = folder_of(folder, one.name) / f"{job}_0_log.out"
        if job is not None and log.is_file():
            with log.open("rb") as stream:
                stream.seek(max(0, log.stat().st_size - LOG_TAIL))
                return stream.read().decode(errors="replace")
    return ""
