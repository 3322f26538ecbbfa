"""A DETR that needs a tenth of the epochs: its queries start where the image shows something."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_convert, clip_boxes_to_image

from spine_tasks import ranks
from spine_tasks.configs.detection import CordSignalDetr
from spine_tasks.errors import ConfigError, DataError
from spine_tasks.tasks.backbone import Backbone
from spine_tasks.tasks.detr.fast_decoder import Decoder
from spine_tasks.tasks.detr.fast_encoder import Encoder
from spine_tasks.tasks.detr.fast_losses import losses, match
from spine_tasks.tasks.detr.fast_noise import Noise, answers, blocked, in_order, noisy
from spine_tasks.tasks.detr.fast_queries import DenseHead, Guesses, surest
from spine_tasks.tasks.detr.matcher import Targets, collect

MAPS = 3  # the coarsest ones of the backbone: strides 8, 16 and 32
CELLS_A_BOX = 4  # cells that learn to guess each reference box


def build_fast(config: CordSignalDetr, categories: int) -> nn.Module:
    """Return a DETR in the manner of RT-DETR [1]_, for small data, with new weights.

    Feature maps of three scales are fused; each of their cells guesses a class and a box; the
    surest guesses of different things start a decoder with deformable attention [2]_, whose
    layers mend the boxes. In training several cells answer for each reference box, and the
    decoder also mends reference boxes with noise [3]_: few images give many lessons.

    Parameters
    ----------
    config
        `no_object_weight` has no part in this variant, which weighs background by how sure of
        something it is there. With `init` other than `none`, batch normalisation and the first
        stage of the backbone are frozen; with `none` all of it is trained.
    categories
        Of the data; `config.classes` may be more, and what they find is left out.

    Returns
    -------
    nn.Module
        A detector: `model(images, targets)` gives losses in training, `model(images)` boxes else.
        Images of a batch are padded to the largest, so that a box depends, a little, on the images
        beside it.

    Raises
    ------
    ConfigError
        There is no such backbone, or it has not three maps of strides that double; fewer
        classes than categories; `dilation` is set.

    References
    ----------
    .. [1] Zhao et al., DETRs beat YOLOs on real-time object detection, CVPR 2024,
       doi:10.1109/CVPR52733.2024.01605.
    .. [2] Zhu et al., Deformable DETR: deformable transformers for end-to-end object detection,
       ICLR 2021, doi:10.48550/arXiv.2010.04159.
    .. [3] Zhang et al., DINO: DETR with improved denoising anchor boxes, ICLR 2023,
       doi:10.48550/arXiv.2203.03605.
    """
    if config.dilation:
        raise ConfigError("dilation: the fast variant has finer maps anyway; set it to false")
    if config.classes is not None and config.classes < categories:
        raise ConfigError(
            f"classes is {config.classes}, but the data have {categories} categories; "
            f"set at least {categories}, or null for as many as there are"
        )
    return FastDetr(config, categories)


class FastDetr(nn.Module):
    """The detector that `build_fast` returns."""

    def __init__(self, config: CordSignalDetr, categories: int) -> None:
        super().__init__()
        self.config = config
        self.categories = categories
        self.classes = categories if config.classes is None else config.classes
        frozen = config.init != "none"
        body = Backbone(config.backbone, channels=config.channels, maps=MAPS, frozen=frozen)
        if any(fine * 2 != coarse for fine, coarse in pairwise(body.strides)):
            raise ConfigError(
                f"backbone {config.backbone} has maps of strides {body.strides}; the fast variant "
                "needs strides that double, as those of resnet50 or tf_efficientnet_lite0"
            )
        self.strides = body.strides
        self.backbone = body
        self.encoder = Encoder(
            body.channels,
            config.hidden,
            heads=config.heads,
            feedforward=config.feedforward,
            layers=config.encoder_layers,
            dropout=config.dropout,
        )
        self.dense = DenseHead(config.hidden, self.classes)
        self.decoder = Decoder(
            config.hidden,
            self.classes,
            maps=MAPS,
            heads=config.heads,
            feedforward=config.feedforward,
            layers=config.decoder_layers,
            dropout=config.dropout,
        )
        self.label = nn.Embedding(self.classes, config.hidden)  # of noisy boxes
        if config.channels_last:
            self.backbone.to(memory_format=torch.channels_last)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
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
            Weighted losses, to be summed: `class`, `box` and `giou` of the last layer, with
            `_aux0` and so on of the layers before, with `_dense` of the cells, with `_noise` of
            noisy boxes in all layers. Or for each image `boxes` (N, 4) xyxy px inside of it,
            `labels` (N,) and `scores` (N,) in [0, 1], the surest first; N is `config.queries`
            less those that lie outside.

        Raises
        ------
        DataError
            An image has more boxes than there are queries.
        FloatingPointError
            In training, the network's outputs are not finite.
        """
        batch, inside = pad(images, self.strides)
        if self.config.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        memory = self.encoder(self.backbone(batch), inside)
        guesses = self.dense(memory, inside)
        chosen = surest(guesses, self.config.queries)[..., None]
        queries = guesses.features.take_along_dim(chosen, 1)
        boxes = guesses.boxes.take_along_dim(chosen, 1).detach()
        height, width = batch.shape[-2:]
        if not self.training:
            logits, boxes = self.decoder(queries, boxes, memory)
            boxes = boxes[-1] * boxes.new_tensor([width, height, width, height])
            return detections(logits[-1][..., : self.categories], boxes, images)
        if targets is None:
            raise ValueError("training needs the true boxes; or call model.eval() before")
        true = collect(in_order(targets), [(height, width)] * len(images))
        self._check(true)
        noise = noisy(true, self.classes)
        logits, boxes = self.decoder(
            torch.cat([self.label(noise.labels).to(queries), queries], 1),
            torch.cat([noise.boxes, boxes], 1),
            memory,
            blocked(noise, queries.shape[1]),
        )
        # Under autocast as well: losses need more than the 8 bits of bfloat16.
        with torch.autocast(batch.device.type, enabled=False):
            return self._losses(guesses, logits, boxes, true, noise)

    def _losses(
        self, guesses: Guesses, logits: Tensor, boxes: Tensor, true: Targets, noise: Noise
    ) -> dict[str, Tensor]:
        """Loss terms of the cells, of the noisy boxes, and of each layer's queries."""
        if not self.config.auxiliary:
            logits, boxes = logits[-1:], boxes[-1:]
        # Over all ranks; at least one box in all, as images without any count as well.
        number = ranks.mean_over_ranks(boxes.new_tensor(float(true.total)))
        number = number.clamp(min=1 / ranks.count())
        cells = guesses.logits[None], guesses.boxes[None]
        first = losses(*cells, true, match(*cells, true, CELLS_A_BOX))
        terms = {f"{name}_dense": loss[0] / CELLS_A_BOX for name, loss in first.items()}

        split = noise.labels.shape[1]
        mended = logits[:, :, :split], boxes[:, :, :split]
        known = losses(*mended, true, answers(noise, len(logits)))
        terms |= {f"{name}_noise": loss.sum() / noise.groups for name, loss in known.items()}

        found = logits[:, :, split:], boxes[:, :, split:]
        names = [*(f"_aux{layer}" for layer in range(len(logits) - 1)), ""]
        for name, loss in losses(*found, true, match(*found, true)).items():
            terms |= {f"{name}{layer}": one for layer, one in zip(names, loss, strict=True)}
        return {name: term / number for name, term in terms.items()}

    def _check(self, true: Targets) -> None:
        if max(true.counts) > self.config.queries:
            raise DataError(
                f"an image has {max(true.counts)} boxes, but only {self.config.queries} are "
                f"proposed; set `queries` a bit above {max(true.counts)}"
            )


