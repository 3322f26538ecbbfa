"""The folder of a run: everything about one cell's life, in text or standard formats.

State is derived from these files and never stored beside them: a run is complete when done.json
exists, which is written last.
"""

import os
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from spine_tasks.cell import Cell
from spine_tasks.errors import RunError
from spine_tasks.files import append_line, read_json, read_lines, sha256, write_json, write_lines


class Run:
    """One cell's folder, `results/<name>/<cell id>/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stop_requested = False

    @property
    def checkpoint(self) -> Path:
        """Folder of everything needed to continue training."""
        return self.folder / "checkpoint"

    @property
    def predictions(self) -> Path:
        """Folder of the test part's predictions."""
        return self.folder / "predictions"

    @property
    def scores(self) -> Path:
        """The run's scores.csv, derived from its predictions."""
        return self.folder / "scores.csv"

    @property
    def log(self) -> Path:
        """What the attempts' workers wrote for people."""
        return self.folder / "log.txt"

    @property
    def complete(self) -> bool:
        """Whether every prediction is on disk."""
        return (self.folder / "done.json").exists()

    def cell(self) -> Cell:
        """The cell that this run computes.

        Raises
        ------
        RunError
            The folder is not a run's, or its cell.json was changed by hand or by an older version.
        """
        file = self.folder / "cell.json"
        if not file.exists():
            raise RunError(f"{self.folder} is not a run's folder: it has no cell.json")
        cell = Cell.from_dict(read_json(file))
        if cell.id != self.folder.name:
            raise RunError(
                f"{file} describes the cell {cell.id}, not {self.folder.name}: it was edited, or "
                "written by a version with other knobs; launch the grid again under another --name"
            )
        return cell

    def create(self, cell: Cell) -> None:
        """Write the folder's cell.json unless it is there."""
        if not (self.folder / "cell.json").exists():
            write_json(self.folder / "cell.json", cell.to_dict() | {"id": cell.id})

    def needed(self) -> "Run":
        """The run of the cell that this one starts from.

        Raises
        ------
        RunError
            It is not complete.
        """
        first = Run(self.folder.parent / self.cell().needs[0])
        if not first.complete:
            raise RunError(
                f"{self.folder.name} starts from {first.folder.name}, which is not complete; "
                "launch the grid again: it starts the needed cell first"
            )
        return first

    def stop_on(self, *signals: signal.Signals) -> None:
        """Make these signals set `stop_requested`; forked children are left alone."""
        owner = os.getpid()

        def request_stop(_signum: int, _frame: FrameType | None) -> None:
            if os.getpid() == owner:
                self.stop_requested = True

        for one in signals:
            signal.signal(one, request_stop)

    def record_attempt(self, event: str, **details: Any) -> None:
        """Append what happened to attempts.jsonl, with time, process and Slurm job."""
        append_line(
            self.folder / "attempts.jsonl",
            {"time": now(), "event": event, "host": socket.gethostname(), "pid": os.getpid()}
            | {"job_id": slurm_job_id(), "restart": os.environ.get("SLURM_RESTART_COUNT", "0")}
            | details,
        )

    def attempts(self) -> list[dict[str, Any]]:
        """What happened so far, oldest first."""
        return read_lines(self.folder / "attempts.jsonl")

    def add_history(self, **values: Any) -> None:
        """Append one epoch's named losses and validation metrics."""
        append_line(self.folder / "history.jsonl", values)

    def history(self) -> list[dict[str, Any]]:
        """One record an epoch, oldest first."""
        return read_lines(self.folder / "history.jsonl")

    def forget_history_from(self, epoch: int) -> None:
        """Drop the records of epochs that a resumed attempt will train again."""
        history = self.history()
        kept = [record for record in history if record["epoch"] < epoch]
        if len(kept) < len(history):
            write_lines(self.folder / "history.jsonl", kept)

    def finish(self, **details: Any) -> None:
        """Write done.json: every prediction is on disk."""
        digests = {file.name: sha256(file) for file in self._prediction_files()}
        if not digests:
            raise RunError(f"{self.predictions}: the task wrote no prediction")
        write_json(
            self.folder / "done.json", {"time": now(), "predictions_sha256": digests} | details
        )

    def _prediction_files(self) -> Iterator[Path]:
        return (file for file in sorted(self.predictions.glob("*")) if file.name[0] != ".")


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def slurm_job_id() -> str | None:
    """The Slurm job that this process is in, `123` or `123_4` in an array; None outside Slurm."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")
