"""Noisy boxes for training the fast DETR: reference boxes that were moved, to be mended.

Which query answers for which reference box is known from the start here, while other queries
first have to settle it; and a few images give a new lesson in each step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_convert

from spine_tasks.tasks.detr.matcher import Matches, Targets

NOISY = 100  # noisy boxes an image, about: half of them near a reference box, half further off
WRONG = 0.25  # of the noisy boxes have a random label


@dataclass(frozen=True)
class Noise:
    """Noisy boxes: in each of G groups T near the T reference boxes, then T further off."""

    boxes: Tensor  # (B, G * 2 * T, 4) cxcywh, fractions of the canvas
    labels: Tensor  # (B, G * 2 * T) int64, some of them wrong
    real: Tensor  # (B, G * 2 * T) bool: not made of padding
    groups: int


def in_order(targets: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Targets with their boxes in an order that does not depend on the annotation file.

    The noise that a box gets depends on its place.
    """
    ordered = []
    for target in targets:
        table = torch.cat([target["labels"][:, None].double(), target["boxes"].double()], 1)
        order = torch.arange(len(table), device=table.device)
        for column in reversed(table.unbind(1)):
            order = order[column[order].argsort(stable=True)]
        ordered.append({key: target[key][order] for key in ("boxes", "labels")})
    return ordered


def noisy(targets: Targets, classes: int) -> Noise:
    """Move the edges of reference boxes; the noise is of torch's global CPU generator [1]_ [2]_.

    Edges of a near box move by less than a quarter of its width or height, those of a box
    further off by a quarter to a half. A batch without boxes gets padding, so that training
    passes through the same weights in every step.

    References
    ----------
    .. [1] Li et al., DN-DETR: accelerate DETR training by introducing query denoising,
       CVPR 2022, doi:10.1109/CVPR52688.2022.01325.
    .. [2] Zhang et al., DINO: DETR with improved denoising anchor boxes, ICLR 2023,
       doi:10.48550/arXiv.2203.03605.
    """
    boxes, labels = targets.boxes, targets.labels
    if labels.shape[1] == 0:
        boxes, labels = boxes.new_full((len(boxes), 1, 4), 0.5), labels.new_zeros(len(boxes), 1)
    images, longest = labels.shape
    groups = max(1, NOISY // (2 * longest))
    shape = (images, groups, 2, longest)
    far = torch.tensor([0.0, 0.25])[:, None, None]
    step = (far + torch.rand(*shape, 4) / 4) * torch.randint(2, (*shape, 4)).mul(2).sub(1)
    wrong, other = torch.rand(shape) < WRONG, torch.randint(classes, shape)
    step, wrong, other = (one.to(boxes.device) for one in (step, wrong, other))

    size = boxes[..., 2:].repeat(1, 1, 2)[:, None, None]
    corners = box_convert(boxes, "cxcywh", "xyxy")[:, None, None] + step * size
    return Noise(
        box_convert(corners.clamp(0, 1), "xyxy", "cxcywh").flatten(1, 3),
        torch.where(wrong, other, labels[:, None, None]).flatten(1),
        _real(targets, longest).repeat(1, groups * 2),
        groups,
    )


def _real(targets: Targets, longest: int) -> Tensor:
    counts = torch.tensor(targets.counts, device=targets.labels.device)
    return torch.arange(longest, device=counts.device) < counts[:, None]


def blocked(noise: Noise, queries: int) -> Tensor:
    """Who must not see whom, noisy boxes before queries.

    Queries see no noisy box, which would tell them the answer; a group sees itself and the
    queries; and nobody sees padding.

    Returns
    -------
    Tensor
        Bool (B, Q, Q) for all Q of both kinds: the first does not see the second.
    """
    number = noise.labels.shape[1]
    group = torch.arange(number, device=noise.labels.device) // (number // noise.groups)
    group = torch.cat([group, group.new_full((queries,), -1)])
    shut = (group != group[:, None]) & (group >= 0)
    padding = torch.cat([~noise.real, noise.real.new_zeros(len(noise.real), queries)], 1)
    return shut | padding[:, None]


def answers(noise: Noise, layers: int) -> Matches:
    """Which noisy box answers for which reference box: in each group the one near to it."""
    number = noise.labels.shape[1] // (2 * noise.groups)
    image, target = noise.real[:, :number].nonzero(as_tuple=True)
    start = 2 * number * torch.arange(noise.groups, device=image.device)
    query = (start[:, None] + target).flatten()
    layer = torch.arange(layers, device=image.device).repeat_interleave(len(query))
    again = noise.groups * layers
    return Matches(layer, image.repeat(again), query.repeat(layers), target.repeat(again))
