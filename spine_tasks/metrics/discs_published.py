"""Metrics as the published study of healthy and sick discs computed them, to compare with it.

They differ from ours in what they say of the same boxes, so they have names of their own. Boxes
found on nothing are never counted: what the study called precision is the share of reference
boxes found with their own label, which is a recall. What it called recall falls with every box of
the wrong label. Its AP knows the reference's label and the found box's score, but not the label
found.

References
----------
.. [1] Code of the disc study: github.com/resolator/vertebra-detection.
"""

from collections.abc import Sequence

import numpy as np

from spine_tasks.data.coco import BoxCase
from spine_tasks.metrics.boxes import IOU, box_iou
from spine_tasks.predictions import Detections

CATEGORIES = ("healthy", "sick")  # what the data must be named for these figures
MERGE_IOU = 0.65
PIXEL = 1.0  # corners are the first and last pixel inside a box


def discs_published(cases: Sequence[BoxCase], found: Sequence[Detections]) -> dict[str, float]:
    """The study's precision, recall, F1 and AP over all images, without its post-processing.

    Parameters
    ----------
    cases, found
        Images with the labels 0 healthy and 1 sick, and the boxes found in each: as `merged`
        leaves them to compare with the study.

    Returns
    -------
    dict of str to float
        Fractions, 1 is best. Of all pairs of a reference and a found box with IoU >= .5, TP
        counts the reference boxes with a pair of one label, FP all other reference boxes, and FN
        the pairs of two labels. `precision_published` TP/(TP+FP), `recall_published` TP/(TP+FN),
        `F1_published` of these two; 0 where undefined, as in the study. `AP_published`: over
        all pairs, how well the scores found tell sick reference boxes from healthy ones; NaN
        without a pair of a sick one.
    """
    from sklearn.metrics import average_precision_score  # slow to import

    boxes = tp = fn = 0
    sick: list[bool] = []
    scores: list[float] = []
    for case, one in zip(cases, found, strict=True):
        pairs = box_iou(case.boxes, one.boxes, PIXEL) >= IOU
        same = case.labels[:, None] == one.labels[None, :]
        boxes += len(case.labels)
        tp += int((pairs & same).any(axis=1).sum())
        fn += int((pairs & ~same).sum())
        true, predicted = np.nonzero(pairs)
        sick += (case.labels[true] == CATEGORIES.index("sick")).tolist()
        scores += one.scores[predicted].tolist()
    precision = tp / boxes if boxes else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    total = precision + recall
    return {
        "precision_published": precision,
        "recall_published": recall,
        "F1_published": 2 * precision * recall / total if total else 0.0,
        "AP_published": float(average_precision_score(sick, scores)) if any(sick) else np.nan,
    }


def merged(found: Detections) -> Detections:
    """The boxes that the study's post-processing leaves of those found in an image.

    Of each box, the IoU with the boxes after it are summed up, whatever the labels. Once the sum
    is above .65, the less sure one of the box and each following box is dropped, even where these
    two do not overlap. Dropped boxes still count for others. (Meant was the IoU of two boxes.)
    """
    ious = box_iou(found.boxes, found.boxes, PIXEL)
    dropped: set[int] = set()
    for box, row in enumerate(ious):
        running = np.cumsum(row[box + 1 :])
        for other in box + 1 + np.flatnonzero(running > MERGE_IOU):
            dropped.add(int(other) if found.scores[box] > found.scores[other] else box)
    kept = [box for box in range(len(found.boxes)) if box not in dropped]
    return Detections(found.boxes[kept], found.labels[kept], found.scores[kept])
