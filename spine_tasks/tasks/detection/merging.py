"""One box for one thing: duplicates of one detector, and the boxes of several."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spine_tasks.errors import DataError
from spine_tasks.metrics.boxes import box_iou, in_order
from spine_tasks.predictions import Detections

FUSE_IOU = 0.55  # from which on boxes of several runs are of one thing, as published


def merge_duplicates(found: Detections, iou: float) -> Detections:
    """Boxes without those that a surer box overlaps by more than some IoU, whatever their labels.

    A disc is healthy or sick, not both. A box gives way only to a box that stays itself. (The
    published post-processing of the disc study [1]_ compares with the running sum of a box's IoU
    with all others, so that a box that touches many neighbours a little falls as well.)

    Parameters
    ----------
    found
        The boxes of one image.
    iou
        Of two boxes above it one stays; at it, both.

    Returns
    -------
    Detections
        Some of the boxes as they were, the surest first; of equally sure ones that of the lower
        label, then that of the smaller corners.

    References
    ----------
    .. [1] Code of the disc study: github.com/resolator/vertebra-detection.

    Examples
    --------
    >>> boxes = np.array([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10]])
    >>> three = Detections(boxes, np.array([0, 1, 1]), np.array([0.6, 0.9, 0.2]))
    >>> two = merge_duplicates(three, 0.5)
    >>> two.boxes[:, 0].tolist(), two.labels.tolist(), two.scores.tolist()
    ([1.0, 20.0], [1, 1], [0.9, 0.2])
    """
    found = _sorted(found)
    above = box_iou(found.boxes, found.boxes) > iou
    stay: list[int] = []
    for box in range(len(found.scores)):
        if not above[box, stay].any():
            stay.append(box)
    return Detections(found.boxes[stay], found.labels[stay], found.scores[stay])


def fuse(several: Sequence[Detections], iou: float = FUSE_IOU) -> Detections:
    """The boxes that several runs found in one image, as one: weighted box fusion [1]_.

    From the surest on, each box joins the cluster of its label whose fused box it overlaps most,
    if by more than `iou`; else it begins one. A fused box is the mean of its cluster's boxes,
    weighted by their scores. Its score is the mean of theirs, times the share of runs that found
    it: ``min(boxes in the cluster, runs) / runs``.

    Parameters
    ----------
    several
        What each run found in the same image; a run that found nothing counts too. Their order
        does not matter.
    iou
        Above it a box belongs to a cluster.

    Returns
    -------
    Detections
        The surest first. Of one run whose boxes of a label do not overlap by more than `iou`, the
        boxes as they were.

    Raises
    ------
    DataError
        There is no run.

    References
    ----------
    .. [1] Solovyev et al., Weighted boxes fusion: ensembling boxes from different object detection
       models, Image and Vision Computing 107, 2021, doi:10.1016/j.imavis.2021.104117.

    Examples
    --------
    >>> one = Detections(np.array([[0.0, 0, 10, 10]]), np.array([0]), np.array([0.75]))
    >>> other = Detections(np.array([[4.0, 0, 14, 10]]), np.array([0]), np.array([0.25]))
    >>> both = fuse([one, other], iou=0.4)
    >>> both.boxes.tolist(), both.scores.tolist()
    ([[1.0, 0.0, 11.0, 10.0]], [0.5])
    """
    if not several:
        raise DataError("no run whose boxes to fuse; give at least one")
    every = _sorted(
        Detections(
            np.concatenate([one.boxes for one in several]),
            np.concatenate([one.labels for one in several]),
            np.concatenate([one.scores for one in several]),
        )
    )
    clusters: list[list[int]] = []
    fused = np.empty((0, 4))  # box of each cluster
    labels = np.empty(0, np.int64)
    for box in range(len(every.scores)):
        ious = box_iou(every.boxes[box : box + 1], fused)[0] * (labels == every.labels[box])
        best = int(ious.argmax()) if len(ious) else -1
        if best < 0 or ious[best] <= iou:
            clusters.append([box])
            fused = np.vstack([fused, every.boxes[box]])
            labels = np.append(labels, every.labels[box])
        else:
            clusters[best].append(box)
            fused[best] = _mean_box(every, clusters[best])
    shares = [min(len(cluster), len(several)) / len(several) for cluster in clusters]
    means = [float(every.scores[cluster].mean()) for cluster in clusters]
    return _sorted(Detections(fused, labels, np.array(means) * np.array(shares)))


def _mean_box(found: Detections, cluster: list[int]) -> NDArray[np.float64]:
    """The mean of some boxes by score; a plain mean where all scores are 0."""
    scores = found.scores[cluster]
    mean: NDArray[np.float64] = np.average(
        found.boxes[cluster], axis=0, weights=scores if scores.any() else None
    )
    return mean


def _sorted(found: Detections) -> Detections:
    order = in_order(found.boxes, found.labels, found.scores)
    return Detections(found.boxes[order], found.labels[order], found.scores[order])
