"""What every kind of prediction refuses and tells alike."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from spine_tasks.errors import ConfigError


def refuse_inputs_and_runs(output: Path, files: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse files that are inputs too, or that lie in the folder of a run.

    Parameters
    ----------
    output
        As it was asked for, for the message.
    files
        That will be written.

    Raises
    ------
    ConfigError
        One of them may not be.
    """
    read = {file.resolve() for file in inputs}
    for file in files:
        if file.resolve() in read:
            raise ConfigError(f"--output {file} is an input too; name another file")
        for place in file.resolve().parents:
            if (place / "cell.json").exists():
                raise ConfigError(
                    f"--output {output} lies in the run {place.name}, whose predictions and "
                    "scores stay as they are; name another folder"
                )


def task_module(name: str, framework: str) -> ModuleType:
    """A task's module, with its framework.

    Raises
    ------
    ConfigError
        This Python lacks the framework.
    """
    with needing(framework):
        return importlib.import_module(name)


@contextmanager
def needing(framework: str) -> Iterator[None]:
    """Within, a module that this Python lacks is told as a ConfigError."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"prediction needs {framework} and what else the task's extra of setup.cfg has, of "
            f"which this Python lacks something ({error}); use the Python that trains, or install "
            "the extra"
        ) from error
