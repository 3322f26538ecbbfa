"""The state of each cell, derived from its folder and from Slurm's queue; never stored."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spine_tasks.cell import Cell
from spine_tasks.errors import SiteError
from spine_tasks.files import read_lines
from spine_tasks.run import Run

Kind = Literal["new", "waiting", "running", "interrupted", "failed", "complete"]
UNDER_WAY: tuple[Kind, ...] = ("waiting", "running")
SUBMISSIONS = "submissions.jsonl"  # in an experiment's folder: which job computes which cell


@dataclass(frozen=True)
class State:
    """Where a cell stands, and why."""

    kind: Kind
    why: str = ""
    job: str | None = None  # the Slurm job that waits or runs, `123` or `123_4`


def states(folder: Path, cells: Iterable[Cell]) -> dict[str, State]:
    """The state of each cell of an experiment, by cell id.

    Parameters
    ----------
    folder
        The experiment's folder, `results/<name>/`.
    """
    ids = [cell.id for cell in cells]
    unfinished = [cell for cell in ids if not (folder / cell / "done.json").exists()]
    queue = queued(folder) if unfinished else {}
    found = dict.fromkeys(ids, State("complete"))
    return found | {cell: _unfinished(Run(folder / cell), queue) for cell in unfinished}


def queued(folder: Path) -> dict[str, State]:
    """The cells that Slurm has in its queue, waiting or running, by cell id.

    Raises
    ------
    SiteError
        Slurm does not answer.
    """
    jobs = job_cells(folder)
    if not jobs or shutil.which("squeue") is None:
        return {}
    # By user, not by job id: squeue fails when one of the ids is already forgotten.
    answer = subprocess.run(
        ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i|%T|%r"],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:  # without an answer a cell could be started a second time
        raise SiteError(
            f"squeue does not answer ({answer.stderr.strip()}), so the state of the "
            f"{len(jobs)} jobs of {folder.name} is unknown; try again when Slurm answers"
        )
    found = {}
    for line in answer.stdout.splitlines():
        job, state, reason = line.strip().split("|")
        if job in jobs:
            running = state in ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED")
            why = f"job {job.partition('_')[0]}" + ("" if reason == "None" else f", {reason}")
            found[jobs[job]] = State("running" if running else "waiting", why, job)
    return found


def job_cells(folder: Path) -> dict[str, str]:
    """Every Slurm job of an experiment, `123` or `123_4`, and the cell that it computes."""
    return {
        job: cell
        for record in read_lines(folder / SUBMISSIONS)
        for job, cell in record["jobs"].items()
    }


def alive(record: dict[str, Any], word: str) -> bool:
    """Whether the process of a record (`host`, `pid`) still runs on this machine.

    Process ids are given again: `word` is what its command line holds and another's does not.
    """
    if record["host"] != socket.gethostname():
        return False
    try:
        command = Path(f"/proc/{record['pid']}/cmdline").read_bytes()
    except OSError:
        return False
    return word.encode() in command or record["pid"] == os.getpid()


def _unfinished(run: Run, queue: dict[str, State]) -> State:
    cell = run.folder.name
    if cell in queue:
        return queue[cell]
    attempts = run.attempts()
    if not attempts:
        return State("new")
    last = attempts[-1]
    if last["event"] == "failed":
        return State("failed", " ".join(filter(None, [last["error"], last.get("at")])))
    if last["event"] == "interrupted":
        return State("interrupted", "stopped with a checkpoint")
    if alive(last, cell):
        return State("running", f"process {last['pid']}")
    return State("interrupted", "ended without a word: killed, or its node died")
