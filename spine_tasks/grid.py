"""Grids: a YAML file that names its axes, expanded into cells.

A grid as a launch resolved it (preset and settings applied) is kept in `results/<name>/grid.yaml`,
which has the same form; every later command reads it there.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from spine_tasks.cell import Cell, Resources
from spine_tasks.configs import config_class, defaults_of, make_config, suggestion
from spine_tasks.errors import ConfigError
from spine_tasks.splits import Split, load_split

GRIDS = Path(__file__).parents[1] / "jobs" / "grids"
FIRST = ("job", "split", "knobs")  # what a grid may say of a needed cell


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One question: axes, fixed knobs, split, seeds and resources."""

    job: str
    split: str
    axes: dict[str, list[Any]]
    question: str = ""
    seeds: int | list[int] = 1  # how many (0, 1, ...), or which
    folds: str | list[int] = "all"
    knobs: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, Any] = field(default_factory=dict)  # `when` these knobs: this `cell` first
    resources: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)  # the arm that others are compared with
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)  # named sets of settings

    def __post_init__(self) -> None:
        """Check the kinds of the values, of which YAML and a command line take any."""
        for name in ("job", "split", "question"):
            _check_kind(name, getattr(self, name), str, "text")
        for name in ("axes", "knobs", "needs", "resources", "baseline", "presets"):
            _check_kind(name, getattr(self, name), dict, "`name: value` lines")
        for name, settings in self.presets.items():
            _check_kind(f"presets.{name}", settings, dict, "`name: value` lines")
        for axis, values in self.axes.items():
            _check_kind(f"axes.{axis}", values or None, list, "a list of values")
        if not _are_numbers(self.seeds) and not (type(self.seeds) is int and self.seeds > 0):
            raise ConfigError(
                f"seeds must be a number from 1 or a list of them, got {self.seeds!r}"
            )
        if not _are_numbers(self.folds) and self.folds != "all":
            raise ConfigError(f"folds must be `all` or a list of numbers, got {self.folds!r}")
        if self.needs:
            _check_needs(self.needs)

    def to_dict(self) -> dict[str, Any]:
        """The grid without its presets, as `results/<name>/grid.yaml` holds it."""
        return {name: value for name, value in asdict(self).items() if name != "presets"}


def find_grid(name: str, folder: Path = GRIDS) -> Grid:
    """The grid `<folder>/<name>.yaml`.

    Raises
    ------
    ConfigError
        There is no such grid; the message lists those there are.
    """
    file = folder / f"{name}.yaml"
    if not file.is_file():
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        raise ConfigError(f"there is no grid {name!r}; grids in {folder}: {', '.join(known)}")
    return load_grid(file)


