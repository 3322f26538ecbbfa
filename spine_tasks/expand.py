"""A grid expanded into cells: every arm on every fold with every seed, and what they need first."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from spine_tasks.cell import Cell, Resources
from spine_tasks.configs import Config, defaults_of, knobs_of, make_config, suggestion
from spine_tasks.errors import ConfigError
from spine_tasks.grid import Grid, check_knob
from spine_tasks.splits import load_split


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
    split = load_split(grid.split)
    folds = list(split.folds) if isinstance(grid.folds, str) else grid.folds
    if wrong := sorted(set(folds) - set(split.folds)):
        raise ConfigError(f"split {grid.split} has no fold {wrong}; it has {list(split.folds)}")
    resources = _resources(grid.resources)
    # What cells share is made once: a grid may have thousands of them.
    arms = [(arm, *_job_and_config(grid, arm)) for arm in _arms(grid)]
    if resources.nodes > 1 and (alone := {job for _, job, one in arms if one.framework != "torch"}):
        raise ConfigError(f"resources.nodes: {', '.join(alone)} trains on one node only")
    first = _needed(grid, split.digest) if grid.needs else None
    needed: dict[str, Cell] = {}
    cells: dict[tuple[Config, int, int], Cell] = {}
    for arm, job, config in arms:
        needs_first = _starts_from_another(grid, config)
        for fold, seed in itertools.product(folds, _seeds(grid)):
            needs: tuple[str, ...] = ()
            if needs_first and first is not None:
                other = first(config, fold, seed)
                needs = (needed.setdefault(other.id, other).id,)
            cell = Cell(
                job=job,
                config=config,
                split=grid.split,
                split_sha256=split.digest,
                fold=fold,
                seed=seed,
                needs=needs,
                arm=arm,
                resources=resources,
            )
            if (config, fold, seed) in cells:
                raise ConfigError(f"{cell.arm_name}, fold {fold}, seed {seed} is in the grid twice")
            cells[config, fold, seed] = cell
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


def _check(grid: Grid) -> None:
    for axis in grid.axes:
        check_knob(grid.jobs, axis, "axes: ")
        if axis in grid.knobs:
            raise ConfigError(f"{axis} is both an axis and a fixed knob; keep one")
    for arm, knobs in grid.arms.items():
        for name in knobs:
            check_knob(grid.jobs, name, f"arms.{arm}: ")
            if name in grid.axes:
                raise ConfigError(f"arms.{arm}: {name} is an axis too; keep one")
    for name in grid.knobs:
        check_knob(grid.jobs, name)
    for name in grid.needs.get("when", {}):
        check_knob(grid.jobs, name, "needs.when: ")
    axes = _axes(grid)
    for axis, value in grid.baseline.items():
        if value not in axes.get(axis, []):
            raise ConfigError(
                f"baseline: {axis}={value} is on no axis; axes: {axes}; write a value of each"
            )
    if grid.baseline and (free := sorted(set(axes) - set(grid.baseline))):
        raise ConfigError(f"baseline must name a value of each axis, {', '.join(free)} missing")


def _axes(grid: Grid) -> dict[str, list[Any]]:
    """The grid's axes, before them its jobs if they are several, and its arms with names."""
    jobs = {"job": grid.jobs} if len(grid.jobs) > 1 else {}
    return jobs | ({"arm": list(grid.arms)} if grid.arms else {}) | grid.axes


def _arms(grid: Grid) -> Iterator[dict[str, Any]]:
    axes = _axes(grid)
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _job_and_config(grid: Grid, arm: dict[str, Any]) -> tuple[str, Config]:
    job = arm.get("job", grid.jobs[0])
    together = grid.arms[arm["arm"]] if "arm" in arm else {}
    axes = {axis: value for axis, value in arm.items() if axis in grid.axes}
    return job, make_config(job, grid.knobs_of(job) | together | axes)


def _seeds(grid: Grid) -> list[int]:
    return list(range(grid.seeds)) if isinstance(grid.seeds, int) else list(grid.seeds)


def _resources(asked: Mapping[str, Any]) -> Resources:
    names = [f.name for f in fields(Resources)]
    for name in asked:
        if name not in names:
            raise ConfigError(f"resources have no {name!r}{suggestion(name, names)}")
    return Resources(**asked)


def _starts_from_another(grid: Grid, config: Config) -> bool:
    return bool(grid.needs) and all(
        getattr(config, name) == value for name, value in grid.needs["when"].items()
    )


def _needed(grid: Grid, digest: str) -> Callable[[Config, int, int], Cell]:
    """What makes the cell that one of a config, a fold and a seed starts from.

    Its knobs are the fixed ones, but what `needs.cell` says. With a split of its own it is one a
    seed, of that split's first fold. Without one it reads what the other reads: it is of the same
    split and fold and has the same knobs, so that cells that differ in others share it; its seed
    is 0.

    Parameters
    ----------
    digest
        Of the grid's split.
    """
    first = grid.needs["cell"]
    job, own = first["job"], first.get("knobs", {})
    theirs = defaults_of(job)
    resources = _resources(grid.resources | first.get("resources", {}))
    if "split" not in first:

        def beside(config: Config, fold: int, _seed: int) -> Cell:
            knobs = {name: value for name, value in knobs_of(config).items() if name in theirs}
            made = make_config(job, knobs | own)
            return Cell(
                job=job,
                config=made,
                split=grid.split,
                split_sha256=digest,
                fold=fold,
                seed=0,
                resources=resources,
            )

        return functools.cache(beside)
    fixed = {name: value for name, value in grid.knobs.items() if name in theirs}
    split = load_split(first["split"])
    cell = Cell(
        job=job,
        config=make_config(job, fixed | own),
        split=first["split"],
        split_sha256=split.digest,
        fold=split.folds[0],
        seed=0,
        resources=resources,
    )
    return functools.cache(lambda _config, _fold, seed: replace(cell, seed=seed))
