"""Boxes that were found, held one to one against reference boxes.

A found box is right if its IoU with a reference box of its label that no surer box has taken is
at least .5; all others are false positives, and reference boxes left over are false negatives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.coco import BoxCase
from spine_tasks.errors import DataError
from spine_tasks.predictions import Detections

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

IOU = 0.5  # from which on two boxes match


@dataclass(frozen=True, eq=False)
class Matches:
    """The D boxes found in some images, the surest first, and which of them are right."""

    image: Integers  # (D,) index of the image in the cases given
    label: Integers  # (D,) 0-based
    score: Floats  # (D,)
    right: NDArray[np.bool_]  # (D,) matched with a reference box of its label
    rank: Integers  # (D,) 0 for the surest of its image and label
    true: Integers  # (images, labels) number of reference boxes


def box_iou(first: Floats, second: Floats, pixel: float = 0.0) -> Floats:
    """Intersection over union of each box with each other.

    Parameters
    ----------
    first, second
        (N, 4) and (M, 4), xyxy px.
    pixel
        Added to every width and height: 0 if corners are points, 1 if they are the first and
        last pixel inside, as older code has it.

    Returns
    -------
    ndarray
        (N, M), 0 to 1; 0 where the union has no area.

    Examples
    --------
    >>> box_iou(np.array([[0.0, 0, 4, 2]]), np.array([[2.0, 0, 6, 2], [4, 0, 8, 2]])).round(3)
    array([[0.333, 0.   ]])
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.clip(high - low + pixel, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2] + pixel, axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    ious: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ious


def check_boxes(cases: Sequence[BoxCase], found: Sequence[Detections], labels: int) -> None:
    """Refuse what cannot be scored.

    Raises
    ------
    DataError
        There is not one `found` a case, two cases share an id, or an image has a box with a
        corner that is no number or on the wrong side, an unknown label, or a score outside
        [0, 1].
    """
    if len(cases) != len(found):
        raise DataError(f"{len(cases)} images but boxes found in {len(found)}; give one each")
    if len({case.id for case in cases}) < len(cases):
        raise DataError("two images share an id; score every image once")
    for case, one in zip(cases, found, strict=True):
        for what, boxes, own in (
            ("reference", case.boxes, case.labels),
            ("found", one.boxes, one.labels),
        ):
            if boxes.shape != (len(own), 4):
                raise DataError(
                    f"{case.id}: {what} boxes must be ({len(own)}, 4), one a label, got "
                    f"{boxes.shape}"
                )
            if not (np.isfinite(boxes).all() and (boxes[:, :2] <= boxes[:, 2:]).all()):
                raise DataError(
                    f"{case.id}: a {what} box is not x1, y1, x2, y2 px with x1 <= x2 and "
                    "y1 <= y2; mend what wrote it"
                )
            if len(own) and not 0 <= own.min() <= own.max() < labels:
                raise DataError(f"{case.id}: {what} labels must be 0 to {labels - 1}, got {own}")
        inside = (one.scores >= 0) & (one.scores <= 1)  # false for NaN
        if one.scores.shape != one.labels.shape or not inside.all():
            raise DataError(f"{case.id}: scores must be in [0, 1], one a found box")


def in_order(boxes: Floats, labels: Integers, scores: Floats | None = None) -> Integers:
    """The order of an image's boxes in which they are matched: the surest first.

    Boxes of equal score are taken by label and corners, so that no result depends on the order
    in which a file happens to list them.
    """
    keys = [boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], labels]
    return np.lexsort(keys if scores is None else [*keys, -scores])


def match(ious: Floats) -> Integers:
    """The partner of each found box, one to one, greedily from the first on.

    Parameters
    ----------
    ious
        (D, G), of found boxes, the surest first, with reference boxes.

    Returns
    -------
    ndarray
        (D,) index of the free reference box of the highest IoU (of several the last, as in COCO),
        or -1 where none has at least .5.
    """
    found, true = ious.shape
    partner = np.full(found, -1)
    if not true:
        return partner
    free = np.ones(true, dtype=bool)
    for row in np.flatnonzero(ious.max(axis=1) >= IOU):
        left = np.where(free, ious[row], -1.0)
        best = true - 1 - int(left[::-1].argmax())
        if left[best] >= IOU:
            partner[row], free[best] = best, False
    return partner


def matched(cases: Sequence[BoxCase], found: Sequence[Detections], labels: int) -> Matches:
    """Match the boxes found in some images with their reference boxes, label by label.

    This is COCO's matching [1]_ at IoU .5, without a limit on the number of boxes. A match does
    not depend on less sure boxes, so what is left out below a threshold changes no other.

    Parameters
    ----------
    labels
        How many there are.

    Raises
    ------
    DataError
        As in `check_boxes`.

    References
    ----------
    .. [1] Lin et al., Microsoft COCO: common objects in context, ECCV 2014,
       doi:10.1007/978-3-319-10602-1_48.
    """
    check_boxes(cases, found, labels)
    columns: list[tuple[Integers, Integers, Floats, NDArray[np.bool_], Integers]] = []
    for image in sorted(range(len(cases)), key=lambda index: cases[index].id):
        case, one = cases[image], found[image]
        order = in_order(one.boxes, one.labels, one.scores)
        true = in_order(case.boxes, case.labels)
        own = one.labels[order]
        ious = box_iou(one.boxes[order], case.boxes[true])
        ious[own[:, None] != case.labels[true][None, :]] = 0
        same = own[:, None] == own[None, :]
        rank = np.tril(same, -1).sum(axis=1)
        columns.append((np.full(len(own), image), own, one.scores[order], match(ious) >= 0, rank))
    true = np.array([np.bincount(case.labels, minlength=labels) for case in cases], np.int64)
    true = true.reshape(-1, labels)
    if not columns:
        nothing = np.zeros(0, np.int64)
        return Matches(nothing, nothing, nothing.astype(float), nothing > 0, nothing, true)
    index, label, score, right, rank = (
        np.concatenate(parts) for parts in zip(*columns, strict=True)
    )
    first = np.argsort(-score, kind="stable")
    return Matches(index[first], label[first], score[first], right[first], rank[first], true)
