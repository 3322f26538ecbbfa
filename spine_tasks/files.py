"""Files that are old or new after a crash, never half."""

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spine_tasks.errors import RunError

log = logging.getLogger(__name__)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yield a path beside `file` to write to; on success it takes the place of `file` in one step.

    The writer's process id is in the temporary name, so two writers never share one. After an
    error `file` is as it was and the temporary is gone.

    Raises
    ------
    RunError
        The disk is full, or the folder cannot be written to.
    """
    # The suffix stays last: writers such as nibabel choose the format by it.
    partial = file.with_name(f".partial-{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())  # else a node's crash can leave an empty new file
        partial.replace(file)
    except OSError as error:
        raise _cannot_write(file, error) from error
    finally:
        with suppress(OSError):  # where its folder is none, or gone
            partial.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Replace `file` by `text` in one step."""
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(file: Path, value: Any) -> None:
    """Replace `file` by `value` as JSON with sorted keys, in one step."""
    write_text(file, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(file: Path) -> Any:
    """The value in a JSON file.

    Raises
    ------
    RunError
        The file is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
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
    if not file.exists():
        return []
    records = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
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


def _cannot_write(file: Path, error: OSError) -> RunError:
    return RunError(
        f"{file}: cannot be written: {error.strerror or error}; "
        "free space or quota, or choose another folder, then run the same command again"
    )
