"""DETR as it was published: a backbone, a transformer, and a class and a box for each query."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert

from spine_tasks.configs.detection import CordSignalDetr
from spine_tasks.errors import ConfigError
from spine_tasks.tasks.backbone import Backbone
from spine_tasks.tasks.detr.criterion import losses
from spine_tasks.tasks.detr.matcher import collect
from spine_tasks.tasks.detr.position import sine
from spine_tasks.tasks.detr.transformer import Transformer

Found = list[dict[str, Tensor]]  # one an image: boxes, labels and scores, the surest first


def build(config: CordSignalDetr, categories: int) -> "Detr":
    """Return DETR [1]_ with new weights, drawn from torch's global generator.

    Parameters
    ----------
    config
        With `init` other than `none`, the batch normalisation of the backbone and its first stage
        are frozen, as published; the names of all tensors are then those of official files. With
        `init="none"` the backbone has ordinary batch normalisation and all of it is trained:
        random filters that never change would help nobody.
    categories
        Of the data; `config.classes` may be more, and what they find is left out.

    Raises
    ------
    ConfigError
        Fewer classes than categories; no such backbone; `hidden` is not a multiple of 4.

    References
    ----------
    .. [1] Carion et al., End-to-end object detection with transformers, ECCV 2020,
       doi:10.1007/978-3-030-58452-8_13.
    """
    if config.classes is not None and config.classes < categories:
        raise ConfigError(
            f"classes is {config.classes}, but the data have {categories} categories; "
            f"set at least {categories}, or null for as many as there are"
        )
    if config.hidden % 4:
        raise ConfigError(
            f"hidden is {config.hidden}; sine and cosine of two axes need a multiple of 4"
        )
    return Detr(config, categories)


class Detr(nn.Module):
    """A detector: `model(images, targets)` gives losses in training, `model(images)` boxes else."""

    def __init__(self, config: CordSignalDetr, categories: int) -> None:
        super().__init__()
        self.config = config
        self.categories = categories
        classes = categories if config.classes is None else config.classes
        body = Backbone(
            config.backbone,
            channels=config.channels,
            dilation=config.dilation,
            frozen=config.init != "none",
        )
        self.backbone = nn.Sequential(body)  # official files call it backbone.0
        self.input_proj = nn.Conv2d(body.channels[-1], config.hidden, 1)
        self.query_embed = nn.Embedding(config.queries, config.hidden)
        self.transformer = Transformer(
            config.hidden,
            config.heads,
            config.feedforward,
            config.encoder_layers,
            config.decoder_layers,
            config.dropout,
        )
        self.class_embed = nn.Linear(config.hidden, classes + 1)
        self.bbox_embed = Perceptron(config.hidden, 4, layers=3)
        if config.channels_last:
            self.backbone.to(memory_format=torch.channels_last)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | Found:
        """Losses in training, boxes in evaluation.

        Parameters
        ----------
        images
            Float (C, H, W), normalised, of any sizes.
        targets
            For training: `boxes` (N, 4) float32 xyxy px of that image, `labels` (N,) int64 0-based.

        Returns
        -------
        dict of str to Tensor, or list of dict of str to Tensor
            Weighted losses, to be summed; or for each image `boxes` (Q, 4) xyxy px of that image,
            `labels` (Q,) 0-based and `scores` (Q,) in [0, 1], the surest first. A box may reach
            over the border.

        Raises
        ------
        DataError
            An image has more boxes than there are queries.
        FloatingPointError
            In training, the network's outputs are not finite.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        logits, boxes = self.outputs(images)
        # Under autocast as well: losses and boxes need more than the 8 bits of bfloat16.
        with torch.autocast(logits.device.type, enabled=False):
            if not self.training:
                return detections(logits[-1], boxes[-1], sizes, self.categories)
            if targets is None:
                raise ValueError("training needs the true boxes; or call model.eval() before")
            return losses(logits, boxes, collect(targets, sizes), self.config.no_object_weight)

    def outputs(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What each query found in each image, after every layer that a loss is asked for.

        Returns
        -------
        tuple of Tensor
            Logits, float32 (L, B, Q, C + 1), and boxes, float32 (L, B, Q, 4) cxcywh as fractions of
            the image without its padding.
        """
        batch, padding = pad(images)
        if self.config.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        features = self.input_proj(self.backbone(batch)[-1])
        # The nearest pixel tells whether a feature is of the image.
        shrunk = F.interpolate(padding[None].float(), features.shape[-2:])[0].bool()
        found = self.transformer(
            features,
            sine(shrunk, self.config.hidden // 2),
            self.query_embed.weight,
            shrunk if len({image.shape for image in images}) > 1 else None,
        )
        if not (self.training and self.config.auxiliary):
            found = found[-1:]
        with torch.autocast(found.device.type, enabled=False):
            found = found.float()
            return self.class_embed(found), self.bbox_embed(found).sigmoid()


def pad(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Images of any sizes as one batch, with zeros to the right and below.

    Returns
    -------
    tuple of Tensor
        The batch, (B, C, H, W), and its padding, bool (B, H, W), true where there is no image.
    """
    height = max(image.shape[-2] for image in images)
    width = max(image.shape[-1] for image in images)
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    padding = torch.ones(len(images), height, width, dtype=torch.bool, device=batch.device)
    for image, place, empty in zip(images, batch, padding, strict=True):
        place[:, : image.shape[-2], : image.shape[-1]] = image
        empty[: image.shape[-2], : image.shape[-1]] = False
    return batch, padding


def detections(
    logits: Tensor, boxes: Tensor, sizes: Sequence[tuple[int, int]], categories: int
) -> Found:
    """Each query's likeliest category, however unlikely, with its box.

    Parameters
    ----------
    logits
        Float (B, Q, C + 1); the last class is "no object".
    boxes
        Float (B, Q, 4) cxcywh_norm.
    sizes
        Height and width of each image, px.
    categories
        How many of the C classes the data know; the others are left out.

    Returns
    -------
    list of dict of str to Tensor
        For each image `boxes` (Q, 4) xyxy px, `labels` (Q,) and `scores` (Q,) in [0, 1], the
        surest first.
    """
    scores, labels = logits.softmax(-1)[..., :categories].max(-1)
    scores, order = scores.sort(descending=True, stable=True)
    labels = labels.gather(1, order)
    edges = boxes.new_tensor([[width, height, width, height] for height, width in sizes])
    corners = box_convert(boxes, "cxcywh", "xyxy") * edges[:, None]
    corners = corners.gather(1, order[..., None].expand(-1, -1, 4))
    return [
        {"boxes": box, "labels": label, "scores": score}
        for box, label, score in zip(corners, labels, scores, strict=True)
    ]


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, features: int, outputs: int, layers: int) -> None:
        super().__init__()
        widths = [features] * layers + [outputs]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (..., outputs) of features (..., features)."""
        *hidden, last = self.layers
        for layer in hidden:
            features = F.relu(layer(features))
        answer: Tensor = last(features)
        return answer
