"""Queries of the fast DETR: what the cells of the feature maps guess, and the surest of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_convert

from spine_tasks.tasks.detr.fast_decoder import box_head, class_head, mend

CELLS = 4  # width and height of the box that a cell guesses at first, in cells
SAME_IOU = 0.7  # above it, two guesses show one thing
CANDIDATES = 10  # cells that are looked at for each query


@dataclass(frozen=True)
class Guesses:
    """What each of the S cells of all feature maps guesses."""

    features: Tensor  # (B, S, hidden)
    logits: Tensor  # (B, S, classes) float32; -20 in cells that see padding only
    boxes: Tensor  # (B, S, 4) float32 cxcywh, fractions of the canvas


class DenseHead(nn.Module):
    """A class and a box from each cell of the feature maps."""

    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden))
        self.classes = class_head(hidden, classes)
        self.boxes = box_head(hidden)

    def forward(self, memory: Sequence[Tensor], inside: Sequence[Tensor]) -> Guesses:
        """Guess from maps (B, hidden, H, W) and cells (B, H, W) bool, fine to coarse."""
        tokens = torch.cat([one.flatten(2).transpose(1, 2) for one in memory], 1)
        features = self.features(tokens)
        first = torch.cat([cells(*one.shape[-2:]) for one in memory]).to(features.device)
        outside = ~torch.cat([one.flatten(1) for one in inside], 1)
        logits = self.classes(features).float().masked_fill(outside[..., None], -20)
        return Guesses(features, logits, mend(first, self.boxes(features)))


def cells(height: int, width: int) -> Tensor:
    """Boxes (H * W, 4) cxcywh around the cells of a map, row by row, as fractions of it.

    Examples
    --------
    >>> cells(1, 8)[1].tolist()
    [0.1875, 0.5, 0.5, 1.0]
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = torch.stack([(x + 0.5) / width, (y + 0.5) / height], -1)
    sizes = torch.tensor([CELLS / width, CELLS / height]).clamp(max=1).expand_as(centres)
    return torch.cat([centres, sizes], -1).flatten(0, 1)


@torch.no_grad()
def surest(guesses: Guesses, number: int) -> Tensor:
    """The surest cells of each image, those that show different things first [1]_.

    A thing makes several neighbouring cells sure. Without a look at overlap these would take the
    places of things that the network is less sure of.

    Returns
    -------
    Tensor
        int64 (B, number), or (B, S) where there are fewer cells.

    References
    ----------
    .. [1] Zhang et al., Dense distinct query for end-to-end object detection, CVPR 2023,
       doi:10.1109/CVPR52729.2023.00708.
    """
    scores, order = guesses.logits.sigmoid().amax(-1).sort(descending=True, stable=True)
    order = order[:, : number * CANDIDATES]
    scores = scores[:, : number * CANDIDATES]
    corners = box_convert(guesses.boxes.take_along_dim(order[..., None], 1), "cxcywh", "xyxy")
    image = torch.arange(len(scores), device=scores.device).repeat_interleave(scores.shape[1])
    distinct = torch.zeros_like(scores).flatten()
    distinct[batched_nms(corners.flatten(0, 1), scores.flatten(), image, SAME_IOU)] = 1
    rank = (scores + distinct.view_as(scores)).sort(descending=True, stable=True).indices
    return order.gather(1, rank[:, :number])
