"""The losses of DETR, after every layer of the decoder at once."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou_loss

from spine_tasks.ranks import mean_over_ranks
from spine_tasks.tasks.detr.matcher import Matches, Targets, assign, box_costs

# Of the terms of a loss, and of the cost of a match.
WEIGHTS = {"class": 1.0, "box": 5.0, "giou": 2.0}
TINY = 1e-6  # of a divisor: where there is no box, what is divided is 0


def losses(
    logits: Tensor, boxes: Tensor, targets: Targets, no_object_weight: float
) -> dict[str, Tensor]:
    """Weighted losses of a batch, to be summed [1]_.

    Parameters
    ----------
    logits
        Float32 (L, B, Q, C + 1), of each layer; the last class is "no object".
    boxes
        Float32 (L, B, Q, 4) cxcywh_norm.
    no_object_weight
        Of the class "no object", at least 0; the others have 1.

    Returns
    -------
    dict of str to Tensor
        Scalars: `class` (cross-entropy over the sum of its weights), `box` (5 times the absolute
        differences, summed over the coordinates, a true box) and `giou` (2 times 1 - generalised
        IoU, a true box) of the last layer; of the others from the first on with `_aux0` and so on.
        Without boxes `box` and `giou` are 0.

    Raises
    ------
    DataError
        An image has more boxes than there are queries.
    FloatingPointError
        An output is not finite.

    Notes
    -----
    The sum of weights and the number of boxes are those of all ranks. The published code divides
    the cross-entropy by each rank's own sum, so its gradient depends on how images are dealt out.

    References
    ----------
    .. [1] Carion et al., End-to-end object detection with transformers, ECCV 2020,
       doi:10.1007/978-3-030-58452-8_13.
    """
    layers, images, queries, outputs = logits.shape
    matches = match(logits, boxes, targets)
    weights = logits.new_ones(outputs)
    weights[-1] = no_object_weight
    true = torch.full(logits.shape[:-1], outputs - 1, device=logits.device)
    labels = targets.labels[matches.image, matches.target]
    true[matches.layer, matches.image, matches.query] = labels
    entropy = F.cross_entropy(logits.flatten(0, 2), true.flatten(), weights, reduction="none")

    found = boxes[matches.layer, matches.image, matches.query]
    wanted = targets.boxes[matches.image, matches.target]
    overlap = generalized_box_iou_loss(
        box_convert(found, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy")
    )
    # Every layer matches the same true boxes, so the layers share what they are divided by.
    weighed = targets.total + no_object_weight * (images * queries - targets.total)
    counts = logits.new_tensor([weighed, targets.total])
    weight_sum, box_count = mean_over_ranks(counts).clamp(min=TINY)
    terms = {
        "class": entropy.reshape(layers, -1).sum(1) / weight_sum,
        "box": (found - wanted).abs().reshape(layers, -1).sum(1) / box_count,
        "giou": overlap.reshape(layers, -1).sum(1) / box_count,
    }
    names = ["", *(f"_aux{layer}" for layer in range(layers - 1))]
    return {
        f"{term}{name}": WEIGHTS[term] * value
        for term, values in terms.items()
        for name, value in zip(names, values.roll(1), strict=True)  # the last layer first
    }


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, targets: Targets) -> Matches:
    """Pair each true box with a query, in every layer.

    The cost of a class is its negative probability, not the negative logarithm of it. Parameters
    and errors are those of `losses`.
    """
    labels = targets.labels[None, :, None].expand(*logits.shape[:-1], -1)
    probability = logits.softmax(-1).gather(-1, labels)
    distance, overlap = box_costs(boxes, targets)
    cost = WEIGHTS["box"] * distance - WEIGHTS["class"] * probability - WEIGHTS["giou"] * overlap
    return assign(cost, targets.counts)
