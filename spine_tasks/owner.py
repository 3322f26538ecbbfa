"""Who computes a cell: at any time one attempt owns the folder of its run.

A node that was lost may compute on while Slurm has already started its job again elsewhere, and
network file systems keep no file locks. So each attempt writes its name into `owner.json`, by
atomic replacement, before it does anything, and looks there every second: an attempt whose place
was taken ends itself at once. Within one Slurm job the later restart takes the place of the
earlier; of two different jobs the one that is alive keeps it.
"""

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from spine_tasks import slurm
from spine_tasks.errors import NotOwner, RunError
from spine_tasks.exit_codes import SUPERSEDED
from spine_tasks.files import read_json, write_json

LOOK_S = 1.0  # how often an attempt looks whether the folder is still its own
BEAT_S = 5.0  # how often it says that it is alive
SILENT_S = 20.0  # an owner that has not said so for this long is dead
SUPERVISOR = "SPINE_SUPERVISOR"  # environment variable: the process id of a worker's supervisor
ENDS = ("interrupted", "failed", "complete", "killed", "cancelled")


@dataclass(frozen=True)
class Owner:
    """One attempt: where it runs, and in which start of which Slurm job."""

    host: str
    pid: int
    job: str | None
    restart: int
    token: str  # tells apart two processes that were given the same id

    @classmethod
    def of_this_process(cls) -> Self:
        """The attempt that the calling process makes."""
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            job=slurm.this_job(),
            restart=slurm.restart_count(),
            token=uuid.uuid4().hex,
        )

    def is_of(self, record: dict[str, Any]) -> bool:
        """Whether a record of attempts.jsonl was written by this attempt, or on its death."""
        mine = (self.host, self.pid, self.job)
        return mine == (record["host"], record["pid"], record["job_id"])


def owner_of(folder: Path) -> Owner | None:
    """Who owns the folder of a run; None while nobody ever did."""
    file = folder / "owner.json"
    try:
        return Owner(**read_json(file))
    except FileNotFoundError:
        return None
    except (RunError, TypeError):  # spoilt, by a crash of the machine: nobody's
        return None


def claim(folder: Path, attempts: Iterable[dict[str, Any]]) -> Owner:
    """Make this process the owner of a run's folder.

    Parameters
    ----------
    attempts
        The records of its attempts.jsonl, which say which attempts have ended.

    Raises
    ------
    NotOwner
        Another attempt is alive, or Slurm has started a later one of this very job.
    """
    mine, before = Owner.of_this_process(), owner_of(folder)
    over = before is None or _ended(before, attempts)
    if before is not None and not over:
        same_job = before.job is not None and before.job == mine.job
        if same_job and mine.restart < before.restart:
            raise NotOwner(f"Slurm has started job {mine.job} again; this is the attempt before")
        if not (same_job and mine.restart > before.restart):
            _wait_until_silent(folder, before)
            over = True
    write_json(folder / "owner.json", asdict(mine))
    if before is not None and not over:
        _wait_until_gone(before, folder.name)
    return mine


def watch(folder: Path, mine: Owner) -> None:
    """From now on end this process at once where the folder is no longer its own.

    It ends too when its supervisor has died, since then nobody would stop it. Everything on disk
    is replaced in one step, so that this can be done at any moment.
    """
    above = Path(f"/proc/{os.environ[SUPERVISOR]}") if SUPERVISOR in os.environ else None
    if above is not None and not above.exists():  # in a container that hides it
        above = None
    threading.Thread(target=_watch, args=(folder, mine, above), daemon=True).start()


def check(folder: Path, mine: Owner) -> None:
    """Raise `NotOwner` unless the folder is still this attempt's own."""
    if owner_of(folder) != mine:
        raise NotOwner(f"{folder.name} was taken over by a later attempt")


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


def beats(folder: Path) -> bool:
    """Whether the folder's owner, on whatever machine, has said lately that it is alive."""
    try:
        return time.time() - (folder / "owner.json").stat().st_mtime < SILENT_S
    except FileNotFoundError:
        return False


def _ended(owner: Owner, attempts: Iterable[dict[str, Any]]) -> bool:
    last = None
    for record in attempts:
        if owner.is_of(record):
            last = record["event"]
    return last in ENDS


def _wait_until_silent(folder: Path, before: Owner) -> None:
    """Return once the owner is surely dead; raise `NotOwner` where it is alive."""
    refusal = NotOwner(
        f"{folder.name} is being computed by process {before.pid} on {before.host}"
        + (f" (Slurm job {before.job})" if before.job else "")
    )
    if before.host == socket.gethostname():
        if alive(asdict(before), folder.name):
            raise refusal
        return
    file = folder / "owner.json"
    first = _beat(file)
    while _clock(folder) - first < SILENT_S:
        time.sleep(LOOK_S)
        if _beat(file) != first:
            raise refusal


def _wait_until_gone(before: Owner, name: str) -> None:
    """Give the attempt before the time that it needs to notice that its place was taken."""
    until = time.monotonic() + 3 * LOOK_S
    while time.monotonic() < until:
        if before.host == socket.gethostname() and not alive(asdict(before), name):
            return
        time.sleep(0.1)


def _beat(file: Path) -> float:
    """When the owner last said that it is alive, as the file server knows it."""
    with file.open("rb") as stream:  # opened, since a network file system remembers times a while
        return os.fstat(stream.fileno()).st_mtime


def _clock(folder: Path) -> float:
    """The time by the clock of the folder's file server, which stamps the heartbeats too."""
    probe = folder / f".clock-{os.getpid()}"
    probe.write_text("")
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _watch(folder: Path, mine: Owner, above: Path | None) -> None:
    beat = time.monotonic()
    while True:
        time.sleep(LOOK_S)
        # A file server that does not answer for a while says nothing about who owns the folder.
        with suppress(OSError):
            if owner_of(folder) != mine or (above is not None and not above.exists()):
                _end()
            if time.monotonic() - beat > BEAT_S:
                beat = time.monotonic()
                os.utime(folder / "owner.json")


def _end() -> None:
    """End this process and its children without another word."""
    if os.getpgrp() == os.getpid():  # a worker in a session of its own: its children are its own
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(SUPERSEDED)
