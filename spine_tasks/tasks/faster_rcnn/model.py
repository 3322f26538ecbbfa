"""Faster R-CNN with a feature pyramid, as a detector of this project.

It is torchvision's network in parts, numbers and names of weights. Its own handling of images is
left out: it would normalise a second time and resize, and in evaluation mode it resizes whatever
it is told.
"""

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead

from spine_tasks.configs.detection import DiscFasterRcnn
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.tasks.faster_rcnn.heads import (
    BoxHeads,
    ProposalNetwork,
    Target,
    answers_in_float32,
)
from spine_tasks.tasks.faster_rcnn.losses import Sampler
from spine_tasks.tasks.faster_rcnn.pooling import EDGE, BoxPool
from spine_tasks.tasks.faster_rcnn.pyramid import STRIDES, Pyramid


class Padding(nn.Module):
    """Puts images into one batch: zeros to the right of and below each."""

    def __init__(self, multiple: int, channels_last: bool) -> None:
        super().__init__()
        # Of the coarsest level's stride: else torchvision takes a smaller stride for that level,
        # and places its anchors by it.
        self.multiple = multiple
        self.format = torch.channels_last if channels_last else torch.contiguous_format

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        """The batch (B, C, H, W) with each image's own (H, W), and the targets as they are."""
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        height, width = (self._padded(max(edges)) for edges in zip(*sizes, strict=True))
        batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        return ImageList(batch.contiguous(memory_format=self.format), sizes), targets

    def _padded(self, edge: int) -> int:
        return -(-edge // self.multiple) * self.multiple

    def postprocess(self, found: list[Target], _sizes: object, _originals: object) -> list[Target]:
        """The boxes as they are: padding moved nothing."""
        return found


class FasterRcnn(GeneralizedRCNN):  # type: ignore[misc]  # torchvision has no types
    """A detector by Faster R-CNN; call it as every detector.

    Labels are 0-based outside and 1-based inside, where 0 is the background.
    """

    def __init__(
        self, backbone: Pyramid, rpn: ProposalNetwork, heads: BoxHeads, padding: Padding
    ) -> None:
        super().__init__(backbone, rpn, heads, padding)
        self.categories = heads.box_predictor.cls_score.out_features - 1

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> dict[str, Tensor] | list[Target]:
        """Named losses in training mode, else boxes, labels and scores, the surest first.

        Parameters
        ----------
        images
            Each (C, H, W), float32, normalised; sizes may differ.
        targets
            Of each image: `boxes` (N, 4) float32 xyxy px and `labels` (N,) int64, 0-based; N may
            be 0. Not needed in evaluation mode.

        Returns
        -------
        dict of str to Tensor or list of dict
            The losses' sum is to be minimised: `class` and `box` of the second stage,
            `objectness` and `proposal_box` of the first. Or each image's `boxes`, `labels` and
            `scores`, in the image's own px.

        Raises
        ------
        DataError
            A target's box has no area or is not finite, or its label is no category.
        """
        if self.training:
            pairs = zip(images, targets or [], strict=True)
            inside = [self._checked(target) for _, target in pairs]
            losses: dict[str, Tensor] = super().forward(images, inside)
            return {
                "class": losses["class"],
                "box": losses["box"],
                "objectness": losses["objectness"],
                "proposal_box": losses["proposal_box"],
            }
        found: list[Target] = super().forward(images)
        return [one | {"labels": one["labels"] - 1} for one in found]

    def _checked(self, target: Target) -> Target:
        """A target with labels as they are inside."""
        boxes, labels = target["boxes"], target["labels"]
        whole = torch.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        known = (labels >= 0) & (labels < self.categories)
        if not bool((whole & known).all()):
            bad = int(torch.where(~(whole & known))[0][0])
            raise DataError(
                f"box {boxes[bad].tolist()} with label {int(labels[bad])}: a target needs finite "
                f"xyxy px with x1 < x2 and y1 < y2, and a label from 0 to {self.categories - 1}"
            )
        return {"boxes": boxes, "labels": labels + 1}


def build(config: DiscFasterRcnn, categories: int) -> FasterRcnn:
    """The network of a config, freshly initialised from torch's global generator.

    Parameters
    ----------
    categories
        Number of categories, without the background.

    Notes
    -----
    The numbers that are no knobs are torchvision's. With `resnet50` and its default sizes the
    state is that of `fasterrcnn_resnet50_fpn` (v1) or `fasterrcnn_resnet50_fpn_v2`, name by name.
    With frozen weights batch norms of a ResNet hold no counters: 53 names fewer.

    Raises
    ------
    ConfigError
        The backbone is unknown or unfit, or anchors or class weights do not fit in number.

    References
    ----------
    .. [1] Ren et al., Faster R-CNN, IEEE TPAMI 39, 2017, doi:10.1109/TPAMI.2016.2577031.
    .. [2] Lin et al., Feature pyramid networks for object detection, CVPR 2017,
       doi:10.1109/CVPR.2017.106.
    .. [3] Li et al., Benchmarking detection transfer learning with vision transformers, 2021,
       arXiv:2111.11429: version v2.
    """
    weights = config.class_weights
    if weights is not None and len(weights) != categories + 1:
        raise ConfigError(
            f"class_weights has {len(weights)} numbers; {categories} categories need "
            f"{categories + 1}: that of the background first"
        )
    backbone = Pyramid(config)
    rpn = _proposal_network(config)
    heads = _box_heads(config, categories)
    padding = Padding(STRIDES[-1], config.channels_last)
    model = FasterRcnn(backbone, rpn, heads, padding)
    for module in (backbone, rpn.head, heads.box_predictor):
        answers_in_float32(module)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    return model


def _proposal_network(config: DiscFasterRcnn) -> ProposalNetwork:
    if len(config.anchors_px) != len(STRIDES):
        raise ConfigError(
            f"anchors_px has {len(config.anchors_px)} sizes, {list(config.anchors_px)}; the "
            f"pyramid has {len(STRIDES)} levels, of strides {STRIDES} px; give one size for each"
        )
    anchors = AnchorGenerator(
        tuple((size,) for size in config.anchors_px), (config.anchor_ratios,) * len(STRIDES)
    )
    depth = 2 if config.version == "v2" else 1
    rpn = ProposalNetwork(
        anchors,
        RPNHead(config.pyramid_channels, len(config.anchor_ratios), depth),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2000, "testing": 1000},
        post_nms_top_n={"training": 2000, "testing": 1000},
        nms_thresh=0.7,
    )
    rpn.fg_bg_sampler = Sampler(256, 0.5)
    return rpn


def _box_heads(config: DiscFasterRcnn, categories: int) -> BoxHeads:
    channels = config.pyramid_channels
    if config.version == "v2":
        head: nn.Module = FastRCNNConvFCHead(
            (channels, EDGE, EDGE), [channels] * 4, [config.head_features], nn.BatchNorm2d
        )
    else:
        head = TwoMLPHead(channels * EDGE**2, config.head_features)
    heads = BoxHeads(
        BoxPool(),
        head,
        FastRCNNPredictor(config.head_features, categories + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.rois,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=config.score,
        nms_thresh=config.nms_iou,
        detections_per_img=config.boxes,
    )
    heads.fg_bg_sampler = Sampler(config.rois, 0.25)
    heads.loss = config.loss
    weights = None if config.class_weights is None else torch.tensor(config.class_weights)
    heads.register_buffer("class_weights", weights, persistent=False)  # the config has them
    return heads
