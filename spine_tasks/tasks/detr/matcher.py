"""Which query answers for which box: the assignment of least cost, for a whole batch at once.

Any number of leading axes is allowed, so that the outputs of all decoder layers are assigned
together, with one transfer from the GPU.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_convert, generalized_box_iou

from spine_tasks.errors import DataError


@dataclass(frozen=True)
class Targets:
    """The true boxes of a batch, padded to the most that an image has."""

    labels: Tensor  # (B, T) int64, 0-based
    boxes: Tensor  # (B, T, 4) float32 cxcywh_norm: fractions of the image without its padding
    counts: tuple[int, ...]  # boxes of each image; what is after them is padding

    @property
    def total(self) -> int:
        """Boxes of the batch."""
        return sum(self.counts)


@dataclass(frozen=True)
class Matches:
    """Pairs of a query and a true box, as int64 (M,) indices into outputs and targets."""

    layer: Tensor  # the leading axes of the outputs, flattened
    image: Tensor
    query: Tensor
    target: Tensor


def collect(targets: Sequence[dict[str, Tensor]], sizes: Sequence[tuple[int, int]]) -> Targets:
    """The true boxes of some images, as fractions of each image.

    Parameters
    ----------
    targets
        One an image: `boxes` (N, 4) float32 xyxy px and `labels` (N,) int64.
    sizes
        Height and width of each image, px, without padding.
    """
    boxes = [
        box_convert(target["boxes"].float(), "xyxy", "cxcywh")
        / target["boxes"].new_tensor([width, height, width, height], dtype=torch.float32)
        for target, (height, width) in zip(targets, sizes, strict=True)
    ]
    return Targets(
        labels=pad_sequence([target["labels"] for target in targets], batch_first=True),
        # Padding is a box with an area, so that no cost divides by zero.
        boxes=pad_sequence(boxes, batch_first=True, padding_value=0.5),
        counts=tuple(len(one) for one in boxes),
    )


def box_costs(boxes: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """How far every proposed box is from every true one of its image.

    Parameters
    ----------
    boxes
        Float32 (..., B, Q, 4) cxcywh_norm.

    Returns
    -------
    tuple of Tensor
        Sum of the four absolute differences, at least 0, and generalised IoU [1]_ in [-1, 1]; both
        (..., B, Q, T).

    References
    ----------
    .. [1] Rezatofighi et al., Generalized intersection over union, CVPR 2019,
       doi:10.1109/CVPR.2019.00075.
    """
    true = targets.boxes.expand(*boxes.shape[:-2], -1, -1)
    iou = generalized_box_iou(
        box_convert(boxes, "cxcywh", "xyxy"), box_convert(true, "cxcywh", "xyxy")
    )
    return torch.cdist(boxes, true, p=1), iou


def assign(cost: Tensor, counts: Sequence[int]) -> Matches:
    """Give each true box a query of its own, so that the sum of costs is the least.

    Parameters
    ----------
    cost
        Float (..., B, Q, T), finite.
    counts
        Boxes of each image, at most T.

    Raises
    ------
    DataError
        An image has more boxes than there are queries.
    FloatingPointError
        A cost is not finite.
    """
    queries = cost.shape[-2]
    if max(counts) > queries:
        raise DataError(
            f"an image has {max(counts)} boxes, but only {queries} are proposed; set `queries` a "
            f"bit above {max(counts)}"
        )
    layers = math.prod(cost.shape[:-3])
    table = cost.detach().float().reshape(layers, *cost.shape[-3:]).cpu().numpy()
    if not np.isfinite(table).all():
        raise FloatingPointError(
            "the network's boxes or classes are not finite, so they match nothing; choose a "
            "smaller learning_rate, or precision float32"
        )
    pairs = [np.empty((4, 0), np.int64)]
    for layer, image in np.ndindex(*table.shape[:2]):
        query, target = linear_sum_assignment(table[layer, image, :, : counts[image]])
        where = [np.full(len(query), layer), np.full(len(query), image)]
        pairs.append(np.stack([*where, query, target]))
    found = torch.from_numpy(np.concatenate(pairs, axis=1)).to(cost.device)
    return Matches(*found)
