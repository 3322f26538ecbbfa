"""The folder of a run: everything about one cell's life, in text or standard formats.

State is derived from these files and never stored beside them: a run is complete when done.json
exists, which is written last.
"""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from spine_tasks import owner, slurm
from spine_tasks.cell import Cell
from spine_tasks.errors import ConfigError, RunError
from spine_tasks.files import (
    append_line,
    read_json,
    read_lines,
    sha256,
    to_json,
    write_json,
    write_lines,
    write_text,
)

log = logging.getLogger(__name__)


class Run:
    """One cell's folder, `results/<name>/<cell id>/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stop_requested = False
        self._owner: owner.Owner | None = None

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

    @property
    def scored(self) -> bool:
        """Whether every prediction is on disk and was scored; a later collect may score it anew."""
        return self.complete and self.scores.exists()

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
        try:
            cell = Cell.from_dict(read_json(file))
        except (ConfigError, KeyError, TypeError) as error:
            raise RunError(
                f"{file} was written by a version with other knobs or fields ({error}); use that "
                "version, or launch the grid again under another --name"
            ) from error
        if cell.id != self.folder.name:
            raise RunError(
                f"{file} describes the cell {cell.id}, not {self.folder.name}: it was edited, or "
                "written by a version with other knobs; launch the grid again under another --name"
            )
        return cell

    def create(self, cell: Cell) -> None:
        """Write the folder's cell.json; one that is there may only differ in what is asked for.

        Raises
        ------
        RunError
            A cell.json that is there was changed by hand, or is of an older version.
        """
        file = self.folder / "cell.json"
        text = to_json(cell.to_dict())
        if file.exists() and (file.read_bytes() == text.encode() or self.cell() == cell):
            return
        # Without waiting for the disk: a lost one is written again by the next launch.
        write_text(file, text, durable=False)

    def own(self) -> None:
        """Make this process the one that computes the cell, and end it when another takes over.

        Raises
        ------
        NotOwner
            Another attempt is alive.
        """
        self._owner = owner.claim(self.folder, self.attempts())
        owner.watch(self.folder, self._owner)

    def saved_ns(self) -> int | None:
        """When the newest checkpoint was written, in ns by its file's clock; None without one."""
        times = [file.stat().st_mtime_ns for file in self.checkpoint.glob("*") if file.is_file()]
        return max(times, default=None)

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
        host = socket.gethostname()
        append_line(
            self.folder / "attempts.jsonl",
            {"time": now(), "event": event, "host": host, "pid": os.getpid()}
            | {"job_id": slurm.this_job(), "restart": slurm.restart_count()}
            | {"node": os.environ.get("SLURMD_NODENAME", host)}
            | details,
        )

    def attempts(self) -> list[dict[str, Any]]:
        """What happened so far, oldest first."""
        return read_lines(self.folder / "attempts.jsonl")

    def add_history(self, **values: Any) -> None:
        """Append one epoch's named losses and validation metrics."""
        append_line(self.folder / "history.jsonl", values)

    def history(self) -> list[dict[str, Any]]:
        """One record an epoch, oldest first.

        Of an epoch that was trained twice, by an attempt that was taken over and by the one that
        took over, the later record counts.
        """
        records = {record["epoch"]: record for record in read_lines(self.folder / "history.jsonl")}
        return [records[epoch] for epoch in sorted(records)]

    def forget_history_from(self, epoch: int) -> None:
        """Drop the records of epochs that a resumed attempt will train again."""
        written = read_lines(self.folder / "history.jsonl")
        kept = [record for record in self.history() if record["epoch"] < epoch]
        if len(kept) < len(written):
            write_lines(self.folder / "history.jsonl", kept)

    def finish(self, **details: Any) -> None:
        """Write done.json: every prediction is on disk.

        Raises
        ------
        RunError
            There is none although the task makes predictions.
        NotOwner
            Another attempt took over.
        """
        digests = {file.name: sha256(file) for file in self._prediction_files()}
        if not digests and self.cell().config.predicts != "nothing":
            raise RunError(f"{self.predictions}: the task wrote no prediction")
        if self._owner is not None:
            owner.check(self.folder, self._owner)
        write_json(
            self.folder / "done.json", {"time": now(), "predictions_sha256": digests} | details
        )

    def _prediction_files(self) -> Iterator[Path]:
        return (file for file in sorted(self.predictions.glob("*")) if file.name[0] != ".")


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
