"""Grades of places in pictures from one plain table, `grades.csv`.

A row is a place and a condition: `image, subject, level, condition, grade, x, y`; where wanted also
`width, height` (px of a box around x, y), `study` and `side`. Grades are whole numbers in their
order, or names whose order `grades.json` gives: `{"condition": ["mild", "severe"]}`.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from spine_tasks.configs import suggestion
from spine_tasks.data.grade_cases import GradeCase, GradeData
from spine_tasks.data.grade_notes import Notes, Row, read_columns
from spine_tasks.errors import DataError

TABLE, ORDERS = "grades.csv", "grades.json"
COLUMNS = ("image", "subject", "level", "condition", "grade", "x", "y")
SIDES = ("", "left", "right")
PLACE = ["image", "study", "level", "side", "x", "y", "width", "height"]


def read_grade_table(folder: Path) -> GradeData:
    """Read `grades.csv` of a folder; pictures are not opened.

    Rows that differ by condition alone are one place. A row without a grade is a place to be
    graded; they are counted in the log. Levels are in the order of their first rows, numbers in
    their own.

    Raises
    ------
    DataError
        The table is missing, or lacks a column; a value is wrong; an image is not there; a place
        has two grades of one condition.
    """
    file = folder / TABLE
    rows = read_columns(file, COLUMNS)
    conditions = _conditions(folder, rows.values())
    places: dict[tuple[str, ...], dict[int, Row]] = {}
    for line, row in rows.items():
        place = tuple(row.get(name, "") for name in PLACE)
        places.setdefault(place, {})[line] = row
    cases = [_case(folder, file, of_place, conditions) for of_place in places.values()]
    notes = Notes(folder)
    for case in cases:
        for condition in (name for name, grade in case.grades.items() if grade is None):
            notes.add("places without a grade, which are only predicted", f"{case.id} {condition}")
    notes.tell()
    _check_ids(file, cases)
    tables = (file, folder / ORDERS) if (folder / ORDERS).exists() else (file,)
    levels = _in_order(list(dict.fromkeys(row["level"] for row in rows.values())))
    ordered = tuple(sorted(cases, key=lambda case: case.id))
    return GradeData(folder, ordered, conditions, levels, tables)


def _case(
    folder: Path, file: Path, rows: Mapping[int, Row], conditions: Mapping[str, Sequence[str]]
) -> GradeCase:
    """A place from its rows, by their lines: one a condition."""
    line, place = next(iter(rows.items()))
    where, side = f"{file}, line {line}", place.get("side", "")
    if side not in SIDES:
        raise DataError(f"{where}: side must be left, right or empty, got {side!r}")
    image = folder / place["image"]
    if not image.is_file():
        raise DataError(f"{where}: {image} is not there")
    subjects = {row["subject"] for row in rows.values()}
    if len(subjects) > 1:
        raise DataError(f"{where}: one place of two subjects, {' and '.join(sorted(subjects))}")
    x, y, width, height = (_number(place, where, name) for name in ("x", "y", "width", "height"))
    if x is None or y is None or (width is None) != (height is None):
        raise DataError(f"{where}: needs x and y, and width and height both or neither")
    grades: dict[str, int | None] = {}
    for at, row in rows.items():
        name, grade = row["condition"], row["grade"]
        if name in grades:
            raise DataError(f"{file}, line {at}: two grades of {name} at one place; keep one")
        grades[name] = conditions[name].index(grade) if grade else None
    study = place.get("study") or Path(place["image"]).stem
    return GradeCase(
        id="_".join(part for part in (study, side, place["level"]) if part),
        subject=subjects.pop(),
        study=study,
        level=place["level"],
        series=(image,),
        index=0,
        x=x,
        y=y,
        width=width,
        height=height,
        side=side,
        grades=grades,
    )


def _conditions(folder: Path, rows: Iterable[Row]) -> dict[str, tuple[str, ...]]:
    """Condition -> its grades in order."""
    orders: dict[str, list[str]] = {}
    if (folder / ORDERS).exists():
        try:
            orders = json.loads((folder / ORDERS).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{folder / ORDERS}: not JSON ({error})") from error
    given: dict[str, set[str]] = {}
    for row in rows:
        given.setdefault(row["condition"], set()).add(row["grade"])
    return {
        name: _order(f"{folder / TABLE}: {name}", sorted(grades - {""}), orders.get(name))
        for name, grades in sorted(given.items())
    }


def _order(where: str, given: Sequence[str], order: Sequence[str] | None) -> tuple[str, ...]:
    """The grades of a condition, the mildest first."""
    if order is not None:
        known = tuple(map(str, order))
        if unknown := [grade for grade in given if grade not in known]:
            raise DataError(f"{where}: no grade {unknown[0]!r}{suggestion(unknown[0], known)}")
    elif given and all(re.fullmatch(r"\d+", grade) for grade in given):
        numbers = sorted(map(int, given))
        known = tuple(map(str, range(numbers[0], numbers[-1] + 1)))
    else:
        raise DataError(
            f"{where}: the order of its grades {list(given)} is not known; give it in {ORDERS}"
        )
    if len(known) < 2:
        raise DataError(f"{where} has one grade only, {known[0]}")
    return known


def _in_order(levels: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(levels, key=int) if all(level.isdigit() for level in levels) else levels)


def _number(row: Row, where: str, name: str) -> float | None:
    text = row.get(name, "")
    try:
        return float(text) if text else None
    except ValueError as error:
        raise DataError(f"{where}: {name} must be px, got {text!r}") from error


def _check_ids(file: Path, cases: Sequence[GradeCase]) -> None:
    known: dict[str, GradeCase] = {}
    for case in cases:
        if case.id in known:
            raise DataError(f"{file}: two places called {case.id}; give them a `study` each")
        known[case.id] = case
