"""What cells trained so far as event files of TensorBoard.

All that a file holds follows from the run's own files, to the last byte: so writing it again
doubles nothing, and what a kill cut off is completed. TensorBoard may read meanwhile.
"""

import struct
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import accumulate
from math import nan
from pathlib import Path
from typing import Any
from urllib.parse import quote

from spine_tasks.cell import Cell
from spine_tasks.configs import knobs_of
from spine_tasks.errors import ConfigError
from spine_tasks.eta import Records, Watcher
from spine_tasks.experiment import Experiment
from spine_tasks.files import replacing

# In the order in which TensorBoard reads them. The knobs are apart, as protobuf writes them in
# another order each time.
KNOBS = "events.out.tfevents.0.knobs"
EPOCHS = "events.out.tfevents.1.epochs"
NO_METRIC = ("epoch", "best_epoch")


class EventFiles:
    """A folder of event files, one folder in it a cell: `arm/fold0/seed0`.

    Raises
    ------
    ConfigError
        tensorboardX is not installed.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        try:
            import tensorboardX  # noqa: F401  # slow to import, and an extra
        except ImportError as error:
            raise ConfigError(
                "--tensorboard needs tensorboardX, which is not installed here: "
                "pip install 'spine_tasks[tensorboard]', or pip install tensorboardX"
            ) from error
        self._experiment = experiment
        self._folder = folder
        self._watcher = Watcher(experiment)
        self._written: dict[str, Records] = {}

    def update(self, cells: Iterable[Cell]) -> None:
        """Write the epochs that were trained since.

        Raises
        ------
        RunError
            The folder cannot be written to.
        """
        for cell in cells:
            history = self._watcher.history(cell)
            if not history or self._written.get(cell.id) is history:
                continue
            folder = self._folder / run_name(cell)
            if not (folder / KNOBS).exists():
                _replace(folder / KNOBS, b"".join(map(_framed, _knobs(cell))))
            events = _epochs(history, _begun_s(self._experiment.run(cell).attempts()))
            _complete(folder / EPOCHS, b"".join(map(_framed, events)))
            self._written[cell.id] = history


def run_name(cell: Cell) -> str:
    """The folder of a cell, by which TensorBoard calls it; different for different cells.

    Examples
    --------
    >>> from spine_tasks.cell import Cell
    >>> run_name(Cell(job="drill", config=None, split="", split_sha256="", fold=0, seed=2,
    ...     arm={"weights": "../x.pt", "augment": True}))
    'weights=..%2Fx.pt augment=True/fold0/seed2'
    """
    if not cell.arm:
        return f"needed/{cell.id}"
    name = quote(cell.arm_name, safe=" =,+()")
    if name.startswith("."):
        name = "%2E" + name[1:]
    return f"{name}/fold{cell.fold}/seed{cell.seed}"


def _epochs(history: Records, begun_s: float) -> Iterator[Any]:
    """An event an epoch: every named number, at the time when so much training was done."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    yield Event(wall_time=begun_s, file_version="brain.Event:2")
    trained_s = accumulate(record.get("seconds") or 0.0 for record in history)
    for record, seconds in zip(history, trained_s, strict=True):
        values = [
            Summary.Value(tag=name, simple_value=nan if value is None else value)
            for name, value in record.items()
            if name not in NO_METRIC and isinstance(value, int | float | None)
        ]
        when = begun_s + seconds
        yield Event(wall_time=when, step=record["epoch"], summary=Summary(value=values))


def _knobs(cell: Cell) -> Iterator[Any]:
    """The knobs as TensorBoard's hyper-parameters."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import hparams

    plain = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in knobs_of(cell.config).items()
    }
    metrics = dict.fromkeys(filter(None, ["loss", cell.config.chosen_by]), 0.0)
    experiment, session, _ = hparams(plain, metrics)
    yield Event(file_version="brain.Event:2")
    yield from (Event(summary=summary) for summary in (experiment, session))


def _framed(event: Any) -> bytes:
    """An event as a record of an event file: length, content, and a checksum of each."""
    from tensorboardX.record_writer import masked_crc32c

    content: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
    return length + checks[0] + content + checks[1]


def _complete(file: Path, wanted: bytes) -> None:
    """Make a file what is wanted: by the end it lacks, so that who reads it goes on, or anew."""
    there = file.read_bytes() if file.exists() else None
    if there is None or not wanted.startswith(there):
        _replace(file, wanted)
    elif len(there) < len(wanted):
        with file.open("r+b") as stream:
            stream.seek(len(there))  # not appended: another process may write the same
            stream.write(wanted[len(there) :])


def _replace(file: Path, content: bytes) -> None:
    with replacing(file, durable=False) as partial:
        partial.write_bytes(content)


def _begun_s(attempts: Records) -> float:
    """When the first attempt began, in seconds since 1970; 0 if nobody said so."""
    times = (one["time"] for one in attempts if one["event"] == "started" and "time" in one)
    first = next(times, None)
    return datetime.fromisoformat(first).timestamp() if first else 0.0
