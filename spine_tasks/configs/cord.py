"""Knobs of cord segmentation: one general model against several specific ones."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from spine_tasks.configs.checks import above, at_least, fraction
from spine_tasks.errors import ConfigError

Planner = Literal["ExperimentPlanner", "nnUNetPlannerResEncM", "nnUNetPlannerResEncL"]


@dataclass(frozen=True, kw_only=True)
class CordPreprocessing:
    """Data sets converted, planned and preprocessed by nnU-Net, once for all that train on them."""

    entry: ClassVar[str] = "spine_tasks.tasks.cord.preprocess:train"
    framework: ClassVar[str] = "nnunet"
    predicts: ClassVar[str] = "nothing"
    reads: ClassVar[str] = "cords"
    data_knobs: ClassVar[tuple[str, ...]] = ("data", "train_on")
    chosen_by: ClassVar[str] = ""

    data: str = "phantom"  # a YAML file of BIDS data sets, or `phantom`: made-up ones
    train_on: tuple[str, ...] | None = None  # names of those to train on; None = all
    configuration: Literal["2d", "3d_fullres"] = "3d_fullres"  # of nnU-Net
    planner: Planner = "nnUNetPlannerResEncL"  # of the network; ExperimentPlanner: plain U-Net
    gpu_memory_gb: float | None = None  # that the network is planned for; None = the planner's

    threads: int = 2  # CPU threads of one attempt

    @property
    def start(self) -> None:
        """Weights to start from: none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "threads")
        above(self, 0, "gpu_memory_gb")
        check_sources(self.train_on)


@dataclass(frozen=True, kw_only=True)
class CordNnunet:
    """Cord segmentation by nnU-Net on one, several or all of some BIDS data sets (PyTorch).

    The defaults are nnU-Net's [1]_, but for its planner, which is the one that its authors
    recommend now; the published study [2]_ used `planner="ExperimentPlanner"`, and `epochs=1600`
    for the model of all data sets.

    References
    ----------
    .. [1] Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical
       image segmentation, Nat Methods 18, 2021, doi:10.1038/s41592-020-01008-z.
    .. [2] Code of the study: github.com/brainhack-school2023/bouchard_project.
    """

    entry: ClassVar[str] = "spine_tasks.tasks.cord.train:train"
    framework: ClassVar[str] = "nnunet"
    predicts: ClassVar[str] = "cords"
    reads: ClassVar[str] = "cords"
    data_knobs: ClassVar[tuple[str, ...]] = ("data", "train_on")
    chosen_by: ClassVar[str] = "val_dice"  # of patches, over all voxels together

    # data
    data: str = "phantom"  # a YAML file of BIDS data sets, or `phantom`: made-up ones
    train_on: tuple[str, ...] | None = None  # names of those to train on; None = all

    # plan
    configuration: Literal["2d", "3d_fullres"] = "3d_fullres"  # of nnU-Net
    planner: Planner = "nnUNetPlannerResEncL"  # of the network; ExperimentPlanner: plain U-Net
    gpu_memory_gb: float | None = None  # that the network is planned for; None = the planner's
    # Smaller than planned, for small machines; None = as planned.
    stages: int | None = None  # of the network
    features: int | None = None  # of its first stage; each further one has twice as many, up to 8
    patch: int | None = None  # longest side of a patch in voxels
    batch_size: int | None = None  # patches

    # start
    init: Literal["scratch", "pretrained"] = "scratch"  # random weights, or trained ones
    weights: str | None = None  # for pretrained: a checkpoint of nnU-Net, or a run's weights

    # optimisation
    epochs: int = 1000  # all are trained
    iterations: int = 250  # steps an epoch
    val_iterations: int = 50  # steps an epoch on patches of the validation part
    learning_rate: float = 1e-2  # SGD with momentum .99; falls to 0 by a polynomial
    foreground: float = 0.33  # share of patches that are sure to hold cord
    mirror: bool = True  # in training, and averaged over in prediction
    keep: Literal["best", "last"] = "last"  # whose epoch's weights predict; best: moving val_dice

    # output
    tile_step: float = 0.5  # of the sliding window, in patches

    # machine
    threads: int = 2  # CPU threads of one attempt

    @property
    def start(self) -> str | None:
        """File of the weights to start from; None: none."""
        return self.weights if self.init == "pretrained" else None

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "epochs", "iterations", "val_iterations", "threads", "batch_size")
        at_least(self, 2, "stages")
        at_least(self, 1, "features")
        at_least(self, 16, "patch")
        above(self, 0, "learning_rate", "gpu_memory_gb")
        if not 0 <= self.foreground <= 1:
            raise ConfigError(f"CordNnunet.foreground must be in [0, 1], got {self.foreground}")
        if not 0 < self.tile_step <= 1:
            raise ConfigError(f"CordNnunet.tile_step must be in (0, 1], got {self.tile_step}")
        check_sources(self.train_on)


