"""Data on the node's own disk: a shared file system is slow where every epoch reads from it.

Before the workers start, what their cells read is copied; a worker is told by the environment
variable `SPINE_STAGED` and reads the copy.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.filesize import decimal

from spine_tasks.data.cases import files_of, folders_of
from spine_tasks.data.staged import STAGED
from spine_tasks.errors import DataError, RunError, SiteError
from spine_tasks.run import Run

log = logging.getLogger(__name__)


def staged_variables(runs: Sequence[Run], stage_to: str | None) -> dict[str, str]:
    """Copy the data that some cells read; return what tells their workers where it is.

    Made-up data is small and stays where it is.

    Parameters
    ----------
    stage_to
        Folder on this node, with environment variables; None: nothing is copied.

    Raises
    ------
    SiteError
        A variable of `stage_to` is not set here.
    DataError, SplitError
        The data is wrong or does not fit the split.
    RunError
        The node's disk has no room for it.
    """
    if stage_to is None:
        return {}
    files: dict[Path, set[Path]] = {}
    for run in runs:
        cell = run.cell()
        if roots := [folder.absolute() for folder in folders_of(cell)]:
            read = files_of(cell, run.folder.parent).values()
            for root in roots:
                below = (file for file in read if file.absolute().is_relative_to(root))
                files.setdefault(root, set()).update(below)
    if not files:
        return {}
    to = node_folder(stage_to)
    copies = {str(root): str(stage(sorted(those), root, to)) for root, those in files.items()}
    # A worker in a container would not see the copy otherwise; others do not look at it.
    seen = [*filter(None, [os.environ.get("APPTAINER_BIND")]), str(to)]
    return {STAGED: json.dumps(copies), "APPTAINER_BIND": ",".join(seen)}


def node_folder(text: str) -> Path:
    """The folder that a profile's `stage_to` means on this node.

    Raises
    ------
    SiteError
        A variable in it is unset or empty, or it is no absolute path.
    """
    names = re.findall(r"\$(?:(\w+)|\{([^}]*)\})", text)
    for name in (plain or braced for plain, braced in names):
        if not os.environ.get(name):
            raise SiteError(
                f"stage_to is {text}, but ${name} is not set on {os.uname().nodename}; name "
                "another folder on the node's own disk in the site profile, or set stage: false"
            )
    folder = Path(os.path.expandvars(text))
    if not folder.is_absolute():
        raise SiteError(f"stage_to must be an absolute path on the node, got {text} ({folder})")
    return folder


def stage(files: Iterable[Path], root: Path, to: Path) -> Path:
    """Copy the files below `root` that are not in the copy yet or have changed; return the copy.

    Several processes may do so at once: a file is there as a whole or not at all. Links are
    followed, and what has gone from `root` goes from the copy.

    Parameters
    ----------
    files
        Below `root`.
    to
        Folder on the node; the copy is a folder in it.

    Raises
    ------
    DataError
        A file cannot be read, is a broken link, or changes while it is copied.
    RunError
        `to` has no room for it, cannot be written to, or holds somebody else's copy.
    """
    copy = to / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    found = {file: _stat(file) for file in files}
    target_of = {file: copy / file.relative_to(root) for file in found}
    try:
        copy.mkdir(parents=True, exist_ok=True)
        _check_mine(copy)
        todo = [file for file, stat in found.items() if not _same(target_of[file], stat)]
        _check_room(to, root, sum(found[file].st_size for file in todo))
        for file in todo:
            _copy(file, found[file], target_of[file], to)
        for file in copy.rglob("*"):  # else a later attempt would find cases that are no more
            if not file.is_dir() and _gone(root / file.relative_to(copy)):
                file.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(
            f"{to}: the data cannot be copied there: {error.strerror or error}; name another "
            "stage_to in the site profile, or set stage: false"
        ) from error
    log.info("%s: %d of %d files copied to %s", root, len(todo), len(found), copy)
    return copy


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        what = f"a broken link to {file.readlink()}" if file.is_symlink() else error.strerror
        raise DataError(f"{file} cannot be copied: {what}; fetch it, or mend the data") from error


def _gone(file: Path) -> bool:
    """Whether a file is surely no more; `exists` says so too of a file server without an answer."""
    try:
        file.lstat()
    except FileNotFoundError:
        return True
    return False


def _same(copied: Path, original: os.stat_result) -> bool:
    try:
        there = copied.stat()
    except FileNotFoundError:
        return False
    return (there.st_size, there.st_mtime_ns) == (original.st_size, original.st_mtime_ns)


def _check_mine(copy: Path) -> None:
    """Refuse a folder of somebody else, who could change the data that is read from it."""
    if copy.lstat().st_uid != os.getuid():
        raise RunError(
            f"{copy} belongs to another user; name a folder of your own as stage_to in the site "
            "profile, such as /local/$USER"
        )


def _check_room(to: Path, root: Path, needed: int) -> None:
    free = shutil.disk_usage(to).free
    if needed > free:
        raise RunError(
            f"{to}: {decimal(needed)} needed for the copy of {root}, {decimal(free)} free; name "
            "another stage_to in the site profile, or set stage: false"
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what it comes down to


def _copy(file: Path, found: os.stat_result, target: Path, to: Path) -> None:
    try:
        source = file.open("rb")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}; mend its rights") from error
    # Beside the copy, not in it: a killed process must leave nothing that looks like an image.
    partial = to / f".partial-{uuid.uuid4().hex}"
    try:
        with source, partial.open("xb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
            stream.flush()
            os.fsync(stream.fileno())  # else a node's crash can leave zeros of the right size
        os.utime(partial, ns=(found.st_atime_ns, found.st_mtime_ns))
        if not _same(file, found) or partial.stat().st_size != found.st_size:
            raise DataError(f"{file} changed while it was copied; launch again when it is at rest")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
