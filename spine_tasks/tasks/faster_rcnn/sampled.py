"""The first stage's outputs at a few anchors, each computed from its surroundings alone.

Its losses look at 256 anchors of an image at most, of tens of thousands. Gradients through the
whole maps would be zeros nearly everywhere, and cost a fifth of a training step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.rpn import RPNHead


def at_anchors(head: RPNHead, maps: Sequence[Tensor], chosen: Tensor) -> tuple[Tensor, Tensor]:
    """What a head answers at some anchors, as if it had seen the whole maps.

    Parameters
    ----------
    head
        3 x 3 convolutions with ReLU, and the two outputs.
    maps
        Levels of the pyramid, each (B, C, H, W).
    chosen
        (N,) int64, places in the flat list of all anchors: by image, level, row, column, ratio.

    Returns
    -------
    objectness : (N,)
        Logits.
    deltas : (N, 4)
        From anchor to box.
    """
    ratios = head.cls_logits.out_channels
    patches, inside = _surroundings(maps, chosen // ratios, reach=len(head.conv))
    for block in head.conv:
        convolution = block[0]
        patches = F.relu(F.conv2d(patches, convolution.weight, convolution.bias))
        inside = inside[:, 1:-1, 1:-1]
        patches = patches * inside[:, None]  # the next one too has zeros around the map
    ratio = chosen % ratios
    objectness = head.cls_logits(patches).flatten(1).gather(1, ratio[:, None])[:, 0]
    deltas = head.bbox_pred(patches).reshape(-1, ratios, 4)
    return objectness, deltas[torch.arange(len(chosen), device=chosen.device), ratio]


def _surroundings(maps: Sequence[Tensor], places: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Squares around places, zero outside of their map, and a mask of what is inside.

    Parameters
    ----------
    places
        (N,) int64, by image, level, row, column.
    reach
        How far a square goes to each side.

    Returns
    -------
    tuple of Tensor
        (N, C, 2 * reach + 1, 2 * reach + 1) and bool (N, 2 * reach + 1, 2 * reach + 1).
    """
    heights, widths = places.new_tensor([one.shape[-2:] for one in maps]).unbind(1)
    ends = (heights * widths).cumsum(0)
    starts = ends - heights * widths
    total = sum(one.shape[-2] * one.shape[-1] for one in maps)  # of an image
    level = torch.bucketize(places % total, ends, right=True)
    height, width = (edges[level, None, None] for edges in (heights, widths))
    first = (places - places % total + starts[level])[:, None, None]  # of the map it is in
    place = (places % total - starts[level])[:, None, None]
    steps = torch.arange(-reach, reach + 1, device=places.device)
    row, column = place // width + steps[:, None], place % width + steps
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    near = first + torch.minimum(row.clamp(min=0), height - 1) * width
    near = near + torch.minimum(column.clamp(min=0), width - 1)
    features = torch.cat([one.flatten(2) for one in maps], 2).transpose(1, 2).flatten(0, 1)
    squares = features.index_select(0, near.flatten()).reshape(*near.shape, features.shape[1])
    return squares.permute(0, 3, 1, 2) * inside[:, None], inside
