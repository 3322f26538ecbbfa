"""The tables of the RSNA 2024 challenge on lumbar spines, as Kaggle ships them.

`train.csv` has a row a study and a column a condition and level; `train_label_coordinates.csv`
says where each was graded; images are `train_images/<study>/<series>/<instance>.dcm`. In place of
`train`, a folder without grades may say `test`.
"""

import logging
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from spine_tasks.configs import suggestion
from spine_tasks.data.grade_cases import GradeCase, GradeData
from spine_tasks.data.grade_notes import Notes, Row, read_columns
from spine_tasks.data.rsna_names import CONDITIONS, GRADES, LEVELS, SIDED
from spine_tasks.errors import DataError

COORDINATES = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")

log = logging.getLogger(__name__)

Place = tuple[str, str, str]  # condition without side, side, level


def is_rsna(folder: Path) -> bool:
    """Whether a folder holds the challenge's tables."""
    return any((folder / f"{part}_label_coordinates.csv").exists() for part in ("train", "test"))


def row_id(study: str, condition: str, side: str, level: str) -> str:
    """The challenge's name of a row, of which a study has 25.

    Examples
    --------
    >>> row_id("100206310", "subarticular_stenosis", "left", "L4/L5")
    '100206310_left_subarticular_stenosis_l4_l5'
    """
    sided = f"{side}_{condition}" if side else condition
    return f"{study}_{sided}_{level.lower().replace('/', '_')}"


def read_rsna(folder: Path) -> GradeData:
    """Read the tables; pictures are not opened.

    A place without a grade stays as one to be graded, a grade without a place is left out; both
    are counted in the log.

    Raises
    ------
    DataError
        A table is missing, or lacks a column; a name of a condition, level or grade is unknown; a
        study has no folder, series or instance that a place is said to be in; a place is there
        twice.
    """
    part = "train" if (folder / "train_label_coordinates.csv").exists() else "test"
    places_file = folder / f"{part}_label_coordinates.csv"
    grades_file = folder / f"{part}.csv"
    tables = (places_file, grades_file) if grades_file.exists() else (places_file,)
    grades = _grades(grades_file) if grades_file.exists() else {}
    notes = Notes(folder)
    cases = _cases(places_file, folder / f"{part}_images", grades)
    for case in cases.values():
        if None in case.grades.values():
            notes.add("places without a grade, which are only predicted", case.id)
    for study, *place in grades:
        if row_id(study, *place) not in cases:
            notes.add("grades left out, since their place is not known", row_id(study, *place))
    notes.tell()
    return _data(folder, cases, tables)


def read_places(file: Path, images: Path) -> GradeData:
    """Read a table of places alone, to be graded.

    Parameters
    ----------
    file
        With the columns of `train_label_coordinates.csv`.
    images
        Holds `<study>/<series>/<instance>.dcm`; or is the folder of one study, then places of
        others are left out and counted.

    Raises
    ------
    DataError
        As `read_rsna`.
    """
    return _data(images, _cases(file, images, {}), (file,))


def _data(folder: Path, cases: Mapping[str, GradeCase], tables: tuple[Path, ...]) -> GradeData:
    ordered = tuple(cases[name] for name in sorted(cases))
    return GradeData(folder, ordered, dict.fromkeys(CONDITIONS, GRADES), LEVELS, tables)


def _of_study(rows: dict[int, Row], images: Path) -> dict[int, Row]:
    """The rows of the study whose folder is given; all rows where it is that of many."""
    own = {line: row for line, row in rows.items() if row["study_id"] == images.name}
    if not own or len(own) == len(rows) or (images / images.name).exists():
        return rows
    log.warning("%s: %d places of other studies left out", images, len(rows) - len(own))
    return own


def _cases(file: Path, images: Path, grades: Mapping[tuple[str, ...], int]) -> dict[str, GradeCase]:
    cases: dict[str, GradeCase] = {}
    for line, row in _of_study(read_columns(file, COORDINATES), images).items():
        where = f"{file}, line {line}"
        case = _case(images, row, where, grades)
        if case.id in cases:
            raise DataError(f"{where}: a second place of {case.id}; keep one")
        cases[case.id] = case
    return cases


def _case(
    images: Path, row: Mapping[str, str], where: str, grades: Mapping[tuple[str, ...], int]
) -> GradeCase:
    study, condition, side, level = (
        row["study_id"],
        *place_of(row["condition"], row["level"], where),
    )
    folder = images / study / row["series_id"]
    if not folder.is_dir() and images.name == study:
        folder = images / row["series_id"]
    series = _files(folder)
    name = f"{row['instance_number']}.dcm"
    index = next((at for at, file in enumerate(series) if file.name == name), None)
    if index is None:
        raise DataError(f"{where}: no {folder / name}; fetch the images, or remove the line")
    try:
        x, y = float(row["x"]), float(row["y"])
    except ValueError as error:
        raise DataError(f"{where}: x and y must be px, got {row['x']!r}, {row['y']!r}") from error
    grade = grades.get((study, condition, side, level))
    return GradeCase(
        id=row_id(study, condition, side, level),
        subject=study,
        study=study,
        level=level,
        series=series,
        index=index,
        x=x,
        y=y,
        side=side,
        grades={condition: grade},
    )


def place_of(condition: str, level: str, where: str) -> Place:
    """Condition, side and level by any of their spellings.

    Examples
    --------
    >>> place_of("Left Neural Foraminal Narrowing", "L4/L5", "")
    ('neural_foraminal_narrowing', 'left', 'L4/L5')
    >>> place_of("spinal_canal_stenosis", "l5_s1", "")
    ('spinal_canal_stenosis', '', 'L5/S1')

    Raises
    ------
    DataError
        One is unknown; the message has the nearest ones.
    """
    name = re.sub(r"[\s_]+", "_", condition.strip().lower())
    known = {f"{side}_{one}" if side else one: (one, side) for one, side in SIDED}
    if name not in known:
        raise DataError(f"{where}: no condition {condition!r}{suggestion(name, known)}")
    spelt = re.sub(r"[\s_/-]+", "/", level.strip().upper())
    if spelt not in LEVELS:
        raise DataError(f"{where}: no level {level!r}{suggestion(spelt, LEVELS)}")
    return *known[name], spelt


def _grades(file: Path) -> dict[tuple[str, ...], int]:
    """(study, condition, side, level) -> grade, of the cells that are not empty."""
    names = {
        row_id("", condition, side, level)[1:]: (condition, side, level)
        for condition, side in SIDED
        for level in LEVELS
    }
    grades: dict[tuple[str, ...], int] = {}
    studies: set[str] = set()
    for line, row in read_columns(file, ("study_id",)).items():
        study = row["study_id"]
        if study in studies:
            raise DataError(f"{file}, line {line}: study {study} has two rows; keep one")
        studies.add(study)
        for name, grade in row.items():
            if name == "study_id":
                continue
            if name not in names:
                hint = suggestion(name, names)
                raise DataError(f"{file}: no condition and level {name!r}{hint}")
            if grade and grade not in GRADES:
                raise DataError(
                    f"{file}: study {study}, {name}: no grade {grade!r}; grades are "
                    f"{', '.join(GRADES)}, or empty"
                )
            if grade:
                grades[study, *names[name]] = GRADES.index(grade)
    return grades


@cache
def _files(series: Path) -> tuple[Path, ...]:
    """The slices of a series, by the number of the instance."""
    files = [file for file in series.glob("*.dcm") if file.stem.isdigit()]
    return tuple(sorted(files, key=lambda file: int(file.stem)))
