"""Grades of places in pictures from one plain table, `grades.csv`.

A row is a place and a condition: `image, subject, level, condition, grade, x, y`; where wanted also
`width, height` (px of a box around x, y), `study` and `side`. Grades are whole numbers in their
order, or names whose order `grades.json` gives: `{"condition": ["mild", "severe"]}`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from spine_tasks.data.grade_cases import GradeCase, GradeData
from spine_tasks.data.grade_notes import Notes, near
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
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: no table ({error}); see `prepare.py grades --help`") from error
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise DataError(f"{file}: no column {missing[0]!r}; it has {', '.join(table.columns)}")
    for name in ("study", "side", "width", "height"):
        if name not in table.columns:
            table[name] = ""
    conditions = _conditions(folder, table)
    cases, notes = [], Notes(folder)
    for place, rows in table.groupby(PLACE, sort=False):
        case = _case(folder, file, dict(zip(PLACE, map(str, place), strict=True)), rows, conditions)
        cases.append(case)
        for condition in (name for name, grade in case.grades.items() if grade is None):
            notes.add("places without a grade, which are only predicted", f"{case.id} {condition}")
    notes.tell()
    _check_ids(file, cases)
    tables = (file, folder / ORDERS) if (folder / ORDERS).exists() else (file,)
    levels = _in_order(table["level"].unique().tolist())
    ordered = tuple(sorted(cases, key=lambda case: case.id))
    return GradeData(folder, ordered, conditions, levels, tables)


def _case(
    folder: Path,
    file: Path,
    place: Mapping[str, str],
    rows: pd.DataFrame,
    conditions: Mapping[str, Sequence[str]],
) -> GradeCase:
    where = f"{file}, line {rows.index[0] + 2}"
    if place["side"] not in SIDES:
        raise DataError(f"{where}: side must be left, right or empty, got {place['side']!r}")
    image = folder / place["image"]
    if not image.is_file():
        raise DataError(f"{where}: {image} is not there")
    if twice := rows["condition"][rows["condition"].duplicated()].tolist():
        raise DataError(f"{where}: two grades of {twice[0]} at one place; keep one")
    if len(subjects := rows["subject"].unique()) > 1:
        raise DataError(f"{where}: one place of two subjects, {subjects[0]} and {subjects[1]}")
    numbers = [_number(place[name], where, name) for name in ("x", "y", "width", "height")]
    x, y, width, height = numbers
    if x is None or y is None or (width is None) != (height is None):
        raise DataError(f"{where}: needs x and y, and width and height both or neither")
    study = place["study"] or Path(place["image"]).stem
    grades = dict(zip(rows["condition"], rows["grade"], strict=True))
    return GradeCase(
        id="_".join(part for part in (study, place["side"], place["level"]) if part),
        subject=str(subjects[0]),
        study=study,
        level=place["level"],
        series=(image,),
        index=0,
        x=x,
        y=y,
        width=width,
        height=height,
        side=place["side"],
        grades={
            condition: conditions[condition].index(grade) if grade else None
            for condition, grade in grades.items()
        },
    )


def _conditions(folder: Path, table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Condition -> its grades in order."""
    orders: dict[str, list[str]] = {}
    if (folder / ORDERS).exists():
        try:
            orders = json.loads((folder / ORDERS).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{folder / ORDERS}: not JSON ({error})") from error
    found: dict[str, tuple[str, ...]] = {}
    for condition, grades in table.groupby("condition", sort=True)["grade"]:
        given = sorted(set(grades) - {""})
        if str(condition) in orders:
            known = tuple(map(str, orders[str(condition)]))
            if unknown := [grade for grade in given if grade not in known]:
                wrong = f"{folder / TABLE}: {condition}: no grade {unknown[0]!r}"
                raise DataError(wrong + near(unknown[0], known))
        elif all(re.fullmatch(r"\d+", grade) for grade in given) and given:
            numbers = sorted(map(int, given))
            known = tuple(map(str, range(numbers[0], numbers[-1] + 1)))
        else:
            raise DataError(
                f"{folder / TABLE}: the order of the grades of {condition}, {given}, is not known; "
                f"give it in {ORDERS}"
            )
        if len(known) < 2:
            raise DataError(f"{folder / TABLE}: {condition} has one grade only, {known[0]}")
        found[str(condition)] = known
    return found


def _in_order(levels: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(levels, key=int) if all(level.isdigit() for level in levels) else levels)


def _number(text: str, where: str, name: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{where}: {name} must be px, got {text!r}") from error


def _check_ids(file: Path, cases: Sequence[GradeCase]) -> None:
    known: dict[str, GradeCase] = {}
    for case in cases:
        if case.id in known:
            raise DataError(f"{file}: two places called {case.id}; give them a `study` each")
        known[case.id] = case
