"""Launch: expand a grid, see what is not complete, start just that."""

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from spine_tasks import board, local
from spine_tasks.cell import Cell
from spine_tasks.command import RESULTS, no_repeats, parser, run_command, selection, setting
from spine_tasks.errors import ConfigError
from spine_tasks.expand import only
from spine_tasks.experiment import Experiment, create, planned
from spine_tasks.grid import configure, find_grid
from spine_tasks.sites import Site, load_site
from spine_tasks.states import UNDER_WAY, State, queued, states

HERE = "local"  # the site that is this machine


def main() -> None:
    """The command line of jobs/launch.py."""
    run_command(lambda: launch(_parser().parse_args()))


def launch(asked: argparse.Namespace) -> int:
    """Plan the grid and start what is not complete; return the exit code."""
    grid = configure(find_grid(asked.grid), asked.preset, no_repeats(asked.set, "--set"))
    experiment = planned(asked.name or asked.grid, grid, asked.results)
    cells = _with_needed(experiment, only(experiment.cells, no_repeats(asked.only, "--only")))
    found = states(experiment.folder, cells)
    todo = [cell for cell in cells if found[cell.id].kind not in ("complete", *UNDER_WAY)]
    name = asked.site or ("default" if shutil.which("sbatch") else HERE)
    site = None if name == HERE else load_site(name)
    if asked.dry_run:
        _show_plan(experiment, found, todo, name, site, asked.json)
        return 0
    jobs: dict[str, str] = {}
    code = 0
    if todo:
        _check_inputs(experiment, todo)
        create(experiment, todo)
        if site is None:
            code = _run_here(experiment, cells, todo)
        else:
            jobs = _submit(experiment, site, todo, found)
    if site is not None and asked.wait:
        code = _wait(experiment, cells)
    _report(experiment, cells, len(todo), jobs, asked.json)
    return code


