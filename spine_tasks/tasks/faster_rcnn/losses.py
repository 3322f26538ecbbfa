"""Losses of Faster R-CNN, and which boxes they look at.

Whatever is divided by a number of samples is divided by its mean over the ranks, so that gradients
averaged over ranks are those of one rank that has the whole batch.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spine_tasks.ranks import count, mean_over_ranks, rank

BETA = 1 / 9  # of the smooth L1 loss: below it the loss is a parabola
GAMMA = 2.0  # of the focal loss


class Sampler:
    """Draws some positive and negative candidates of each image.

    torchvision's own draws from one stream for all images, so an image's draw depends on how many
    candidates the images before it have. Here each place in the batch of all ranks has its own,
    seeded by the first rank: where each rank has an equal share in a row, the same images give the
    same draw on one rank or on several.
    """

    def __init__(self, number: int, positive_fraction: float) -> None:
        self.number = number  # candidates an image
        self.positives = int(number * positive_fraction)  # of them at most

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Bool masks of the positives and of the negatives drawn in each image.

        Parameters
        ----------
        labels
            Of each image's candidates, (N,): at least 1 positive, 0 negative, -1 never drawn.
        """
        seed = _seed_of_first_rank(labels[0].device)
        first = rank() * len(labels)
        drawn = [
            self._draw(one, torch.Generator().manual_seed(seed + place))
            for place, one in enumerate(labels, first)
        ]
        return [positive for positive, _ in drawn], [negative for _, negative in drawn]

    def _draw(self, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        positive = _some(labels >= 1, self.positives, generator)
        rest = self.number - int(positive.sum())
        return positive, _some(labels == 0, rest, generator)


def _seed_of_first_rank(device: torch.device) -> int:
    """A number that the first rank's global generator draws, known to all ranks."""
    drawn = torch.randint(2**31, (), dtype=torch.float64)
    if count() == 1:
        return int(drawn)
    # A mean is what ranks exchange; of so few bits it loses none.
    mean = mean_over_ranks((drawn if rank() == 0 else torch.zeros_like(drawn)).to(device))
    return round(float(mean) * count())


def _some(candidates: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """A mask of at most `number` of those that a mask has, drawn without replacement."""
    places = torch.where(candidates)[0]
    # On the CPU, so that all kinds of device draw alike.
    order = torch.randperm(len(places), generator=generator)[:number].to(places.device)
    drawn = torch.zeros_like(candidates)
    drawn[places[order]] = True
    return drawn


def proposal_losses(
    objectness: Tensor, deltas: Tensor, labels: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the objectness, and smooth L1 of the deltas of positive anchors.

    Parameters
    ----------
    objectness
        (N,), logits of the sampled anchors of all images.
    deltas, targets
        (N, 4), from anchor to box.
    labels
        (N,), 1 for an anchor with a box, 0 for one without.

    Returns
    -------
    tuple of Tensor
        Both are sums over the anchors, divided by their number.
    """
    number = _mean_number(labels.new_tensor(len(labels)))
    entropy = F.binary_cross_entropy_with_logits(objectness.float(), labels, reduction="sum")
    positive = labels >= 1
    return entropy / number, _smooth_l1(deltas[positive], targets[positive]) / number


def box_losses(
    logits: Tensor,
    deltas: Tensor,
    labels: Tensor,
    targets: Tensor,
    *,
    loss: Literal["cross_entropy", "focal"] = "cross_entropy",
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of the classes, and smooth L1 of the deltas of positive boxes.

    Parameters
    ----------
    logits
        (N, K + 1), background first.
    deltas
        (N, 4 (K + 1)), from proposal to box, for each class.
    labels
        (N,), 0 for background, 1 to K.
    targets
        (N, 4), from proposal to box.
    loss
        Cross-entropy, or the focal loss [1]_ of the softmax: cross-entropy times
        ``(1 - probability) ** 2``.
    class_weights
        (K + 1,), background first; None = ones.

    Returns
    -------
    tuple of Tensor
        The loss of the classes is a mean weighted by the class weights; that of the deltas a sum
        over the positives, divided by the number of all N boxes.

    References
    ----------
    .. [1] Lin et al., Focal loss for dense object detection, ICCV 2017,
       doi:10.1109/ICCV.2017.324.
    """
    entropy = F.cross_entropy(logits.float(), labels, reduction="none")
    if loss == "focal":
        entropy = entropy * (1 - torch.exp(-entropy)) ** GAMMA
    weights = torch.ones_like(entropy) if class_weights is None else class_weights[labels]
    positive = torch.where(labels > 0)[0]
    of_class = deltas.reshape(len(labels), -1, 4)[positive, labels[positive]]
    number = _mean_number(weights.new_tensor(len(labels)))
    classes = (weights * entropy).sum() / _mean_number(weights.sum())
    return classes, _smooth_l1(of_class, targets[positive]) / number


def _smooth_l1(found: Tensor, wanted: Tensor) -> Tensor:
    return F.smooth_l1_loss(found.float(), wanted, beta=BETA, reduction="sum")


def _mean_number(number: Tensor) -> Tensor:
    """A number of samples, or a sum of weights, as its mean over the ranks; never 0."""
    number = mean_over_ranks(number.float())
    return number.clamp(min=torch.finfo(number.dtype).tiny)  # no sample: the loss is 0, not NaN
