"""Average precision and recall of boxes as COCO defines them, by COCO's code in C++."""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from spine_tasks.data.coco import BoxCase
from spine_tasks.metrics.boxes import Floats, check_boxes, in_order
from spine_tasks.predictions import Detections

log = logging.getLogger(__name__)

BOXES = 100  # of each label and image that count at most, the surest
LIMITS = [1, 10, BOXES]  # of as many boxes recall is read
OF_PRECISION = {
    "AP": (slice(None), 0),
    "AP50": (slice(0, 1), 0),
    "AP75": (slice(5, 6), 0),
    "AP_small": (slice(None), 1),
    "AP_medium": (slice(None), 2),
    "AP_large": (slice(None), 3),
}
# Name -> area, and how many boxes: 1, 10, 100.
OF_RECALL = {
    "AR1": (0, 0),
    "AR10": (0, 1),
    "AR100": (0, 2),
    "AR_small": (1, 2),
    "AR_medium": (2, 2),
    "AR_large": (3, 2),
}


def coco_ap(
    cases: Sequence[BoxCase], found: Sequence[Detections], categories: Sequence[str]
) -> Iterator[tuple[str, str, float]]:
    """COCO's 12 numbers of each category, and their means.

    Returns
    -------
    iterator of (str, str, float)
        Label, metric, value, the categories in their order and then `all`, the mean over the
        categories that are defined. Fractions, 1 is best. NaN where there is no reference box of
        the category (and size), which COCO writes as -1; 0 where there is one and nothing was
        found.

        AP, average precision: the mean of the precision at 101 points of recall, and of IoU .5 to
        .95 in steps of .05; AP50 and AP75 are of one IoU. AR, average recall: the share of the
        reference boxes that are found, whatever the score, mean of the same IoU; AR1, AR10 and
        AR100 if the 1, 10 or 100 surest boxes of a category in an image count. AP_small,
        AP_medium, AP_large and AR_small, AR_medium, AR_large are of boxes of one size.

    Raises
    ------
    DataError
        As in `spine_tasks.metrics.boxes.check_boxes`.

    Notes
    -----
    At most 100 boxes of a category in an image [1]_. Small is an area up to 32**2, medium up to
    96**2, large above, in px of the original grid: they say as much of the resolution as of the
    anatomy. An image without any box counts with what is found in it. Boxes of equal score are
    taken in the order of the images' ids and then of their corners, as the order changes AP.

    References
    ----------
    .. [1] Lin et al., Microsoft COCO: common objects in context, ECCV 2014,
       doi:10.1007/978-3-319-10602-1_48.
    """
    check_boxes(cases, found, len(categories))
    precision, recall = _tables(cases, found, len(categories))
    places: dict[str, int | slice] = {label: place for place, label in enumerate(categories)}
    for label, place in (places | {"all": slice(None)}).items():
        for metric, (ious, area) in OF_PRECISION.items():
            yield label, metric, _mean(precision[ious, :, place, area, -1])
        for metric, (area, limit) in OF_RECALL.items():
            yield label, metric, _mean(recall[:, place, area, limit])


def _mean(values: Floats) -> float:
    """Of what is defined: neither COCO's -1 nor NaN."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _tables(
    cases: Sequence[BoxCase], found: Sequence[Detections], labels: int
) -> tuple[Floats, Floats]:
    """COCO's precision (IoUs, recalls, labels, areas, limits) and recall, which has no recalls."""
    together = sorted(zip(cases, found, strict=True), key=lambda pair: pair[0].id)
    if not together:
        return np.full((10, 101, labels, 4, 3), -1.0), np.full((10, labels, 4, 3), -1.0)
    true = [Detections(one.boxes, one.labels, np.ones(len(one.labels))) for one, _ in together]
    shared = {
        "images": [{"id": image} for image in range(len(together))],
        "categories": [{"id": label} for label in range(labels)],
    }
    sides = [
        COCO(shared | {"annotations": _annotations(boxes)})
        for boxes in (true, [one for _, one in together])
    ]
    evaluation = COCOeval_faster(*sides, iouType="bbox", print_function=log.debug)
    evaluation.params.maxDets = LIMITS
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _annotations(images: Sequence[Detections]) -> list[dict[str, Any]]:
    """The boxes of all images as COCO has them, in the order in which they are matched."""
    boxes, labels, scores = (
        np.concatenate([getattr(one, name) for one in images])
        for name in ("boxes", "labels", "scores")
    )
    image = np.repeat(np.arange(len(images)), [len(one.labels) for one in images])
    order = in_order(boxes, labels, scores)
    order = order[np.argsort(image[order], kind="stable")]
    boxes[:, 2:] -= boxes[:, :2]  # COCO's are x, y, width, height
    area = boxes[:, 2] * boxes[:, 3]
    columns = (column[order].tolist() for column in (image, labels, boxes, area, scores))
    # With ids from 1: COCO's code takes the id 0 for "not matched".
    return [
        {"id": id_, "image_id": at, "category_id": label, "bbox": box, "area": px2, "score": score}
        for id_, (at, label, box, px2, score) in enumerate(zip(*columns, strict=True), start=1)
    ]
