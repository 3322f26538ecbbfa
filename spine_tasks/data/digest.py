"""Digests of what a cell reads, so that nothing changes unseen between two attempts or two cells.

What was hashed once is remembered in the experiment's folder until the file's size or time of
change differs; losing that memory costs time only.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from spine_tasks.cell import Cell
from spine_tasks.configs import knobs_of
from spine_tasks.data.cases import files_of
from spine_tasks.data.staged import STAGED
from spine_tasks.errors import RunError, SplitError
from spine_tasks.files import read_json, sha256, write_json
from spine_tasks.run import Run
from spine_tasks.splits import PARTS, Split, load_split
from spine_tasks.weights import find

CACHE = "digests.json"  # in an experiment's folder: path -> size, mtime_ns, SHA-256
SETTLED_S = 2.0  # a file changed later than this may change again within its clock's tick

Remembered = dict[str, list[Any]]


def data_sha256(cell: Cell, results: Path) -> str | None:
    """Digest of the images and references of all three parts of a cell's split, wherever they lie.

    Equal digests: the same content for the same cases. None for a task that reads no data.

    Parameters
    ----------
    results
        The experiment's folder, where made-up data and the memory of digests are kept.

    Raises
    ------
    SplitError
        The split is wrong, does not fit the data, or was changed since the cell was made.
    DataError
        An image or a reference is missing.
    """
    if cell.config.reads == "nothing":
        return None
    _check_split(cell)
    files = files_of(cell, results)
    remembered = _remembered(results)
    known = remembered.copy()
    digest = hashlib.sha256()
    for (role, case_id), file in sorted(files.items()):
        digest.update(f"{role}\0{case_id}\0{_sha256(file, known)}\n".encode())
    # Copies on a node's own disk are gone after the job: not worth remembering.
    if known != remembered and STAGED not in os.environ:
        write_json(results / CACHE, known)
    return digest.hexdigest()


def weights_sha256(cell: Cell) -> str | None:
    """SHA-256 of the file of weights that a cell starts from; None if its knobs name none.

    Raises
    ------
    WeightsError
        The file is missing or altered.
    """
    start = cell.config.start
    return None if start is None else sha256(find(start))


def check_same(run: Run, data_sha256: str | None) -> None:
    """Refuse to continue a run on other data than its checkpoint was trained on.

    Parameters
    ----------
    run
        Its environment.json is that of the attempt before.
    data_sha256
        Of the data as it is now.

    Raises
    ------
    RunError
        The data changed since; the message names the run.
    """
    file = run.folder / "environment.json"
    if run.saved_ns() is None or not file.exists():
        return
    before = read_json(file).get("data_sha256")
    if before is not None and before != data_sha256:
        now = "none" if data_sha256 is None else data_sha256[:8]
        raise RunError(
            f"{run.folder.name}: the data changed since its last attempt (digest {before[:8]} "
            f"then, {now} now), so its checkpoint cannot be continued; put the data back, or "
            f"delete {run.checkpoint} to train it anew on the data as it is; then launch again"
        )


def selection(cell: Cell, split: Split) -> tuple[object, ...]:
    """What chooses the files that a cell reads: cells with equal ones read the same files.

    Parameters
    ----------
    split
        The cell's split.
    """
    knobs = knobs_of(cell.config)
    subjects = frozenset(name for part in PARTS for name in split.part(cell.fold, part))
    # Of data sets that are not trained on a cell reads those in its test part only.
    tested = frozenset(split.part(cell.fold, "test")) if knobs.get("train_on") else None
    return subjects, tested, *((name, knobs[name]) for name in cell.config.data_knobs)


def _check_split(cell: Cell) -> None:
    split = load_split(cell.split)
    if split.digest != cell.split_sha256:
        raise SplitError(
            f"{split.file}: changed since cell {cell.id} was launched (SHA-256 {split.digest[:8]} "
            f"now, {cell.split_sha256[:8]} then); put it back, or launch the grid anew under "
            "another --name"
        )


def _sha256(file: Path, known: Remembered) -> str:
    """The SHA-256 of a file, from memory if the file is as it was then."""
    status = file.stat()
    size, changed_ns = status.st_size, status.st_mtime_ns
    if known.get(str(file), [])[:2] == [size, changed_ns]:
        return str(known[str(file)][2])
    digest = sha256(file)
    if time.time() - changed_ns / 1e9 > SETTLED_S:
        known[str(file)] = [size, changed_ns, digest]
    return digest


def _remembered(results: Path) -> Remembered:
    try:
        found = read_json(results / CACHE)
    except (FileNotFoundError, RunError):  # spoilt: as good as lost
        found = {}
    if not isinstance(found, dict):
        return {}
    return {path: one for path, one in found.items() if isinstance(one, list) and len(one) == 3}
