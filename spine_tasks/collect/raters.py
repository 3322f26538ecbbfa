"""Raters: how well other people's masks of the test cases agree with the reference, and they all.

Their scores come in the long table's form, an arm a rater, made by the lines that score a network:
so every table sets people beside networks.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from spine_tasks.cell import Cell
from spine_tasks.collect.gathered import Gathered
from spine_tasks.collect.groups import RANKED, beside_baseline
from spine_tasks.collect.schema import COLUMNS
from spine_tasks.command import listed
from spine_tasks.data.bids import ENDINGS, Case, stem
from spine_tasks.data.cases import cases_of, target
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.score import score_mask_files
from spine_tasks.splits import load_split

# Metrics that are the same whichever of two masks is called the truth.
OF_PAIRS = ("DSC", "JI", "CC", "MSD", "HSD", "HD95")
BETWEEN = "raters among each other"  # the arm of all pairs of raters, the reference among them

Masks = dict[str, Path]  # rater -> mask of one case; the reference is the one called ""


def raters(gathered: Gathered, names: Sequence[str]) -> pd.DataFrame:
    """Scores of further raters' masks of the test cases, as rows of the long table.

    Parameters
    ----------
    names
        A rater each: the suffix of the masks, such as `gmseg-rater2`, beside the reference's; or,
        with a `/`, the folder below the data set in which they lie, called as the reference's,
        such as `derivatives/labels_rater2`.

    Returns
    -------
    DataFrame
        Columns of `schema.SCHEMA`. The arm `rater <name>` holds every metric of a rater's mask
        against the reference's, the one that networks learn from. With two raters or more the arm
        `raters among each other` holds the metrics in `OF_PAIRS`, which have no direction, of each
        two of all raters, the reference included: a person's value is the mean over the pairs.
        `cell` says which two masks were compared in which fold. A case without a rater's mask has
        no row, is counted and named on stderr, and so misses in a comparison as a dropped person.

    Raises
    ------
    ConfigError
        The grid predicts no masks, or a rater is named twice or is the reference.
    DataError
        A rater has no mask of any case; a mask cannot be read, or is not on its image's grid.
    """
    if gathered.predicts != "masks":
        raise ConfigError(f"--raters compares masks of a BIDS folder, not {gathered.predicts}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--raters: {twice[0]} is given twice; give each rater once")
    rows: list[list[Any]] = []
    without: dict[str, list[str]] = {name: [] for name in names}
    number = 0
    for cell in _one_a_test_part(gathered.arms):
        person_of = load_split(cell.split).person_of
        for case in cases_of(cell, "test", gathered.experiment.folder):
            masks = _masks(case, cell, names)
            for name in set(names) - set(masks):
                without[name].append(case.id)
            number += 1
            where = [cell.split, cell.fold, 0, person_of[case.subject], case.subject, case.id]
            for pair, arm, row in _scores(target(case)[0], masks, between=len(names) > 1):
                named = f"{pair}-{Path(cell.split).stem}-fold{cell.fold}"
                rows.append([gathered.experiment.name, named, arm, *where, *row])
    _tell(without, number)
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.assign(slice=pd.to_numeric(table["slice"]), value=table["value"].astype(float))


def beside_raters(gathered: Gathered, names: Sequence[str]) -> pd.DataFrame:
    """The arms and the raters in one table, each with its difference from the baseline.

    Returns
    -------
    DataFrame
        As `groups.beside_baseline`, of the metrics in `groups.RANKED`.

    Raises
    ------
    ConfigError, DataError
        As `raters`.
    """
    cases = pd.concat([gathered.of_persons, raters(gathered, names)], ignore_index=True)
    return beside_baseline(cases[cases["metric"].isin(RANKED)], gathered.baseline)


def _one_a_test_part(cells: Sequence[Cell]) -> list[Cell]:
    """A cell of each test part: arms and seeds have the same."""
    parts = {(c.split, c.fold, c.config.data, c.config.label_suffix): c for c in cells}
    return [*parts.values()]


def _masks(case: Case, cell: Cell, names: Sequence[str]) -> Masks:
    """The masks there are of a case, the reference's first."""
    _, reference = target(case)
    masks = {"": reference}
    for name in names:
        folder, suffix = reference.parent, name
        if "/" in name:
            top = next(one.parent for one in case.image.parents if one.name.startswith("sub-"))
            folder = top / name / case.image.parent.relative_to(top)
            suffix = cell.config.label_suffix
        files = [folder / f"{stem(case.image)}_{suffix}{ending}" for ending in ENDINGS]
        if found := next((file for file in files if file.exists()), None):
            if found.samefile(reference):
                raise ConfigError(f"--raters: {name} is the reference itself; name the others")
            masks[name] = found
    return masks


def _scores(label: str, masks: Masks, between: bool) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """What was compared, its arm, and `slice, label, metric, value`."""
    for one, other in combinations(masks, 2):
        scores = [*score_mask_files(masks[other], masks[one], label)]
        if one == "":
            yield from ((f"rater {other}", f"rater {other}", row) for row in scores)
        if between:
            pair = f"{one or 'reference'} - {other}"
            yield from (
                (pair, BETWEEN, row) for row in scores if row[2].removesuffix("_slice") in OF_PAIRS
            )


def _tell(without: dict[str, list[str]], number: int) -> None:
    """Count and name the cases that a rater has no mask of; refuse a rater without any."""
    for name, cases in without.items():
        if len(cases) == number:
            raise DataError(
                f"--raters: {name} has no mask of any of the {number} test cases, such as "
                f"{cases[0]}; give the suffix of its masks, or their folder below the data set "
                "with a /, such as derivatives/labels_rater2"
            )
        if cases:
            sys.stderr.write(
                f"--raters: {name} has no mask of {len(cases)} of {number} test cases: "
                f"{listed(sorted(cases))}\n"
            )
