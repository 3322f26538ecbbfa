"""An experiment: a grid as it was launched under a name, its folder and its cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from spine_tasks.cell import Cell
from spine_tasks.errors import ConfigError, RunError
from spine_tasks.expand import expand
from spine_tasks.files import write_text
from spine_tasks.grid import Grid, load_grid
from spine_tasks.run import Run

GRID_FILE = "grid.yaml"
MAPS = "maps"  # folder of kept outputs of frozen layers, which cells share; made anew if missing
NNUNET = "nnunet"  # folder in a run's; that of a needed cell has the data that nnU-Net trains on


@dataclass(frozen=True)
class Experiment:
    """A grid in a results folder."""

    name: str
    folder: Path  # results/<name>
    grid: Grid
    cells: list[Cell]
    needed: list[Cell]  # cells that others start from

    @property
    def everything(self) -> list[Cell]:
        """The needed cells, then the grid's own."""
        return self.needed + self.cells

    def run(self, cell: Cell) -> Run:
        """The run of one of the cells."""
        return Run(self.folder / cell.id)


def planned(name: str, grid: Grid, results: Path) -> Experiment:
    """The experiment that a launch of `grid` under `name` means.

    Raises
    ------
    RunError
        The name is taken by a launch with other settings; the message says which differ.
    """
    folder = results.resolve() / name
    if (folder / GRID_FILE).exists():
        _check_same(name, load_grid(folder / GRID_FILE), grid)
    return Experiment(name, folder, grid, *expand(grid))


def opened(name: str, results: Path) -> Experiment:
    """The experiment that was launched under `name`.

    Raises
    ------
    ConfigError
        Nothing was; the message lists the names there are.
    """
    folder = results.resolve() / name
    if not (folder / GRID_FILE).exists():
        known = sorted(file.parent.name for file in results.glob(f"*/{GRID_FILE}"))
        raise ConfigError(
            f"nothing was launched as {name!r} in {results}; launched there: "
            f"{', '.join(known) or 'nothing'}; start it by: python jobs/launch.py --grid {name}"
        )
    grid = load_grid(folder / GRID_FILE)
    return Experiment(name, folder, grid, *expand(grid))


def create(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Write grid.yaml and the folders of some cells; what is there already stays as it is.

    Raises
    ------
    RunError
        A cell.json that is there was changed by hand; no cell is started then.
    """
    if not (experiment.folder / GRID_FILE).exists():
        text = yaml.safe_dump(experiment.grid.to_dict(), sort_keys=False, allow_unicode=True)
        write_text(experiment.folder / GRID_FILE, text)
    for cell in cells:
        experiment.run(cell).create(cell)


def _check_same(name: str, launched: Grid, asked: Grid) -> None:
    before, now = launched.to_dict(), asked.to_dict()
    ignored = ("resources", "question")  # they change nothing in what is computed
    differing = [
        f"{key}: {before[key]} then, {now[key]} now"
        for key in now
        if before[key] != now[key] and key not in ignored
    ]
    if differing:
        raise RunError(
            f"{name} was launched with other settings ({'; '.join(differing)}); "
            "repeat those to continue it, or give this launch another --name"
        )
