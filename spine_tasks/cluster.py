"""What a Slurm cluster is, and what it would refuse or keep waiting for ever."""

import getpass
import re
import subprocess
from dataclasses import dataclass

from spine_tasks.accounts import Accounts, read_accounts
from spine_tasks.configs import suggestion
from spine_tasks.errors import SiteError
from spine_tasks.partitions import Node, Partition, read_partitions
from spine_tasks.sites import Site
from spine_tasks.slurm import SlurmError, ask, environment
from spine_tasks.slurm_text import count, gpus_of, names, seconds, settings

FEATURE = r"[\w.-]+"  # one name; Slurm reads & | [ ] * in a constraint as more than one
START = r"to start at (\S+)T(\d+:\d+):\d+ .*?nodes (\S+) in partition (\S+)"


@dataclass(frozen=True)
class Cluster:
    """The facts of a cluster that decide how cells are asked for, signalled and started again."""

    name: str
    version: str
    partitions: tuple[Partition, ...]
    max_array_size: int  # tasks of one array, and one more than their highest index
    max_job_count: int  # array tasks and jobs of everybody
    max_submit: int | None  # array tasks and jobs of the user in the queue; None: any number
    kill_wait_s: int  # from SIGTERM to SIGKILL
    preempt_by: str  # none, partition_prio or qos
    preempt: str  # what happens to jobs of a QOS that does not say it itself
    user_signal: bool  # preemption sends the job's own warning signal too
    requeue: bool  # jobs are requeued unless they say otherwise
    max_requeue: int | None  # launches that may fail before a job is held; None: not told
    accounts: Accounts | None  # None: accounting does not answer
    accounts_enforced: bool  # a job must be charged to one of the user's accounts
    qos_enforced: bool  # and have a QOS of that account
    proctrack: str  # how a job's processes are found
    memory_enforced: bool  # a job over its memory is killed

    @property
    def accounting(self) -> bool:
        """Whether sacct and sacctmgr answer."""
        return self.accounts is not None

    def partitions_of(self, site: Site) -> list[Partition]:
        """The partitions that a site profile names, or the cluster's default one.

        Raises
        ------
        SiteError
            The cluster has no such partition; the message lists those it has.
        """
        by_name = {one.name: one for one in self.partitions}
        chosen = site.partitions or [one.name for one in self.partitions if one.default]
        if not chosen:
            raise SiteError(
                f"cluster {self.name} has no default partition: name one in the site profile, "
                f"of {', '.join(sorted(by_name))}"
            )
        for name in chosen:
            if name not in by_name:
                raise SiteError(
                    f"the site profile asks for partition {name!r}, which cluster {self.name} does "
                    f"not have{suggestion(name, by_name)}"
                )
        return [by_name[name] for name in chosen]


def read_cluster(site: Site | None = None) -> Cluster:
    """Ask Slurm what this cluster is.

    Parameters
    ----------
    site
        Whose account, QOS and partitions decide `max_submit`; None: a user's defaults.

    Raises
    ------
    SiteError
        Slurm is not on this machine, or its controller does not answer.
    """
    site = site or Site()
    config = settings(ask("scontrol", "show", "config"))
    enforced = names(config["AccountingStorageEnforce"])
    accounts = read_accounts(config["ClusterName"])
    partitions = read_partitions()
    limited = accounts if "limits" in enforced or "safe" in enforced else None
    most_tasks = re.search(r"max_array_tasks=(\d+)", config["SchedulerParameters"])
    return Cluster(
        name=config["ClusterName"],
        version=config["SLURM_VERSION"],
        partitions=partitions,
        max_array_size=min(
            int(one)
            for one in (config["MaxArraySize"], *(most_tasks.groups() if most_tasks else ()))
        ),
        max_job_count=int(config["MaxJobCount"]),
        max_submit=None if limited is None else _max_submit(limited, site, partitions),
        kill_wait_s=seconds(config["KillWait"]) or 0,
        preempt_by=config["PreemptType"].removeprefix("preempt/"),
        preempt=config["PreemptMode"].lower(),
        # The place of this setting depends on the version.
        user_signal="send_user_signal"
        in config["SlurmctldParameters"] + config["PreemptParameters"],
        requeue=config["JobRequeue"] != "0",
        max_requeue=count(config["MaxBatchRequeue"]),
        accounts=accounts,
        accounts_enforced="associations" in enforced,
        qos_enforced="qos" in enforced,
        proctrack=config["ProctrackType"].removeprefix("proctrack/"),
        memory_enforced="OverMemoryKill" in config["JobAcctGatherParams"]
        or ("task/cgroup" in config["TaskPlugin"] and config["ConstrainRAMSpace"] == "yes"),
    )


