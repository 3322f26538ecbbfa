"""Submission to Slurm: one array for all cells of the same kind, exactly once.

The script and what runs on the node are submitit's. The array is held until all that its tasks
need is on disk, so that a launcher may be killed at any line: the next launch finishes what was
begun (`finish_begun`).
"""

import os
import shlex
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine_tasks import slurm
from spine_tasks.cell import Cell, Resources
from spine_tasks.cluster import Cluster, check
from spine_tasks.errors import SiteError
from spine_tasks.experiment import Experiment
from spine_tasks.files import write_text
from spine_tasks.sites import Site
from spine_tasks.submissions import (
    Submission,
    Tasks,
    begin,
    folder_of,
    note,
    submissions,
)
from spine_tasks.supervise import Supervise

LOOKS_S = (0.5, 2.0, 5.0)  # between looks for an array that sbatch may have made all the same


@dataclass(frozen=True)
class Array:
    """The cells of one array: all ask for the same and are of one framework."""

    resources: Resources
    framework: str
    cells: list[Cell]

    @property
    def tasks(self) -> list[list[Cell]]:
        """The cells of each task; several where they are packed."""
        size = self.resources.pack
        return [self.cells[at : at + size] for at in range(0, len(self.cells), size)]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all submissions of one launch share."""

    experiment: Experiment
    site: Site
    variables: dict[str, str]  # environment of the jobs: where the code snapshot is
    exclude: Sequence[str] = ()  # nodes that have failed
    still_mine: Callable[[], None] = lambda: None  # raises where another launcher took over


def arrays(cells: Sequence[Cell], longest: int) -> list[Array]:
    """The cells grouped into arrays of at most `longest` tasks, in the order of appearance."""
    groups: dict[tuple[Resources, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.resources, cell.config.framework), []).append(cell)
    found = []
    for (resources, framework), group in groups.items():
        size = longest * resources.pack
        parts = [group[at : at + size] for at in range(0, len(group), size)]
        found += [Array(resources, framework, part) for part in parts]
    return found


def in_order(cells: Sequence[Cell], longest: int) -> list[Array]:
    """The arrays of the cells that can start at once, then of those that start from others."""
    at_once = arrays([cell for cell in cells if not cell.needs], longest)
    return at_once + arrays([cell for cell in cells if cell.needs], longest)


def parameters(
    name: str,
    setting: Setting,
    array: Array,
    after: Sequence[str] = (),
    max_parallel: int | None = None,
) -> dict[str, Any]:
    """The keyword arguments that submitit makes the `#SBATCH` lines from.

    Parameters
    ----------
    after
        Job ids that must have ended, well or not, before this one starts. A cell whose needed
        cell failed then says so itself; with `afterok` it would wait for ever.
    max_parallel
        Tasks at once; None: the site profile's.
    """
    site, resources = setting.site, array.resources
    asked = {
        "job_name": name,
        "partition": ",".join(site.partitions) or None,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "exclude": ",".join(setting.exclude) or None,
        "gres": site.gres_of(resources.gpus),
        "cpus_per_task": resources.cpus * resources.pack,
        # 0 would mean all of a node's.
        "mem": f"{max(1, round(resources.mem_gb * resources.pack * 1024))}M",
        "time": minutes(resources.time),
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        # A supervisor a node.
        "ntasks_per_node": 1 if resources.nodes > 1 else None,
    }
    exports = [f"export {key}={shlex.quote(value)}" for key, value in setting.variables.items()]
    return {key: value for key, value in asked.items() if value is not None} | {
        "nodes": resources.nodes,
        "map_count": len(array.tasks),
        "array_parallelism": max_parallel or site.max_parallel,
        "wckey": None,  # submitit's own, which some sites refuse
        "signal_delay_s": site.signal_lead_s,
        "stderr_to_stdout": True,
        # A failed line of the set-up must end the job, not start it without its modules.
        "setup": ["set -eo pipefail", *site.setup_lines(array.framework), *exports],
        # Since Slurm 22.05 a step does not inherit the CPUs that its job asked for.
        "srun_args": [f"--cpus-per-task={resources.cpus * resources.pack}"],
        "additional_parameters": {"requeue": True},
    }


def script(folder: Path, setting: Setting, array: Array, asked: dict[str, Any]) -> str:
    """The sbatch script that submitit writes."""
    from submitit.slurm import slurm as submitit_slurm

    python = shlex.quote(setting.site.launcher_python(array.framework))
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return submitit_slurm._make_sbatch_string(command=command, folder=folder, **asked)


def submit(setting: Setting, array: Array, after: Sequence[str], max_parallel: int) -> str:
    """Submit one array and let it start; return its job id.

    Raises
    ------
    SiteError
        Slurm does not take it, and surely does not have it.
    """
    experiment = setting.experiment
    name = f"{experiment.name}-{uuid.uuid4().hex[:8]}"
    asked = parameters(name, setting, array, after, max_parallel)
    text = script(folder_of(experiment.folder, name), setting, array, asked)
    folder = begin(experiment.folder, name, tasks_of(setting, array))
    write_text(folder / "submission.sh", text, durable=False)
    setting.still_mine()
    try:
        job = slurm.ask_once("sbatch", "--parsable", "--hold", stdin=text).strip().split(";")[0]
    except SiteError as error:
        # "Socket timed out" is said of jobs that were accepted too: look before trying again.
        refused = isinstance(error, slurm.SlurmError) and error.words and not error.unreachable
        found = _look_for(name, LOOKS_S[:1] if refused else LOOKS_S)
        if found is None:
            note(experiment.folder, name, gone=True)
            raise SiteError(
                f"Slurm does not take {len(array.cells)} cells of {experiment.name}: {error}; it "
                f"was asked for {asked}; correct the site profile or the grid's resources, and "
                "launch again"
            ) from error
        job = found
    _let_start(experiment.folder, Submission(name, tasks_of(setting, array)), job)
    return job


def finish_begun(experiment: Path) -> list[str]:
    """Finish the submissions that a launcher was killed in; return their job ids.

    Arrays that Slurm turns out to have though it had denied it never started: they are cancelled.
    """
    known = submissions(experiment)
    if not any(one.begun or one.gone for one in known):
        return []
    there = {task.name: task.job.partition("_")[0] for task in slurm.queue()}
    finished = []
    for one in known:
        if one.begun and (job := one.job or there.get(one.name)) is not None:
            if one.name in there:
                _let_start(experiment, one, job)
                finished.append(job)
            else:  # it has ended: the ledger just did not hear of it
                note(experiment, one.name, released=True)
        elif one.begun:
            note(experiment, one.name, gone=True)
        elif one.gone and one.name in there:
            slurm.ask("scancel", there[one.name])
    return finished


def tasks_of(setting: Setting, array: Array) -> Tasks:
    """What the tasks of an array compute, as its tasks.json says."""
    site = setting.site
    named = {name for cell in array.cells for name in (cell.split, *_paths(cell.config))}
    read = sorted(path for name in named if (path := Path(name)).is_absolute() and path.exists())
    folders = [setting.experiment.folder, *read]  # what a container must be shown
    return Tasks(
        cells=[[cell.id for cell in task] for task in array.tasks],
        worker=site.worker_command(array.framework, folders),
        mem_gb=array.resources.mem_gb,
        umask=site.umask_value(),
        stage_to=site.stage_to if site.stage else None,
    )


def room(cluster: Cluster) -> int:
    """How many more array tasks may be submitted now."""
    everybody = slurm.ask("squeue", "--noheader", "--array", "--format", "%i").split()
    left = [cluster.max_job_count - len(everybody)]
    if cluster.max_submit is not None:
        left.append(cluster.max_submit - len(slurm.queue()))
    return max(0, min(left))


def check_all(cluster: Cluster, site: Site, parts: Sequence[Array]) -> None:
    """Raise `SiteError` where the cluster cannot have what the arrays ask for."""
    for asked in {array.resources for array in parts}:
        check(
            cluster,
            site,
            cpus=asked.cpus * asked.pack,
            mem_gb=asked.mem_gb * asked.pack,
            gpus=asked.gpus,
            time_min=minutes(asked.time),
        )


def minutes(time: str) -> int:
    """Whole minutes of `[days-]hours:minutes:seconds`, rounded up.

    Examples
    --------
    >>> minutes("02:00:00"), minutes("1-00:00:30")
    (120, 1441)
    """
    days, _, clock = time.rpartition("-")
    hours, mins, seconds = (int(part) for part in clock.split(":"))
    return (int(days or 0) * 24 + hours) * 60 + mins + (seconds > 0)


def _paths(config: Any) -> Iterator[str]:
    """The knobs that may name a file or a folder."""
    for name in ("data", "test_data", "weights"):
        if isinstance(value := getattr(config, name, None), str):
            yield value


def _look_for(name: str, pauses_s: Sequence[float]) -> str | None:
    """The id of the array of this name; None where Slurm answers each time without it."""
    for pause in pauses_s:
        time.sleep(pause)
        for task in slurm.queue():
            if task.name == name:
                return task.job.partition("_")[0]
    return None


def _let_start(experiment: Path, one: Submission, job: str) -> None:
    """Write what submitit looks for on the node, and the ledger; then let the held array start."""
    from submitit.core.utils import DelayedSubmission

    folder = folder_of(experiment, one.name)
    first = folder / "task.pkl"
    if not first.exists():
        DelayedSubmission(Supervise(), str(folder)).dump(first)
    for index in range(len(one.tasks.cells)):
        _link(first, folder / f"{job}_{index}_submitted.pkl")
    note(experiment, one.name, job=job)
    slurm.ask_of_array("scontrol", "release", job)
    note(experiment, one.name, released=True)


def _link(first: Path, file: Path) -> None:
    """Make `file` another name of `first`, or a copy where the file system has no hard links."""
    if file.exists():
        return
    try:
        os.link(first, file)
    except OSError:
        file.write_bytes(first.read_bytes())
