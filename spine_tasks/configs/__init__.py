"""Every knob of every task, with its default, unit and reason.

A knob is a field; what a knob may be is its annotation and the checks beneath it. All knobs of a
config enter the id of a cell: they say *what* is computed. *Where* it runs (CPUs, memory, time)
stands in a grid's `resources`.
"""

import difflib
import functools
import math
import types
import typing
from dataclasses import MISSING, fields
from typing import Any, Literal

from spine_tasks.configs.cord import CordNnunet, CordPreprocessing, CordUnet
from spine_tasks.configs.detection import CordSignalDetr, Detection, DiscFasterRcnn
from spine_tasks.configs.drill import Drill
from spine_tasks.configs.gm import GmSegmentation
from spine_tasks.configs.grading import StenosisGrading
from spine_tasks.errors import ConfigError

__all__ = [
    "CordNnunet",
    "CordPreprocessing",
    "CordSignalDetr",
    "CordUnet",
    "Detection",
    "DiscFasterRcnn",
    "Drill",
    "GmSegmentation",
    "StenosisGrading",
]

Config = (
    GmSegmentation
    | CordSignalDetr
    | DiscFasterRcnn
    | StenosisGrading
    | CordPreprocessing
    | CordNnunet
    | CordUnet
    | Drill
)

TASKS: dict[str, type[Config]] = {
    "gm_segmentation": GmSegmentation,
    "cord_signal_detr": CordSignalDetr,
    "disc_faster_rcnn": DiscFasterRcnn,
    "stenosis_grading": StenosisGrading,
    "cord_preprocessing": CordPreprocessing,
    "cord_nnunet": CordNnunet,
    "cord_unet": CordUnet,
    "drill": Drill,
}
MODELS = sorted(job for job, config in TASKS.items() if config.predicts != "nothing")


UNTRAINED = ("scratch", "none")  # values of `init` that load nothing


def config_class(job: str) -> type[Config]:
    """The config of the job script `jobs/<job>.py`.

    Raises
    ------
    ConfigError
        There is no such job; the message lists those there are.
    """
    if job not in TASKS:
        raise ConfigError(f"there is no job {job!r}; jobs: {', '.join(MODELS)}")
    return TASKS[job]


def make_config(job: str, knobs: dict[str, Any]) -> Config:
    """The config of a job with some knobs set, as read from YAML or a command line.

    Raises
    ------
    ConfigError
        A knob is unknown (the message lists all), or its value is of another type or range.

    Examples
    --------
    >>> make_config("gm_segmentation", {"epochs": 5}).epochs
    5
    >>> make_config("gm_segmentation", {"epoch": 5})
    Traceback (most recent call last):
    ...
    spine_tasks.errors.ConfigError: gm_segmentation has no knob 'epoch', did you mean 'epochs'? It has augment, augment_validation, batch_size, contrast, cord_suffix, crop, data, dropout, epochs, filters, image_px, init, keep, label_suffix, learning_rate, min_delta, normalise, patience, precision, spacing_mm, threads, threshold, tta, weights, xla
    """  # noqa: E501
    base = config_class(job)
    known = _types_of(base)  # type: ignore[arg-type]
    names = [field.name for field in fields(base)]
    for name in knobs:
        if name not in names:
            raise ConfigError(f"{job} has no knob {name!r}{suggestion(name, names)}")
    return base(**{name: _typed(job, name, value, known[name]) for name, value in knobs.items()})


@functools.cache
def _types_of(config: type[Config]) -> dict[str, Any]:
    return typing.get_type_hints(config)


def knobs_of(config: Config) -> dict[str, Any]:
    """Every knob of a config by name."""
    return vars(config).copy()


def defaults_of(job: str) -> dict[str, Any]:
    """Every knob of a job with its default."""
    return {f.name: f.default for f in fields(config_class(job)) if f.default is not MISSING}


def suggestion(name: str, names: typing.Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest one, and all there are."""
    names = sorted(names)
    near = difflib.get_close_matches(name, names, n=1)
    return (f", did you mean {near[0]!r}? " if near else "; ") + "It has " + ", ".join(names)


def _typed(job: str, name: str, value: Any, wanted: Any) -> Any:
    """`value` if it is of the wanted type; where a float is wanted any number is taken."""
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for option in options:
        if typing.get_origin(option) is Literal and value in typing.get_args(option):
            return value
        if option is float:
            if (number := _number(value)) is not None:
                return number
        elif typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            each = typing.get_args(option)[0]  # all of one type: tuple[int, ...]
            return tuple(_typed(job, name, one, each) for one in value)
        elif type(value) is option:  # not isinstance: True is an int
            return value
    allowed = " or ".join(
        ", ".join(map(str, typing.get_args(option)))
        if typing.get_origin(option) is Literal
        else _name_of(option)
        for option in options
    )
    raise ConfigError(f"{job}.{name} must be {allowed}, got {value!r} ({type(value).__name__})")


def _name_of(option: Any) -> str:
    if typing.get_origin(option) is tuple:
        return f"a list of {typing.get_args(option)[0].__name__}"
    return "null" if option is types.NoneType else str(option.__name__)


def _number(value: Any) -> float | None:
    """`value` as a finite float; YAML reads `1e-3` as text: forgiven, but `true` is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
