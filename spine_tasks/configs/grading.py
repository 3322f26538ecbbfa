"""Knobs of grading: severity at each level, from a crop of the image and the level."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from spine_tasks.configs.checks import above, at_least, fraction
from spine_tasks.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StenosisGrading:
    """Grades of lumbar levels by a network for images and an embedding of the level (PyTorch).

    The published system [1]_ grades stenosis of the canal from whole slices of 224 px:
    `conditions=["spinal_canal_stenosis"]`, `crop_unit="image"`, `image_px=224`,
    `class_weights="balanced"`, `batch_size=32`, `epochs=30`, `learning_rate=1e-4`.

    References
    ----------
    .. [1] Code of the stenosis study: github.com/Shijia1997/RSNA_spinal_stenosis_prediction.
    .. [2] Kumar et al., Fine-tuning can distort pretrained features and underperform
       out-of-distribution, ICLR 2022, arXiv:2202.10054.
    """

    entry: ClassVar[str] = "spine_tasks.tasks.grading.train:train"
    framework: ClassVar[str] = "torch"
    predicts: ClassVar[str] = "grades"
    reads: ClassVar[str] = "grades"
    data_knobs: ClassVar[tuple[str, ...]] = ("data", "test_data", "conditions")
    chosen_by: ClassVar[str] = "val_score"  # minus the mean log loss over conditions

    # data
    data: str = "phantom"  # a folder in RSNA's format or with grades.csv; `phantom`: made-up DICOM
    test_data: str | None = None  # another folder, all of which is tested on instead
    conditions: tuple[str, ...] | None = None  # names of those to grade; None = all

    # input
    crop: float = 60.0  # side of the square around the place, in `crop_unit`
    # box: its longer side; sides: either, stretched to a square; image: all of it, whatever `crop`
    crop_unit: Literal["mm", "box", "sides", "px", "image"] = "mm"  # what `crop` is in
    image_px: int = 128  # side after resizing
    slices: int = 3  # as channels, the place's in the middle; 1: it thrice, for RGB weights
    mirror: bool = True  # places of the right side are mirrored, so that both sides look alike
    augment: Literal["none", "light"] = "light"  # anew in each epoch; light: turn, scale, shift
    views: int | None = None  # of each place, used in turn, the first as it is; None: ever new
    test_views: int = 1  # that probabilities are averaged over, the first as it is

    # start
    weights: str | None = None  # known name or file; None = those that fit the backbone, if known
    init: Literal["none", "backbone"] = "none"  # what of the network is loaded from them

    # network
    backbone: str = "tf_efficientnetv2_m"  # any classifier of timm
    freeze: bool = False  # the backbone is not trained, and its batch norms do not move, but for
    unfreeze_tensors: int | None = None  # its last parameter tensors, as published, or
    unfreeze_blocks: int | None = None  # its last blocks
    features: Literal["last", "stages"] = "last"  # stages: means of the maps of all its stages
    level_embedding: Literal["none", "one_hot", "learned"] = "learned"  # beside the image
    level_features: int = 256  # of a learned embedding
    across: Literal["none", "attention", "gru"] = "none"  # the levels of a study see each other
    hidden: tuple[int, ...] = (512, 256)  # features of the head's layers
    dropout: float = 0.1  # in the head

    # fit
    fit: Literal["steps", "logistic", "both"] = "steps"  # logistic: regression on features as they
    # are at the start; both: steps that begin with it, so that they do not spoil the features [2]
    logistic_c: float = 0.01  # inverse strength of the regression's L2 penalty

    # loss
    loss: Literal["cross_entropy", "focal", "ordinal"] = "cross_entropy"  # of the grades
    class_weights: Literal["none", "balanced", "severity"] = "balanced"  # severity: 1, 2, 4 ..
    mixup: float | None = None  # parameter of its beta distribution

    # optimisation
    epochs: int = 30  # at most
    batch_size: int = 32  # places a step; with `across`, studies
    learning_rate: float = 1e-4  # one_cycle: its peak
    layer_decay: float | None = None  # factor of the rate from a block to the one before it
    weight_decay: float = 0.01  # decoupled
    schedule: Literal["constant", "step", "one_cycle"] = "one_cycle"  # of the learning rate
    lr_drop: int = 20  # schedule=step: epoch from which the rate is a tenth
    clip_norm: float | None = 1.0  # of the gradient; None = not clipped
    patience: int = 1000  # epochs without a better validation score before stopping
    min_delta: float = 0.0  # validation score that counts as better
    keep: Literal["best", "last"] = "best"  # whose epoch's weights predict
    ema: float | None = None  # decay a step of the averaged weights that predict; None = none

    # machine: these change the last bits of every number, so they belong to the cell
    threads: int = 2  # CPU threads of one attempt
    precision: Literal["float32", "bfloat16"] = "float32"  # of the network's forward pass
    compile: bool = False  # torch.compile the network

    @property
    def start(self) -> str | None:
        """Name or file of the weights to start from; None: none."""
        return None if self.init == "none" else self.weights or self.backbone

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "epochs", "batch_size", "lr_drop", "patience", "threads", "test_views")
        at_least(self, 1, "level_features", "unfreeze_tensors", "unfreeze_blocks", "views")
        at_least(self, 16, "image_px")
        at_least(self, 0, "weight_decay", "min_delta")
        above(self, 0, "crop", "learning_rate", "clip_norm", "mixup", "logistic_c")
        fraction(self, "dropout", "ema", "layer_decay")
        if self.slices < 1 or self.slices % 2 == 0:
            raise ConfigError(
                f"slices must be odd, so that one is in the middle, got {self.slices}"
            )
        unfrozen = [one for one in (self.unfreeze_tensors, self.unfreeze_blocks) if one is not None]
        if len(unfrozen) > self.freeze:
            raise ConfigError(
                "unfreeze_tensors or unfreeze_blocks, one of them, goes with freeze=true; got "
                f"{self.unfreeze_tensors}, {self.unfreeze_blocks} and freeze={self.freeze}"
            )
        linear = {"hidden": (), "across": "none", "loss": "cross_entropy"}
        got = {name: getattr(self, name) for name in linear}
        if self.fit != "steps" and (got != linear or self.level_embedding == "learned"):
            raise ConfigError(
                f"fit={self.fit} needs {linear} and level_embedding none or one_hot, got {got} "
                f"and {self.level_embedding}"
            )
        if self.fit == "logistic" and (unfrozen or not self.freeze):
            raise ConfigError(
                f"fit=logistic needs freeze=true and nothing unfrozen, got freeze={self.freeze} "
                f"and {unfrozen}; fit=both also trains the backbone"
            )
        if self.conditions is not None and not self.conditions:
            raise ConfigError("conditions: name at least one, or null for all")
        if any(width < 1 for width in self.hidden):
            raise ConfigError(f"hidden must be numbers of features from 1 on, got {self.hidden}")
