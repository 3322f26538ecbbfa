"""Splits that are given: parts of a COCO folder, or groups of a table; and who is in some data."""

from collections.abc import Sequence
from pathlib import Path

from spine_tasks.data.coco_files import annotation_files, read_listed
from spine_tasks.data.coco_json import text_of
from spine_tasks.data.grades import read_grades
from spine_tasks.errors import SplitError
from spine_tasks.make_splits import rotate, rows_of, subject_of, subjects_of_persons
from spine_tasks.nnunet.pairs import find_pairs
from spine_tasks.nnunet.parts import subjects_of
from spine_tasks.nnunet.sources import load_sources
from spine_tasks.splits import PARTS, Row, bare, read_table

SUBJECT_COLUMNS = ("subject", "patient", "participant_id")


def image_subjects(folder: Path, keys: Sequence[str] = ()) -> list[Row]:
    """The subjects of a COCO folder's images, as rows of participants.

    Parameters
    ----------
    keys
        Keys of the images that become columns, such as one that names the person.

    Returns
    -------
    list of rows
        Sorted by subject, each once: columns `subject` and `keys`.

    Raises
    ------
    DataError
        The folder cannot be read, or an image has no value of a key.
    SplitError
        The images have no such key, or those of a subject differ in it.
    """
    rows: dict[str, Row] = {}
    for image in read_listed(folder, annotation_files(folder))[0]:
        row = rows.setdefault(image.subject, {"subject": image.subject})
        for key in keys:
            if key not in image.values:
                raise SplitError(f"{folder}: image {image.id} has no {key}, but {[*image.values]}")
            value = text_of(f"{image.annotations}: {key} of {image.id}", image.values[key])
            if row.setdefault(key, value) != value:
                raise SplitError(
                    f"{folder}: subject {image.subject} has {key} {row[key]} and {value}; "
                    "choose a key with one value a subject"
                )
    return [rows[subject] for subject in sorted(rows)]


def source_subjects(file: Path) -> list[Row]:
    """The subjects of the BIDS data sets of a file as `prepare.py nnunet` reads it.

    Returns
    -------
    list of rows
        Sorted by subject: columns `subject` (source_sub-X), `person`, `source` and `contrasts`.

    Raises
    ------
    ConfigError, DataError, SplitError
        The file or its data cannot be read.
    """
    pairs = [pair for source in load_sources(file).values() for pair in find_pairs(source)[0]]
    return subjects_of(pairs)


def graded_subjects(folder: Path) -> list[Row]:
    """The subjects of a folder with grades, as rows of participants, sorted.

    Raises
    ------
    DataError
        The folder cannot be read.
    """
    return [{"subject": name} for name in sorted({c.subject for c in read_grades(folder).cases})]


def split_by_groups(
    participants: list[Row], table: Path, person: str | None = None
) -> tuple[list[Row], list[str]]:
    """Folds from the groups of a table, kept as they are.

    Parameters
    ----------
    participants
        Rows with a column `participant_id` or `subject`.
    table
        CSV with a column `subject`, `patient` or `participant_id`, and `fold`: groups 0 to k - 1,
        k at least 3. Group i is the test part of fold i and the val part of the fold before.
    person
        The column of `participants` that says who a subject is. None: every subject is another.

    Returns
    -------
    rows, list of str
        Those of a split, and the subjects of the table that are no participants.

    Raises
    ------
    SplitError
        The table lacks a column, a participant or a group, names a subject twice, or parts two
        subjects of a person.
    """
    groups = _read_groups(table)
    subjects = subjects_of_persons(participants, person)
    names = [bare(subject_of(row)) for row in participants]
    if unknown := sorted(set(names) - set(groups)):
        raise SplitError(
            f"{table}: {len(unknown)} of {len(names)} subjects of the data are not in it, such as "
            f"{unknown[0]}; add them to a copy of the table, or deal anew with --folds"
        )
    group_of: dict[str, int] = {}
    for name, rows in subjects.items():
        found = {groups[bare(subject_of(row))] for row in rows}
        if len(found) > 1:
            raise SplitError(f"{table}: person {name} is in groups {sorted(found)}; keep one")
        group_of[name] = found.pop()
    folds = max(groups.values()) + 1
    if empty := sorted(set(range(folds)) - set(group_of.values())):
        raise SplitError(f"{table}: no subject of the data is in groups {empty}; deal anew")
    return rows_of(rotate(group_of, folds), subjects), sorted(set(groups) - set(names))


def split_by_parts(folder: Path, person: str | None = None) -> list[Row]:
    """The split that the annotation files of a COCO folder are: train, val and test.

    Parameters
    ----------
    folder
        With files such as `train.json` or `instances_val2017.json` in `annotations/`.
    person
        A key of the images that says who the subject is. None: every subject is another person.

    Raises
    ------
    DataError
        The folder cannot be read.
    SplitError
        A file is named after no part, a part is missing, or a person is in several.
    """
    files = annotation_files(folder)
    part_of = {file: file.stem.rpartition("_")[2].rstrip("0123456789") for file in files}
    if strange := [file.name for file in files if part_of[file] not in PARTS]:
        raise SplitError(
            f"{folder}: {strange[0]} is named after no part; parts are {', '.join(PARTS)}; deal "
            "anew with --folds or --holdout"
        )
    if missing := [part for part in PARTS if part not in part_of.values()]:
        raise SplitError(
            f"{folder}: no annotations of {' and '.join(missing)}, and every part is needed; deal "
            "anew with --folds or --holdout, which goes by persons; a folder that holds the test "
            "part alone is named by the knob `test_data` instead"
        )
    subjects = subjects_of_persons(image_subjects(folder, [person] if person else []), person)
    person_of = {row["subject"]: name for name, rows in subjects.items() for row in rows}
    parts: dict[str, set[str]] = {name: set() for name in subjects}
    for image in read_listed(folder, files)[0]:
        parts[person_of[image.subject]].add(part_of[image.annotations])
    if crossing := [name for name, found in parts.items() if len(found) > 1]:
        named = ", ".join(f"{name} ({' and '.join(sorted(parts[name]))})" for name in crossing)
        raise SplitError(
            f"{folder}: persons in more than one part: {named}; deal anew with --folds or --holdout"
        )
    return rows_of([{name: found.pop() for name, found in parts.items()}], subjects)


def _read_groups(table: Path) -> dict[str, int]:
    """Subject, without `sub-`, -> group."""
    if not table.is_file():
        raise SplitError(f"{table}: no such file; give a CSV of subjects and their folds")
    rows = read_table(table, ",")
    column = next((name for name in SUBJECT_COLUMNS if name in rows[0]), None)
    if column is None or "fold" not in rows[0]:
        raise SplitError(
            f"{table}: needs the columns fold and one of {', '.join(SUBJECT_COLUMNS)}; "
            f"it has {', '.join(rows[0])}"
        )
    groups: dict[str, int] = {}
    for row in rows:
        name, text = bare(row[column]), row["fold"]
        if name in groups or not (text.isascii() and text.isdigit()):
            raise SplitError(f"{table}: a subject has one row and a fold from 0, got {row}")
        groups[name] = int(text)
    if set(groups.values()) != set(range(max(groups.values()) + 1)) or max(groups.values()) < 2:
        raise SplitError(
            f"{table}: folds must be numbered 0, 1, 2 and so on, at least three, got "
            f"{sorted(set(groups.values()))}"
        )
    return groups
