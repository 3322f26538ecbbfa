"""Launch on Slurm: one launcher at a time, what was begun first, then what the site takes."""

import argparse
import os
import time
from collections.abc import Sequence

from spine_tasks import board, causes, slurm, snapshot
from spine_tasks.cell import Cell
from spine_tasks.cluster import foreseen_start, read_cluster
from spine_tasks.experiment import Experiment, create
from spine_tasks.export import export
from spine_tasks.feed import Fed, feed, share, throttle, waiting_arrays
from spine_tasks.lock import held
from spine_tasks.plan import make_ready, raised, report, show_plan, to_start
from spine_tasks.sites import Site
from spine_tasks.states import UNDER_WAY, State, states
from spine_tasks.submissions import FOLDER, submissions
from spine_tasks.submit import Setting, check_all, finish_begun, in_order, parameters, script
from spine_tasks.versions import other_code

LAUNCHING = "launching.json"  # in an experiment's folder, while cells are submitted
PATIENCE_S = 300.0  # with another launcher of the same experiment
FEED_S = 30.0  # between two looks of a waiting launcher whether Slurm takes more


def launch(
    asked: argparse.Namespace, experiment: Experiment, cells: list[Cell], name: str, site: Site
) -> int:
    """Submit what is not complete; return the exit code."""
    if (mask := site.umask_value()) is not None:
        os.umask(mask)
    if asked.dry_run:
        found = states(experiment.folder, cells)
        todo = to_start(experiment, cells, found, asked.retry_failed)
        scripts = _plan(experiment, site, todo, asked.max_parallel or site.max_parallel)
        show_plan(experiment, found, todo, name, scripts, asked.json)
        return 0
    code_now = snapshot.take(experiment.folder / "code")
    started, fed, notes = _submit(asked, experiment, cells, site, code_now)
    code = _wait(asked, experiment, cells, site, code_now) if asked.wait else 0
    report(experiment, cells, started, fed.jobs, notes, asked.json)
    return code


def _submit(
    asked: argparse.Namespace,
    experiment: Experiment,
    cells: Sequence[Cell],
    site: Site,
    code: snapshot.Snapshot,
) -> tuple[int, Fed, list[str]]:
    """Submit once; return how many cells were to be started, what became of them, and notes."""
    refusal = f"{experiment.name} is being launched by process {{pid}} on {{host}}; try again later"
    with held(experiment.folder / LAUNCHING, refusal, PATIENCE_S) as still_mine:
        finished = finish_begun(experiment.folder)
        notes = [f"finished the submission of job {job}" for job in finished]
        found = states(experiment.folder, cells)
        todo = to_start(experiment, cells, found, asked.retry_failed)
        fed = Fed()
        if todo:
            given = {
                cell: one.tasks.mem_gb
                for one in submissions(experiment.folder)
                for task in one.tasks.cells
                for cell in task
            }
            todo = raised(todo, found, given, asked.mem_factor)
            make_ready(experiment, todo, asked.retry_failed)
            cluster = read_cluster(site)
            out = causes.bad_nodes(experiment.folder)
            setting = Setting(
                experiment=experiment,
                site=site,
                variables=code.variables(),
                exclude=out,
                still_mine=still_mine,
            )
            begun = [experiment.run(cell) for cell in cells if found[cell.id].kind != "new"]
            if (warning := other_code(begun, code.code_sha256)) is not None:
                notes.append(warning)
            if out:
                notes.append(f"without {', '.join(out)}: devices failed there twice")
            if asked.export_sbatch is not None:
                notes += export(setting, cluster, todo, asked.max_parallel, asked.export_sbatch)
            else:
                fed = feed(setting, cluster, todo, found, asked.max_parallel)
        elif asked.max_parallel is not None:
            create(experiment, [])
            live = throttle(experiment, asked.max_parallel)
            notes.append(
                f"job {', '.join(live)}: at most {asked.max_parallel} tasks at once from now on"
                if live
                else "no array has tasks waiting: there is nothing to throttle"
            )
    if fed.left:
        notes.append(
            f"{len(fed.left)} cells are left: {fed.why}; launch again later, or with --wait"
        )
    return len(todo), fed, notes


def _wait(
    asked: argparse.Namespace,
    experiment: Experiment,
    cells: list[Cell],
    site: Site,
    code: snapshot.Snapshot,
) -> int:
    """Follow the jobs until none is left; submit what is left over or was lost on the way.

    What somebody cancelled, and what failed, is left alone.
    """
    asked.retry_failed = False
    fed_at = time.monotonic()
    live: list[str] = []
    with board.live(experiment, cells) as watch:
        while True:
            watch()
            found = states(experiment.folder, cells)
            lost = [cell for cell in cells if _may_go_on(found, cell)]
            under_way = any(state.kind in UNDER_WAY for state in found.values())
            if not under_way and not lost:
                break
            if lost and (time.monotonic() - fed_at > FEED_S or not under_way):
                fed_at = time.monotonic()
                _submit(asked, experiment, lost, site, code)
            if live != (live := waiting_arrays(experiment)):  # fewer arrays: more for each
                throttle(experiment, asked.max_parallel or site.max_parallel)
            time.sleep(board.SLURM_POLL_S)
    return int(any(state.kind != "complete" for state in found.values()))


def _may_go_on(found: dict[str, State], cell: Cell) -> bool:
    state = found[cell.id]
    return state.kind in ("new", "interrupted") and not state.cancelled


def _plan(
    experiment: Experiment, site: Site, todo: Sequence[Cell], at_once: int
) -> list[dict[str, str]]:
    """The scripts of a launch, but for names and job ids that do not exist yet, and their starts.

    Without Slurm on this machine nothing is foreseen, and nothing known of the site's limits.
    """
    taken = snapshot.planned(experiment.folder / "code")
    setting = Setting(experiment=experiment, site=site, variables=taken.variables())
    longest = max(1, len(todo))
    if slurm.installed():
        cluster = read_cluster(site)
        longest = cluster.max_array_size
    parts = in_order(todo, longest)
    if slurm.installed():
        check_all(cluster, site, parts)
    each = share(at_once, len(parts))
    name = f"{experiment.name}-<launch>"
    folder = experiment.folder / FOLDER / name
    scripts = []
    for array in parts:
        alone = script(folder, setting, array, parameters(name, setting, array))
        after = ["<jobs of the needed cells>"] if array.cells[0].needs else []
        asked = parameters(name, setting, array, after, each)
        start = "sbatch is not on this machine: no start is foreseen"
        if slurm.installed():
            start = f"Slurm foresees the start of {len(array.cells)} cells: {foreseen_start(alone)}"
        scripts.append({"script": script(folder, setting, array, asked), "start": start})
    return scripts
