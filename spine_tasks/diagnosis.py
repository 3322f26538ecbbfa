"""What a cluster means for the cells of a site profile: facts, traps, and what is to be mended."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.filesize import decimal

from spine_tasks.cell import Resources
from spine_tasks.cluster import Cluster, check, foreseen_start
from spine_tasks.errors import SpineError
from spine_tasks.files import check_room
from spine_tasks.partitions import Partition
from spine_tasks.preemption import preemption_case
from spine_tasks.sites import Site
from spine_tasks.slurm_text import clock
from spine_tasks.submit import minutes

ROOM_BYTES = 1_000_000_000  # in the results folder: some cells with their checkpoints
KILL_WAIT_S = 5  # less may be too short for a small cell to save
SHORT_LEAD_S = 30
FEW_REQUEUES = 5  # Slurm's default


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    said: str
    kind: Literal["fact", "warning", "mend"] = "fact"


def findings(
    cluster: Cluster, site: Site, asked: Resources, script: str, results: Path
) -> Iterator[Finding]:
    """Everything about a cluster that can be told without running a job there.

    Parameters
    ----------
    asked
        What one small job asks for.
    script
        Its sbatch script.
    results
        Where cells write.
    """
    yield Finding("Slurm", f"cluster {cluster.name}, version {cluster.version}")
    yield from _profile(cluster, site, asked)
    yield from _limits(cluster)
    yield from _kills(cluster, site)
    yield from _python(site)
    yield tried("sbatch --test-only", lambda: f"would start {foreseen_start(script)}")
    yield tried("results", lambda: _room(results))


def tried(topic: str, look: Callable[[], str]) -> Finding:
    """What a look says, or what is to be mended where it raises a `SpineError`."""
    try:
        return Finding(topic, look())
    except SpineError as error:
        return Finding(topic, str(error), "mend")


def _profile(cluster: Cluster, site: Site, asked: Resources) -> Iterator[Finding]:
    """The profile's partitions, account and QOS."""

    def allowed() -> str:
        check(
            cluster,
            site,
            cpus=asked.cpus,
            mem_gb=asked.mem_gb,
            gpus=asked.gpus,
            time_min=minutes(asked.time),
        )
        account = site.account or (cluster.accounts and cluster.accounts.default)
        return f"account {account or 'none'}, QOS {site.qos or 'the default one'}"

    looked = tried("site profile", allowed)
    yield looked
    if looked.kind == "mend":
        return
    for queue in cluster.partitions_of(site):
        yield _partition(queue)
        yield Finding("preemption", preemption_case(cluster, site, queue))


def _partition(queue: Partition) -> Finding:
    kinds = "; ".join(sorted({str(node) for node in queue.nodes}))
    time = "any time" if queue.max_time_s is None else f"at most {clock(queue.max_time_s)}"
    said = f"{queue.state}, jobs of {time}, nodes of {kinds}"
    if queue.state != "UP":
        return Finding(
            f"partition {queue.name}", f"{said}; its jobs wait until it is UP", "warning"
        )
    return Finding(f"partition {queue.name}", said)


def _limits(cluster: Cluster) -> Iterator[Finding]:
    mine = "any number" if cluster.max_submit is None else f"at most {cluster.max_submit}"
    yield Finding(
        "limits",
        f"an array has at most {cluster.max_array_size} tasks (MaxArraySize), the cluster "
        f"{cluster.max_job_count} jobs (MaxJobCount), and you {mine} in the queue (MaxSubmitJobs); "
        "a launch with --wait submits the rest as there is room",
    )
    yield Finding(
        "accounting",
        "sacct and sacctmgr answer"
        if cluster.accounting
        else "sacctmgr does not answer: accounts and limits are not checked before submitting, and "
        "how a job ended is told by its log alone; nothing else needs it",
    )


def _kills(cluster: Cluster, site: Site) -> Iterator[Finding]:
    """How Slurm ends jobs, and starts them again."""
    if cluster.memory_enforced:
        yield Finding("memory", "a job over its memory is killed")
    else:
        said = (
            "not enforced: a job over its resources.mem_gb runs on, at the cost of its neighbours"
        )
        yield Finding("memory", said, "warning")
    said = f"{cluster.kill_wait_s} s from SIGTERM to the kill"
    if cluster.kill_wait_s < KILL_WAIT_S:
        said += "; a cell that saves for longer loses what it did since its last checkpoint"
        yield Finding("KillWait", said, "warning")
    else:
        yield Finding("KillWait", said)
    if site.signal_lead_s < SHORT_LEAD_S:
        said = f"{site.signal_lead_s} s before the time limit; a step and its saving must fit in it"
        yield Finding("signal_lead_s", said, "warning")
    if not cluster.requeue:
        said = "off for jobs that do not ask for it; cells do, and the drill shows whether they may"
        yield Finding("JobRequeue", said)
    if cluster.max_requeue is not None and cluster.max_requeue < FEW_REQUEUES:
        said = (
            f"after {cluster.max_requeue} requeues by itself Slurm holds a job (JobHeldAdmin); let "
            "it go on by `scontrol release JOB`"
        )
        yield Finding("MaxBatchRequeue", said, "warning")
    if cluster.proctrack == "pgid":
        said = "pgid: Slurm does not find processes in sessions of their own, as workers are"
        yield Finding("ProctrackType", said, "warning")


def _python(site: Site) -> Iterator[Finding]:
    """What a profile names of Python, and is not here."""
    named = [*site.python.values(), *site.apptainer.values(), *filter(None, [site.wheelhouse])]
    for place in named:
        if not Path(place).exists():
            said = f"{place} is not there on this machine; do the compute nodes see it?"
            yield Finding("Python", said, "warning")


def _room(results: Path) -> str:
    check_room(results, ROOM_BYTES, "what a few cells write")
    there = next(path for path in (results, *results.parents) if path.is_dir())
    return f"{results}, where {decimal(shutil.disk_usage(there).free)} are free"
