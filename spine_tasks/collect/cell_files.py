"""What one complete cell left in its folder: each file is opened once, whatever is made of it."""

import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spine_tasks.cell import Resources
from spine_tasks.data.digest import SETTLED_S
from spine_tasks.errors import ConfigError, RunError
from spine_tasks.files import parse_json, parse_lines
from spine_tasks.score import why_spoilt

SCORES = "scores.csv"
FILES = ("done.json", SCORES, "scores.json", "history.jsonl", "attempts.jsonl", "cell.json")

Stamp = list[list[int] | None]  # of each of FILES size and times in ns; None: there is none


@dataclass(frozen=True)
class CellFiles:
    """The files of a complete cell as they were when they were read."""

    folder: Path
    stamp: Stamp | None  # None: one changed so lately that it may change again with the same times
    done: dict[str, Any]  # done.json without the digests of the predictions
    scores: bytes  # scores.csv
    spoilt: str | None  # why the scores cannot be used
    history: bytes  # history.jsonl
    attempts: list[dict[str, Any]]
    resources: Resources | None  # as the last launch asked for them; None: cell.json does not say


def stamp_of(folder: str) -> Stamp:
    """What tells whether a cell's files changed since."""
    return [_times(f"{folder}/{name}") for name in FILES]


def read_cell(folder: Path) -> CellFiles:
    """Read a complete cell's files.

    Raises
    ------
    RunError
        The cell is not complete any more, or done.json is not JSON.
    """
    contents, stamp = zip(*(_read(f"{folder}/{name}") for name in FILES), strict=True)
    done_json, scores, scores_json, history, attempts, cell_json = contents
    if done_json is None:
        raise RunError(
            f"{folder}: done.json is gone: the cell was deleted or is computed anew at this "
            "moment; run the same command again"
        )
    done = parse_json(done_json, folder / "done.json")
    if not isinstance(done, dict):
        raise RunError(f"{folder / 'done.json'}: not `name: value` pairs; delete it, launch again")
    return CellFiles(
        folder=folder,
        stamp=list(stamp) if _settled(list(stamp)) else None,
        scores=scores or b"",
        spoilt=why_spoilt(scores, scores_json, done.pop("predictions_sha256", {})),
        done=done,
        history=history or b"",
        attempts=parse_lines(attempts or b"", folder / "attempts.jsonl"),
        resources=_resources(cell_json, folder),
    )


def _times(file: str) -> list[int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116 - a Path takes as long again, of 60,000 files
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read(file: str) -> tuple[bytes | None, list[int] | None]:
    """A file's bytes, and size and times of just before."""
    try:
        with open(file, "rb", buffering=0) as stream:  # noqa: PTH123
            status = os.fstat(stream.fileno())
            content = stream.read()
    except FileNotFoundError:
        return None, None
    return content, [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _settled(stamp: Stamp) -> bool:
    """Whether no file changed just now, so that a further change would show in its times."""
    latest_ns = max(max(times[1:]) for times in stamp if times is not None)
    return time.time() - latest_ns / 1e9 > SETTLED_S


def _resources(cell_json: bytes | None, folder: Path) -> Resources | None:
    if cell_json is None:
        return None
    try:
        return _made(tuple(parse_json(cell_json, folder / "cell.json")["resources"].items()))
    except (AttributeError, ConfigError, KeyError, RunError, TypeError):  # of another version
        return None


@cache
def _made(asked: tuple[tuple[str, Any], ...]) -> Resources:
    return Resources(**dict(asked))