@dataclass(frozen=True, kw_only=True)
class CordUnet:
    """Cord segmentation of axial slices by a plain 2-D U-Net (PyTorch), the light alternative.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox, U-Net: convolutional networks for biomedical image
       segmentation, MICCAI 2015, doi:10.1007/978-3-319-24574-4_28.
    """

    entry: ClassVar[str] = "spine_tasks.tasks.cord.unet_train:train"
    framework: ClassVar[str] = "torch"
    predicts: ClassVar[str] = "cords"
    reads: ClassVar[str] = "cords"
    data_knobs: ClassVar[tuple[str, ...]] = ("data", "train_on")
    chosen_by: ClassVar[str] = "val_dice"  # of whole slices, over all voxels together

    # data
    data: str = "phantom"  # a YAML file of BIDS data sets, or `phantom`: made-up ones
    train_on: tuple[str, ...] | None = None  # names of those to train on; None = all

    # input
    spacing_mm: float = 0.5  # in plane, after resampling
    image_px: int = 128  # side of the square around the image's centre
    augment: bool = True  # turn, scale, shift, contrast, noise; anew in each epoch

    # network
    stages: int = 5  # resolutions
    features: int = 16  # of the first stage; each further one has twice as many, up to 16 times
    dropout: float = 0.0  # share of channels dropped in a training step

    # optimisation
    epochs: int = 100  # at most
    batch_size: int = 16  # slices a step
    learning_rate: float = 1e-3  # AdamW; one_cycle: its peak
    weight_decay: float = 0.01  # decoupled
    schedule: Literal["constant", "step", "one_cycle"] = "one_cycle"  # of the learning rate
    lr_drop: int = 60  # schedule=step: epoch from which the rate is a tenth
    clip_norm: float | None = 1.0  # of the gradient; None = not clipped
    patience: int = 1000  # epochs without a better validation Dice before stopping
    min_delta: float = 0.0  # validation Dice that counts as better
    keep: Literal["best", "last"] = "best"  # whose epoch's weights predict
    ema: float | None = None  # decay a step of the averaged weights that predict; None = none

    # output
    threshold: float = 0.5  # probability above which a pixel is cord

    # machine: these change the last bits of every number, so they belong to the cell
    threads: int = 2  # CPU threads of one attempt
    precision: Literal["float32", "bfloat16"] = "float32"  # of the network's forward pass
    compile: bool = False  # torch.compile the network

    @property
    def start(self) -> None:
        """Weights to start from: none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "epochs", "batch_size", "lr_drop", "patience", "threads", "features")
        at_least(self, 2, "stages")
        at_least(self, 0, "weight_decay", "min_delta")
        above(self, 0, "spacing_mm", "learning_rate", "clip_norm")
        fraction(self, "dropout", "ema")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"CordUnet.threshold must be in (0, 1), got {self.threshold}")
        if self.image_px < 1 or self.image_px % 2 ** (self.stages - 1):
            raise ConfigError(
                f"image_px must be a multiple of {2 ** (self.stages - 1)} with {self.stages} "
                f"stages, got {self.image_px}"
            )
        check_sources(self.train_on)


def check_sources(names: tuple[str, ...] | None) -> None:
    """Refuse a list of no data set, or of one twice."""
    if names is not None and (not names or len(set(names)) < len(names)):
        raise ConfigError(f"train_on: name each data set once, or null for all; got {[*names]}")
