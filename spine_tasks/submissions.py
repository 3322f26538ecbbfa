"""What was handed to Slurm: one folder an array, and a ledger of how far each submission came.

An intent is written before `sbatch`, the job's id after it, and the array is held until both are
on disk: a launcher killed in between leaves an array that cannot start and that the next launch
finds by its unique name.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spine_tasks.errors import RunError
from spine_tasks.files import append_line, read_json, read_lines, write_json
from spine_tasks.run import now

LEDGER = "submissions.jsonl"  # in an experiment's folder
FOLDER = "slurm"  # there too: a folder a submission


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What the tasks of one array compute, and how their workers are started."""

    cells: list[list[str]]  # ids by array index; several where they are packed
    worker: list[str]  # command of the workers' Python
    mem_gb: float  # asked for a cell
    umask: int | None = None  # of what they write
    stage_to: str | None = None  # folder on the node for copies of the data


@dataclass(frozen=True)
class Submission:
    """One array and how far its submission came."""

    name: str  # of its folder, and in Slurm
    tasks: Tasks
    job: str | None = None  # the array's id, once known
    released: bool = False  # may start
    gone: bool = False  # Slurm does not have it
    by_hand: bool = False  # exported; a person submits it

    @property
    def begun(self) -> bool:
        """Whether a launcher has not finished it yet."""
        return not (self.released or self.gone or self.by_hand)


def folder_of(experiment: Path, name: str) -> Path:
    """The folder of a submission."""
    return experiment / FOLDER / name


def begin(experiment: Path, name: str, tasks: Tasks, **details: Any) -> Path:
    """Write what the tasks compute, then the intent to submit them; return the folder."""
    folder = folder_of(experiment, name)
    write_json(folder / "tasks.json", asdict(tasks))
    note(experiment, name, tasks=len(tasks.cells), **details)
    return folder


def note(experiment: Path, name: str, **facts: Any) -> None:
    """Add facts about a submission to the ledger: `job`, `released`, `gone`, `by_hand`."""
    append_line(experiment / LEDGER, {"time": now(), "name": name} | facts)


def read_tasks(folder: Path) -> Tasks:
    """The tasks.json of a submission's folder.

    Raises
    ------
    RunError
        It is not there: which cells its jobs compute is then unknown.
    """
    try:
        return Tasks(**read_json(folder / "tasks.json"))
    except FileNotFoundError as error:
        raise RunError(
            f"{folder}: has no tasks.json, which says which cells its jobs compute; if somebody "
            f"deleted it, cancel jobs named {folder.name} by scancel --name={folder.name}, then "
            f"delete {folder.parents[1] / LEDGER}, and launch again"
        ) from error


def submissions(experiment: Path) -> list[Submission]:
    """Every submission of an experiment, oldest first."""
    known: dict[str, dict[str, Any]] = {}
    for record in read_lines(experiment / LEDGER):
        known.setdefault(record["name"], {}).update(record)
    return [
        Submission(
            name=name,
            tasks=read_tasks(folder_of(experiment, name)),
            job=facts.get("job"),
            released=facts.get("released", False),
            gone=facts.get("gone", False),
            by_hand=facts.get("by_hand", False),
        )
        for name, facts in known.items()
    ]
