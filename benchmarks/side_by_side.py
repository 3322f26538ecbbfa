"""Ways of doing the same, timed in turn, and what comes of it: ratios, and how the work grows.

Every script of this folder reports here. Run by hand it prints what it found; `make bench` runs
them all, one after the other, and sets their rows in one table.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROWS = "SPINE_BENCH_ROWS"  # environment variable: the file that `make bench` reads rows from

Way = Callable[[], Any]
Seconds = Mapping[str, Sequence[float]]  # of each run, by way


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    what
        What is done, and how much of it.
    against
        What it is measured against.
    ratios
        Of each pair of runs; empty: not measured.
    aim
        At least this much as fast if `floor` is false, else at most this many times as long.
    floor
        Whether `against` is the least that could be done.
    words
        What the ratio is of, where it is not time: `less memory`.
    note
        Whatever else is to be known: seconds, memory, why it was not measured.
    """

    what: str
    against: str
    ratios: tuple[float, ...] = ()
    aim: float | None = None
    floor: bool = False
    words: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median is as good as the aim; None without either."""
        if self.aim is None or not self.ratios:
            return None
        middle = median(self.ratios)
        return middle <= self.aim if self.floor else middle >= self.aim


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How long one thing takes for 1, 10 and 100 times its work.

    Attributes
    ----------
    what
        As in the rows of the same thing.
    work
        The amounts, as words: `10 cells`.
    seconds
        Of each amount, a median.
    why
        Why it grows so.
    """

    what: str
    work: tuple[str, ...]
    seconds: tuple[float, ...]
    why: str


def in_turn(ways: Mapping[str, Way], runs: int, *, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each way, run one after the other again and again.

    Parameters
    ----------
    warm
        Rounds beforehand that fill caches and are not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warm + runs):
        for name, way in ways.items():
            seconds = timed(way)
            taken[name] += [seconds] if number >= warm else []
    return taken


def timed(way: Way) -> float:
    """Seconds that one run takes."""
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def faster(
    what: str, against: str, ours: Sequence[float], theirs: Sequence[float], aim: float | None
) -> Row:
    """How many times as fast ours is as another way; pairs are of the same round."""
    ratios = tuple(other / own for own, other in zip(ours, theirs, strict=True))
    note = f"{median(ours):.3g} s against {median(theirs):.3g} s"
    return Row(what=what, against=against, ratios=ratios, aim=aim, note=note)


def times_the(
    what: str, least: str, ours: Sequence[float], floor: Sequence[float], aim: float | None
) -> Row:
    """How many times as long ours takes as the least that could be done."""
    ratios = tuple(own / other for own, other in zip(ours, floor, strict=True))
    note = f"{median(ours):.3g} s against {median(floor):.3g} s"
    return Row(what=what, against=least, ratios=ratios, aim=aim, floor=True, note=note)


def report(*found: Row | Growth) -> None:
    """Print rows, and hand them to `make bench` where it is waiting for them."""
    for one in found:
        say(f"| {' | '.join(cells(one))} |")
        if file := os.environ.get(ROWS):
            record = {"kind": type(one).__name__} | asdict(one)
            with Path(file).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")


def reported(file: Path) -> Iterator[Row | Growth]:
    """What scripts have reported into a file."""
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        kind = {"Row": Row, "Growth": Growth}[record.pop("kind")]
        yield kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.items()})


def cells(one: Row | Growth) -> tuple[str, ...]:
    """The cells of a line of the table.

    Examples
    --------
    >>> cells(Row(what="a", against="b", ratios=(2.0, 3.0, 2.5), aim=2))
    ('a', 'b', '2.5 x as fast (2.0 to 3.0)', '2 x', 'met', '')
    >>> cells(Growth(what="a", work=("1 cell", "10 cells"), seconds=(0.5, 1.0), why="start-up"))
    ('a', '1 cell: 0.5 s; 10 cells: 1 s', '1 : 2.0', 'start-up')
    """
    if isinstance(one, Growth):
        steps = "; ".join(
            f"{work}: {s:.3g} s" for work, s in zip(one.work, one.seconds, strict=True)
        )
        grows = [
            f"{s / one.seconds[0]:.{1 if s / one.seconds[0] < 10 else 0}f}" for s in one.seconds
        ]
        return one.what, steps, " : ".join(["1", *grows[1:]]), one.why
    aim = "" if one.aim is None else f"{'at most ' if one.floor else ''}{one.aim:g} x"
    if not one.ratios:
        return one.what, one.against, "not measured", aim, "", one.note
    middle, low, high = (_number(f(one.ratios)) for f in (median, min, max))
    words = one.words or ("as long" if one.floor else "as fast")
    ratio = f"{middle} x {words} ({low} to {high})"
    met = {True: "met", False: "missed", None: ""}[one.met]
    return one.what, one.against, ratio, aim, met, one.note


def _number(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