def pad(images: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Images of any sizes as one batch of whole coarsest cells, zeros to the right and below.

    Returns
    -------
    tuple
        The batch (B, C, H, W), and for each stride the cells (B, H / stride, W / stride), bool,
        that see some of the image.
    """
    coarsest = strides[-1]
    height = max(-(-image.shape[-2] // coarsest) for image in images) * coarsest
    width = max(-(-image.shape[-1] // coarsest) for image in images) * coarsest
    batch = torch.stack(
        [F.pad(one, (0, width - one.shape[-1], 0, height - one.shape[-2])) for one in images]
    )
    heights = torch.tensor([one.shape[-2] for one in images], device=batch.device)[:, None, None]
    widths = torch.tensor([one.shape[-1] for one in images], device=batch.device)[:, None, None]
    rows = [torch.arange(0, height, stride, device=batch.device)[:, None] for stride in strides]
    columns = [torch.arange(0, width, stride, device=batch.device) for stride in strides]
    return batch, [
        (row < heights) & (column < widths) for row, column in zip(rows, columns, strict=True)
    ]


def detections(logits: Tensor, boxes: Tensor, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Each query's likeliest category, however unlikely, with its box.

    Parameters
    ----------
    logits
        Float (B, Q, categories).
    boxes
        Float (B, Q, 4) cxcywh px.
    images
        (C, H, W), to whose insides boxes are cut; a box that is not inside at all is left out.

    Returns
    -------
    list of dict of str to Tensor
        For each image `boxes` (N, 4) xyxy px, `labels` (N,) and `scores` (N,) in [0, 1], the
        surest first.
    """
    found = []
    for kinds, own, image in zip(logits.sigmoid(), boxes, images, strict=True):
        corners = clip_boxes_to_image(box_convert(own, "cxcywh", "xyxy"), image.shape[-2:])
        scores, labels = kinds.max(-1)
        order = scores.argsort(descending=True, stable=True)
        order = order[(corners[order, 2:] > corners[order, :2]).all(-1)]
        found.append({"boxes": corners[order], "labels": labels[order], "scores": scores[order]})
    return found
