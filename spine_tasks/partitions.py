"""The queues of a Slurm cluster, and what their nodes have."""

from dataclasses import dataclass

from spine_tasks.command import listed
from spine_tasks.slurm import ask
from spine_tasks.slurm_text import clock, count, gpus_of, names, seconds, words


@dataclass(frozen=True)
class Node:
    """What each of a partition's nodes of one kind has; or what a job asks of a node."""

    cpus: int
    mem_mb: int
    gpus: dict[str, int]  # type -> number; an empty type where none is named
    features: tuple[str, ...]  # what a constraint may ask for

    def __str__(self) -> str:
        """Such as `4 CPUs, 16 GB, gpu:a100:4`."""
        gpus = [":".join(filter(None, ("gpu", type_, str(n)))) for type_, n in self.gpus.items()]
        return ", ".join([f"{self.cpus} CPUs", f"{self.mem_mb / 1024:g} GB", *gpus, *self.features])

    def holds(self, asked: "Node") -> bool:
        """Whether a job that asks for so much fits."""
        return (
            self.cpus >= asked.cpus
            and self.mem_mb >= asked.mem_mb
            and set(asked.features) <= set(self.features)
            and all(
                (self.gpus.get(type_, 0) if type_ else sum(self.gpus.values())) >= number
                for type_, number in asked.gpus.items()
            )
        )


@dataclass(frozen=True)
class Partition:
    """One of the cluster's queues."""

    name: str
    default: bool
    state: str  # UP starts jobs, DOWN only takes them, DRAIN and INACTIVE refuse them
    max_time_s: int | None
    preempt: str  # off, requeue, cancel, or suspend with gang: what happens to its jobs
    grace_s: int  # from the SIGTERM of a preemption to the kill; 0: KillWait
    priority_tier: int  # jobs of a higher one may take the nodes
    qos: str  # whose limits hold for its jobs too; empty: none
    nodes: tuple[Node, ...]

    def refuses(self, asked: Node, time_s: int) -> str | None:
        """Why it can never run a job that asks for so much of a node for so long; None: it can."""
        if self.state in ("DRAIN", "INACTIVE"):
            return f"partition {self.name} takes no jobs, its state is {self.state}"
        if self.max_time_s is not None and time_s > self.max_time_s:
            return (
                f"partition {self.name} runs a job for at most {clock(self.max_time_s)}, and "
                f"{clock(time_s)} is asked for; less will do, a cell goes on in its next attempt"
            )
        if any(node.holds(asked) for node in self.nodes):
            return None
        kinds = sorted(self.nodes, key=lambda node: (-node.mem_mb, -node.cpus))
        return (
            f"no node of partition {self.name} has what a job asks for ({asked}), the largest have "
            f"{listed([f'({node})' for node in kinds]) or 'nothing: it has no nodes'}"
        )


def read_partitions() -> tuple[Partition, ...]:
    """Every partition, hidden ones too."""
    nodes: dict[str, list[Node]] = {}
    # --exact: a line for each kind of node, not one for the least of them.
    for line in ask("sinfo", "-a", "-h", "--exact", "-o", "%R|%c|%m|%G|%f").splitlines():
        name, cpus, mem_mb, gres, features = line.split("|", 4)
        node = Node(count(cpus) or 0, count(mem_mb) or 0, gpus_of(gres), names(features.strip()))
        nodes.setdefault(name, []).append(node)
    lines = [words(line) for line in ask("scontrol", "-a", "-o", "show", "partition").splitlines()]
    return tuple(
        Partition(
            name=said["PartitionName"],
            default=said["Default"] == "YES",
            state=said["State"],
            max_time_s=seconds(said["MaxTime"]),
            preempt=said["PreemptMode"].lower(),
            grace_s=seconds(said["GraceTime"]) or 0,
            priority_tier=int(said["PriorityTier"]),
            qos="".join(names(said["QoS"])),
            nodes=tuple(
                _capped(node, count(said["MaxCPUsPerNode"]), count(said["MaxMemPerNode"]))
                for node in nodes.get(said["PartitionName"], [])
            ),
        )
        for said in lines
        if said["PartitionName"]
    )


def _capped(node: Node, most_cpus: int | None, most_mb: int | None) -> Node:
    """What a partition lets its jobs have of a node."""
    cpus, mem_mb = min(node.cpus, most_cpus or node.cpus), min(node.mem_mb, most_mb or node.mem_mb)
    return Node(cpus, mem_mb, node.gpus, node.features)
