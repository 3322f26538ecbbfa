"""One launcher at a time: a lock file that names its holder, on any file system.

It is made exclusively, which network file systems can do, unlike locking. The lock of a holder
that has died is taken over: on this machine the process is looked up, on another one the lock's
age tells.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spine_tasks.errors import RunError
from spine_tasks.files import read_json, write_json
from spine_tasks.owner import alive

STALE_S = 600.0  # a holder on another machine that has not touched its lock for so long is dead
POLL_S = 0.5


def holder(file: Path) -> dict[str, Any] | None:
    """The process (`host`, `pid`) that holds a lock now, if one does."""
    try:
        record: dict[str, Any] = read_json(file)
        age = time.time() - file.stat().st_mtime
    except (FileNotFoundError, RunError):
        return None
    here = record["host"] == socket.gethostname()
    return record if (alive(record, "launch") if here else age < STALE_S) else None


@contextmanager
def held(file: Path, refusal: str, patience_s: float = 0.0) -> Iterator[Callable[[], None]]:
    """Hold a lock during the block.

    Yields
    ------
    function
        Says that the holder lives; raises `RunError` where another has taken the lock over.

    Raises
    ------
    RunError
        Another process holds it and goes on doing so; `refusal` with its `{pid}` and `{host}`.
    """
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
    until = time.monotonic() + patience_s
    while not _taken(file, mine):
        if (other := holder(file)) is None:
            _bury(file)
        elif time.monotonic() > until:
            raise RunError(refusal.format(**other))
        else:
            time.sleep(POLL_S)

    def still_mine() -> None:
        if not file.exists() or read_json(file) != mine:
            raise RunError(f"{file}: taken over by another process; launch again")
        os.utime(file)

    try:
        yield still_mine
    finally:
        with suppress(OSError, RunError):
            if read_json(file) == mine:
                file.unlink()


def _taken(file: Path, mine: dict[str, Any]) -> bool:
    """Make the lock with its content in one step: a link to a file that is whole."""
    whole = file.with_name(f".{file.name}-{mine['token']}")
    write_json(whole, mine, durable=False)
    try:
        os.link(whole, file)
    except FileExistsError:
        return False
    finally:
        whole.unlink()
    return True


def _bury(file: Path) -> None:
    """Remove the lock of a dead holder, and only that, though others may be doing the same."""
    grave = file.with_name(f".{file.name}-{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        file.rename(grave)
        if holder(grave) is not None:  # somebody was quicker: this one lives
            with suppress(FileExistsError):
                os.link(grave, file)
        grave.unlink()
