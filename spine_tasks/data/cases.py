"""The cases of a cell: which images and references each part of its split has."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spine_tasks.cell import Cell
from spine_tasks.configs import suggestion
from spine_tasks.data.bids import Case, find_cases
from spine_tasks.data.grade_cases import GradeCase, GradeData
from spine_tasks.data.grades import read_grades
from spine_tasks.data.made_up import made_up
from spine_tasks.data.staged import staged
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.grid import PHANTOM
from spine_tasks.nnunet.pairs import Pair, find_pairs
from spine_tasks.nnunet.parts import parts_of
from spine_tasks.nnunet.sources import SOURCES_FILE, Source, load_sources
from spine_tasks.splits import PARTS, Split, load_split

if TYPE_CHECKING:
    from spine_tasks.data.coco import BoxCase, CocoData


def cases_of(cell: Cell, part: str, results: Path) -> list[Case]:
    """The volumes of one part of a cell's split, with their masks.

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
    subjects = load_split(cell.split).part(cell.fold, part)
    return find_cases(
        _folder(cell, results),
        subjects,
        contrast=cell.config.contrast,
        label_suffix=cell.config.label_suffix,
        cord_suffix=cell.config.cord_suffix if cell.config.crop == "cord" else None,
    )


def box_cases_of(cell: Cell, part: str, results: Path) -> "tuple[list[BoxCase], CocoData]":
    """The images of one part of a cell's split with their boxes, and the data they are of.

    Parameters
    ----------
    cell
        With the knobs `data`, `test_data` and `categories`.
    part
        `train`, `val` or `test`; all images of `test_data` are the test part, where it is given.
    results
        The experiment's folder, where made-up data is kept.

    Raises
    ------
    SplitError, DataError
        The split is wrong or does not fit the data, or the two data sets do not fit each other.
    """
    from spine_tasks.data.coco import read_coco  # NumPy, for which planning need not wait

    data = read_coco(_folder(cell, results), cell.config.categories)
    if part == "test" and cell.config.test_data is not None:
        other = read_coco(staged(Path(cell.config.test_data)), data.categories)
        return list(other.cases), other
    return _of_part(cell, part, data), data


def grade_cases_of(cell: Cell, part: str, results: Path) -> tuple[list[GradeCase], GradeData]:
    """The places of one part of a cell's split with their grades, and the data they are of.

    Parameters
    ----------
    cell
        With the knobs `data`, `test_data` and `conditions`.
    part
        `train`, `val` or `test`; all places of `test_data` are the test part, where it is given.
    results
        The experiment's folder, where made-up data is kept.

    Raises
    ------
    SplitError, DataError
        The split is wrong or does not fit the data, or the two data sets do not fit each other.
    """
    data = read_grades(_folder(cell, results), cell.config.conditions)
    if part == "test" and cell.config.test_data is not None:
        other = read_grades(staged(Path(cell.config.test_data)), tuple(data.conditions))
        if (other.conditions, other.levels) != (data.conditions, data.levels):
            raise DataError(
                f"{other.folder} has {other.conditions} at {other.levels}, but {data.folder} has "
                f"{data.conditions} at {data.levels}; give them the same grades and levels"
            )
        return list(other.cases), other
    return _of_part(cell, part, data), data


def cord_cases_of(cell: Cell, part: str, results: Path) -> list[Pair]:
    """The images of one part of a cell's split with their cord masks, sorted by id.

    `cord_parts` has all parts at once, and says which errors there are.
    """
    return cord_parts(cell, results)[part]


def cord_parts(cell: Cell, results: Path) -> dict[str, list[Pair]]:
    """The images of each part of a cell's split with their cord masks, sorted by id.

    Parameters
    ----------
    cell
        With the knobs `data` and `train_on`.
    results
        The experiment's folder, where made-up data is kept.

    Returns
    -------
    dict of str to list of Pair
        `train` and `val`: of the data sets to train on; `test`: of all.

    Raises
    ------
    ConfigError
        The file of data sets is wrong, or lacks one to train on.
    SplitError, DataError
        The split is wrong or does not fit the data.
    """
    sources = _sources(cell, results)
    for name in cell.config.train_on or ():
        if name not in sources:
            raise ConfigError(f"train_on: no data set {name!r}{suggestion(name, sources)}")
    pairs = [pair for source in sources.values() for pair in find_pairs(source)[0]]
    split = load_split(cell.split)
    _check_everyone_is_there(cell, split, {pair.subject for pair in pairs})
    parts = parts_of(pairs, split, cell.fold)
    if cell.config.train_on is not None:
        for part in ("train", "val"):
            parts[part] = [p for p in parts[part] if p.source.name in cell.config.train_on]
    return parts


