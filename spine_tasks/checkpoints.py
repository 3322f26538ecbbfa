"""Checkpoints of named arrays and a state: the last whole one survives any kill.

A checkpoint is one uncompressed `.npz`; its zip checksums tell a whole file from a spoilt one. The
one before is kept, and used (and said) when the last cannot be read.
"""

import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spine_tasks.errors import RunError
from spine_tasks.files import replacing

log = logging.getLogger(__name__)

Content = TypeVar("Content")
Arrays = dict[str, NDArray[Any]]
STATE = "state"  # the name of the array that holds the state as JSON


def save(folder: Path, arrays: Arrays, state: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder`.

    Parameters
    ----------
    folder
        Made if it is not there.
    arrays
        Name to array of any shape; the name `state` is taken.
    state
        Anything JSON can hold; floats keep every bit.
    """

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez(stream, **(arrays | {STATE: _as_array(state)}))  # type: ignore[arg-type]

    replace_last(folder, ".npz", write)


def load(folder: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """The arrays and the state of the last whole checkpoint; None where none was ever written.

    Raises
    ------
    RunError
        There are checkpoints and none can be read: training is never silently begun anew.
    """

    def read(file: Path) -> Arrays:
        with np.load(file, allow_pickle=False) as saved:
            return {name: saved[name] for name in saved.files}

    arrays = last_whole(folder, ".npz", read, (OSError, ValueError, EOFError, zipfile.BadZipFile))
    return None if arrays is None else (arrays, json.loads(bytes(arrays.pop(STATE)).decode()))


def replace_last(folder: Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Replace the last checkpoint by what `write` puts into a file; the one before is kept."""
    last, previous = folder / f"last{suffix}", folder / f"previous{suffix}"
    with replacing(last) as partial:
        write(partial)
        if last.exists():
            last.replace(previous)


def last_whole(
    folder: Path,
    suffix: str,
    read: Callable[[Path], Content],
    spoilt: tuple[type[Exception], ...],
) -> Content | None:
    """What `read` returns of the last checkpoint that it can read.

    Parameters
    ----------
    spoilt
        Errors of `read` that say that the file is not whole.

    Raises
    ------
    RunError
        There are checkpoints and none can be read.
    """
    files = [folder / f"last{suffix}", folder / f"previous{suffix}"]
    files = [file for file in files if file.exists()]
    problems = []
    for file in files:
        try:
            content = read(file)
        except spoilt as error:
            log.warning("%s cannot be read (%s); trying the checkpoint before it", file, error)
            problems.append(f"{file}: {(str(error) or type(error).__name__).splitlines()[0]}")
            continue
        if problems:  # else the next save would put the spoilt file in the place of this one
            files[0].replace(folder / f"spoilt{suffix}")
        return content
    if problems:
        raise RunError(
            f"no checkpoint can be read: {'; '.join(problems)}; "
            f"delete the folder {folder} to train this cell from its start"
        )
    return None


def _as_array(state: dict[str, Any]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(state).encode(), np.uint8)
