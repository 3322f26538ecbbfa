"""Splits of several sources: which of them are dealt, and which are always test or always train.

A source is a BIDS data set, one of several in a file as `prepare.py nnunet` reads it.
"""

from collections import Counter
from collections.abc import Collection
from typing import Literal

from spine_tasks.configs import suggestion
from spine_tasks.errors import SplitError
from spine_tasks.make_splits import deal_persons, rows_of, strata_of, subjects_of_persons
from spine_tasks.splits import Row

VAL_SHARE = 5  # of so many persons of a source one is in val, where a whole source is the test

Subjects = dict[str, list[Row]]  # person -> rows of the person's subjects


def split_sources(
    participants: list[Row],
    *,
    folds: int | Literal["person", "source"] | None = None,
    holdout: tuple[float, float, float] | None = None,
    test_only: Collection[str] = (),
    train_only: Collection[str] = (),
    stratify: str | None = None,
    seed: int = 0,
) -> list[Row]:
    """Assign every subject of some sources to a part, all subjects of a person to the same.

    The persons of sources that are in neither list are dealt, in the ways of `make_split` or so
    that fold i tests all persons of the i-th of their sources by name. Then a fifth of the persons
    of each other source, at least one where there are two, is in val, the same in all folds.

    The result follows from the persons, their sources and the seed; the order of rows plays no
    role.

    Parameters
    ----------
    participants
        Columns subject, person and source.
    folds
        k, at least 3; or one fold a dealt person or source. Give either this or `holdout`.
    holdout
        Fractions of the dealt persons in train, val and test, of sum 1.
    test_only
        Sources whose persons are in test in every fold. They have subjects in no other source.
    train_only
        Sources whose persons are in train in every fold, with their subjects in other sources.
    stratify
        A column with one value a dealt person. None: their source, for a number of folds and
        `holdout`; a person of several sources then counts for the one with the fewest persons.
        With a number of folds also the contrasts that they have, in each source of which every
        set of contrasts has that many persons.
    seed
        Of the shuffling of persons, from 0.

    Returns
    -------
    list of rows
        As `make_split`; the column after fold is `stratify` or source, as the subject has it.

    Raises
    ------
    SplitError
        A source is unknown or in both lists, a person would be in two parts of a fold, nobody is
        left to deal, or the persons of a stratum are too few.

    Examples
    --------
    >>> people = [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b"), ("c1", "c")]
    >>> made = split_sources(
    ...     [{"subject": name, "person": name, "source": source} for name, source in people],
    ...     folds="source",
    ...     test_only=["c"],
    ... )
    >>> [(row["subject"], row["fold"]) for row in made if row["part"] == "test"]
    [('a1', '0'), ('a2', '0'), ('c1', '0'), ('b1', '1'), ('b2', '1'), ('c1', '1')]
    """
    subjects = subjects_of_persons(participants, "person")
    fixed = _fixed_parts(subjects, test_only, train_only)
    dealt = {person: rows for person, rows in subjects.items() if person not in fixed}
    if not dealt:
        raise SplitError(
            "nobody is left to deal: all persons are of sources in --test-only or --train-only; "
            "take a source out of them"
        )
    if isinstance(folds, str) and stratify is not None:
        raise SplitError(f"one fold a {folds} follows no other column: leave --stratify out")
    if folds == "source":
        _check_one_source(subjects, {*test_only, *train_only})
        parts_of = _leave_sources_out(_source_of(dealt), seed)
    else:
        strata = _source_of(dealt) if stratify in (None, "source") else strata_of(dealt, stratify)
        if stratify is None and isinstance(folds, int):
            strata = _by_contrasts(dealt, strata, folds)
        if folds == "person":
            folds, strata = len(dealt), dict.fromkeys(dealt, "all")
        parts_of = deal_persons(strata, folds, holdout, seed)
    column = stratify or "source"
    value_of = {row["subject"]: row[column] for row in participants}
    rows = rows_of([fixed | part_of for part_of in parts_of], subjects)
    return [row | {column: value_of[row["subject"]]} for row in rows]


