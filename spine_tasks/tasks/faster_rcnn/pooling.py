"""Features of a box, from the level of the pyramid that fits its size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops.poolers import initLevelMapper

from spine_tasks.tasks.faster_rcnn.pyramid import BODY_STRIDES
from spine_tasks.tasks.faster_rcnn.rows import rows_of

EDGE = 7  # of the map of one box
SAMPLES = 2  # along an edge of each of its cells
TAPS = 2 * SAMPLES  # places that they are interpolated from
LEVELS = ("0", "1", "2", "3")  # that boxes are taken from: those of the backbone's maps

level_of = initLevelMapper(2, 5)  # binary logarithms of the first and the last stride


class BoxPool(nn.Module):
    """RoIAlign [1]_ of all images and levels at once, with torchvision's numbers.

    What a cell gets is a weighted sum of 16 places, for which torch has a parallel kernel. On CPUs
    the gradient of torchvision's RoIAlign, computed place by place, took a third of a step.

    References
    ----------
    .. [1] He et al., Mask R-CNN, ICCV 2017, doi:10.1109/ICCV.2017.322.
    """

    def forward(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        _image_shapes: list[tuple[int, int]],
    ) -> Tensor:
        """Features of the boxes, (N, 4) xyxy px of each image, in order: (N of all, C, 7, 7)."""
        rows = rows_of([features[name] for name in LEVELS])
        level = level_of(boxes)
        image = torch.cat([torch.full_like(one[:, 0], at) for at, one in enumerate(boxes)]).long()
        height, width = rows.heights[level], rows.widths[level]
        stride = torch.tensor(BODY_STRIDES, device=level.device)[level]
        left, top, right, bottom = (torch.cat(boxes) / stride[:, None]).unbind(1)
        lines, of_lines = _along(top, bottom, height)
        columns, of_columns = _along(left, right, width)
        first = image * rows.places + rows.starts[level]
        lines = first[:, None, None] + lines * width[:, None, None]
        places = lines[:, :, None, :, None] + columns[:, None, :, None]
        weights = of_lines[:, :, None, :, None] * of_columns[:, None, :, None]
        found = F.embedding_bag(
            places.reshape(-1, TAPS**2),
            rows.features,
            per_sample_weights=weights.reshape(-1, TAPS**2),
            mode="sum",
        )
        return found.reshape(-1, EDGE, EDGE, found.shape[1]).permute(0, 3, 1, 2)


def _along(start: Tensor, end: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Which places along an axis each cell of a box looks at, and how much each counts.

    Parameters
    ----------
    start, end
        (N,), edges of boxes in places of their map; those nearer than 1 are taken as 1 apart.
    size
        (N,) int64, of the map.

    Returns
    -------
    tuple of Tensor
        int64 and float, both (N, EDGE, TAPS). Weights of a cell sum to 1; samples more than a
        place outside of the map count 0.
    """
    samples = torch.arange(EDGE * SAMPLES, device=start.device) + 0.5
    at = start[:, None] + samples * ((end - start).clamp(min=1) / (EDGE * SAMPLES))[:, None]
    outside = (at < -1) | (at > size[:, None])
    last = size[:, None] - 1
    at = torch.minimum(at.clamp(min=0), last)
    low = at.long()
    part = at - low
    places = torch.stack([low, torch.minimum(low + 1, last)], -1)
    weights = torch.stack([1 - part, part], -1).masked_fill(outside[..., None], 0) / SAMPLES
    return places.reshape(-1, EDGE, TAPS), weights.reshape(-1, EDGE, TAPS)
