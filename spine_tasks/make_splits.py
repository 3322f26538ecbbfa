"""Making splits: persons are dealt into parts, all subjects of a person together."""

import csv
import io
from collections import Counter
from pathlib import Path

from spine_tasks.errors import SplitError
from spine_tasks.files import replacing
from spine_tasks.splits import NAMELESS, PARTS, Row, Split, bare, load_split, read_table


def read_participants(file: Path) -> list[Row]:
    """The rows of a `participants.tsv` (or .csv).

    Raises
    ------
    SplitError
        The file is missing or is not a table.
    """
    if not file.is_file():
        raise SplitError(f"{file}: no such file; give the participants.tsv of the data set")
    return read_table(file, "," if file.suffix == ".csv" else "\t")


def write_split(file: Path, rows: list[Row]) -> Split:
    """Write a new split, checked before it takes its name.

    Raises
    ------
    SplitError
        The file exists (a split is never changed, since results refer to it), or the rows break
        a rule of `load_split`.
    """
    if file.exists():
        raise SplitError(f"{file}: exists already, and a split is never changed; choose a new name")
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(file) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
        load_split(partial)
    return load_split(file)


def make_split(
    participants: list[Row],
    *,
    folds: int | None = None,
    holdout: tuple[float, float, float] | None = None,
    stratify: str | None = None,
    person: str | None = None,
    seed: int = 0,
) -> list[Row]:
    """Assign every subject to a part, in k folds or once.

    With k folds, persons are dealt into k groups. Group i is the test part of fold i and the val
    part of the fold before (of the last fold, for group 0). So every person is in test once, in
    val once and in train k - 2 times. As many folds as persons leave one person out.

    The result follows from the persons, their strata and the seed; the order of rows plays no role.

    Parameters
    ----------
    participants
        Rows with a column `participant_id` or `subject`.
    folds
        k, at least 3. Give either this or `holdout`.
    holdout
        Fractions of the persons in train, val and test, of sum 1; a part has at least one person.
    stratify
        A column with one value a person. Of each value, the numbers of persons in two test parts
        differ by one at most. A missing value, such as `n/a`, counts as a value of its own.
    person
        The column that says who a subject is. None: every subject is another person.
    seed
        Of the shuffling of persons, from 0.

    Returns
    -------
    list of rows
        Columns subject, person, part, fold and, if any, the stratum; sorted by fold, part
        (train, val, test) and subject. `write_split` makes a file of them.

    Raises
    ------
    SplitError
        A column is missing, a person has no name or two strata, a subject occurs twice, or the
        persons, or those of a stratum, are too few.

    Examples
    --------
    >>> people = [{"participant_id": name} for name in ("sub-a", "sub-b", "sub-c", "sub-d")]
    >>> rows = make_split(people, folds=4)
    >>> sorted(row["person"] for row in rows if row["part"] == "test")
    ['a', 'b', 'c', 'd']
    """
    subjects = subjects_of_persons(participants, person)
    strata = strata_of(subjects, stratify)
    parts_of = deal_persons(strata, folds, holdout, seed)
    return rows_of(parts_of, subjects, {stratify: strata} if stratify else {})


def deal_persons(
    strata: dict[str, str], folds: int | None, holdout: tuple[float, float, float] | None, seed: int
) -> list[dict[str, str]]:
    """For each fold, person -> part; parameters as of `make_split`, but person -> stratum.

    Raises
    ------
    SplitError
        Both or neither of `folds` and `holdout` are given, or the persons are too few.
    """
    if folds is not None and holdout is None:
        return _deal(strata, folds, seed)
    if holdout is not None and folds is None:
        return [_hold_out(strata, holdout, seed)]
    raise SplitError(f"give either folds or holdout, got {folds} and {holdout}")


def rows_of(
    parts_of: list[dict[str, str]],
    subjects: dict[str, list[Row]],
    strata: dict[str, dict[str, str]] | None = None,
) -> list[Row]:
    """The rows of a split, sorted by fold, part and subject.

    Parameters
    ----------
    parts_of
        For each fold, person -> part.
    subjects
        Person -> rows of the person's subjects.
    strata
        Name of a further column -> person -> value.
    """
    return [
        {"subject": name, "person": person, "part": part, "fold": str(fold)}
        | {column: value_of[person] for column, value_of in (strata or {}).items()}
        for fold, part_of in enumerate(parts_of)
        for part in PARTS
        for name, person in sorted(
            (subject_of(row), person)
            for person, rows in subjects.items()
            for row in rows
            if part_of[person] == part
        )
    ]


