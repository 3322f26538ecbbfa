"""What the attempts at cells took: hours of computing, and GPU-hours used and asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spine_tasks.cell import Cell
from spine_tasks.errors import RunError
from spine_tasks.files import read_json
from spine_tasks.owner import ENDS
from spine_tasks.slurm_text import seconds as seconds_of

HOUR_S = 3600.0


@dataclass(frozen=True)
class Cost:
    """What attempts took, of one cell or of several together."""

    seconds: float = 0.0  # of computing, that under way included
    gpu_hours: float = 0.0  # of GPUs that attempts had to themselves
    gpu_hours_asked: float = (
        0.0  # time limits of attempts in Slurm, whose GPUs nobody else could use
    )
    unknown: int = 0  # attempts whose end nobody recorded, in none of these

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.seconds + other.seconds,
            self.gpu_hours + other.gpu_hours,
            self.gpu_hours_asked + other.gpu_hours_asked,
            self.unknown + other.unknown,
        )


def total(costs: Iterable[Cost]) -> Cost:
    """The costs of several cells together."""
    return sum(costs, Cost())


def gpus_of(cell: Cell) -> float:
    """GPUs that a cell is asked for: on all its nodes, its share of those that packed cells use.

    Examples
    --------
    >>> from spine_tasks.cell import Cell, Resources
    >>> gpus_of(Cell(job="drill", config=None, split="", split_sha256="", fold=0, seed=0,
    ...     resources=Resources(gpus=1, pack=4)))
    0.25
    """
    asked = cell.resources
    return asked.gpus * asked.nodes / asked.pack


def cost(
    cell: Cell,
    attempts: Sequence[dict[str, Any]],
    running: bool,
    now: datetime | None = None,
    folder: Path | None = None,
) -> Cost:
    """What a cell took so far.

    Parameters
    ----------
    attempts
        Its records in attempts.jsonl. An attempt that was killed says no seconds: then the time
        between its records counts.
    running
        Whether the last attempt goes on; else one without an end, as of a node that was lost, took
        nobody knows how long, and is counted as unknown.
    now
        Until when an attempt under way counts; None: now.
    folder
        Of the run, by whose environment.json an attempt outside Slurm had a GPU or none.
    """
    took, unknown, begun, in_slurm = 0.0, 0, None, 0
    for record in attempts:
        if record["event"] == "started":
            unknown += begun is not None
            begun = record
            in_slurm += record.get("job_id") is not None
        elif record["event"] in ENDS and begun is not None:
            took += record.get("seconds") or _between(begun, record)
            begun = None
    if begun is not None and running:
        ends = (now or datetime.now(UTC)).isoformat()
        took += _between(begun, {"time": ends})
    elif begun is not None:
        unknown += 1
    gpus = gpus_of(cell)
    used = gpus if in_slurm or (gpus and _had_gpu(folder)) else 0.0
    limit_s = seconds_of(cell.resources.time) or 0
    return Cost(took, used * took / HOUR_S, gpus * in_slurm * limit_s / HOUR_S, unknown)


def _between(begun: dict[str, Any], ended: dict[str, Any]) -> float:
    """Seconds between two records; clocks of two hosts may differ, so never below 0."""
    if "time" not in begun or "time" not in ended:
        return 0.0
    span = datetime.fromisoformat(ended["time"]) - datetime.fromisoformat(begun["time"])
    return max(0.0, span.total_seconds())


def _had_gpu(folder: Path | None) -> bool:
    """Whether a worker outside Slurm saw a GPU: there a cell that asks for one may have none."""
    try:
        return folder is None or bool(read_json(folder / "environment.json").get("gpus"))
    except (FileNotFoundError, RunError):  # not written yet
        return True
