"""Submission to Slurm through submitit: one array for all cells of the same kind."""

import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spine_tasks.cell import Cell, Resources
from spine_tasks.errors import SiteError
from spine_tasks.experiment import Experiment
from spine_tasks.files import append_line
from spine_tasks.run import now
from spine_tasks.sites import Site
from spine_tasks.states import SUBMISSIONS
from spine_tasks.supervise import Supervise

Batch = tuple[Resources, str, list[Cell]]  # what each asks for, framework, cells


def batches(cells: Sequence[Cell]) -> list[Batch]:
    """The cells grouped so that each group is one array, in the order of first appearance."""
    groups: dict[tuple[Resources, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.resources, cell.config.framework), []).append(cell)
    return [(resources, framework, group) for (resources, framework), group in groups.items()]


def parameters(
    name: str, site: Site, resources: Resources, after: Sequence[str] = ()
) -> dict[str, Any]:
    """The keyword arguments that submitit makes the `#SBATCH` lines from.

    Parameters
    ----------
    after
        Job ids that must have ended, well or not, before this one starts. A cell whose needed
        cell failed then says so itself; with `afterok` it would wait for ever.
    """
    asked = {
        "job_name": name,
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "gres": site.gres.format(gpus=resources.gpus) if resources.gpus else None,
        "cpus_per_task": resources.cpus,
        "mem": f"{max(1, round(resources.mem_gb * 1024))}M",  # 0 means all of a node's
        "time": minutes(resources.time),
        "dependency": f"afterany:{':'.join(after)}" if after else None,
    }
    return {key: value for key, value in asked.items() if value is not None} | {
        "signal_delay_s": site.signal_lead_s,
        "array_parallelism": site.max_parallel,
        "stderr_to_stdout": True,
        # A failed line of the set-up must end the job, not start it without its modules.
        "setup": ["set -eo pipefail", *site.setup],
        # Since Slurm 22.05 a step does not inherit the CPUs that its job asked for.
        "srun_args": [f"--cpus-per-task={resources.cpus}"],
        "additional_parameters": {"requeue": True},
    }


def script(folder: Path, asked: dict[str, Any], count: int) -> str:
    """The sbatch script that submitit writes for `count` cells."""
    from submitit.slurm import slurm

    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)])
    size = {"map_count": count} if count > 1 else {}
    return slurm._make_sbatch_string(command=command, folder=folder, **(asked | size))


def submit(
    experiment: Experiment, site: Site, cells: Sequence[Cell], after: Sequence[str] = ()
) -> dict[str, str]:
    """Submit the cells, one array a kind of resources; return cell id -> job id.

    Raises
    ------
    SiteError
        Slurm does not take the job; the message is Slurm's own and says what was asked.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError

    submitted: dict[str, str] = {}
    for resources, framework, group in batches(cells):
        name = f"{experiment.name}-{uuid.uuid4().hex[:8]}"
        asked = parameters(name, site, resources, after)
        executor = SlurmExecutor(experiment.folder / "slurm" / name)
        executor.update_parameters(**asked)
        folders = [str(experiment.run(cell).folder) for cell in group]
        supervise = Supervise(site.python.get(framework, sys.executable))
        try:
            jobs = executor.map_array(supervise, folders)
        except FailedJobError as error:
            raise SiteError(
                f"Slurm does not take {len(group)} cells of {experiment.name} with "
                f"{asked}: {error}; correct the site profile or the grid's resources, and launch "
                "again"
            ) from error
        ids = {job.job_id: cell.id for job, cell in zip(jobs, group, strict=True)}
        record = {"time": now(), "name": name, "jobs": ids}
        append_line(experiment.folder / SUBMISSIONS, record)
        submitted |= {cell: job for job, cell in ids.items()}
    return submitted


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
