"""Predicted grades on disk: a table of probabilities, one row a place and condition.

`predictions/test.csv` holds those of the test part, `predictions/val.csv` those of the validation
part, on which temperatures are fitted.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.grade_cases import GradeCase
from spine_tasks.errors import RunError
from spine_tasks.files import write_text

PLACE = ("case", "study", "level", "side", "condition")
SLACK = 1e-5  # of the sum of a row: float32 and eight digits

Probabilities = dict[tuple[str, str], NDArray[np.float64]]  # (case, condition) -> (K,)


def save_grades(
    file: Path,
    cases: Iterable[GradeCase],
    found: Probabilities,
    conditions: Mapping[str, Sequence[str]],
) -> None:
    """Write the probabilities of the grades of some places.

    Parameters
    ----------
    found
        (case, condition) -> (K,) probabilities, mildest grade first, for all conditions of each
        case.
    conditions
        Condition -> its grades; columns `p0, p1, ...` up to the longest of them.
    """
    longest = max(map(len, conditions.values()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*PLACE, *(f"p{grade}" for grade in range(longest))])
    for case in cases:
        for condition in case.grades:
            p = [f"{value:.8g}" for value in found[case.id, condition]]
            place = (case.id, case.study, case.level, case.side, condition)
            writer.writerow([*place, *p, *[""] * (longest - len(p))])
    write_text(file, text.getvalue())


def load_grades(
    file: Path, cases: Iterable[GradeCase], conditions: Mapping[str, Sequence[str]]
) -> Probabilities:
    """The probabilities of the grades of some places, of all their conditions.

    Raises
    ------
    RunError
        The file is missing or no such table; a row is of none of the places, doubled or missing;
        its numbers are no probabilities of the condition's grades that sum to 1.
    """
    wanted = {(case.id, condition) for case in cases for condition in case.grades}
    found: Probabilities = {}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except FileNotFoundError as error:
        raise RunError(f"{file} is missing; launch the grid again to predict it") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise RunError(f"{file} is no table of grades ({error})") from error
    for number, row in enumerate(rows, start=2):
        place = (row.get("case", ""), row.get("condition", ""))
        if place not in wanted or place in found:
            why = "is there twice" if place in found else "is none of the data's: other data"
            raise RunError(f"{file}, line {number}: {' '.join(map(str, place))} {why}")
        found[place] = _probabilities(row, len(conditions[place[1]]), f"{file}, line {number}")
    if missing := sorted(wanted - set(found)):
        raise RunError(
            f"{file}: no grade of {len(missing)} of {len(wanted)} places, such as "
            f"{' '.join(missing[0])}; launch the grid again to predict it"
        )
    return found


def _probabilities(row: dict[str, str], grades: int, where: str) -> NDArray[np.float64]:
    try:
        p = [float(row[f"p{grade}"]) for grade in range(grades)]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{where}: {grades} probabilities are needed, got {row}") from error
    if not (all(0 <= value <= 1 for value in p) and math.isclose(sum(p), 1, abs_tol=SLACK)):
        raise RunError(f"{where}: {p} are no probabilities that sum to 1")
    return np.array(p) / sum(p)
