"""What happens on a cluster to cells whose place a job of higher priority takes."""

from dataclasses import dataclass

from spine_tasks.cluster import Cluster
from spine_tasks.partitions import Partition
from spine_tasks.sites import Site


@dataclass(frozen=True)
class _Rule:
    mode: str  # off, requeue, cancel, or suspend with gang
    grace_s: int
    by: tuple[str, ...]  # partitions or QOS whose jobs preempt


def preemption_case(cluster: Cluster, site: Site, queue: Partition) -> str:
    """In words: what a preemption is for jobs of a site in a partition, and what becomes of a cell.

    A cell saves at its next step as soon as it is warned by TERM or USR2; what it did since its
    last checkpoint is done again only where a step and the saving take longer than there is.
    """
    return _case(cluster, _rule(cluster, site, queue))


def _rule(cluster: Cluster, site: Site, queue: Partition) -> _Rule:
    if cluster.preempt_by == "partition_prio":
        above = [p.name for p in cluster.partitions if p.priority_tier > queue.priority_tier]
        return _Rule(queue.preempt, queue.grace_s, tuple(above))
    if cluster.preempt_by == "qos" and cluster.accounts is not None:
        account = site.account or cluster.accounts.default
        name = site.qos or cluster.accounts.default_qos(account)
        above = [one.name for one in cluster.accounts.qos if name in one.preempts]
        for one in cluster.accounts.qos:
            if one.name == name:
                mode = cluster.preempt if one.preempt in ("", "cluster") else one.preempt
                return _Rule(mode, one.grace_s, tuple(above))
    return _Rule("off", 0, ())


def _case(cluster: Cluster, rule: _Rule) -> str:
    if rule.mode == "off" or not rule.by:
        return "never preempted"
    by = f"preempted by jobs of {', '.join(rule.by)}: "
    if "suspend" in rule.mode:
        return f"{by}cells are stopped where they are, keep their memory, and go on later"
    usr2 = " and USR2" if cluster.user_signal else ""
    if rule.grace_s:
        time = f"TERM{usr2}, and {rule.grace_s} s to save, then killed"
    else:
        time = f"TERM{usr2}, and {cluster.kill_wait_s} s (KillWait) to save, then killed"
    if "requeue" in rule.mode:
        return f"{by}{time}; Slurm runs the cell again, which goes on from its checkpoint"
    return (
        f"{by}{time}; Slurm only ends the job, which asks to be requeued, so that the cell goes on"
    )
