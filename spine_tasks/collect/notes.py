"""What is noted of subjects beside their images: in the split's file and in participants.tsv."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from spine_tasks.cell import Cell
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.grid import PHANTOM
from spine_tasks.nnunet.sources import SOURCES_FILE, load_sources
from spine_tasks.splits import NAMELESS, Row, bare, load_split, read_table

PARTICIPANTS, ID = "participants.tsv", "participant_id"  # of BIDS
NO_NOTE = ("subject", "person", "part", "fold", ID)  # columns that say who, or where in a split

Table = tuple[Path, str, list[Row]]  # the file, its column of subjects, and its rows


def notes(
    cells: Sequence[Cell], results: Path, column: str, others: Sequence[str] = ()
) -> dict[str, str]:
    """What a column says of the subjects of some cells.

    Parameters
    ----------
    results
        The experiment's folder, where made-up data is kept.
    others
        Names that are no notes but may be asked for as well, for the message.

    Returns
    -------
    dict of str to str
        Subject as splits name it, without `sub-` -> value; one without a value is missing.

    Raises
    ------
    ConfigError
        No table has the column; the message lists those there are.
    DataError
        Two rows say different things of a subject, or participants.tsv does not name subjects.
    SplitError
        A table cannot be read.
    """
    found: dict[str, str] = {}
    columns: dict[str, str] = dict.fromkeys(others, "of the cases")
    for cell in {(cell.split, cell.config.data): cell for cell in cells}.values():
        for file, subject, rows in _tables(cell, results):
            for name in (one for one in rows[0] if one not in NO_NOTE):
                columns.setdefault(name, str(file))
            for row in rows if column in columns and column in rows[0] else ():
                _note(found, file, row[subject], column, row[column])
    if column not in columns:
        near = difflib.get_close_matches(column, columns, n=1)
        there = "; ".join(f"{name} ({where})" for name, where in columns.items())
        raise ConfigError(
            f"no column {column!r}{f', did you mean {near[0]!r}?' if near else ';'} there are: "
            f"{there or f'none: give the data a {PARTICIPANTS}'}"
        )
    return found


def _note(found: dict[str, str], file: Path, subject: str, column: str, value: str) -> None:
    if value.lower() in NAMELESS:
        return
    before = found.setdefault(bare(subject), value)
    if before != value:
        raise DataError(
            f"{file}: {column} of {subject} is {value!r}, but {before!r} in another row or table; "
            "correct one of them, or rename the column"
        )


def _tables(cell: Cell, results: Path) -> Iterator[Table]:
    """The tables that may say something of a cell's subjects."""
    split = load_split(cell.split)
    yield split.file, "subject", [row for rows in split.rows.values() for row in rows]
    for prefix, folder in _folders(cell, results):
        file = folder / PARTICIPANTS
        if file.is_file():
            rows = read_table(file, "\t")
            if ID not in rows[0]:
                raise DataError(
                    f"{file}: no column {ID}, which BIDS asks for; it has {', '.join(rows[0])}; "
                    "rename the one that names the subjects"
                )
            yield file, ID, [row | {ID: prefix + row[ID]} for row in rows]


def _folders(cell: Cell, results: Path) -> Iterator[tuple[str, Path]]:
    """Folders of a cell's data, and what stands before the names of their subjects in a split."""
    phantom = results / f"{PHANTOM}-{Path(cell.split).stem}"
    if cell.config.reads == "cords":
        made_up = cell.config.data == PHANTOM
        file = phantom / SOURCES_FILE if made_up else Path(cell.config.data)
        for name, source in load_sources(file).items():
            yield f"{name}_", source.path
        return
    for knob in ("data", "test_data"):
        if (folder := getattr(cell.config, knob, None)) is not None:
            yield "", phantom if folder == PHANTOM else Path(folder)
