"""Splits: which subject is in which part of each fold, with no person in two parts of a fold.

A split is a CSV file with the columns `subject, person, part`, where needed `fold`, and any strata.
"""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spine_tasks.errors import SplitError
from spine_tasks.files import sha256

DATA_SPLITS = Path(__file__).parents[1] / "data_splits"
PARTS = ("train", "val", "test")
COLUMNS = ("subject", "person", "part")
NAMELESS = {"", "n/a", "na", "nan"}  # how tables write that a value is missing

Row = dict[str, str]  # column -> value


@dataclass(frozen=True)
class Split:
    """A split that was read and checked: no person is in two parts of a fold."""

    file: Path
    digest: str  # SHA-256 of the file's bytes, in hex
    rows: dict[int, list[Row]]  # fold -> its rows, in the order of the file

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds, ascending; (0,) where the file has no fold column."""
        return tuple(sorted(self.rows))

    @property
    def person_of(self) -> dict[str, str]:
        """Subject -> person, over all folds."""
        return {row["subject"]: row["person"] for rows in self.rows.values() for row in rows}

    def part(self, fold: int, part: str) -> tuple[str, ...]:
        """The subjects of one part of a fold, in the order of the file; never empty.

        Raises
        ------
        SplitError
            The split has no such fold, or `part` is not train, val or test.
        """
        if part not in PARTS:
            raise SplitError(f"{self.file}: no part {part!r}; parts are {', '.join(PARTS)}")
        if fold not in self.rows:
            raise SplitError(f"{self.file}: no fold {fold}; it has {list(self.folds)}")
        return tuple(row["subject"] for row in self.rows[fold] if row["part"] == part)


def load_split(name_or_path: str | Path) -> Split:
    """Read and check a split, by name (a file in `data_splits`, without .csv) or by path.

    Raises
    ------
    SplitError
        There is no such split; a column, name or value is missing; a fold or part is unknown; a
        subject belongs to two persons; in a fold, a subject occurs twice, a person is in two
        parts, or a part is empty.
    """
    file = Path(name_or_path)
    if len(file.parts) == 1 and file.suffix != ".csv":
        file = DATA_SPLITS / f"{file}.csv"
    if not file.is_file():
        known = sorted(found.stem for found in DATA_SPLITS.glob("*.csv"))
        raise SplitError(f"{file}: no such split; data_splits has {known}; or give a path to a CSV")
    table = read_table(file, ",")
    _check_columns(str(file), table, COLUMNS)
    _check_persons(file, table)
    rows: dict[int, list[Row]] = {}
    for row in table:
        rows.setdefault(_fold(file, row), []).append(row)
    for fold in sorted(rows):
        _check_fold(f"{file} fold {fold}", rows[fold])
    return Split(file, sha256(file), rows)


def read_table(file: Path, delimiter: str) -> list[Row]:
    """The rows of a table in text, without blanks around names and values.

    Raises
    ------
    SplitError
        The file is not text in UTF-8, has no rows, two columns of one name, or ragged rows.
    """
    try:
        # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name.
        with file.open(newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in csv.reader(stream, delimiter=delimiter, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SplitError(f"{file}: not a text table ({error}); save it as UTF-8 text") from error
    if len(lines) < 2:
        raise SplitError(f"{file}: no rows; it needs a line of column names and one a subject")
    columns = [name.strip() for name in lines[0]]
    if len(set(columns)) < len(columns):
        raise SplitError(f"{file}: two columns have one name: {columns}; rename one")
    if ragged := [line for line in lines if len(line) != len(columns)]:
        raise SplitError(f"{file}: {ragged[0]} has not the {len(columns)} values of {columns}")
    return [dict(zip(columns, map(str.strip, line), strict=True)) for line in lines[1:]]


def _check_columns(where: str, rows: list[Row], needed: Iterable[str]) -> None:
    for row in rows:
        if missing := [column for column in needed if column not in row]:
            raise SplitError(f"{where}: no column {', '.join(missing)}; it has {', '.join(row)}")


def bare(name: str) -> str:
    """A subject or person without the `sub-` prefix, which data sets write or leave out."""
    return name.removeprefix("sub-")


def _fold(file: Path, row: Row) -> int:
    text = row.get("fold", "0")
    if not (text.isascii() and text.isdigit()):
        raise SplitError(f"{file}: a fold is a whole number from 0, got {text!r} in {row}")
    return int(text)


def _check_persons(file: Path, rows: list[Row]) -> None:
    """Each subject is named, and is one person in all folds."""
    persons: dict[str, str] = {}
    for row in rows:
        if nameless := [column for column in COLUMNS[:2] if row[column].lower() in NAMELESS]:
            raise SplitError(f"{file}: no {nameless[0]} in {row}; every row needs one")
        person = persons.setdefault(bare(row["subject"]), row["person"])
        if bare(person) != bare(row["person"]):
            raise SplitError(
                f"{file}: subject {row['subject']} is person {person} and person {row['person']}; "
                "a subject belongs to one person"
            )


def _check_fold(where: str, rows: list[Row]) -> None:
    parts = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    if unknown := sorted({row["part"] for row in rows} - set(PARTS)):
        raise SplitError(f"{where}: unknown part {unknown}; parts are {', '.join(PARTS)}")
    times = Counter(bare(row["subject"]) for row in rows)
    if twice := sorted(subject for subject, number in times.items() if number > 1):
        raise SplitError(f"{where}: subjects more than once: {', '.join(twice)}; keep one row each")
    parts_of: dict[str, list[str]] = {}
    for part in PARTS:
        for person in {bare(row["person"]) for row in parts[part]}:
            parts_of.setdefault(person, []).append(part)
    if crossing := sorted(person for person, found in parts_of.items() if len(found) > 1):
        named = ", ".join(f"{person} ({' and '.join(parts_of[person])})" for person in crossing)
        raise SplitError(
            f"{where}: persons in more than one part: {named}; "
            "all subjects of a person belong in one part"
        )
    if empty := [part for part in PARTS if not parts[part]]:
        raise SplitError(f"{where}: no subject in {' and '.join(empty)}; every part needs one")