def load_grid(file: Path) -> Grid:
    """A grid file, checked.

    Raises
    ------
    ConfigError
        The file is not YAML (the message has the line), or says something a grid does not have.
    """
    saved = read_yaml(file)
    names = [f.name for f in fields(Grid)]
    for name in saved:
        if name not in names:
            raise ConfigError(f"{file}: a grid has no {name!r}{suggestion(name, names)}")
    required = [f.name for f in fields(Grid) if f.default is f.default_factory is MISSING]
    if missing := [name for name in required if name not in saved]:
        raise ConfigError(f"{file}: {', '.join(missing)} missing; a grid needs {required}")
    try:
        return Grid(**saved)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a ConfigError with the line where it is malformed."""
    try:
        saved = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{file}, line {line}: not YAML: {error.problem}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: not YAML: {error}") from error
    if not isinstance(saved, dict):
        raise ConfigError(f"{file}: expected `name: value` lines, got {type(saved).__name__}")
    return saved


def configure(grid: Grid, preset: str | None, settings: Mapping[str, Any]) -> Grid:
    """`grid` with a preset and then settings applied.

    A setting is a knob, `seeds`, `folds`, `split`, or `resources.<name>`.

    Raises
    ------
    ConfigError
        The preset or the name of a setting is unknown (the message lists them), or is an axis.
    """
    chosen: dict[str, Any] = {}
    if preset is not None:
        if preset not in grid.presets:
            raise ConfigError(f"no preset {preset!r}; this grid has {sorted(grid.presets)}")
        chosen |= grid.presets[preset]
    for name, value in (chosen | dict(settings)).items():
        grid = _set(grid, name, value)
    return grid


def _set(grid: Grid, name: str, value: Any) -> Grid:
    if name in grid.axes:
        raise ConfigError(f"{name} is an axis of this grid; take a part of it by --only {name}=...")
    if name in ("seeds", "folds", "split"):
        return replace(grid, **{name: value})
    if name.startswith("resources."):
        return replace(grid, resources=grid.resources | {name.removeprefix("resources."): value})
    knobs = defaults_of(grid.job)
    if name not in knobs:
        others = ["seeds", "folds", "split", *(f"resources.{r.name}" for r in fields(Resources))]
        raise ConfigError(f"{grid.job} has no {name!r}{suggestion(name, [*knobs, *others])}")
    if name in ("data", "weights") and Path(str(value)).exists():
        value = str(Path(value).resolve())  # a node's working directory may be another
    return replace(grid, knobs=grid.knobs | {name: value})


def expand(grid: Grid) -> tuple[list[Cell], list[Cell]]:
    """The grid's cells, and the cells that they need first.

    Returns
    -------
    cells : list of Cell
        Arms in the order of the axes, then folds, then seeds.
    needed : list of Cell
        Each once, in the order in which the cells need them.

    Raises
    ------
    ConfigError
        An axis is not a knob, two cells are the same, or the baseline is none of the arms.
    SplitError
        The split is wrong.
    """
    _check(grid)
    read_split = functools.cache(load_split)
    split = read_split(grid.split)
    folds = list(split.folds) if isinstance(grid.folds, str) else grid.folds
    if wrong := sorted(set(folds) - set(split.folds)):
        raise ConfigError(f"split {grid.split} has no fold {wrong}; it has {list(split.folds)}")
    cells: dict[str, Cell] = {}
    needed: dict[str, Cell] = {}
    arms = [
        dict(zip(grid.axes, values, strict=True))
        for values in itertools.product(*grid.axes.values())
    ]
    for arm, fold, seed in itertools.product(arms, folds, _seeds(grid)):
        cell = Cell(
            job=grid.job,
            config=make_config(grid.job, grid.knobs | arm),
            split=grid.split,
            split_sha256=split.digest,
            fold=fold,
            seed=seed,
            arm=arm,
            resources=_resources(grid),
        )
        if (first := _needed(grid, cell, read_split)) is not None:
            needed[first.id] = first
            cell = replace(cell, needs=(first.id,))
        if cell.id in cells:
            raise ConfigError(f"{cell.arm_name}, fold {fold}, seed {seed} is in the grid twice")
        cells[cell.id] = cell
    return list(cells.values()), list(needed.values())


def only(cells: Iterable[Cell], wanted: Mapping[str, list[Any]]) -> list[Cell]:
    """The cells whose axes (or `seed`, `fold`) have one of the wanted values."""
    cells = list(cells)
    has = [cell.arm | {"seed": cell.seed, "fold": cell.fold} for cell in cells]
    for axis, values in wanted.items():
        there = {row.get(axis) for row in has}
        if any(axis not in row for row in has):
            raise ConfigError(f"--only {axis}: no such axis{suggestion(axis, has[0])}")
        if unknown := [value for value in values if value not in there]:
            raise ConfigError(
                f"--only {axis}: no cell has {unknown}, they have {sorted(map(str, there))}"
            )
    return [
        cell
        for cell, row in zip(cells, has, strict=True)
        if all(row[axis] in values for axis, values in wanted.items())
    ]


def _check_kind(name: str, value: Any, kind: type, words: str) -> None:
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be {words}, got {value!r}")


def _are_numbers(values: Any) -> bool:
    """Whether it is a list of one or more whole numbers from 0."""
    whole = isinstance(values, list) and all(type(one) is int and one >= 0 for one in values)
    return whole and bool(values)


def _check_needs(needs: dict[str, Any]) -> None:
    if unknown := sorted(set(needs) ^ {"when", "cell"}):
        raise ConfigError(f"needs: has `when` and `cell`, got or lacks {unknown}")
    for name, value in needs.items():
        _check_kind(f"needs.{name}", value, dict, "`name: value` lines")
    if unknown := sorted(({"job", "split"} - set(needs["cell"])) | set(needs["cell"]) - set(FIRST)):
        raise ConfigError(f"needs.cell: has {', '.join(FIRST)}, got or lacks {unknown}")
    _check_kind("needs.cell.knobs", needs["cell"].get("knobs", {}), dict, "`name: value` lines")


def _check(grid: Grid) -> None:
    known = defaults_of(grid.job)
    for axis in grid.axes:
        if axis not in known:
            raise ConfigError(f"axes: {grid.job} has no knob {axis!r}{suggestion(axis, known)}")
        if axis in grid.knobs:
            raise ConfigError(f"{axis} is both an axis and a fixed knob; keep one")
    for axis, value in grid.baseline.items():
        if value not in grid.axes.get(axis, []):
            raise ConfigError(
                f"baseline: {axis}={value} is on no axis; axes: {grid.axes}; write a value of each"
            )
    if grid.baseline and (free := sorted(set(grid.axes) - set(grid.baseline))):
        raise ConfigError(f"baseline must name a value of each axis, {', '.join(free)} missing")


def _seeds(grid: Grid) -> list[int]:
    return list(range(grid.seeds)) if isinstance(grid.seeds, int) else list(grid.seeds)


def _resources(grid: Grid) -> Resources:
    names = [f.name for f in fields(Resources)]
    for name in grid.resources:
        if name not in names:
            raise ConfigError(f"resources have no {name!r}{suggestion(name, names)}")
    return Resources(**grid.resources)


def _needed(grid: Grid, cell: Cell, read_split: Callable[[str], Split]) -> Cell | None:
    """The cell that `cell` starts from: same seed and fixed knobs, but what `needs.cell` says."""
    if not grid.needs:
        return None
    knobs = defaults_of(cell.job)
    for name in grid.needs["when"]:
        if name not in knobs:
            raise ConfigError(
                f"needs.when: {cell.job} has no knob {name!r}{suggestion(name, knobs)}"
            )
    if any(getattr(cell.config, name) != value for name, value in grid.needs["when"].items()):
        return None
    first = grid.needs["cell"]
    theirs = {f.name for f in fields(config_class(first["job"]))}
    fixed = {name: value for name, value in grid.knobs.items() if name in theirs}
    split = read_split(first["split"])
    return Cell(
        job=first["job"],
        config=make_config(first["job"], fixed | first.get("knobs", {})),
        split=first["split"],
        split_sha256=split.digest,
        fold=split.folds[0],
        seed=cell.seed,
        resources=cell.resources,
    )
