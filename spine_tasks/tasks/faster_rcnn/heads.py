"""The two stages of Faster R-CNN: torchvision's, with losses that fit several ranks."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers

from spine_tasks.tasks.faster_rcnn.losses import box_losses, proposal_losses
from spine_tasks.tasks.faster_rcnn.sampled import at_anchors

Target = dict[str, Tensor]


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]  # torchvision has no types
    """The first stage: where something may be."""

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[Target] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals of each image, (N, 4) xyxy px, and in training the losses of sampled anchors.

        The losses are those of `proposal_losses`.
        """
        if not self.training:
            proposals, none = super().forward(images, features)
            return proposals, none
        maps = list(features.values())
        with torch.no_grad():  # what the losses look at is computed again, with gradients
            anchors = self.anchor_generator(images, maps)
            outputs = self.head(maps)
            of_levels = [one[0].numel() for one in outputs[0]]
            objectness, deltas = concat_box_prediction_layers(*outputs)
            boxes = self.box_coder.decode(deltas, anchors).view(len(anchors), -1, 4)
            proposals, _ = self.filter_proposals(boxes, objectness, images.image_sizes, of_levels)
            labels, wanted = self.assign_targets_to_anchors(anchors, targets)
            positive, negative = self.fg_bg_sampler(labels)
            chosen = torch.where(torch.cat(positive) | torch.cat(negative))[0]
            best = self.box_coder.encode_single(
                torch.cat(wanted)[chosen], torch.cat(anchors)[chosen]
            )
        losses = proposal_losses(
            *at_anchors(self.head, maps, chosen), torch.cat(labels)[chosen], best
        )
        return proposals, dict(zip(("objectness", "proposal_box"), losses, strict=True))


class BoxHeads(RoIHeads):  # type: ignore[misc]
    """The second stage: what it is, and where exactly."""

    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    class_weights: Tensor | None  # background first

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[Target], dict[str, Tensor]]:
        """Boxes in evaluation mode, else losses; see `box_losses`."""
        if not self.training:
            found, none = super().forward(features, proposals, image_shapes)
            return found, none
        proposals, _, labels, deltas = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        logits, found = self.box_predictor(self.box_head(pooled))
        classes, boxes = box_losses(
            logits,
            found,
            torch.cat(labels),
            torch.cat(deltas),
            loss=self.loss,
            class_weights=self.class_weights,
        )
        return [], {"class": classes, "box": boxes}


def answers_in_float32(module: nn.Module) -> None:
    """Let a module that may compute in bfloat16 answer in float32.

    Anchors take the type of the feature maps: in bfloat16 they would stand on multiples of 2 px
    from 256 px on.
    """
    module.register_forward_hook(_answer_in_float32)


def _answer_in_float32(_module: nn.Module, _arguments: object, answer: object) -> object:
    return _in_float32(answer)


def _in_float32(answer: Any) -> Any:
    """Tensors within lists, tuples and dictionaries, cast."""
    if isinstance(answer, dict):
        return {name: _in_float32(one) for name, one in answer.items()}
    if isinstance(answer, list | tuple):
        return type(answer)(_in_float32(one) for one in answer)
    return answer.float()
