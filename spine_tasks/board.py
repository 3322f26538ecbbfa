"""The live table of an experiment: which cell stands where, and about how long it takes still."""

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spine_tasks.cell import Cell
from spine_tasks.command import listed
from spine_tasks.eta import Progress, View, Watcher, spoken, summary
from spine_tasks.experiment import Experiment
from spine_tasks.states import Kind, State, states

if TYPE_CHECKING:
    from rich.console import Console, Group

COLOURS: dict[Kind, str] = {
    "new": "dim",
    "waiting": "yellow",
    "running": "cyan",
    "interrupted": "magenta",
    "failed": "red",
    "complete": "green",
}
URGENT: tuple[Kind, ...] = ("failed", "interrupted", "running", "waiting", "new", "complete")
HEADINGS = ("cell", "arm", "fold", "seed", "state", "epoch", "loss", "val", "left")
SLURM_POLL_S = 5.0  # the controller serves everybody
LATELY_S = 60.0  # how long a cell whose state changed is shown where not all can be
REASONS = 3  # at most, where the table must fit a terminal
ROWS = 500  # at most, where it need not: more take rich seconds, and nobody reads them

Found = dict[str, State]


def counts(found: Found) -> str:
    """How many cells stand where, such as `9 complete, 2 running, 1 failed`."""
    number = Counter(state.kind for state in found.values())
    return ", ".join(f"{number[kind]} {kind}" for kind in reversed(COLOURS) if number[kind])


def table(experiment: Experiment, found: Found) -> "Group":
    """One row a cell, needed cells first; then why those that wait or failed do so, and totals.

    Of more than 500 cells those that failed, run or wait come first, and the rest is counted.
    """
    watcher = Watcher(experiment)
    first = sorted(found, key=lambda cell: URGENT.index(found[cell].kind))[:ROWS]
    return _table(experiment.name, watcher, watcher.look(found), set(first))


def _table(
    name: str,
    watcher: Watcher,
    view: View,
    shown: Collection[str],
    most_reasons: int | None = None,
) -> "Group":
    """Those `shown`, by cell id, have a row; the others are counted."""
    from rich.console import Group  # slow to import, and seldom needed
    from rich.markup import escape
    from rich.table import Table

    found = view.states
    title = f"{escape(name)}: {counts(found)}"
    board = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        # Long arms are folded, so that every number is there to be read on a narrow terminal.
        board.add_column(heading, no_wrap=heading != "arm", overflow="fold")
    for one in view.progress.values():
        if one.cell.id in shown:
            board.add_row(*_row(one, watcher))
    lines = [*_reasons(found)][:most_reasons]
    rest = {cell: state for cell, state in found.items() if cell not in shown}
    if rest:
        lines = [f"and {len(rest)} more: {counts(rest)}", *lines]
    return Group(board, *lines, *summary(view))


def _reasons(found: Found) -> Iterator[str]:
    """Each reason once, failures first, with its cells; of a failure its cause and remedy too."""
    from rich.markup import escape

    cells: dict[tuple[Kind, str], list[str]] = {}
    for cell, state in found.items():
        if state.why and state.kind != "complete":
            why = f"{state.cause.kind}: {state.why}" if state.cause else state.why
            remedy = f"\n  {state.cause.remedy}" if state.cause else ""
            cells.setdefault((state.kind, why + remedy), []).append(cell[-8:])
    order = [*reversed(COLOURS)]
    for (kind, why), names in sorted(cells.items(), key=lambda one: order.index(one[0][0])):
        yield f"[{COLOURS[kind]}]{kind}[/] {listed(names)}: {escape(why)}"


def as_json(
    experiment: Experiment, found: Found, watcher: Watcher | None = None
) -> list[dict[str, Any]]:
    """The same for programs, a record a cell; what is not known is None."""
    watcher = watcher or Watcher(experiment)
    return [
        {
            "cell": one.cell.id,
            "arm": one.cell.arm,
            "fold": one.cell.fold,
            "seed": one.cell.seed,
            "state": one.state.kind,
            "why": one.state.why,
            "cause": cause.kind if (cause := one.state.cause) else None,
            "remedy": cause.remedy if cause else None,
            **{name: _finite(value) for name, value in _epoch(one, watcher).items()},
            "left_s": one.left_s,
            "seconds": one.cost.seconds,
        }
        for one in watcher.look(found).progress.values()
    ]


