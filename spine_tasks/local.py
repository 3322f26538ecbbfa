"""Cells on this machine: as many at a time as it carries, needed cells first.

Meant for a laptop or a workstation, and for the demo; larger work belongs on Slurm.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine_tasks.causes import stopped
from spine_tasks.cell import Cell
from spine_tasks.environment import gpu_names
from spine_tasks.experiment import Experiment
from spine_tasks.lock import held, holder
from spine_tasks.run import Run
from spine_tasks.supervise import recorded, start_worker

LAUNCHER = "launcher.json"  # in an experiment's folder, while it is run on this machine
POLL_S = 0.5


@dataclass(frozen=True)
class Worker:
    """A worker under way, and the GPUs that are its own."""

    process: "subprocess.Popen[bytes]"
    gpus: tuple[int, ...]


Workers = dict[str, Worker]  # by cell id


def capacity(cells: Sequence[Cell], gpus: int) -> int:
    """How many of these cells this machine carries at once; at least 1.

    A cell that asks for a GPU on a machine without any runs on the CPU.
    """
    cpus = max(cell.resources.cpus for cell in cells)
    mem_gb = max(cell.resources.mem_gb for cell in cells)
    fits = [(os.cpu_count() or 1) // cpus, int(available_gb() / mem_gb)]
    if gpus and (each := max(cell.resources.gpus for cell in cells)):
        fits.append(gpus // each)
    return max(1, min(fits))


def available_gb() -> float:
    """Memory that new processes can have, in GB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1e6
    return 4.0


def run_here(
    experiment: Experiment,
    cells: Sequence[Cell],
    watch: Callable[[], object],
    variables: dict[str, str] | None = None,
) -> dict[str, int]:
    """Run the cells; return the exit code of each that was started, by cell id.

    A cell that another one needs must stand before it. A cell whose needed cell did not become
    complete is not started, nor is any new one after the same error in several. On Ctrl-C the
    workers are asked to stop, and save.

    Parameters
    ----------
    watch
        Called several times a second, to show how far everything is.
    variables
        Environment of the workers, beside this process's own.

    Raises
    ------
    KeyboardInterrupt
        After every worker has saved and ended.
    RunError
        The experiment is being run here already.
    """
    gpus = len(gpu_names()) if any(cell.resources.gpus for cell in cells) else 0
    at_once = capacity(cells, gpus)
    waiting, running, ended = list(cells), Workers(), dict[str, int]()
    with _alone(experiment) as still_mine, _stopping(running):
        while waiting or running:
            for cell in _ready(experiment, waiting)[: at_once - len(running)]:
                waiting.remove(cell)
                running[cell.id] = _start(experiment, cell, running, gpus, variables or {})
            for cell_id, code in _reap(experiment, running).items():
                if code == os.EX_TEMPFAIL:  # somebody asked this one worker to stop
                    waiting.insert(0, next(cell for cell in cells if cell.id == cell_id))
                else:
                    ended[cell_id] = code
            if not running and not _ready(experiment, waiting):
                break  # what is left needs a cell that failed
            watch()
            still_mine()
            time.sleep(POLL_S)
    return ended


def _alone(experiment: Experiment) -> AbstractContextManager[Callable[[], None]]:
    """Refuse to run an experiment that another launcher is running."""
    return held(
        experiment.folder / LAUNCHER,
        f"{experiment.name} is being run here by process {{pid}} on {{host}}; watch it by "
        f"jobs/status.py --grid {experiment.name} --watch, or stop it by jobs/cancel.py",
    )


def launcher(experiment: Experiment) -> dict[str, Any] | None:
    """The process (`host`, `pid`) that runs this experiment without Slurm now, if one does."""
    return holder(experiment.folder / LAUNCHER)


@contextmanager
def _stopping(running: Workers) -> Iterator[None]:
    """On Ctrl-C or an error ask the workers to save, and wait; then Ctrl-C ends them at once."""
    try:
        yield
    except BaseException:
        try:
            for worker in running.values():
                worker.process.send_signal(signal.SIGTERM)
            for worker in running.values():
                worker.process.wait()
        except KeyboardInterrupt:
            for worker in running.values():
                worker.process.kill()
        raise


def _ready(experiment: Experiment, waiting: list[Cell]) -> list[Cell]:
    """The cells that can start: those whose needed cells are complete, until a general stop."""
    if stopped(experiment.folder) is not None:
        waiting = [cell for cell in waiting if experiment.run(cell).attempts()]
    return [
        cell
        for cell in waiting
        if all((experiment.folder / first / "done.json").exists() for first in cell.needs)
    ]


def _start(
    experiment: Experiment, cell: Cell, running: Workers, gpus: int, variables: dict[str, str]
) -> Worker:
    taken = {gpu for worker in running.values() for gpu in worker.gpus}
    free = [gpu for gpu in range(gpus) if gpu not in taken]
    own = tuple(free[: cell.resources.gpus])
    variables = variables | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, own))}
    return Worker(start_worker(experiment.run(cell).folder, variables=variables), own)


def _reap(experiment: Experiment, running: Workers) -> dict[str, int]:
    """The exit codes of the workers that have ended, by cell id; they are taken from `running`."""
    polled = {cell: worker.process.poll() for cell, worker in running.items()}
    ended = {cell: code for cell, code in polled.items() if code is not None}
    return {
        cell: recorded(Run(experiment.folder / cell), running.pop(cell).process.pid, code)
        for cell, code in ended.items()
    }
