"""Losses of the fast DETR: how well predictions answer for reference boxes."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou_loss

from spine_tasks.tasks.detr.matcher import Matches, Targets, assign, box_costs

WEIGHTS = {"class": 1.0, "box": 5.0, "giou": 2.0}  # of the losses
COSTS = {"class": 2.0, "box": 5.0, "giou": 2.0}  # of a match
FOCUS = 2.0  # power of a wrong probability by which background is weighed
BACKGROUND = 0.75  # weight of background that is surely taken for something


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: Targets, times: int = 1) -> Matches:
    """Pair each reference box with predictions, in every layer, at the least total cost.

    Parameters
    ----------
    logits, boxes
        Float32 (L, B, Q, classes) and (L, B, Q, 4) cxcywh.
    times
        Predictions that answer for each reference box; fewer where there are too few.

    Raises
    ------
    DataError
        An image has more boxes than predictions.
    FloatingPointError
        A prediction is not finite.
    """
    distance, overlap = box_costs(boxes, targets)
    labels = targets.labels[None, :, None].expand(*distance.shape[:3], -1)
    wanted = logits.gather(-1, labels)
    p = wanted.sigmoid()
    # What the focal loss would lose or gain if this prediction had to answer.
    kind = 0.25 * (1 - p) ** 2 * -F.logsigmoid(wanted) - 0.75 * p**2 * -F.logsigmoid(-wanted)
    cost = COSTS["class"] * kind + COSTS["box"] * distance - COSTS["giou"] * overlap
    times = max(1, min(times, logits.shape[2] // max(1, *targets.counts)))
    counts = [count * times for count in targets.counts]
    found = assign(cost.repeat_interleave(times, -1), counts)
    return Matches(found.layer, found.image, found.query, found.target // times)


def losses(logits: Tensor, boxes: Tensor, targets: Targets, matches: Matches) -> dict[str, Tensor]:
    """Weighted losses of each layer, summed over its predictions.

    The class loss is the varifocal one [1]_: what answers for a box shall be as sure of its class
    as it overlaps the box, everything else of nothing.

    Parameters
    ----------
    logits, boxes
        Float32 (L, B, Q, classes) and (L, B, Q, 4) cxcywh.
    matches
        Equally many in each layer, and sorted by layer.

    Returns
    -------
    dict of str to Tensor
        `class`, `box` (absolute differences of the coordinates) and `giou` (1 - generalised IoU),
        each (L,).

    References
    ----------
    .. [1] Zhang et al., VarifocalNet: an IoU-aware dense object detector, CVPR 2021,
       doi:10.1109/CVPR46437.2021.00841.
    """
    layers = len(logits)
    place = (matches.layer, matches.image, matches.query)
    found, true = boxes[place], targets.boxes[matches.image, matches.target]
    corners = box_convert(found, "cxcywh", "xyxy"), box_convert(true, "cxcywh", "xyxy")
    wanted = torch.zeros_like(logits)
    weight = BACKGROUND * logits.detach().sigmoid() ** FOCUS
    overlap = overlaps(corners[0].detach(), corners[1])
    answer = (*place, targets.labels[matches.image, matches.target])
    wanted[answer] = overlap
    weight[answer] = overlap
    sure = F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="none")
    terms = {
        "class": sure,
        "box": (found - true).abs(),
        "giou": generalized_box_iou_loss(*corners),
    }
    return {name: WEIGHTS[name] * term.reshape(layers, -1).sum(1) for name, term in terms.items()}


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU (N,) of boxes (N, 4) xyxy and others, pair by pair; 0 where both have no area.

    Examples
    --------
    >>> overlaps(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])).item()
    0.3333333432674408
    """
    high, low = torch.minimum(boxes, others)[:, 2:], torch.maximum(boxes, others)[:, :2]
    common = (high - low).clamp(min=0).prod(1)
    areas = [(one[:, 2:] - one[:, :2]).prod(1) for one in (boxes, others)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-12)
