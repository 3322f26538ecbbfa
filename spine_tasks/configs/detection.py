"""Knobs of detection: what two detectors share, and each one's own.

What is shared has one name, one meaning and one implementation, so that a difference between two
runs is one of detectors and not of readers, augmentation or scoring.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from spine_tasks.configs.checks import above, at_least, fraction
from spine_tasks.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Knobs that every detector has."""

    entry: ClassVar[str] = "spine_tasks.tasks.detection.train:train"
    framework: ClassVar[str] = "torch"
    predicts: ClassVar[str] = "boxes"
    reads: ClassVar[str] = "coco"
    data_knobs: ClassVar[tuple[str, ...]] = ("data", "test_data", "categories")
    chosen_by: ClassVar[str] = "val_AP50"

    # data
    data: str = "phantom"  # a COCO folder, or `phantom`: made-up sagittal slices
    test_data: str | None = None  # another COCO folder, all of which is tested on instead
    categories: tuple[str, ...] | None = None  # names of those to detect; None = all

    # start
    weights: str | None = None  # known name or file; None = those that fit the network, if known
    init: str = "none"  # what of the network is loaded from them; each detector says what it can

    # network
    backbone: str = "resnet50"  # a ResNet of torchvision, or any timm network with feature maps

    # input
    image_px: int = 640  # long side after resizing
    channels: Literal[1, 3] = 3  # 1: grey images as they are; 3: grey thrice, for RGB weights
    augment: Literal["none", "flip", "light", "multi_scale", "hard"] = "none"  # anew in each epoch

    # optimisation
    epochs: int = 100  # at most
    batch_size: int = 4  # images a step, over all GPUs and nodes of the cell
    accumulate: int = 1  # parts that a step's batch is computed in, for want of memory
    optimizer: Literal["adamw", "sgd"] = "adamw"  # sgd: momentum .9
    learning_rate: float = 1e-4  # one_cycle: its peak
    backbone_learning_rate: float | None = None  # None = as the rest
    weight_decay: float = 1e-4  # as the optimiser has it: decoupled in adamw
    schedule: Literal["constant", "step", "one_cycle"] = "constant"  # of the learning rate
    lr_drop: int = 200  # schedule=step: epoch from which the rate is a tenth
    clip_norm: float | None = None  # of the gradient; None = not clipped
    patience: int = 1000  # epochs without a better validation score before stopping
    min_delta: float = 0.0  # validation score that counts as better
    keep: Literal["best", "last"] = "best"  # whose epoch's weights predict
    ema: float | None = None  # decay a step of the averaged weights that predict; None = none

    # output
    merge_iou: float | None = None  # of two found boxes above it the surer stays; None = all stay

    # machine: these change the last bits of every number, so they belong to the cell
    threads: int = 2  # CPU threads of one attempt
    precision: Literal["float32", "bfloat16"] = "float32"  # of the network's forward pass
    compile: bool = False  # torch.compile the network
    channels_last: bool = False  # memory format of images: faster on GPUs and with bfloat16

    @property
    def start(self) -> str | None:
        """Name or file of the weights to start from; None: none."""
        if self.init == "none":
            return None
        return self.weights or (self.backbone if self.init == "backbone" else self._whole)

    @property
    def _whole(self) -> str:
        """The name of known weights of the whole network."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        """Check the ranges."""
        at_least(self, 1, "epochs", "batch_size", "accumulate", "lr_drop", "patience", "threads")
        at_least(self, 32, "image_px")
        at_least(self, 0, "weight_decay", "min_delta")
        above(self, 0, "learning_rate", "backbone_learning_rate", "clip_norm")
        fraction(self, "ema", "merge_iou")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be computed in {self.accumulate} equal "
                "parts; choose an `accumulate` that divides it"
            )
        if self.categories is not None and not self.categories:
            raise ConfigError("categories: name at least one, or null for all")


@dataclass(frozen=True, kw_only=True)
class CordSignalDetr(Detection):
    """Boxes by DETR, made for cord signal in cervical MRI (PyTorch).

    The defaults are DETR [1]_ as its authors trained it. The published system [2]_ differs in
    `batch_size=4`, `epochs=100`, `queries=20`, `classes=20`, `init="backbone_transformer"`; its
    rate would have dropped after 200 epochs, so it never did.

    References
    ----------
    .. [1] Carion et al., End-to-end object detection with transformers, ECCV 2020,
       doi:10.1007/978-3-030-58452-8_13.
    .. [2] Code of the cervical study: github.com/liuchangshiye/MRI-cervical-spine.
    .. [3] Zhao et al., DETRs beat YOLOs on real-time object detection, CVPR 2024,
       doi:10.1109/CVPR52733.2024.01605: what `variant="fast"` follows.
    """

    # start
    init: Literal["none", "backbone", "backbone_transformer", "all_but_heads"] = "none"

    # network
    variant: Literal["published", "fast"] = "published"  # fast: converges in far fewer epochs
    dilation: bool = False  # DC5: the last stage at twice the resolution
    queries: int = 100  # boxes proposed an image; a bit above the most that an image has
    classes: int | None = None  # outputs beside "no object"; None = as many as categories
    hidden: int = 256  # features of a query
    heads: int = 8  # of attention
    feedforward: int = 2048  # features inside a transformer layer
    encoder_layers: int = 6  # of the published variant
    decoder_layers: int = 6  # each refines the boxes of the one before
    dropout: float = 0.1  # share of units dropped in a training step
    no_object_weight: float = 0.1  # of "no object" in the cross-entropy of the published variant
    auxiliary: bool = True  # losses after every decoder layer

    # optimisation
    augment: Literal["none", "flip", "light", "multi_scale", "hard"] = "multi_scale"
    image_px: int = 800
    epochs: int = 300
    batch_size: int = 2
    learning_rate: float = 1e-4
    backbone_learning_rate: float | None = 1e-5
    schedule: Literal["constant", "step", "one_cycle"] = "step"
    clip_norm: float | None = 0.1

    @property
    def _whole(self) -> str:
        return f"detr_{self.backbone}" + ("_dc5" if self.dilation else "")

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        at_least(self, 1, "queries", "classes", "hidden", "heads", "feedforward")
        at_least(self, 1, "encoder_layers", "decoder_layers")
        at_least(self, 0, "no_object_weight")
        fraction(self, "dropout")
        if self.hidden % self.heads or self.hidden % 2:
            raise ConfigError(
                f"hidden must be even and a multiple of heads, got {self.hidden} and {self.heads}"
            )


@dataclass(frozen=True, kw_only=True)
class DiscFasterRcnn(Detection):
    """Boxes by Faster R-CNN, made for healthy and sick discs in cervical MRI (PyTorch).

    The defaults are the published system's [2]_ network and augmentation, with an optimiser and a
    choice of weights that do not look at the test part.

    References
    ----------
    .. [1] Ren et al., Faster R-CNN: towards real-time object detection with region proposal
       networks, IEEE TPAMI 39, 2017, doi:10.1109/TPAMI.2016.2577031.
    .. [2] Code of the disc study: github.com/resolator/vertebra-detection.
    """

    # start
    init: Literal["none", "backbone", "all_but_heads"] = "none"

    # network
    version: Literal["v1", "v2"] = "v1"  # of torchvision's network; with timm backbones of its head
    frozen: bool = True  # batch norms and the first stages of a loaded backbone stay as they are
    pyramid_channels: int = 256  # of each level's map
    head_features: int = 1024  # of a box, before class and edges are told
    anchors_px: tuple[int, ...] = (32, 64, 128, 256, 512)  # edge, one a level of the pyramid
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height / width

    # losses
    rois: int = 512  # proposals of an image that the head learns from; fewer are faster
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"  # of the classes
    class_weights: tuple[float, ...] | None = None  # background first, then each category

    # optimisation
    augment: Literal["none", "flip", "light", "multi_scale", "hard"] = "hard"
    image_px: int = 384
    epochs: int = 50
    batch_size: int = 8
    optimizer: Literal["adamw", "sgd"] = "sgd"
    learning_rate: float = 0.005

    # output
    score: float = 0.05  # boxes below it are left out
    nms_iou: float = 0.5  # of two boxes of one category above it the surer stays
    boxes: int = 100  # found in an image at most
    merge_iou: float | None = 0.65

    @property
    def _whole(self) -> str:
        return f"fasterrcnn_{self.version}"

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        at_least(self, 1, "pyramid_channels", "head_features", "rois", "boxes")
        fraction(self, "score", "nms_iou")
        for name in ("anchors_px", "anchor_ratios", "class_weights"):
            values = getattr(self, name)
            if values is not None and (not values or min(values) <= 0):
                raise ConfigError(f"{name}: one or more numbers above 0, got {list(values)}")
