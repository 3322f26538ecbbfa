"""What the complete cells of an experiment left in their folders, in one place."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from spine_tasks import versions
from spine_tasks.cell import Cell
from spine_tasks.collect import ensemble as ensembles
from spine_tasks.collect import remembered
from spine_tasks.collect.assembled import histories_of, long_table_of
from spine_tasks.collect.reading import Reading, read
from spine_tasks.collect.runs import runs_table
from spine_tasks.data.digest import data_sha256
from spine_tasks.errors import IncompleteGrid, MixedResults, RunError
from spine_tasks.experiment import GRID_FILE, Experiment
from spine_tasks.files import read_json
from spine_tasks.metrics.box_scores import SET
from spine_tasks.score import score
from spine_tasks.states import State, states


@dataclass(frozen=True)
class Gathered:
    """The cells of an experiment and what the complete ones of them say."""

    experiment: Experiment
    states: dict[str, State]  # of every cell, needed ones included, by cell id
    arms: list[Cell]  # complete cells of the grid; ensembles last
    cases: pd.DataFrame  # the long table: all scores of `arms`, as spine_tasks.stats takes them
    histories: pd.DataFrame  # a row a cell and epoch, with `arm, fold, seed`
    runs: pd.DataFrame  # a row a complete cell, needed ones included
    baseline: str | None  # the arm compared with; None if none of its cells is complete
    mixed: list[str]  # in what code or data the cells differ, a paragraph each
    computed_with: list[str]  # lines that say with which code and data
    left_out: list[str] = field(default_factory=list)  # cells with a folder and not in the grid
    memory: remembered.Memory | None = None  # by which the next collect reads less

    def keep(self) -> None:
        """Write the long table, and with it what the next collect need not read again."""
        if self.memory is not None:
            remembered.keep(self.experiment.folder, self.cases, self.memory)

    @property
    def complete(self) -> int:
        """How many of the grid's cells are complete."""
        return int((self.runs["role"] == "arm").sum())

    @property
    def arms_missing(self) -> list[str]:
        """Arms of which cells are missing, as `arm: 3 of 5 cells`."""
        planned = Counter(cell.arm_name for cell in self.experiment.cells)
        complete = Counter(
            cell.arm_name
            for cell in self.experiment.cells
            if self.states[cell.id].kind == "complete"
        )
        short = ((arm, complete[arm], of) for arm, of in planned.items() if complete[arm] < of)
        return [f"{arm}: {there} of {of} cells" for arm, there, of in short]

    @property
    def predicts(self) -> str:
        """What the cells predict: the same for every job of a grid."""
        return str(self.arms[0].config.predicts)

    @property
    def chosen_by(self) -> str:
        """The validation score that weights were chosen by."""
        return str(self.arms[0].config.chosen_by)

    @property
    def of_persons(self) -> pd.DataFrame:
        """The scores that belong to a person."""
        return self.cases[self.cases["case"] != SET]

    @property
    def of_sets(self) -> pd.DataFrame:
        """The scores that belong to all images or places of a cell's test part together."""
        return self.cases[self.cases["case"] == SET]


def gather(
    experiment: Experiment,
    partial: bool = False,
    mixed: bool = False,
    ensemble: Sequence[str] | None = None,
) -> Gathered:
    """Read what the complete cells left, and score anew those whose scores are spoilt.

    Parameters
    ----------
    partial
        Take the cells that are complete so far.
    mixed
        Take cells of different code or data all the same.
    ensemble
        Names of the arms whose predictions are averaged to one more arm; none: all arms; None: no
        ensemble.

    Raises
    ------
    IncompleteGrid
        Cells are not complete and a partial view was not asked for, or none is.
    MixedResults
        Cells were computed with different code or data, and that was not asked for.
    """
    found = states(experiment.folder, experiment.everything)
    complete = _complete(experiment, found, partial)
    reading = read(experiment, complete, remembered.remembered(experiment.folder))
    done = {cell.id: reading.cells[cell.id].done for cell in complete}
    again = [cell for cell in complete if reading.cells[cell.id].spoilt]
    differing = versions.mixed(complete, done) + _other_data(experiment, again, done)
    if differing and not mixed:
        raise MixedResults(
            f"{experiment.name}: its complete cells cannot be compared as they are\n"
            + "\n".join(differing)
            + "\ndelete the folders of the cells to compute anew, check out the code that the "
            "others have and launch the grid again; or give --mixed to collect all the same, which "
            "the report and runs.csv then say"
        )
    _score_again(experiment, again, reading)
    arms = [cell for cell in complete if cell.arm]
    more = [] if ensemble is None else ensembles.ensembles(experiment, arms, ensemble)
    reading = _read_scored(experiment, [*again, *more], reading)
    left = {cell.id: reading.cells[cell.id] for cell in complete}
    needed = [cell.id for cell in complete if not cell.arm]
    return Gathered(
        experiment=experiment,
        states=found,
        arms=[*arms, *more],
        cases=long_table_of(experiment.name, [*arms, *more], reading),
        histories=histories_of(arms, reading),
        runs=runs_table(
            complete,
            {cell: one.means for cell, one in left.items()},
            {cell: one.ran for cell, one in left.items()},
            done,
        ),
        baseline=next((c.arm_name for c in arms if c.arm == experiment.grid.baseline), None),
        mixed=differing,
        computed_with=[*versions.summary(complete, done)],
        left_out=_left_out(experiment),
        memory=remembered.memory_of(reading, [cell.id for cell in (*arms, *more)], needed),
    )