def rotate(group_of: dict[str, int], folds: int) -> list[dict[str, str]]:
    """For each fold, person -> part: group i is test of fold i and val of the fold before."""
    steps = {0: "test", 1: "val"}  # how many groups after the fold's own
    return [
        {person: steps.get((group - fold) % folds, "train") for person, group in group_of.items()}
        for fold in range(folds)
    ]


def subjects_of_persons(participants: list[Row], person: str | None) -> dict[str, list[Row]]:
    """Person -> rows of the person's subjects, sorted by person.

    Raises
    ------
    SplitError
        A column is missing, a name is missing, or a subject occurs twice.
    """
    persons: dict[str, list[Row]] = {}
    for row in participants:
        if person is not None and person not in row:
            raise SplitError(f"participants: no column {person}; it has {', '.join(row)}")
        who = bare(subject_of(row) if person is None else row[person])
        if {who.lower(), bare(subject_of(row)).lower()} & NAMELESS:
            raise SplitError(f"participants: a subject or person without a name in {row}")
        persons.setdefault(who, []).append(row)
    times = Counter(bare(subject_of(row)) for row in participants)
    if twice := sorted(name for name, number in times.items() if number > 1):
        raise SplitError(f"participants: more than once: {', '.join(twice)}; keep one row each")
    return dict(sorted(persons.items()))


def subject_of(row: Row) -> str:
    """The subject that a row of participants is about.

    Raises
    ------
    SplitError
        It has no column that names one.
    """
    for column in ("participant_id", "subject"):
        if column in row:
            return row[column]
    raise SplitError(f"participants: no column participant_id or subject; it has {', '.join(row)}")


def strata_of(subjects: dict[str, list[Row]], stratify: str | None) -> dict[str, str]:
    """Person -> stratum; one and the same where `stratify` is None.

    Raises
    ------
    SplitError
        There is no such column, or a person has two values in it.
    """
    if stratify is None:
        return dict.fromkeys(subjects, "all")
    strata = {}
    for person, rows in subjects.items():
        if stratify not in rows[0] or stratify in ("subject", "person", "part", "fold"):
            raise SplitError(
                f"participants: cannot stratify by {stratify}; give one of {[*rows[0]]}"
            )
        values = sorted({row[stratify] for row in rows})
        if len(values) > 1:
            raise SplitError(
                f"participants: person {person} has {stratify} {' and '.join(values)}; "
                "stratify by a column with one value a person"
            )
        strata[person] = values[0]
    return strata


def _deal(strata: dict[str, str], folds: int, seed: int) -> list[dict[str, str]]:
    """For each fold, person -> part."""
    from sklearn.model_selection import StratifiedKFold  # takes a second; the launcher needs none

    if folds < 3:
        raise SplitError(f"train, val and test need at least 3 folds, got {folds}")
    persons, numbers = list(strata), Counter(strata.values())
    if few := {value: number for value, number in numbers.items() if number < folds}:
        raise SplitError(
            f"{folds} folds need {folds} persons of each stratum, got {few}; "
            "ask for fewer folds, or merge or leave out the stratum"
        )
    dealer = StratifiedKFold(folds, shuffle=True, random_state=seed)
    group_of = {
        persons[index]: group
        for group, (_, members) in enumerate(dealer.split(persons, list(strata.values())))
        for index in members
    }
    return rotate(group_of, folds)


def _hold_out(
    strata: dict[str, str], fractions: tuple[float, float, float], seed: int
) -> dict[str, str]:
    """Person -> part, once."""
    from sklearn.model_selection import train_test_split

    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise SplitError(f"train, val and test need fractions above 0 of sum 1, got {fractions}")
    val, test = (max(1, round(fraction * len(strata))) for fraction in fractions[1:])

    def draw(persons: list[str], number: int) -> tuple[list[str], list[str]]:
        rest, drawn = train_test_split(
            persons,
            test_size=number,
            stratify=[strata[person] for person in persons],
            random_state=seed,
        )
        return rest, drawn

    try:
        rest, in_test = draw(list(strata), test)
        in_train, in_val = draw(rest, val)
    except ValueError as error:
        raise SplitError(
            f"{len(strata)} persons ({dict(Counter(strata.values()))}) are too few for parts of "
            f"{fractions}: {error}"
        ) from error
    parts = zip(PARTS, (in_train, in_val, in_test), strict=True)
    return {person: part for part, persons in parts for person in persons}
