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
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal

from spine_tasks.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GmSegmentation:
    """Grey-matter segmentation of axial slices by transfer learning (TensorFlow/Keras).

    The defaults are the method [2]_ as it ought to be. The published study [1]_ differs in four:
    `normalise="slice"`, `spacing_mm=None`, `keep="last"`, `augment_validation=True` (the preset
    `published` of the grid gm_transfer).

    References
    ----------
    .. [1] Code of the paediatric study: github.com/ashwinkumargb/pediatric_gmseg.
    .. [2] The network: Perone, Calabrese, Cohen-Adad, Spinal cord gray matter segmentation using
       deep dilated convolutions, Sci Rep 8:5966, 2018, doi:10.1038/s41598-018-24304-3.
    """

    entry: ClassVar[str] = "spine_tasks.tasks.gm:train"
    framework: ClassVar[str] = "tensorflow"
    predicts: ClassVar[str] = "masks"

    # data
    data: str = "phantom"  # a BIDS folder, or `phantom`: made-up slices, made on the spot
    contrast: str = "T2starw"  # BIDS suffix of the images
    label_suffix: str = "gmseg-manual"  # of the grey-matter masks in derivatives/labels
    cord_suffix: str = "seg-manual"  # of the cord masks; read for crop="cord" only

    # start
    init: Literal["scratch", "pretrained"] = "scratch"  # random weights, or trained ones
    weights: str | None = None  # for pretrained: known name or file; None = the needed cell's

    # network
    filters: int = 32  # 32: the challenge model, 64: the large one
    dropout: float = 0.4  # share of units dropped in a training step

    # input
    spacing_mm: float | None = 0.25  # in plane, after resampling; None = as acquired (published)
    image_px: int = 200  # side of the square crop
    crop: Literal["centre", "cord"] = "centre"  # of the image, or of the cord's mask
    normalise: Literal["volume", "slice"] = "volume"  # zero mean, unit sd; published: slice
    augment: bool = False  # change every training slice at random, anew in each epoch
    augment_validation: bool = False  # published: true

    # optimisation
    epochs: int = 100  # at most
    batch_size: int = 4  # slices, over all GPUs of the cell
    learning_rate: float = 1e-3  # Adam
    patience: int = 5  # epochs without a better validation Dice before stopping
    min_delta: float = 0.001  # validation Dice that counts as better
    keep: Literal["best", "last"] = "best"  # whose epoch's weights predict; published: last

    # output
    threshold: float = 0.999  # probability above which a pixel is grey matter
    tta: int = 0  # noisy copies averaged in prediction; published: 8

    # machine: these change the last bits of every number, so they belong to the cell
    threads: int = 2  # CPU threads of one attempt
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"  # of the network
    xla: bool = False  # compile the step; on CPUs 8 to 12 times slower for this network

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("filters", "image_px", "epochs", "batch_size", "patience", "threads"):
            _at_least(self, name, 1)
        for name in ("min_delta", "tta"):
            _at_least(self, name, 0)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"GmSegmentation.dropout must be in [0, 1), got {self.dropout}")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"GmSegmentation.threshold must be in (0, 1), got {self.threshold}")
        if self.learning_rate <= 0:
            raise ConfigError(
                f"GmSegmentation.learning_rate must be positive, got {self.learning_rate}"
            )
        if self.spacing_mm is not None and self.spacing_mm <= 0:
            raise ConfigError(
                f"GmSegmentation.spacing_mm must be positive mm or null, got {self.spacing_mm}"
            )


@dataclass(frozen=True, kw_only=True)
class Drill:
    """A drill of jobs/doctor.py: a cell that counts, to try out a cluster; nothing is learned."""

    entry: ClassVar[str] = "spine_tasks.drill:train"
    framework: ClassVar[str] = "none"
    predicts: ClassVar[str] = "nothing"

    attempts: int = 2  # how many it is to take: one before the last counts until it is stopped
    steps: int = 5  # to count in all, at least
    step_s: float = 0.2  # seconds a step
    threads: int = 1  # CPU threads of one attempt

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("attempts", "steps", "threads"):
            _at_least(self, name, 1)
        _at_least(self, "step_s", 0)


Config = GmSegmentation | Drill

TASKS: dict[str, type[Config]] = {"gm_segmentation": GmSegmentation, "drill": Drill}
MODELS = sorted(job for job, config in TASKS.items() if config.predicts != "nothing")


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
        elif type(value) is option:  # not isinstance: True is an int
            return value
    allowed = " or ".join(
        ", ".join(map(str, typing.get_args(option)))
        if typing.get_origin(option) is Literal
        else {types.NoneType: "null"}.get(option, option.__name__)
        for option in options
    )
    raise ConfigError(f"{job}.{name} must be {allowed}, got {value!r} ({type(value).__name__})")


def _number(value: Any) -> float | None:
    """`value` as a finite float; YAML reads `1e-3` as text: forgiven, but `true` is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _at_least(config: Config, name: str, least: float) -> None:
    value = getattr(config, name)
    if value < least:
        raise ConfigError(f"{type(config).__name__}.{name} must be at least {least}, got {value}")
