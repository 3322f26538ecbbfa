"""Losses of grades, from the logarithms of their probabilities."""

import torch
from torch import Tensor
from torch.nn import functional as F

from spine_tasks import ranks

FOCUS = 2.0  # of the focal loss, as its authors have it


def outputs_of(grades: int, loss: str) -> int:
    """How many numbers a network gives for a condition."""
    return grades - 1 if loss == "ordinal" else grades


def log_probabilities(logits: Tensor, loss: str) -> Tensor:
    """Logarithms of the probabilities of grades: (N, K).

    Parameters
    ----------
    logits
        (N, K), or of the ordinal loss (N, K - 1): of being above grade k if it is not below it, so
        that probabilities never contradict the order of the grades [1]_.

    References
    ----------
    .. [1] Shi et al., Deep neural networks for rank-consistent ordinal regression based on
       conditional probabilities, Pattern Analysis and Applications 26, 2023,
       doi:10.1007/s10044-023-01181-9.
    """
    if loss != "ordinal":
        return F.log_softmax(logits, dim=1)
    above = F.pad(F.logsigmoid(logits).cumsum(dim=1), (1, 0))  # at least grade k
    stays = F.pad(F.logsigmoid(-logits), (0, 1))
    return above + stays


def grade_loss(logits: Tensor, truth: Tensor, weights: Tensor, loss: str) -> Tensor:
    """The mean over the places with a grade, weighted by it; 0 without one.

    Parameters
    ----------
    truth
        (N,) grades, -1 where none is known.
    weights
        (K,) of the grades.
    loss
        `cross_entropy`; `focal` [1]_, which counts what is nearly right less; `ordinal`.

    References
    ----------
    .. [1] Lin et al., Focal loss for dense object detection, ICCV 2017,
       doi:10.1109/ICCV.2017.324.
    """
    known = truth >= 0
    grade = truth.clamp(min=0)
    log_p = log_probabilities(logits.float(), loss).gather(1, grade[:, None])[:, 0]
    of_each = -log_p
    if loss == "focal":
        of_each = of_each * (1 - log_p.exp()).clamp(min=0) ** FOCUS
    counted = torch.where(known, weights[grade], torch.zeros_like(log_p))
    total = ranks.mean_over_ranks(counted.sum())
    return (of_each * counted).sum() / total.clamp(min=torch.finfo(torch.float32).tiny)


def weights_of(truth: Tensor, grades: int, rule: str) -> Tensor:
    """(K,) weights of the grades of one condition, by those of the training part.

    Parameters
    ----------
    truth
        (N,) of the training part, -1 where not known.
    rule
        `none`: 1 each; `balanced`: how many places the most frequent grade has for one of this, as
        published; `severity`: 1, 2, 4 and so on, as the challenge scores.
    """
    if rule == "severity":
        return 2.0 ** torch.arange(grades)
    counts = torch.bincount(truth[truth >= 0], minlength=grades).float()
    if rule == "none" or not counts.any():
        return torch.ones(grades)
    return torch.where(counts > 0, counts.max() / counts.clamp(min=1), torch.ones(grades))
