"""Grades of places: which reader a folder needs."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from spine_tasks.configs import suggestion
from spine_tasks.data.grade_cases import GradeData
from spine_tasks.data.grade_tables import ORDERS, TABLE, read_grade_table
from spine_tasks.data.rsna_tables import is_rsna, read_rsna
from spine_tasks.errors import DataError

log = logging.getLogger(__name__)


def read_grades(folder: Path, conditions: Sequence[str] | None = None) -> GradeData:
    """Read a folder in the challenge's format, or with `grades.csv`; no picture is opened.

    Parameters
    ----------
    conditions
        Names of those to keep, in any order; None keeps all. Places of others are left out.

    Returns
    -------
    GradeData
        Reading an unchanged folder again costs nothing.

    Raises
    ------
    DataError
        The folder has neither, or its tables are wrong; a name in `conditions` is unknown.
    """
    if not is_rsna(folder) and not (folder / TABLE).exists():
        raise DataError(
            f"{folder}: neither train_label_coordinates.csv of the RSNA 2024 challenge nor {TABLE}"
        )
    states = [(file, file.stat()) for file in sorted([*folder.glob("*.csv"), *folder.glob(ORDERS)])]
    state = tuple((file, status.st_mtime_ns, status.st_size) for file, status in states)
    data = _read(folder, state)
    return data if conditions is None else _only(data, conditions)


@lru_cache(maxsize=4)
def _read(folder: Path, _state: tuple[tuple[Path, int, int], ...]) -> GradeData:
    return read_rsna(folder) if is_rsna(folder) else read_grade_table(folder)


def _only(data: GradeData, conditions: Sequence[str]) -> GradeData:
    for name in conditions:
        if name not in data.conditions:
            raise DataError(
                f"{data.folder}: no condition {name!r}{suggestion(name, data.conditions)}"
            )
    cases = [
        replace(case, grades={name: g for name, g in case.grades.items() if name in conditions})
        for case in data.cases
    ]
    kept = {name: grades for name, grades in data.conditions.items() if name in conditions}
    return replace(data, cases=tuple(case for case in cases if case.grades), conditions=kept)
