"""The live table of an experiment: which cell stands where."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spine_tasks.cell import Cell
from spine_tasks.command import listed
from spine_tasks.experiment import Experiment
from spine_tasks.run import Run
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
SLURM_POLL_S = 5.0  # the controller serves everybody


def counts(found: dict[str, State]) -> str:
    """How many cells stand where, such as `9 complete, 2 running, 1 failed`."""
    number = Counter(state.kind for state in found.values())
    return ", ".join(f"{number[kind]} {kind}" for kind in reversed(COLOURS) if number[kind])


def table(experiment: Experiment, found: dict[str, State]) -> "Group":
    """One row a cell, needed cells first, then why those that wait or failed do so."""
    from rich.console import Group  # slow to import, and seldom needed
    from rich.markup import escape
    from rich.table import Table

    title = f"{escape(experiment.name)}: {counts(found)}"
    board = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("cell", "arm", "fold", "seed", "state", "epoch", "loss", "val"):
        # Long arms are folded, so that every number is there to be read on a narrow terminal.
        board.add_column(heading, no_wrap=heading != "arm", overflow="fold")
    for cell in experiment.everything:
        if cell.id in found:
            board.add_row(*_row(experiment.run(cell), cell, found[cell.id]))
    return Group(board, *_reasons(found))


def _reasons(found: dict[str, State]) -> Iterator[str]:
    """Each reason once, with the cells it holds for; of a failure its cause and remedy too."""
    from rich.markup import escape

    cells: dict[tuple[Kind, str], list[str]] = {}
    for cell, state in found.items():
        if state.why and state.kind != "complete":
            why = f"{state.cause.kind}: {state.why}" if state.cause else state.why
            remedy = f"\n  {state.cause.remedy}" if state.cause else ""
            cells.setdefault((state.kind, why + remedy), []).append(cell[-8:])
    for (kind, why), names in cells.items():
        yield f"[{COLOURS[kind]}]{kind}[/] {listed(names)}: {escape(why)}"


def as_json(experiment: Experiment, found: dict[str, State]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "cell": cell.id,
            "arm": cell.arm,
            "fold": cell.fold,
            "seed": cell.seed,
            "state": found[cell.id].kind,
            "why": found[cell.id].why,
            "cause": cause.kind if (cause := found[cell.id].cause) else None,
            "remedy": cause.remedy if cause else None,
        }
        for cell in experiment.everything
        if cell.id in found
    ]


@contextmanager
def live(experiment: Experiment, cells: list[Cell]) -> Iterator[Callable[[], None]]:
    """Show the cells' table while the block runs; yields what brings it up to date.

    Without a terminal a line is written for each change of a cell's state instead.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _narrator(experiment, cells, console)
        return
    part = Experiment(experiment.name, experiment.folder, experiment.grid, cells, [])

    def draw() -> "Group":
        return table(part, states(experiment.folder, cells))

    # Drawn when called for, not by a clock of its own: each time may ask Slurm.
    with Live(draw(), console=console, auto_refresh=False) as shown:
        yield lambda: shown.update(draw(), refresh=True)


def _narrator(experiment: Experiment, cells: list[Cell], console: "Console") -> Callable[[], None]:
    told: dict[str, State] = {cell.id: State("new") for cell in cells}

    def tell() -> None:
        found = states(experiment.folder, cells)
        for cell in cells:
            if found[cell.id].kind != told[cell.id].kind:
                told[cell.id] = found[cell.id]
                done = sum(state.kind == "complete" for state in found.values())
                console.print(
                    f"{done}/{len(cells)} complete; {_name(cell)} fold {cell.fold} "
                    f"seed {cell.seed}: {found[cell.id].kind} {found[cell.id].why}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )

    return tell


def _row(run: Run, cell: Cell, state: State) -> list[str]:
    from rich.markup import escape

    history = run.history() if state.kind != "new" else []
    last = history[-1] if history else {}
    return [
        cell.id[-8:],
        escape(_name(cell)),
        str(cell.fold),
        str(cell.seed),
        f"[{COLOURS[state.kind]}]{state.kind}",
        f"{last['epoch'] + 1}/{cell.config.epochs}" if last else "",
        f"{last['loss']:.4f}" if last else "",
        f"{last[cell.config.chosen_by]:.3f}" if last else "",
    ]


def _name(cell: Cell) -> str:
    return cell.arm_name or f"needed: {cell.split}"
