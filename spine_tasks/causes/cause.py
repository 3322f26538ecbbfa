"""The kinds of failure, and the remedy of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "host memory",
    "GPU memory",
    "time",
    "node",
    "NaN loss",
    "missing data",
    "disk",
    "settings",
    "code",
]

_REMEDIES: dict[Kind, str] = {
    "host memory": "launch with --retry-failed --mem-factor 2",
    "GPU memory": "choose a smaller batch_size, fewer cells packed on a GPU, or a GPU with more "
    "memory; then launch with --retry-failed",
    "time": "ask for more time (--set resources.time=...), since it ran out before the first "
    "checkpoint; then launch with --retry-failed",
    "node": "launch with --retry-failed: nodes that failed twice are left out",
    "NaN loss": "choose a smaller learning_rate, or float32 throughout; then launch with "
    "--retry-failed",
    "missing data": "mend the file or folder that the message names, then launch with "
    "--retry-failed",
    "disk": "free space or quota (jobs/clean.py deletes the checkpoints of complete cells), then "
    "launch with --retry-failed",
    "settings": "do what the message says, then launch with --retry-failed",
    "code": "mend the code or its environment, then launch with --retry-failed",
}


@dataclass(frozen=True)
class Cause:
    """Why a cell failed."""

    kind: Kind
    why: str  # one line, such as the last of the traceback

    @property
    def remedy(self) -> str:
        """What a person does about it."""
        return _REMEDIES[self.kind]


def of_record(record: Mapping[str, Any]) -> Cause:
    """The cause in a `failed` record of attempts.jsonl; "code" where none was written.

    Examples
    --------
    >>> of_record({"error": "MemoryError at gm.py:12", "cause": "host memory"}).remedy
    'launch with --retry-failed --mem-factor 2'
    """
    kind = record.get("cause")
    known: Kind = kind if kind in _REMEDIES else "code"
    return Cause(known, str(record.get("error", "")))
