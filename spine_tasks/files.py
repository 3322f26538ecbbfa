"""Files that are old or new after a crash, never half."""

import ctypes
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spine_tasks.errors import RunError

log = logging.getLogger(__name__)

RESERVED_AT_ONCE = 1 << 28  # bytes: how exactly what is left can be told


@contextmanager
def replacing(file: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside `file` to write to; on success it takes the place of `file` in one step.

    The writer's host and process id are in the temporary name, so two writers never share one.
    After an error `file` is as it was and the temporary is gone.

    Parameters
    ----------
    durable
        Wait until the bytes are on the disk; else a crash of the machine (not of the process) can
        leave an empty new file.

    Raises
    ------
    RunError
        The disk is full, or the folder cannot be written to.
    """
    # The suffix stays last: writers such as nibabel choose the format by it.
    partial = file.with_name(f".partial-{socket.gethostname()}-{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if durable:
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        partial.replace(file)
    except BaseException as error:
        with suppress(OSError):  # where its folder is none, or gone
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _cannot_write(file, error) from error
        raise


def write_text(file: Path, text: str, durable: bool = True) -> None:
    """Replace `file` by `text` in one step."""
    with replacing(file, durable) as partial:
        partial.write_bytes(text.encode())


def write_json(file: Path, value: Any, durable: bool = True) -> None:
    """Replace `file` by `value` as JSON with sorted keys, in one step."""
    write_text(file, to_json(value), durable)


def to_json(value: Any) -> str:
    r"""The text that `write_json` writes: a line for each value, in the order of their keys.

    Examples
    --------
    >>> to_json({"b": [1, 2], "a": None})
    '{"a": null,\n  "b": [1,\n  2]}\n'
    """
    # Not by `indent`, which makes Python's own encoder do it: four times slower, a second for a
    # grid of 10,000 cells.
    return json.dumps(value, sort_keys=True, separators=(",\n  ", ": ")) + "\n"


def read_json(file: Path) -> Any:
    """The value in a JSON file.

    Raises
    ------
    RunError
        The file is not JSON.
    """
    return parse_json(file.read_bytes(), file)


def parse_json(content: bytes, file: Path) -> Any:
    """The value in the bytes of a JSON file, as `read_json`."""
    try:
        return json.loads(content.decode())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{file}: not JSON ({error}); delete it and launch again") from error


def write_lines(file: Path, records: list[dict[str, Any]]) -> None:
    """Replace `file` by one line of JSON a record, in one step."""
    write_text(file, "".join(json.dumps(record, sort_keys=True) + "\n" for record in records))


def append_line(file: Path, record: dict[str, Any]) -> None:
    """Append `record` as one line of JSON, in one `write`: lines of two writers never mix.

    Raises
    ------
    RunError
        The disk is full, or the file cannot be written to.
    """
    line = json.dumps(record, sort_keys=True) + "\n"
    try:
        if file.exists() and not file.read_bytes().endswith(b"\n"):
            line = "\n" + line  # a writer was killed in the middle of the line before
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            written = os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        if written < len(line.encode()):  # what was free took a part of the line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _cannot_write(file, error) from error


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines; a line cut off by a kill is left out and logged."""
    return parse_lines(file.read_bytes(), file) if file.exists() else []


def parse_lines(content: bytes, file: Path) -> list[dict[str, Any]]:
    """The records in the bytes of a file of JSON lines, as `read_lines`."""
    lines = content.decode(errors="replace").split("\n")  # a crash can leave any bytes
    whole = [line for line in lines if line]
    with suppress(json.JSONDecodeError):  # all at once takes half the time of one by one
        records: list[dict[str, Any]] = json.loads(f"[{','.join(whole)}]")
        if len(records) == len(whole):
            return records
    records = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s, line %d: cut off by a kill, left out", file, number)
    return records


def sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_room(folder: Path, bytes_needed: int, what: str) -> None:
    """Raise unless so many more bytes can be written below `folder` now.

    They are really reserved for a moment, since only that tells what a quota leaves; where the
    file system cannot reserve, what it says is free has to do.

    Parameters
    ----------
    folder
        It may be still to be made.
    what
        What needs the room, as the message names it.

    Raises
    ------
    RunError
        The disk or the user's quota has less, or the folder cannot be written to.
    """
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        free = shutil.disk_usage(there).free
        if free >= bytes_needed:
            free = _reservable(there, bytes_needed)
    except OSError as error:
        raise _cannot_write(there, error) from error
    if free < bytes_needed:
        from rich.filesize import decimal

        raise RunError(
            f"{there}: {what} needs {decimal(bytes_needed)}, and the disk or your quota there has "
            f"{decimal(free)} left; free some (`python jobs/clean.py --all` removes the "
            "checkpoints of complete cells), or choose another folder"
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what it comes down to


def _reservable(folder: Path, wanted: int) -> int:
    """How many of the wanted bytes can be reserved; all of them where that cannot be tried."""
    reserved = 0
    with tempfile.TemporaryFile(dir=folder) as file:  # without a name: a kill leaves nothing
        while reserved < wanted:
            problem = _fallocate(file.fileno(), reserved, min(RESERVED_AT_ONCE, wanted - reserved))
            if problem in (errno.ENOSPC, errno.EDQUOT):
                return reserved
            if problem in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EFBIG):
                return wanted
            if problem not in (0, errno.EINTR):
                raise OSError(problem, os.strerror(problem))
            reserved += 0 if problem else RESERVED_AT_ONCE
    return wanted


def _fallocate(descriptor: int, start: int, length: int) -> int:
    """Reserve a part of a file; return the number of the error, 0 if there was none."""
    # os.posix_fallocate writes to every block where the file system cannot reserve: slow over a
    # network, and no answer where writes are cached.
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "fallocate"):  # not Linux
        return errno.EOPNOTSUPP
    whole, part = ctypes.c_int, ctypes.c_int64
    failed = libc.fallocate(whole(descriptor), whole(0), part(start), part(length))
    return ctypes.get_errno() if failed else 0


def _cannot_write(file: Path, error: OSError) -> RunError:
    return RunError(
        f"{file}: cannot be written: {error.strerror or error}; "
        "free space or quota, or choose another folder, then run the same command again"
    )
