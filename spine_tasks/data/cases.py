"""The cases of a cell: which images and masks each part of its split has."""

from collections.abc import Sequence
from pathlib import Path

from spine_tasks.cell import Cell
from spine_tasks.data.bids import Case, find_cases
from spine_tasks.data.staged import staged
from spine_tasks.grid import PHANTOM
from spine_tasks.splits import PARTS, load_split


def cases_of(cell: Cell, part: str, results: Path) -> list[Case]:
    """The cases of one part of a cell's split.

    Parameters
    ----------
    cell
        With the knobs `data`, `contrast`, `label_suffix` and `cord_suffix`.
    part
        `train`, `val` or `test`.
    results
        The experiment's folder, where made-up data is kept.

    Raises
    ------
    SplitError, DataError
        The split is wrong or does not fit the data.
    """
    split = load_split(cell.split)
    subjects = split.part(cell.fold, part)
    if cell.config.data == PHANTOM:
        everyone = [name for each in PARTS for name in split.part(cell.fold, each)]
        folder = _phantom(results, cell.split, everyone)
    else:
        folder = staged(Path(cell.config.data))
    return find_cases(
        folder,
        subjects,
        contrast=cell.config.contrast,
        label_suffix=cell.config.label_suffix,
        cord_suffix=cell.config.cord_suffix if cell.config.crop == "cord" else None,
    )


def target(case: Case) -> tuple[str, Path]:
    """The label to learn and its mask."""
    return next(iter(case.masks.items()))


def _phantom(results: Path, split: str, subjects: Sequence[str]) -> Path:
    from spine_tasks.data import phantom  # scipy, only where images are really made

    return phantom.ensure(results / f"{PHANTOM}-{Path(split).stem}", subjects)
