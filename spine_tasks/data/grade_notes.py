"""What readers of grades say: how much was left out, and which name was meant."""

import difflib
import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

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


def near(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name."""
    known = list(known)
    found = difflib.get_close_matches(name, known, n=1)
    return (f", did you mean {found[0]!r}? " if found else "; ") + f"known: {', '.join(known)}"