def _check_everyone_is_there(cell: Cell, split: Split, there: set[str]) -> None:
    for part in PARTS:
        if absent := sorted(set(split.part(cell.fold, part)) - there):
            raise DataError(
                f"{cell.config.data}: no image with a mask of {len(absent)} subjects that "
                f"{cell.split} has in {part}, such as {absent[0]}; correct the split, or fetch "
                "the data"
            )


def unpaired_images(cell: Cell, results: Path) -> list[Path]:
    """Images of a cell's data sets that have no cord mask, and so no part in anything.

    Raises
    ------
    ConfigError, DataError
        As `cord_cases_of`.
    """
    sources = _sources(cell, results).values()
    return [image for source in sources for image in find_pairs(source)[1]]


def _sources(cell: Cell, results: Path) -> dict[str, Source]:
    """The data sets that a cell's file describes, where they are on this node."""
    found = load_sources(_sources_file(cell, results))
    return {name: replace(one, path=staged(one.path)) for name, one in found.items()}


def _sources_file(cell: Cell, results: Path) -> Path:
    made_up = cell.config.data == PHANTOM
    return _folder(cell, results) / SOURCES_FILE if made_up else Path(cell.config.data)


def _of_part(cell: Cell, part: str, data: Any) -> list[Any]:
    """The cases of a part's subjects, of each of whom there is one."""
    subjects = load_split(cell.split).part(cell.fold, part)
    cases: list[Any] = data.of_subjects(subjects)
    if absent := sorted(set(subjects) - {case.subject for case in cases}):
        raise DataError(
            f"{data.folder}: nothing of {len(absent)} of the {len(subjects)} subjects that "
            f"{cell.split} has in {part}, such as {absent[0]}; correct the split, or fetch the data"
        )
    return cases


def files_of(cell: Cell, results: Path) -> dict[tuple[str, str], Path]:
    """Every file that a cell reads, by role and case; empty for a task that reads none.

    Raises
    ------
    SplitError, DataError
        The split is wrong or does not fit the data, or a file is missing.
    """
    return READS[cell.config.reads](cell, results)


def folders_of(cell: Cell) -> list[Path]:
    """The user's folders of data that a cell reads; made-up data is none."""
    knobs = (getattr(cell.config, name, None) for name in ("data", "test_data"))
    named = [Path(folder) for folder in knobs if folder not in (None, PHANTOM)]
    if cell.config.reads == "cords":
        return [source.path for file in named for source in load_sources(file).values()]
    return named


def target(case: Case) -> tuple[str, Path]:
    """The label to learn and its mask."""
    return next(iter(case.masks.items()))


def _mask_files(cell: Cell, results: Path) -> dict[tuple[str, str], Path]:
    return {
        (role, case.id): file
        for part in PARTS
        for case in cases_of(cell, part, results)
        for role, file in {"image": case.image, **case.masks}.items()
    }


def _no_files(_cell: Cell, _results: Path) -> dict[tuple[str, str], Path]:
    return {}


def _box_files(cell: Cell, results: Path) -> dict[tuple[str, str], Path]:
    found: dict[tuple[str, str], Path] = {}
    for part in PARTS:
        cases, data = box_cases_of(cell, part, results)
        other = "test_" if data.folder != _folder(cell, results) else ""
        found |= {(f"{other}image", case.id): case.image for case in cases}
        found |= {(f"{other}annotations", file.name): file for file in data.annotations}
    return found


def _grade_files(cell: Cell, results: Path) -> dict[tuple[str, str], Path]:
    found: dict[tuple[str, str], Path] = {}
    for part in PARTS:
        cases, data = grade_cases_of(cell, part, results)
        other = "test_" if data.folder != _folder(cell, results) else ""
        # All slices of a series: which are neighbours of a place follows from their positions.
        found |= {(f"{other}image", str(file)): file for case in cases for file in case.series}
        found |= {(f"{other}table", file.name): file for file in data.tables}
    return found


def _cord_files(cell: Cell, results: Path) -> dict[tuple[str, str], Path]:
    # The file of data sets has a say too: a threshold in it makes other masks.
    found = {("sources", ""): _sources_file(cell, results)}
    for pairs in cord_parts(cell, results).values():
        for pair in pairs:
            found |= {("image", pair.id): pair.image, ("cord", pair.id): pair.label}
    return found


# `reads` of a config -> the files of one of its cells
READS = {
    "bids": _mask_files,
    "coco": _box_files,
    "grades": _grade_files,
    "cords": _cord_files,
    "nothing": _no_files,
}


def _folder(cell: Cell, results: Path) -> Path:
    """The folder of a cell's data; made-up data is made there first."""
    if cell.config.data != PHANTOM:
        return staged(Path(cell.config.data))
    split = load_split(cell.split)
    everyone = [name for part in PARTS for name in split.part(cell.fold, part)]
    return made_up(cell.config.reads, results / f"{PHANTOM}-{Path(cell.split).stem}", everyone)
