"""Knobs of grey-matter segmentation."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from spine_tasks.configs.checks import above, at_least, fraction
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
    reads: ClassVar[str] = "bids"
    # The knobs that choose what is read: cells with equal ones read the same files.
    data_knobs: ClassVar[tuple[str, ...]] = (
        "data",
        "contrast",
        "label_suffix",
        "cord_suffix",
        "crop",
    )
    chosen_by: ClassVar[str] = "val_dice"  # the column of the history that weights are chosen by

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

    @property
    def start(self) -> str | None:
        """Name or file of the weights to start from; None: none, or those of the needed cell."""
        return self.weights if self.init == "pretrained" else None

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "filters", "image_px", "epochs", "batch_size", "patience", "threads")
        at_least(self, 0, "min_delta", "tta")
        above(self, 0, "learning_rate", "spacing_mm")
        fraction(self, "dropout")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"GmSegmentation.threshold must be in (0, 1), got {self.threshold}")
