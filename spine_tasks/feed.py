"""Feeding a grid to Slurm: as many cells as the site takes now, the rest when it takes more."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from spine_tasks import slurm
from spine_tasks.cell import Cell
from spine_tasks.cluster import Cluster
from spine_tasks.errors import SiteError
from spine_tasks.experiment import Experiment
from spine_tasks.states import State
from spine_tasks.submissions import submissions
from spine_tasks.submit import Array, Setting, check_all, in_order, room, submit

# Slurm's words where it would take fewer tasks. Not just "limit": a time limit is no such thing.
LIMIT_WORDS = ("accounting/QOS policy", "SubmitJob", "temporarily unable to accept")


@dataclass
class Fed:
    """What was submitted, and what the site does not take yet."""

    jobs: dict[str, str] = field(default_factory=dict)  # cell id -> array task
    left: list[Cell] = field(default_factory=list)
    why: str = ""  # of what is left


def feed(
    setting: Setting,
    cluster: Cluster,
    todo: Sequence[Cell],
    found: Mapping[str, State],
    max_parallel: int | None,
) -> Fed:
    """Submit the cells, those that can start at once first; those that need others wait for them.

    Parameters
    ----------
    found
        The state of every cell, for the jobs of needed cells that are under way already.
    max_parallel
        Array tasks of the whole grid at once; None: the site profile's.

    Raises
    ------
    SiteError
        The cluster cannot have what is asked for, or does not answer.
    """
    parts = in_order(todo, cluster.max_array_size)
    check_all(cluster, setting.site, parts)
    fed = Fed()
    free = room(cluster)
    at_once = max_parallel or setting.site.max_parallel
    live = len(waiting_arrays(setting.experiment))
    each = share(at_once, live + len(parts))
    for array in parts:
        under_way = {cell: state.job for cell, state in found.items() if state.job} | fed.jobs
        free = _submit(setting, array, _after(array, under_way), each, free, fed)
    if live or max_parallel is not None:
        throttle(setting.experiment, at_once)
    return fed


def waiting_arrays(experiment: Experiment) -> list[str]:
    """The ids of the experiment's arrays that have tasks still waiting."""
    names = {one.name for one in submissions(experiment.folder)}
    if not names:
        return []
    waiting = [one for one in slurm.queue() if one.name in names and one.state == "PENDING"]
    return list(dict.fromkeys(task.job.partition("_")[0] for task in waiting))


def throttle(experiment: Experiment, at_once: int) -> list[str]:
    """Let at most so many tasks of the experiment's waiting arrays run at once; their ids."""
    ids = waiting_arrays(experiment)
    for job in ids:
        limit = f"ArrayTaskThrottle={share(at_once, len(ids))}"
        slurm.ask_of_array("scontrol", "update", f"jobid={job}", limit)
    return ids


def share(at_once: int, arrays_live: int) -> int:
    """What one of several arrays may run at once, so that together they keep to the number.

    Slurm throttles each array by itself; each runs at least one task.

    Examples
    --------
    >>> share(10, 1), share(10, 3), share(2, 5)
    (10, 3, 1)
    """
    return max(1, at_once // max(1, arrays_live))


def _submit(
    setting: Setting, array: Array, after: list[str], each: int, free: int, fed: Fed
) -> int:
    """Submit an array, or as much of it as the site takes; return how many tasks still fit."""
    pack = array.resources.pack
    while array.cells:
        fits = min(free, len(array.tasks))
        part = Array(array.resources, array.framework, array.cells[: fits * pack])
        if not part.cells:
            fed.why = fed.why or "the site takes no more jobs at the moment"
            break
        try:
            job = submit(setting, part, after, each)
        except SiteError as error:
            if not any(words in str(error.__cause__) for words in LIMIT_WORDS):
                raise
            # A limit that its configuration does not show: half of it may be taken.
            free, fed.why = fits // 2, f"the site takes no more ({error.__cause__})"
            continue
        for index, cells in enumerate(part.tasks):
            fed.jobs |= {cell.id: f"{job}_{index}" for cell in cells}
        array = Array(array.resources, array.framework, array.cells[fits * pack :])
        free -= fits
    fed.left += array.cells
    return free


def _after(array: Array, under_way: Mapping[str, str | None]) -> list[str]:
    """The array tasks that must have ended before this array starts."""
    needed: Iterable[str] = (first for cell in array.cells for first in cell.needs)
    return [job for first in dict.fromkeys(needed) if (job := under_way.get(first))]