def _parser() -> argparse.ArgumentParser:
    flags = parser(
        "Run every cell of a grid that is not complete: on Slurm if sbatch is there, else here.",
        "python jobs/launch.py --grid gm_transfer --set epochs=20 --only init=pretrained --dry-run",
    )
    add = flags.add_argument
    add("--grid", required=True, metavar="NAME", help="a file in jobs/grids, without .yaml")
    add("--preset", metavar="NAME", help="a named set of settings in the grid's file")
    add("--set", action="append", default=[], type=setting, metavar="KNOB=VALUE",
        help="a knob, seeds, folds, split, resources.X or needs.KNOB; repeatable")  # fmt: skip
    add("--only", action="append", default=[], type=selection, metavar="AXIS=VALUE,...",
        help="a part of the grid, by axis, seed or fold; may be repeated")  # fmt: skip
    add("--name", help="of the folder in results; default: the grid's name")
    add("--site", help=f"a profile in slurm/sites, or `{HERE}` for this machine")
    add("--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    add("--dry-run", action="store_true", help="show cells, their state and the sbatch script")
    add("--wait", action="store_true", help="on Slurm: follow until every cell has ended")
    add("--json", action="store_true", help="print for programs")
    return flags


def _with_needed(experiment: Experiment, cells: Sequence[Cell]) -> list[Cell]:
    wanted = {first for cell in cells for first in cell.needs}
    return [cell for cell in experiment.needed if cell.id in wanted] + list(cells)


def _check_inputs(experiment: Experiment, todo: Sequence[Cell]) -> None:
    """Find missing data and weights now, not after hours in a queue."""
    from spine_tasks.data.cases import cases_of
    from spine_tasks.splits import PARTS
    from spine_tasks.weights import find

    for cell in {(cell.config.data, cell.split, cell.fold): cell for cell in todo}.values():
        for part in PARTS:
            cases_of(cell, part, experiment.folder)
    starts = {
        (cell.config.weights, bool(cell.needs)) for cell in todo if cell.config.init == "pretrained"
    }
    for weights, trained in starts:
        if weights is not None:
            find(weights)
        elif not trained:
            raise ConfigError(
                "init=pretrained needs weights: --set weights=challenge, or a grid whose `needs` "
                "trains them"
            )


def _run_here(experiment: Experiment, cells: list[Cell], todo: list[Cell]) -> int:
    def as_interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for one in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal stops as cleanly as Ctrl-C
        signal.signal(one, as_interrupt)
    with board.live(experiment, cells) as watch:
        local.run_here(experiment, todo, watch)
        watch()
    found = states(experiment.folder, cells)
    failed = [cell for cell in cells if found[cell.id].kind != "complete"]
    for cell in failed:
        why = found[cell.id].why or "a cell that it needs is not complete"
        sys.stderr.write(f"{found[cell.id].kind}: {cell.id}: {why}\n")
        sys.stderr.write(f"  see {experiment.run(cell).log}\n")
    return 1 if failed else 0


def _submit(
    experiment: Experiment, site: Site, todo: list[Cell], found: dict[str, State]
) -> dict[str, str]:
    """Submit what can start at once, then what waits for other cells; return cell -> job."""
    from spine_tasks.submit import submit

    at_once, later = _in_order(todo)
    jobs = submit(experiment, site, at_once)
    # Needed cells that an earlier launch submitted are waited for too.
    under_way = {cell: state.job for cell, state in found.items() if state.job} | jobs
    first = {under_way[cell]: None for one in later for cell in one.needs if cell in under_way}
    return jobs | submit(experiment, site, later, list(first))


def _in_order(todo: list[Cell]) -> tuple[list[Cell], list[Cell]]:
    return [cell for cell in todo if not cell.needs], [cell for cell in todo if cell.needs]


def _wait(experiment: Experiment, cells: list[Cell]) -> int:
    """Follow the jobs until none is left in the queue: a complete cell may still be scored."""
    ids = {cell.id for cell in cells}
    with board.live(experiment, cells) as watch:
        while ids & set(queued(experiment.folder)):
            watch()
            time.sleep(board.SLURM_POLL_S)
        watch()
    found = states(experiment.folder, cells)
    return int(any(state.kind != "complete" for state in found.values()))


def _show_plan(
    experiment: Experiment,
    found: dict[str, State],
    todo: list[Cell],
    name: str,
    site: Site | None,
    as_json: bool,
) -> None:
    scripts = [] if site is None else _scripts(experiment, site, todo)
    if as_json:
        plan = {"name": experiment.name, "cells": board.as_json(experiment, found)}
        _print_json(plan | {"site": name, "to_start": len(todo), "scripts": scripts})
        return
    console = Console()
    console.print(board.table(experiment, found))
    where = "on this machine" if site is None else f"through the site profile {name}"
    console.print(f"{len(todo)} of {len(found)} cells would be started {where}; nothing was.")
    for text in scripts:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _scripts(experiment: Experiment, site: Site, todo: list[Cell]) -> list[str]:
    """The sbatch scripts of a launch, but for its name and job ids, which do not exist yet."""
    from spine_tasks.submit import batches, parameters, script

    name = f"{experiment.name}-<launch>"
    scripts = []
    for cells in _in_order(todo):
        after = ["<jobs of the needed cells>"] if cells and cells[0].needs else []
        for resources, _, group in batches(cells):
            asked = parameters(name, site, resources, after)
            scripts.append(script(experiment.folder / "slurm" / name, asked, len(group)))
    return scripts


def _report(
    experiment: Experiment, cells: list[Cell], started: int, jobs: dict[str, str], as_json: bool
) -> None:
    found = states(experiment.folder, cells)
    if as_json:
        result: dict[str, Any] = {"name": experiment.name, "started": started, "jobs": jobs}
        _print_json(result | {"cells": board.as_json(experiment, found)})
        return
    lines = [f"{experiment.name}: {board.counts(found)}"]
    if not started:
        lines.append("nothing to start")
    if jobs:
        arrays = dict.fromkeys(job.partition("_")[0] for job in jobs.values())
        lines.append(f"submitted as Slurm job {', '.join(arrays)}")
    if all(state.kind == "complete" for state in found.values()):
        lines.append(f"next: python jobs/collect.py --grid {experiment.name}")
    else:
        lines.append(f"next: python jobs/status.py --grid {experiment.name}")
    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
