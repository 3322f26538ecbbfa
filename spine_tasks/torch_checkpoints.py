"""Checkpoints of PyTorch trainings: the last whole one survives any kill.

As in `checkpoints`: the one before is kept, and used (and said) when the last cannot be read.
PyTorch reads a file with a flipped bit as if nothing had happened, so each ends with the SHA-256 of
what is before.
"""

import hashlib
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from spine_tasks.errors import RunError
from spine_tasks.files import replacing, sha256

log = logging.getLogger(__name__)

SEAL = 64  # bytes at the end: the digest in hex, which readers of zip archives pass over
CHUNK = 1 << 20


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder`; tensors, numbers, text, lists and dictionaries of it."""
    last, previous = folder / "last.pt", folder / "previous.pt"
    with replacing(last) as partial:
        torch.save(state, partial)
        with partial.open("ab") as end:
            end.write(sha256(partial).encode())
        if last.exists():
            last.replace(previous)


def load(folder: Path) -> dict[str, Any] | None:
    """The state of the last whole checkpoint, on the CPU; None where none was ever written.

    Raises
    ------
    RunError
        There are checkpoints and none can be read: training is never silently begun anew.
    """
    files = [file for file in (folder / "last.pt", folder / "previous.pt") if file.exists()]
    problems = []
    for file in files:
        try:
            _check_seal(file)
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            log.warning("%s cannot be read (%s); trying the checkpoint before it", file, error)
            problems.append(f"{file}: {str(error).splitlines()[0]}")
            continue
        if problems:  # else the next save would put the spoilt file in the place of this one
            files[0].replace(folder / "spoilt.pt")
        return state
    if problems:
        raise RunError(
            f"no checkpoint can be read: {'; '.join(problems)}; "
            f"delete the folder {folder} to train this cell from its start"
        )
    return None


def _check_seal(file: Path) -> None:
    digest, left = hashlib.sha256(), file.stat().st_size - SEAL
    with file.open("rb") as stream:
        while left > 0 and (chunk := stream.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        if stream.read() != digest.hexdigest().encode():
            raise ValueError("its bytes are not those that were written")
