"""Grids: a YAML file that names its axes and what is fixed.

A grid as a launch resolved it (preset and settings applied) is kept in `results/<name>/grid.yaml`,
which has the same form; every later command reads it there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from spine_tasks.cell import Resources
from spine_tasks.configs import defaults_of, suggestion
from spine_tasks.errors import ConfigError

PHANTOM = "phantom"  # data that is made up, not read
GRIDS = Path(__file__).parents[1] / "jobs" / "grids"
FIRST = ("job", "split", "knobs", "resources")  # what a grid may say of a needed cell


@dataclass(frozen=True, kw_only=True)
class Grid:
    """One question: axes, fixed knobs, split, seeds and resources."""

    job: (
        str | list[str]
    )  # several jobs are an axis too: each is an arm, or as many as the axes make
    split: str
    axes: dict[str, list[Any]] = field(default_factory=dict)  # knob -> values, all combined
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> knobs set together
    question: str = ""
    seeds: int | list[int] = 1  # how many (0, 1, ...), or which
    folds: str | list[int] = "all"
    knobs: dict[str, Any] = field(default_factory=dict)  # `<job>.<knob>`: of one of several jobs
    # `when` these knobs: this `cell` first; without a split of its own, one for each fold and arm
    needs: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)  # the arm that others are compared with
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)  # named sets of settings

    def __post_init__(self) -> None:
        """Check the kinds of the values, of which YAML and a command line take any."""
        for name in ("split", "question"):
            _check_kind(name, getattr(self, name), str, "text")
        if not self.jobs or not all(isinstance(job, str) for job in self.jobs):
            raise ConfigError(f"job must be the name of a job or a list of them, got {self.job!r}")
        for name in ("axes", "arms", "knobs", "needs", "resources", "baseline", "presets"):
            _check_kind(name, getattr(self, name), dict, "`name: value` lines")
        for name, settings in self.presets.items():
            _check_kind(f"presets.{name}", settings, dict, "`name: value` lines")
        for name, knobs in self.arms.items():
            _check_kind(f"arms.{name}", knobs, dict, "`knob: value` lines")
        if not (self.axes or self.arms or len(self.jobs) > 1):
            raise ConfigError("a grid compares something: give it axes, arms or several jobs")
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
            if len(self.jobs) > 1:
                raise ConfigError("a grid of several jobs has no `needs`; make a grid of each job")

    @property
    def jobs(self) -> list[str]:
        """The jobs that the grid compares; most have one."""
        return self.job if isinstance(self.job, list) else [self.job]

    def knobs_of(self, job: str) -> dict[str, Any]:
        """The fixed knobs of one of the jobs: its own go before what all share."""
        shared = {name: value for name, value in self.knobs.items() if "." not in name}
        own = {name: value for name, value in self.knobs.items() if name.startswith(f"{job}.")}
        return shared | {name.removeprefix(f"{job}."): value for name, value in own.items()}

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

    A setting is a knob, `seeds`, `folds`, `split`, `resources.<name>`, or `needs.split`,
    `needs.<knob>` and `needs.resources.<name>` for the cells that others start from.

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
    if of := [arm for arm, knobs in grid.arms.items() if name in knobs]:
        raise ConfigError(
            f"{name} is what arm {of[0]} of this grid sets; take others by --only arm"
        )
    value = _absolute(name.rpartition(".")[2], value)
    if name in ("seeds", "folds", "split"):
        return replace(grid, **{name: value})
    if name.startswith("resources."):
        return replace(grid, resources=grid.resources | {name.removeprefix("resources."): value})
    if name.startswith("needs.") and grid.needs:
        first, own = grid.needs["cell"], name.removeprefix("needs.")
        if own == "split":
            return replace(grid, needs=grid.needs | {"cell": first | {"split": value}})
        where = "resources" if own.startswith("resources.") else "knobs"
        changed = first.get(where, {}) | {own.removeprefix("resources."): value}
        return replace(grid, needs=grid.needs | {"cell": first | {where: changed}})
    check_knob(grid.jobs, name, others=_other_settings(grid))
    return replace(grid, knobs=grid.knobs | {name: value})


def check_knob(jobs: Sequence[str], name: str, where: str = "", others: Sequence[str] = ()) -> None:
    """Refuse a knob that is none of every job, or `<job>.<knob>` that is none of that one.

    Raises
    ------
    ConfigError
        The message begins with `where` and has the nearest name, and all: the knobs and `others`.
    """
    job, _, own = name.rpartition(".")
    for each in [job] if job in jobs else jobs:
        knobs = defaults_of(each)
        if (own if job in jobs else name) not in knobs:
            hint = f"; a knob of one job alone is set as <job>.{name}" if len(jobs) > 1 else ""
            what = "" if others else "knob "
            near = suggestion(name, [*knobs, *others])
            raise ConfigError(f"{where}{each} has no {what}{name!r}{hint}{near}")


def _other_settings(grid: Grid) -> list[str]:
    others = ["seeds", "folds", "split", *(f"resources.{r.name}" for r in fields(Resources))]
    return others + (["needs.<knob>"] if grid.needs else [])


def _absolute(name: str, value: Any) -> Any:
    """The value, a path made absolute: a node's working directory may be another."""
    path = Path(str(value))
    is_path = (
        path.exists()
        if name == "data"
        else path.is_dir()
        if name == "test_data"
        else path.is_file()
    )
    if name in ("data", "test_data", "weights", "split") and is_path and value != PHANTOM:
        return str(path.resolve())
    return value


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
    if unknown := sorted(({"job"} - set(needs["cell"])) | set(needs["cell"]) - set(FIRST)):
        raise ConfigError(f"needs.cell: has {', '.join(FIRST)}, got or lacks {unknown}")
    for name in ("knobs", "resources"):
        _check_kind(f"needs.cell.{name}", needs["cell"].get(name, {}), dict, "`name: value` lines")
