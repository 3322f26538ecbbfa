"""Checkpoints of PyTorch trainings: the last whole one survives any kill.

As in `checkpoints`: the one before is kept, and used (and said) when the last cannot be read.
PyTorch reads a file with a flipped bit as if nothing had happened, so each ends with the SHA-256 of
what is before.
"""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch

from spine_tasks.checkpoints import last_whole, replace_last
from spine_tasks.files import sha256

SEAL = 64  # bytes at the end: the digest in hex, which readers of zip archives pass over
CHUNK = 1 << 20
SPOILT = (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError)


def save(folder: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder`; tensors, numbers, text, lists and dictionaries of it."""

    def write(file: Path) -> None:
        torch.save(state, file)
        with file.open("ab") as end:
            end.write(sha256(file).encode())

    replace_last(folder, ".pt", write)


def load(folder: Path) -> dict[str, Any] | None:
    """The state of the last whole checkpoint, on the CPU; None where none was ever written.

    Raises
    ------
    RunError
        There are checkpoints and none can be read: training is never silently begun anew.
    """

    def read(file: Path) -> dict[str, Any]:
        _check_seal(file)
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    return last_whole(folder, ".pt", read, SPOILT)


def _check_seal(file: Path) -> None:
    digest, left = hashlib.sha256(), file.stat().st_size - SEAL
    with file.open("rb") as stream:
        while left > 0 and (chunk := stream.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        if stream.read() != digest.hexdigest().encode():
            raise ValueError("its bytes are not those that were written")
