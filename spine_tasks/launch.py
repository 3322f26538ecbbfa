"""Launch: expand a grid, see what is not complete, start just that."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from spine_tasks import board, causes, local, slurm
from spine_tasks.cell import Cell
from spine_tasks.command import RESULTS, no_repeats, parser, run_command, selection, setting
from spine_tasks.errors import ConfigError
from spine_tasks.expand import only
from spine_tasks.experiment import Experiment, planned
from spine_tasks.grid import configure, find_grid
from spine_tasks.plan import make_ready, raised, report, show_plan, to_start, with_needed
from spine_tasks.sites import load_site
from spine_tasks.states import states

HERE = "local"  # the site that is this machine


def main() -> None:
    """The command line of jobs/launch.py."""
    run_command(lambda: launch(_parser().parse_args()))


def launch(asked: argparse.Namespace) -> int:
    """Plan the grid and start what is not complete; return the exit code."""
    grid = configure(find_grid(asked.grid), asked.preset, no_repeats(asked.set, "--set"))
    experiment = planned(asked.name or asked.grid, grid, asked.results)
    cells = with_needed(experiment, only(experiment.cells, no_repeats(asked.only, "--only")))
    name = asked.site or ("default" if slurm.installed() else HERE)
    if name == HERE:
        if asked.max_parallel or asked.export_sbatch:
            raise ConfigError("--max-parallel and --export-sbatch are for Slurm; name a --site")
        return _here(asked, experiment, cells)
    if asked.export_sbatch and asked.wait:
        raise ConfigError("--wait follows what a launch submits: leave it out of --export-sbatch")
    if asked.max_parallel is not None and asked.max_parallel < 1:
        raise ConfigError(f"--max-parallel must be at least 1, got {asked.max_parallel}")
    from spine_tasks import slurm_launch  # not at the top: a launch here needs none of it

    return slurm_launch.launch(asked, experiment, cells, name, load_site(name))


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
    add("--retry-failed", action="store_true", help="start the cells that failed again, too")
    add("--mem-factor", type=float, default=1.0, metavar="X", help="with --retry-failed: times "
        "the memory for those that had too little")  # fmt: skip
    add("--max-parallel", type=int, metavar="N", help="array tasks at once, from now on; also of "
        "a grid that is under way")  # fmt: skip
    add("--export-sbatch", type=Path, metavar="DIR", help="write scripts to submit by hand instead")
    add("--wait", action="store_true", help="on Slurm: follow until every cell has ended; submit "
        "what the site did not take at first, and what was lost")  # fmt: skip
    add("--json", action="store_true", help="print for programs")
    return flags


def _here(asked: argparse.Namespace, experiment: Experiment, cells: list[Cell]) -> int:
    """Run the cells on this machine."""
    from spine_tasks import snapshot
    from spine_tasks.versions import other_code

    found = states(experiment.folder, cells)
    todo = to_start(experiment, cells, found, asked.retry_failed)
    if asked.dry_run:
        show_plan(experiment, found, todo, HERE, [], asked.json)
        return 0
    notes: list[str] = []
    code = int(any(state.kind != "complete" for state in found.values()))
    if todo:
        todo = raised(todo, found, {}, asked.mem_factor)
        make_ready(experiment, todo, asked.retry_failed)
        taken = snapshot.take(experiment.folder / "code")
        notes += filter(None, [other_code(map(experiment.run, cells), taken.code_sha256)])
        code = _run_here(experiment, cells, todo, taken.variables())
    report(experiment, cells, len(todo), {}, notes, asked.json)
    return code


def _run_here(
    experiment: Experiment, cells: list[Cell], todo: list[Cell], variables: dict[str, str]
) -> int:
    def as_interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for one in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal stops as cleanly as Ctrl-C
        signal.signal(one, as_interrupt)
    with board.live(experiment, cells) as watch:
        local.run_here(experiment, todo, watch, variables)
        watch()
    found = states(experiment.folder, cells)
    failed = [cell for cell in cells if found[cell.id].kind != "complete"]
    stop = causes.stopped(experiment.folder)
    for cell in failed:
        why = found[cell.id].why or stop or "a cell that it needs is not complete"
        sys.stderr.write(f"{found[cell.id].kind}: {cell.id}: {why}\n")
        sys.stderr.write(f"  see {experiment.run(cell).log}\n")
    return 1 if failed else 0
