"""Launch on Slurm: one launcher at a time, what was begun first, then what the site takes."""

import argparse
import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from spine_tasks import board, causes, slurm, snapshot
from spine_tasks.cell import Cell
from spine_tasks.cluster import foreseen_start, read_cluster
from spine_tasks.experiment import Experiment, create
from spine_tasks.feed import Fed, feed, share, throttle, waiting_arrays
from spine_tasks.lock import held
from spine_tasks.plan import make_ready, raised, report, show_plan, to_start
from spine_tasks.run import Run
from spine_tasks.sites import Site
from spine_tasks.states import UNDER_WAY, State, states
from spine_tasks.submissions import FOLDER, submissions
from spine_tasks.submit import Setting, check_all, finish_begun, in_order, parameters, script

Answer = TypeVar("Answer")

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
        at_once = asked.max_parallel or site.max_parallel
        scripts = _plan(experiment, site, todo, at_once) if todo else []
        show_plan(experiment, found, todo, name, scripts, asked.json)
        return 0
    take = functools.cache(lambda: snapshot.take(experiment.folder / "code"))
    if asked.wait:
        take()  # what is submitted later is the code of now, too
    done = _submit(asked, experiment, cells, site, take)
    if asked.wait:
        code = _wait(asked, experiment, cells, site, take)
        done.found = states(experiment.folder, cells)
    report(experiment, cells, done.started, done.fed.jobs, done.notes, asked.json, done.found)
    return code if asked.wait else 0


@dataclass
class Submitted:
    """What came of submitting once."""

    found: dict[str, State]  # of every cell, as it is then
    started: int  # cells that were to be started
    fed: Fed = field(default_factory=Fed)
    notes: list[str] = field(default_factory=list)


def _submit(
    asked: argparse.Namespace,
    experiment: Experiment,
    cells: Sequence[Cell],
    site: Site,
    take: Callable[[], snapshot.Snapshot],
) -> Submitted:
    """Finish what was begun, then submit what is to be started."""
    refusal = f"{experiment.name} is being launched by process {{pid}} on {{host}}; try again later"
    with held(experiment.folder / LAUNCHING, refusal, PATIENCE_S) as still_mine:
        finished = finish_begun(experiment.folder)
        found = states(experiment.folder, cells)
        todo = to_start(experiment, cells, found, asked.retry_failed)
        done = Submitted(found, len(todo))
        done.notes += [f"finished the submission of job {job}" for job in finished]
        if todo:
            answer = _meanwhile(lambda: read_cluster(site))
            todo, setting, notes = _ready(asked, experiment, site, todo, found, take, still_mine)
            done.notes += notes
            cluster = answer()
            if asked.export_sbatch is not None:
                from spine_tasks.export import export

                done.notes += export(
                    setting, cluster, todo, asked.max_parallel, asked.export_sbatch
                )
            else:
                done.fed = feed(setting, cluster, todo, found, asked.max_parallel)
        elif asked.max_parallel is not None:
            create(experiment, [])
            live = throttle(experiment, asked.max_parallel)
            done.notes.append(
                f"job {', '.join(live)}: at most {asked.max_parallel} tasks at once from now on"
                if live
                else "no array has tasks waiting: there is nothing to throttle"
            )
    if left := done.fed.left:
        why = done.fed.why
        done.notes.append(f"{len(left)} cells are left: {why}; launch again later, or with --wait")
    # Not asked of Slurm: what was let start a moment ago waits.
    for cell, job in done.fed.jobs.items():
        found[cell] = State("waiting", f"job {job.partition('_')[0]}", job)
    return done


def _ready(
    asked: argparse.Namespace,
    experiment: Experiment,
    site: Site,
    todo: Sequence[Cell],
    found: dict[str, State],
    take: Callable[[], snapshot.Snapshot],
    still_mine: Callable[[], None],
) -> tuple[list[Cell], Setting, list[str]]:
    """Make all that does not need Slurm's answers; return cells, setting and notes."""
    # Imported here, as they are slow to import and most launches start nothing.
    import submitit.slurm.slurm  # noqa: F401  # needed in a moment, when Slurm has answered

    from spine_tasks.versions import other_code

    given = {
        cell: one.tasks.mem_gb
        for one in submissions(experiment.folder)
        for task in one.tasks.cells
        for cell in task
    }
    todo = raised(todo, found, given, asked.mem_factor)
    out = causes.bad_nodes(experiment.folder)
    make_ready(experiment, todo, asked.retry_failed)
    code = take()
    begun = [Run(experiment.folder / cell) for cell, one in found.items() if one.kind != "new"]
    notes = list(filter(None, [other_code(begun, code.code_sha256)]))
    if out:
        notes.append(f"without {', '.join(out)}: devices failed there twice")
    setting = Setting(
        experiment=experiment,
        site=site,
        variables=code.variables(),
        exclude=out,
        still_mine=still_mine,
    )
    return todo, setting, notes


def _wait(
    asked: argparse.Namespace,
    experiment: Experiment,
    cells: list[Cell],
    site: Site,
    take: Callable[[], snapshot.Snapshot],
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
            lost = any(
                state.kind in ("new", "interrupted") and not _left_alone(state)
                for state in found.values()
            )
            if not lost and not _under_way(found):
                break
            if lost and time.monotonic() - fed_at > FEED_S:
                fed_at = time.monotonic()
                # Among all that may go on or has ended well: a lost cell may need one of those.
                among = [cell for cell in cells if not _left_alone(found[cell.id])]
                done = _submit(asked, experiment, among, site, take)
                if not done.started and not _under_way(done.found):
                    break  # what is lost needs what is left alone
            if live != (live := waiting_arrays(experiment)):  # fewer arrays: more for each
                throttle(experiment, asked.max_parallel or site.max_parallel)
            time.sleep(board.SLURM_POLL_S)
    return int(any(state.kind != "complete" for state in found.values()))


def _meanwhile(ask: Callable[[], Answer]) -> Callable[[], Answer]:
    """Begin to ask; return what waits for the answer and raises what the asking raised."""
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    # A daemon: a launch that fails meanwhile does not wait for the answer.
    threading.Thread(target=work, daemon=True).start()
    return answer.result


def _under_way(found: dict[str, State]) -> bool:
    return any(state.kind in UNDER_WAY for state in found.values())


def _left_alone(state: State) -> bool:
    return state.kind == "failed" or state.cancelled


def _plan(
    experiment: Experiment, site: Site, todo: Sequence[Cell], at_once: int
) -> list[dict[str, str]]:
    """The scripts of a launch, but for names and job ids that do not exist yet, and their starts.

    Without Slurm on this machine nothing is foreseen, and nothing known of the site's limits.
    """
    answer = _meanwhile(lambda: read_cluster(site) if slurm.installed() else None)
    taken = snapshot.planned(experiment.folder / "code")
    setting = Setting(experiment=experiment, site=site, variables=taken.variables())
    import submitit.slurm.slurm  # noqa: F401  # slow to import, and needed in a moment

    cluster = answer()
    parts = in_order(todo, cluster.max_array_size if cluster else len(todo))
    if cluster:
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
        if cluster:
            start = f"Slurm foresees the start of {len(array.cells)} cells: {foreseen_start(alone)}"
        scripts.append({"script": script(folder, setting, array, asked), "start": start})
    return scripts