@contextmanager
def live(experiment: Experiment, cells: list[Cell]) -> Iterator[Callable[[], Found]]:
    """Show the cells' table while the block runs; yields what brings it up to date.

    That returns the states it found. Without a terminal a line is written for each change of a
    cell's state instead.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _narrator(experiment, cells, console)
        return
    part = Experiment(experiment.name, experiment.folder, experiment.grid, cells, [])
    draw = Drawing(part, console)
    # Drawn when called for, not by a clock of its own: each time may ask Slurm.
    with Live(console=console, auto_refresh=False) as shown:

        def look() -> Found:
            found = states(part.folder, part.everything)
            shown.update(draw(found), refresh=True)
            return found

        look()
        yield look


class Drawing:
    """The table of an experiment as high as the terminal, from one look to the next."""

    def __init__(self, experiment: Experiment, console: "Console") -> None:
        self._experiment = experiment
        self._console = console
        self._watcher = Watcher(experiment)
        self._before: Found = {}
        self._changed: dict[str, float] = {}  # when a cell's state did

    def __call__(self, found: Found) -> "Group":
        """All rows if they fit, else those of cells that changed lately, run or failed."""
        now, height = time.monotonic(), self._console.height
        for cell, state in found.items():
            if self._before.get(cell, state).kind != state.kind:
                self._changed[cell] = now
        self._before = found
        view = self._watcher.look(found)
        if len(found) < height:
            drawn = self._draw(view, found)
            if self._lines(drawn) <= height:
                return drawn
        rows = self._worth_a_look(found, now)[:height]
        while (over := self._lines(drawn := self._draw(view, rows, REASONS)) - height) > 0 and rows:
            rows = rows[: max(0, len(rows) - over)]
        return drawn

    def _draw(self, view: View, rows: Collection[str], most_reasons: int | None = None) -> "Group":
        return _table(self._experiment.name, self._watcher, view, rows, most_reasons)

    def _worth_a_look(self, found: Found, now: float) -> list[str]:
        lately = [cell for cell, when in self._changed.items() if now - when < LATELY_S]
        running, failed = (
            [cell for cell, state in found.items() if state.kind == kind]
            for kind in ("running", "failed")
        )
        return [*dict.fromkeys([*lately, *running, *failed])]

    def _lines(self, drawn: "Group") -> int:
        return len(self._console.render_lines(drawn, pad=False))


def _narrator(experiment: Experiment, cells: list[Cell], console: "Console") -> Callable[[], Found]:
    told: Found = {cell.id: State("new") for cell in cells}

    def tell() -> Found:
        found = states(experiment.folder, cells)
        for cell in cells:
            if found[cell.id].kind != told[cell.id].kind:
                told[cell.id] = found[cell.id]
                done = sum(state.kind == "complete" for state in found.values())
                console.print(
                    f"{done}/{len(cells)} complete; {name_of(cell)} fold {cell.fold} "
                    f"seed {cell.seed}: {found[cell.id].kind} {found[cell.id].why}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
        return found

    return tell


def _row(one: Progress, watcher: Watcher) -> list[str]:
    from rich.markup import escape

    cell, kind, last = one.cell, one.state.kind, _epoch(one, watcher)
    return [
        cell.id[-8:],
        escape(name_of(cell)),
        str(cell.fold),
        str(cell.seed),
        f"[{COLOURS[kind]}]{kind}",
        f"{last['epoch']}/{last['epochs']}" if last["epoch"] else "",
        "" if last["loss"] is None else f"{last['loss']:.4f}",
        "" if last["score"] is None else f"{last['score']:.3f}",
        f"~ {spoken(one.left_s)}" if kind == "running" and one.left_s is not None else "",
    ]


def _epoch(one: Progress, watcher: Watcher) -> dict[str, Any]:
    """Epochs trained and the last one's loss and validation score; None before the first."""
    history = watcher.history(one.cell) if one.state.kind != "new" else []
    last, config = history[-1] if history else {}, one.cell.config
    return {
        "epoch": last["epoch"] + 1 if last else None,
        "epochs": getattr(config, "epochs", None),
        "loss": last.get("loss"),
        "score": last.get(config.chosen_by),
    }


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def name_of(cell: Cell) -> str:
    """What a cell is called beside others: its arm, or what it is needed for."""
    return cell.arm_name or f"needed: {cell.split}"
