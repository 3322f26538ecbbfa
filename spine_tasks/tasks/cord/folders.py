"""nnU-Net's folders and settings, which it reads from environment variables."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from spine_tasks.cell import Cell
from spine_tasks.experiment import NNUNET
from spine_tasks.run import Run

NUMBER, NAME = 1, "cord"  # of the one data set in each folder of preprocessed data
DATASET = f"Dataset{NUMBER:03d}_{NAME}"
PRINTED = "nnunet.txt"  # in a run's folder: what nnU-Net prints
TRAINERS = Path(__file__).parent / "trainers"


def raw_of(run: Run) -> Path:
    """The folder of a run's data sets as nnU-Net is given them."""
    return run.folder / NNUNET / "raw"


def preprocessed_of(run: Run) -> Path:
    """The folder of a run's data set as nnU-Net trains on it."""
    return run.folder / NNUNET / "preprocessed" / DATASET


def use_nnunet(cell: Cell, prepared: Run, run: Run) -> None:
    """Tell nnU-Net where everything is and how many processes it may start, which must end.

    To be called before anything of it is imported.

    Parameters
    ----------
    cell
        With the allocation: a process for each CPU.
    prepared
        The run with the preprocessed data.
    run
        The run that trains; the same where it preprocesses for itself.
    """
    os.environ |= {
        "nnUNet_raw": str(raw_of(prepared)),
        "nnUNet_preprocessed": str(preprocessed_of(prepared).parent),
        "nnUNet_results": str(run.folder / NNUNET),
        "nnUNet_extTrainer": str(TRAINERS),
        "nnUNet_def_n_proc": str(cell.resources.cpus),
    }
    use_processes(cell.resources.cpus)
    os.register_at_fork(after_in_child=_end_when_asked)


def use_processes(number: int) -> None:
    """Let nnU-Net start so many; left alone it starts twelve, of which Slurm kills some.

    None is allowed in training, where the batches are then made in this process, but not in
    planning.
    """
    os.environ.update(nnUNet_n_proc_DA=str(number))


def _end_when_asked() -> None:
    """Let a forked process be ended by its pool, which waits for ever for one that is not.

    Else it would inherit this process's way to answer signals, which is to save and stop.
    """
    for one in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(one, signal.SIG_DFL)


@contextmanager
def printing_to(run: Run) -> Iterator[Path]:
    """Keep what nnU-Net prints out of the log: it goes to a file of its own in the run's folder."""
    file = run.folder / PRINTED
    with (
        file.open("a", encoding="utf-8") as stream,
        redirect_stdout(stream),
        redirect_stderr(stream),
    ):
        yield file