def _complete(experiment: Experiment, found: dict[str, State], partial: bool) -> list[Cell]:
    missing = [cell for cell in experiment.cells if found[cell.id].kind != "complete"]
    if missing and not partial:
        named = "\n".join(f"  {_named(cell, found[cell.id])}" for cell in missing)
        raise IncompleteGrid(
            f"{experiment.name}: {len(missing)} of {len(experiment.cells)} cells are not "
            f"complete:\n{named}\nlaunch the grid again to finish them, or look with --partial"
        )
    complete = [cell for cell in experiment.everything if found[cell.id].kind == "complete"]
    if not any(cell.arm for cell in complete):
        raise IncompleteGrid(f"{experiment.name}: no cell is complete yet; see jobs/status.py")
    return complete


def _named(cell: Cell, state: State) -> str:
    return f"{cell.id} ({cell.arm_name}): {state.kind} {state.why}".rstrip()


def _other_data(
    experiment: Experiment, again: Sequence[Cell], done: dict[str, dict[str, Any]]
) -> list[str]:
    """Which cells would be scored anew against other data than they were trained on."""
    changed = [
        cell.id
        for cell in again
        if (before := done[cell.id].get("data_sha256"))
        and before != data_sha256(cell, experiment.folder)
    ]
    what = "data that changed since they were computed, against which these are to be scored"
    return [f"{what}:\n  {versions.cells_listed(changed)}"] if changed else []


def _score_again(experiment: Experiment, again: Sequence[Cell], reading: Reading) -> None:
    """Make the scores anew that are missing or spoilt, and say so in one line."""
    reasons: dict[str, list[str]] = {}
    for cell in again:
        reasons.setdefault(reading.cells[cell.id].spoilt or "", []).append(cell.id)
        score(experiment.run(cell))
    told = (f"{versions.cells_listed(ids)}: {why}" for why, ids in reasons.items())
    if again:
        sys.stderr.write(f"scored again from the predictions: {'; '.join(told)}\n")


def _read_scored(experiment: Experiment, cells: Sequence[Cell], before: Reading) -> Reading:
    """What was read before, and cells that have been scored just now."""
    reading = read(experiment, cells, before)
    for cell in cells:
        if why := reading.cells[cell.id].spoilt:
            raise RunError(
                f"{experiment.run(cell).scores}: scored just now, and read again {why}; does "
                "something else write there? run the same command again"
            )
    return reading


def _left_out(experiment: Experiment) -> list[str]:
    """The cells that have a folder although the grid does not have them; it is said in a line."""
    known = {cell.id for cell in experiment.everything}
    with os.scandir(experiment.folder) as entries:
        others = sorted(one.name for one in entries if one.name not in known and one.is_dir())
    if ids := [name for name in others if _is_cell(experiment.folder / name)]:
        sys.stderr.write(
            f"left out, as {GRID_FILE} does not have them: {versions.cells_listed(ids)}\n"
        )
    return ids


def _is_cell(folder: Path) -> bool:
    """Whether it is a cell's folder; that of an ensemble is made by collect itself."""
    try:
        return bool(read_json(folder / "cell.json")["arm"] != ensembles.NAME)
    except FileNotFoundError:
        return False
    except (KeyError, RunError, TypeError):  # spoilt, or of another version
        return True
