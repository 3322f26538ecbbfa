"""Checkpoints of named arrays and a state: the last whole one survives any kill.

A checkpoint is one uncompressed `.npz`; its zip checksums tell a whole file from a spoilt one. The
one before is kept, and used (and said) when the last cannot be read.
"""

import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spine_tasks.errors import RunError
from spine_tasks.files import replacing

log = logging.getLogger(__name__)

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
    last, previous = folder / "last.npz", folder / "previous.npz"
    with replacing(last) as partial:
        with partial.open("wb") as stream:
            np.savez(stream, **(arrays | {STATE: _as_array(state)}))  # type: ignore[arg-type]
        if last.exists():
            last.replace(previous)


def load(folder: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """The arrays and the state of the last whole checkpoint; None where none was ever written.

    Raises
    ------
    RunError
        There are checkpoints and none can be read: training is never silently begun anew.
    """
    files = [file for file in (folder / "last.npz", folder / "previous.npz") if file.exists()]
    problems = []
    for file in files:
        try:
            with np.load(file, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read (%s); trying the checkpoint before it", file, error)
            problems.append(f"{file}: {error}")
            continue
        if problems:  # else the next save would put the spoilt file in the place of this one
            files[0].replace(folder / "spoilt.npz")
        return arrays, json.loads(bytes(arrays.pop(STATE)).decode())
    if problems:
        raise RunError(
            f"no checkpoint can be read: {'; '.join(problems)}; "
            f"delete the folder {folder} to train this cell from its start"
        )
    return None


def _as_array(state: dict[str, Any]) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(state).encode(), np.uint8)
