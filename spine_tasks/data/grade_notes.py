"""What readers of grades share: a table, and how much was left out."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from spine_tasks.errors import DataError, SplitError
from spine_tasks.splits import Row as Row
from spine_tasks.splits import read_table

log = logging.getLogger(__name__)


class Notes:
    """What was met in some data, each kind counted and its first named."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.met: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, which: str) -> None:
        """Count one of a kind."""
        self.met[what].append(which)

    def tell(self) -> None:
        """Log a line a kind."""
        for what, those in self.met.items():
            log.warning("%s: %d %s, first %s", self.folder, len(those), what, those[0])


def read_columns(file: Path, columns: Sequence[str]) -> dict[int, Row]:
    """The rows of a CSV table with all as text, by their line in the file.

    Raises
    ------
    DataError
        It is missing, no table, or lacks a column.
    """
    try:
        rows = read_table(file, ",")
    except (OSError, SplitError) as error:
        raise DataError(f"{file}: no table ({error})") from error
    if missing := [name for name in columns if name not in rows[0]]:
        raise DataError(f"{file}: no column {missing[0]!r}; it has {', '.join(rows[0])}")
    return dict(enumerate(rows, start=2))