def check_site(cluster: Cluster, site: Site) -> None:
    """Refuse a partition, an account or a QOS that is not there for the user.

    Raises
    ------
    SiteError
        The message lists those that are.
    """
    cluster.partitions_of(site)
    if cluster.accounts is None:
        return
    user, accounts = getpass.getuser(), cluster.accounts
    if cluster.accounts_enforced and not accounts.names:
        raise SiteError(f"user {user} has no account on cluster {cluster.name}: ask its admins")
    if cluster.accounts_enforced and site.account not in (None, *accounts.names):
        raise SiteError(
            f"the site profile asks for account {site.account!r}, but user {user} has no such "
            f"account on cluster {cluster.name}{suggestion(site.account or '', accounts.names)}"
        )
    # A QOS that is not there at all is a slip of the pen, though some sites' Slurm ignores it.
    allowed = [one.name for one in accounts.qos]
    if cluster.qos_enforced:
        allowed = accounts.qos_of(site.account or accounts.default)
    if site.qos not in (None, *allowed):
        raise SiteError(
            f"the site profile asks for QOS {site.qos!r}, which is not there for account "
            f"{site.account or accounts.default} on cluster {cluster.name}"
            f"{suggestion(site.qos or '', allowed)}"
        )


def check(
    cluster: Cluster, site: Site, *, cpus: int, mem_gb: float, gpus: int, time_min: int
) -> None:
    """Refuse what no partition of the site can ever run.

    Parameters
    ----------
    cpus, mem_gb, gpus
        Of one array task, with all the cells that it computes at once.
    time_min
        Wall time of one array task.

    Raises
    ------
    SiteError
        As `check_site`; or no node is large enough, or no partition runs jobs for so long.
    """
    check_site(cluster, site)
    one_feature = re.fullmatch(FEATURE, site.constraint or "")
    asked = Node(
        cpus=cpus,
        mem_mb=max(1, round(mem_gb * 1024)),
        gpus=gpus_of(site.gres_of(gpus) or ""),
        features=(one_feature[0],) if one_feature else (),
    )
    problems = [queue.refuses(asked, 60 * time_min) for queue in cluster.partitions_of(site)]
    if all(problems):
        raise SiteError(
            f"{'; '.join(filter(None, problems))}; lower the grid's resources, or name another "
            "partition or constraint in the site profile"
        )


def foreseen_start(script: str) -> str:
    """When and where Slurm expects a script's first job to start; nothing is submitted.

    Jobs that it waits for are taken to have ended.

    Returns
    -------
    str
        Such as `2026-11-22 14:34 on node1, partition gpu`.

    Raises
    ------
    SiteError
        Slurm would refuse it; the message is Slurm's own.
    """
    command = ("sbatch", "--test-only")
    alone = re.sub(r"(?m)^#SBATCH --dependency=.*\n", "", script)
    try:
        answer = subprocess.run(
            command, input=alone, capture_output=True, text=True, check=False, env=environment()
        )
    except FileNotFoundError as error:
        raise SiteError(
            "sbatch is not on this machine: run this on a login node of the cluster"
        ) from error
    said = answer.stderr.strip()  # also where Slurm agrees
    if answer.returncode:
        raise SlurmError(command, said)
    found = re.search(START, said)
    return "{} {} on {}, partition {}".format(*found.groups()) if found else said


def _max_submit(accounts: Accounts, site: Site, partitions: tuple[Partition, ...]) -> int | None:
    account = site.account or accounts.default
    queues = [one for one in partitions if one.name in site.partitions]
    queues = queues or [one for one in partitions if one.default]
    qos = [site.qos or accounts.default_qos(account), *(queue.qos for queue in queues)]
    return accounts.max_submit(account, qos, [queue.name for queue in queues])
