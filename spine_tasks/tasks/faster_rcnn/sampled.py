"""The first stage's outputs at a few anchors, each computed from its surroundings alone.

Its losses look at 256 anchors of an image at most, of tens of thousands. Gradients through the
whole maps would be zeros nearly everywhere, and cost a fifth of a training step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.rpn import RPNHead

from spine_tasks.tasks.faster_rcnn.rows import rows_of


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
    rows = rows_of(maps)
    image, place = places // rows.places, places % rows.places
    level = torch.searchsorted(rows.starts, place, right=True) - 1
    height, width = (edges[level, None, None] for edges in (rows.heights, rows.widths))
    place = (place - rows.starts[level])[:, None, None]
    steps = torch.arange(-reach, reach + 1, device=places.device)
    line, column = place // width + steps[:, None], place % width + steps
    inside = (line >= 0) & (line < height) & (column >= 0) & (column < width)
    near = torch.where(inside, line * width + column, place)
    near = near + (image * rows.places + rows.starts[level])[:, None, None]
    squares = rows.features.index_select(0, near.flatten())
    squares = squares.reshape(*near.shape, squares.shape[1])
    return squares.permute(0, 3, 1, 2) * inside[:, None], inside
