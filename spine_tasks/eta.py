"""How far the cells of an experiment are, and about how long they take still."""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from spine_tasks.cell import Cell
from spine_tasks.cost import Cost, cost, total
from spine_tasks.experiment import Experiment
from spine_tasks.states import State

RECENT = 10  # epochs whose mean is a cell's pace: the first ones are slower
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Progress:
    """How far one cell is."""

    cell: Cell
    state: State
    cost: Cost
    left_s: float | None = None  # about, if known; at most, where training may stop early


@dataclass(frozen=True)
class View:
    """How far all cells are, at one look."""

    progress: dict[str, Progress]  # by cell id
    left_s: float | None  # about, until none is left to compute
    early: bool  # whether training may stop before its last epoch, and be done sooner

    @property
    def states(self) -> dict[str, State]:
        """The state of each cell."""
        return {name: one.state for name, one in self.progress.items()}

    @property
    def cost(self) -> Cost:
        """What all attempts took."""
        return total(one.cost for one in self.progress.values())


class Watcher:
    """Looks at an experiment again and again, and reads only the files that changed since."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._known: dict[Path, tuple[tuple[int, int], Records]] = {}

    def history(self, cell: Cell) -> Records:
        """The epochs of a cell, as `Run.history`."""
        run = self._experiment.run(cell)
        return self._read(run.folder / "history.jsonl", run.history)

    def look(self, found: Mapping[str, State]) -> View:
        """How far the cells are that a state is given of."""
        cells = [cell for cell in self._experiment.everything if cell.id in found]
        seen = {cell.id: self._progress(cell, found[cell.id]) for cell in cells}
        early = any(_may_stop_early(cell) for cell in cells if found[cell.id].kind != "complete")
        expected = _expected(seen.values())
        for name, one in seen.items():
            took = expected(one.cell)
            if one.left_s is None and one.state.kind == "running" and took is not None:
                seen[name] = replace(one, left_s=max(0.0, took - one.cost.seconds))
        return View(seen, grid_left_s([*seen.values()], expected), early)

    def _progress(self, cell: Cell, state: State) -> Progress:
        if state.kind == "new":
            return Progress(cell, state, Cost())
        run = self._experiment.run(cell)
        attempts = self._read(run.folder / "attempts.jsonl", run.attempts)
        took = cost(cell, attempts, state.kind == "running", folder=run.folder)
        left = None
        if state.kind not in ("complete", "failed"):
            left = left_s(cell, self.history(cell), self._since(cell, state))
        return Progress(cell, state, took, left)

    def _since(self, cell: Cell, state: State) -> float:
        """Seconds since the last epoch of a cell that runs ended."""
        if state.kind != "running":
            return 0.0
        mark = _mark(self._experiment.run(cell).folder / "history.jsonl")
        return max(0.0, time.time() - mark[0] / 1e9) if mark else 0.0

    def _read(self, file: Path, read: Callable[[], Records]) -> Records:
        mark = _mark(file)  # before it is read: what is written meanwhile is read the next time
        if mark is None:
            return []
        if file not in self._known or self._known[file][0] != mark:
            self._known[file] = mark, read()
        return self._known[file][1]


def left_s(cell: Cell, history: Sequence[dict[str, Any]], since_s: float = 0.0) -> float | None:
    """About how many seconds the epochs that a cell has left take; None before its first ended.

    At most so long, where training may stop early; the predictions come on top.

    Parameters
    ----------
    history
        A record an epoch, with `epoch` from 0 and `seconds`.
    since_s
        Seconds since the last of them ended.
    """
    epochs = getattr(cell.config, "epochs", None)
    paces = [record["seconds"] for record in history if "seconds" in record][-RECENT:]
    if epochs is None or not paces:
        return None
    pace = fmean(paces)
    epochs_left = int(epochs) - int(history[-1]["epoch"]) - 1
    return max(0.0, epochs_left * pace - min(since_s, pace))


def grid_left_s(
    cells: Sequence[Progress], expected: Callable[[Cell], float | None]
) -> float | None:
    """About how many seconds until no cell is left to compute, if as many run at once as now.

    Cells that failed or were cancelled are left out. None if nothing runs, or if it is not known
    of a cell how long it takes: none like it has trained an epoch yet.
    """
    running = [one for one in cells if one.state.kind == "running"]
    open_kinds = ("new", "waiting", "interrupted")
    later = [one for one in cells if one.state.kind in open_kinds and not one.state.cancelled]
    if not running:
        return None
    free, ends = [0.0] * len(running), dict[str, float]()
    for one in [*running, *later]:
        left = one.left_s if one.left_s is not None else expected(one.cell)
        if left is None:
            return None
        start = max([heapq.heappop(free), *(ends.get(first, 0.0) for first in one.cell.needs)])
        ends[one.cell.id] = start + left
        heapq.heappush(free, start + left)
    return max(ends.values())


def summary(view: View) -> Iterator[str]:
    """What is left of the grid and what it took, a line if there is anything to say."""
    said, took = [], view.cost
    if view.left_s is not None:
        early = ", less where training stops early" if view.early else ""
        said.append(f"about {spoken(view.left_s)} left{early}")
    if took.gpu_hours or took.gpu_hours_asked:
        asked = f" of {took.gpu_hours_asked:.1f} asked" if took.gpu_hours_asked else ""
        said.append(f"{took.gpu_hours:.1f} GPU-hours used{asked}")
    elif took.seconds:
        said.append(f"{spoken(took.seconds)} of computing")
    if took.unknown:
        said.append(f"without {took.unknown} attempts whose end nobody recorded")
    if said:
        yield "; ".join(said)


def totals(view: View) -> dict[str, Any]:
    """What `summary` says, for programs."""
    took = view.cost
    return {
        "states": dict(Counter(state.kind for state in view.states.values())),
        "left_s": view.left_s,
        "seconds": took.seconds,
        "gpu_hours": took.gpu_hours,
        "gpu_hours_asked": took.gpu_hours_asked,
        "attempts_without_end": took.unknown,
    }


def spoken(seconds: float) -> str:
    """A duration as people say it, in its two largest units.

    Examples
    --------
    >>> spoken(20), spoken(600), spoken(11_000), spoken(200_000)
    ('< 1 min', '10 min', '3 h 3 min', '2 d 7 h')
    """
    minutes = int(seconds // 60)
    if minutes < 1:
        return "< 1 min"
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _expected(cells: Iterable[Progress]) -> Callable[[Cell], float | None]:
    """How long a cell takes in all: the mean of complete ones of its arm, or else of its job.

    Before any is complete, what those that run are on the way to.
    """
    took: dict[tuple[bool, str, str | None], list[float]] = {}
    for one in cells:
        complete = one.state.kind == "complete"
        seconds = one.cost.seconds + (one.left_s or 0.0)
        if (complete or one.left_s is not None) and seconds > 0:
            for arm in (one.cell.arm_name, None):
                took.setdefault((complete, one.cell.job, arm), []).append(seconds)
    means = {alike: fmean(times) for alike, times in took.items()}

    def of(cell: Cell) -> float | None:
        orders = [(done, arm) for done in (True, False) for arm in (cell.arm_name, None)]
        found = (means.get((done, cell.job, arm)) for done, arm in orders)
        return next((mean for mean in found if mean is not None), None)

    return of


def _may_stop_early(cell: Cell) -> bool:
    patience = getattr(cell.config, "patience", None)
    return patience is not None and patience < cell.config.epochs


def _mark(file: Path) -> tuple[int, int] | None:
    """By which a changed file is told; None if there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
