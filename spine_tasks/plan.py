"""What a launch starts, what it checks before, and what it says."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spine_tasks import board, causes
from spine_tasks.cell import Cell
from spine_tasks.command import listed
from spine_tasks.configs import UNTRAINED
from spine_tasks.errors import ConfigError
from spine_tasks.experiment import Experiment, create
from spine_tasks.files import check_room
from spine_tasks.states import UNDER_WAY, State, states

LEAST_ROOM = 50_000_000  # bytes for results, where nothing tells yet how much a cell writes


def with_needed(experiment: Experiment, cells: Sequence[Cell]) -> list[Cell]:
    """The cells, behind those that they need."""
    wanted = {first for cell in cells for first in cell.needs}
    return [cell for cell in experiment.needed if cell.id in wanted] + list(cells)


def to_start(
    experiment: Experiment, cells: Sequence[Cell], found: dict[str, State], retry_failed: bool
) -> list[Cell]:
    """The cells to start now; what failed is left alone unless asked for, and what needs it too."""
    left_alone = ("complete", *UNDER_WAY) if retry_failed else ("complete", "failed", *UNDER_WAY)
    todo = {cell.id: cell for cell in cells if found[cell.id].kind not in left_alone}
    there = {cell for cell, state in found.items() if state.kind in ("complete", *UNDER_WAY)}
    if not retry_failed and causes.stopped(experiment.folder) is not None:
        todo = {name: cell for name, cell in todo.items() if found[name].kind != "new"}
    there.update(todo)
    return [cell for cell in todo.values() if there.issuperset(cell.needs)]


def raised(
    todo: Sequence[Cell], found: dict[str, State], before: dict[str, float], factor: float
) -> list[Cell]:
    """The cells, asking for more memory where they had too little.

    Parameters
    ----------
    before
        What each cell was given last, in GB: what was raised once stays so.
    """
    if factor < 1:
        raise ConfigError(f"--mem-factor must be at least 1, got {factor:g}")
    cells = []
    for cell in todo:
        mem_gb = max(cell.resources.mem_gb, before.get(cell.id, 0.0))
        cause = found[cell.id].cause
        if cause is not None and cause.kind == "host memory":
            mem_gb *= factor
        if mem_gb != cell.resources.mem_gb:
            cell = replace(cell, resources=replace(cell.resources, mem_gb=mem_gb))
        cells.append(cell)
    return cells


def make_ready(experiment: Experiment, todo: Sequence[Cell], retry_failed: bool) -> None:
    """Check what the cells will read and where they will write; make their folders."""
    _check_inputs(experiment, todo)
    create(experiment, todo)
    sizes = [_size(experiment.run(cell).folder) for cell in experiment.everything[:50]]
    need = max(LEAST_ROOM, len(todo) * max(sizes))
    check_room(experiment.folder, need, f"{len(todo)} cells of {experiment.name}")
    if retry_failed:
        causes.forget_stop(experiment.folder)


def show_plan(
    experiment: Experiment,
    found: dict[str, State],
    todo: Sequence[Cell],
    site: str,
    scripts: list[dict[str, str]],
    as_json: bool,
) -> None:
    """Show the cells, and each script with the start that Slurm foresees for it."""
    if as_json:
        plan = {"name": experiment.name, "cells": board.as_json(experiment, found)}
        texts = [one["script"] for one in scripts]
        starts = [one["start"] for one in scripts]
        print_json(plan | {"site": site, "to_start": len(todo), "scripts": texts, "starts": starts})
        return
    from rich.console import Console

    console = Console()
    console.print(board.table(experiment, found))
    where = f"with the site profile {site}" if scripts else "on this machine"
    console.print(f"{len(todo)} of {len(found)} cells would be started {where}; nothing was.")
    for one in scripts:
        for text in (one["start"], one["script"]):
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def report(
    experiment: Experiment,
    cells: Sequence[Cell],
    started: int,
    jobs: dict[str, str],
    notes: Sequence[str],
    as_json: bool,
    found: dict[str, State] | None = None,
) -> None:
    """Say what was started, what was not and why, and what to do next.

    Parameters
    ----------
    found
        The state of every cell, where it is known; None: it is looked up.
    """
    found = states(experiment.folder, cells) if found is None else found
    if as_json:
        result: dict[str, Any] = {"name": experiment.name, "started": started, "jobs": jobs}
        rows = board.as_json(experiment, found)
        print_json(result | {"notes": list(notes), "cells": rows})
        return
    lines = [f"{experiment.name}: {board.counts(found)}"]
    if not started:
        lines.append("nothing to start")
    if jobs:
        arrays = dict.fromkeys(job.partition("_")[0] for job in jobs.values())
        lines.append(f"submitted as Slurm job {', '.join(arrays)}")
    lines += [*notes, *_left_alone(experiment, found)]
    if all(state.kind == "complete" for state in found.values()):
        lines.append(f"next: python jobs/collect.py --grid {experiment.name}")
    else:
        lines.append(f"next: python jobs/status.py --grid {experiment.name}")
    sys.stdout.write("\n".join(lines) + "\n")


def print_json(value: Any) -> None:
    """Write a value for programs to standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _check_inputs(experiment: Experiment, todo: Sequence[Cell]) -> None:
    """Find missing data and weights now, not after hours in a queue."""
    from spine_tasks.data.cases import files_of

    read = {(cell.config.data_knobs, *_values(cell), cell.split, cell.fold): cell for cell in todo}
    for cell in read.values():
        files_of(cell, experiment.folder)
    for cell in {(cell.config, bool(cell.needs)): cell for cell in todo}.values():
        if cell.config.start is not None:
            from spine_tasks.weights import find  # which can download, so that it is slow to import

            find(cell.config.start)
        elif getattr(cell.config, "init", UNTRAINED[0]) not in UNTRAINED and not cell.needs:
            raise ConfigError(
                f"init={cell.config.init} needs weights: --set weights=<name or file>, or a grid "
                "whose `needs` trains them"
            )


def _values(cell: Cell) -> tuple[Any, ...]:
    """The knobs that choose what a cell reads."""
    return tuple(getattr(cell.config, name) for name in cell.config.data_knobs)


def _size(folder: Path) -> int:
    """The bytes in the files of a run's folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _left_alone(experiment: Experiment, found: dict[str, State]) -> list[str]:
    failed = [cell for cell, state in found.items() if state.kind == "failed"]
    lines = []
    if failed:
        lines.append(
            f"{len(failed)} failed ({listed([cell[-8:] for cell in failed])}): jobs/status.py says "
            "why; --retry-failed starts them again"
        )
    if (why := causes.stopped(experiment.folder)) is not None:
        lines.append(f"no new cell is started: {why}")
    return lines