def _fixed_parts(
    subjects: Subjects, test_only: Collection[str], train_only: Collection[str]
) -> dict[str, str]:
    """Person -> part, of those who are in the same part in every fold."""
    names = {row["source"] for rows in subjects.values() for row in rows}
    for option, given in (("--test-only", test_only), ("--train-only", train_only)):
        for name in given:
            if name not in names:
                raise SplitError(f"{option}: no source {name!r}{suggestion(name, names)}")
    if both := sorted({*test_only} & {*train_only}):
        raise SplitError(f"--test-only and --train-only both name {', '.join(both)}; choose one")
    tested = {who: rows for who, rows in subjects.items() if _sources(rows) & {*test_only}}
    if beyond := {who: rows for who, rows in tested.items() if _sources(rows) - {*test_only}}:
        raise SplitError(
            f"--test-only: persons who are in other sources too: {_named(beyond)}, and would be in "
            "two parts; name all their sources in it, or leave a source out of the file"
        )
    trained = [who for who, rows in subjects.items() if _sources(rows) & {*train_only}]
    return dict.fromkeys(tested, "test") | dict.fromkeys(trained, "train")


def _check_one_source(subjects: Subjects, fixed: set[str]) -> None:
    """Refuse persons who are of a source that one fold leaves out, and of another source."""
    several = {who: rows for who, rows in subjects.items() if len(_sources(rows)) > 1}
    if beyond := {who: rows for who, rows in several.items() if _sources(rows) - fixed}:
        raise SplitError(
            f"--leave-source-out: persons who are in several sources: {_named(beyond)}, and would "
            "be in two parts; name all their sources in --test-only or all in --train-only, or "
            "leave a source out of the file"
        )


def _leave_sources_out(source_of: dict[str, str], seed: int) -> list[dict[str, str]]:
    """For each source by name, person -> part: its persons are test."""
    from sklearn.model_selection import train_test_split  # takes a second

    val: set[str] = set()
    sizes = Counter(source_of.values())
    for source, size in sizes.items():
        if size > 1:
            persons = [who for who, at in source_of.items() if at == source]
            number = max(1, round(size / VAL_SHARE))
            val |= {*train_test_split(persons, test_size=number, random_state=seed)[1]}
    for source in sizes:
        if all(source_of[who] == source for who in val):
            raise SplitError(
                f"--leave-source-out: without {source}, no source has two persons to deal, one of "
                f"them to val; persons: {dict(sorted(sizes.items()))}; use --folds"
            )
    return [
        {
            who: "test" if at == left_out else "val" if who in val else "train"
            for who, at in source_of.items()
        }
        for left_out in sorted(sizes)
    ]


def _source_of(subjects: Subjects) -> dict[str, str]:
    """Person -> source; of several, the one with the fewest persons."""
    sizes = Counter(source for rows in subjects.values() for source in _sources(rows))
    return {
        who: min(_sources(rows), key=lambda source: (sizes[source], source))
        for who, rows in subjects.items()
    }


def _by_contrasts(subjects: Subjects, source_of: dict[str, str], folds: int) -> dict[str, str]:
    """Person -> source and contrasts, where that leaves enough persons of each, else source."""
    fine = {
        who: f"{source_of[who]} {' '.join(sorted(row.get('contrasts', '') for row in rows))}"
        for who, rows in subjects.items()
    }
    sizes = Counter(fine.values())
    coarse = {source_of[who] for who, stratum in fine.items() if sizes[stratum] < folds}
    return {who: at if at in coarse else fine[who] for who, at in source_of.items()}


def _sources(rows: list[Row]) -> set[str]:
    return {row["source"] for row in rows}


def _named(subjects: Subjects) -> str:
    return ", ".join(f"{who} ({' and '.join(sorted(_sources(r)))})" for who, r in subjects.items())
