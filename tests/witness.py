"""Evidence of what workers did and when, kept outside of the code under test; and their pace.

`TOY_WITNESS=<folder>` makes a worker append lines `seconds word ...` to `<cell>-<pid>` there:
`begin <epoch> <step>`, `step <epoch> <step>`, `history <epoch>`, `saving <epoch> <step>` and
`saved <epoch> <step>` around every checkpoint, `end`. The seconds are of the machine's monotonic
clock, which all processes share.

While the file named by `TOY_SLOW` is there, every step takes the seconds longer that are written in
it: so a worker is surely still in training when it is disturbed, however busy the machine.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


def tell(cell, *words):
    """Append one line about a cell to this process's file."""
    if "TOY_WITNESS" not in os.environ:
        return
    file = Path(os.environ["TOY_WITNESS"]) / f"{cell.id}-{os.getpid()}"
    with file.open("a") as stream:
        stream.write(" ".join(map(str, (time.monotonic(), *words))) + "\n")


def pace():
    """Take longer for a step while that is asked for."""
    with suppress(KeyError, FileNotFoundError):
        time.sleep(float(Path(os.environ["TOY_SLOW"]).read_text() or 0))


@dataclass(frozen=True)
class Line:
    """One thing that a worker did."""

    at: float  # s
    word: str
    place: tuple[int, ...]  # epoch and step to do next, where the word has them


@dataclass(frozen=True)
class Attempt:
    """What one process did for a cell, in order."""

    pid: int
    lines: tuple[Line, ...]

    def all(self, word):
        """The lines of one word."""
        return [line for line in self.lines if line.word == word]

    @property
    def begun(self):
        """The line of its beginning."""
        return self.lines[0]

    @property
    def may_have_saved(self):
        """Where its last checkpoint may be; none if there is none: a kill can hide its success."""
        places = [line.place for line in self.all("saved")[-1:]]
        if self.all("saving")[-1:] and self.all("saving")[-1].place not in places:
            places.append(self.all("saving")[-1].place)
        return places


def attempts(folder, cell_id):
    """The attempts at a cell that a folder of witnesses tells of, oldest first."""
    found = []
    for file in folder.glob(f"{cell_id}-*"):
        told = [line.split() for line in file.read_text().splitlines()]
        lines = [Line(float(at), word, tuple(map(int, place))) for at, word, *place in told]
        found += [Attempt(int(file.name.rpartition("-")[2]), tuple(lines))] if lines else []
    return sorted(found, key=lambda one: one.begun.at)


def problems(told):
    """What is wrong with the attempts at one cell, oldest first; empty where nothing is.

    An attempt goes on from the last checkpoint, so that at most the work since it is done twice,
    and writes nothing once a later one has begun.
    """
    found = []
    checkpoints = [(0, 0)]  # where the last one may be
    for number, one in enumerate(told):
        if one.begun.place not in checkpoints:
            found.append(f"{one.pid} began at {one.begun.place}, not at one of {checkpoints}")
        saved = one.may_have_saved
        checkpoints = saved if one.all("saved") else checkpoints + saved
        for later in told[number + 1 :]:
            wrote = one.all("saved") + one.all("history") + one.all("end")
            late = [line for line in wrote if line.at > later.begun.at]
            if late:
                found.append(f"{one.pid} wrote {late}, when {later.pid} had begun: {later.begun}")
    return found
