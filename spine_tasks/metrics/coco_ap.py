"""Average precision as COCO defines it, by COCO's own code."""

import contextlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from spine_tasks.data.coco import BoxCase
from spine_tasks.metrics.boxes import Floats, Integers, check_boxes, in_order
from spine_tasks.predictions import Detections

BOXES = 100  # of each label and image that count at most, the surest
# Name -> index of COCO's IoU thresholds .5, .55 ... .95 and of its areas all, small, medium, large
NAMES: dict[str, tuple[slice, int]] = {
    "AP": (slice(None), 0),
    "AP50": (slice(0, 1), 0),
    "AP75": (slice(5, 6), 0),
    "AP_small": (slice(None), 1),
    "AP_medium": (slice(None), 2),
    "AP_large": (slice(None), 3),
}


def coco_ap(
    cases: Sequence[BoxCase], found: Sequence[Detections], categories: Sequence[str]
) -> Iterator[tuple[str, str, float]]:
    """AP, AP50, AP75, AP_small, AP_medium and AP_large of each category, and their means.

    Returns
    -------
    iterator of (str, str, float)
        Label, metric, value, the categories in their order and then `all`, the mean over the
        categories that are defined. Fractions, 1 is best. NaN where there is no reference box of
        the category (and size), which COCO writes as -1; 0 where there is one and nothing was
        found.

    Raises
    ------
    DataError
        As in `spine_tasks.metrics.boxes.check_boxes`.

    Notes
    -----
    101 recall points, IoU .5 to .95 in steps of .05, at most 100 boxes of a category in an image
    [1]_. Small is an area up to 32**2, medium up to 96**2, large above, in px of the original
    grid: they say as much of the resolution as of the anatomy. An image without any box counts
    with what is found in it. Boxes of equal score are taken in the order of the images' ids and
    then of their corners, as the order changes AP.

    References
    ----------
    .. [1] Lin et al., Microsoft COCO: common objects in context, ECCV 2014,
       doi:10.1007/978-3-319-10602-1_48.
    """
    check_boxes(cases, found, len(categories))
    precision = _precision(cases, found, len(categories))
    values = {
        name: [_mean(precision[ious, :, label, area]) for label in range(len(categories))]
        for name, (ious, area) in NAMES.items()
    }
    for index, label in enumerate(categories):
        yield from ((label, name, of_label[index]) for name, of_label in values.items())
    yield from (("all", name, _mean(np.array(of_label))) for name, of_label in values.items())


def _mean(values: Floats) -> float:
    """Of what is defined: neither COCO's -1 nor NaN."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _precision(cases: Sequence[BoxCase], found: Sequence[Detections], labels: int) -> Floats:
    """COCO's table (IoUs, recalls, labels, areas); -1 is undefined."""
    # Not needed to read this package, and slow to import: it brings a library of plots.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    together = sorted(zip(cases, found, strict=True), key=lambda pair: pair[0].id)
    if not together:
        return np.full((10, 101, labels, 4), -1.0)
    true, boxes = [], []
    for image, (case, one) in enumerate(together):
        order = in_order(case.boxes, case.labels)
        true += list(_annotations(image, case.boxes[order], case.labels[order]))
        order = in_order(one.boxes, one.labels, one.scores)
        scores = one.scores[order].tolist()
        some = _annotations(image, one.boxes[order], one.labels[order])
        boxes += [{**box, "score": score} for box, score in zip(some, scores, strict=True)]
    shared = {
        "images": [{"id": image} for image in range(len(together))],
        "categories": [{"id": label} for label in range(labels)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        sides = [COCO(), COCO()]
        for side, annotations in zip(sides, (true, boxes), strict=True):
            side.dataset = shared | {"annotations": _numbered(annotations)}
            side.createIndex()
        evaluation = COCOeval(*sides, iouType="bbox")
        evaluation.params.maxDets = [BOXES]
        evaluation.evaluate()
        evaluation.accumulate()
    table: Floats = evaluation.eval["precision"][..., 0]
    return table


def _annotations(image: int, boxes: Floats, labels: Integers) -> Iterator[dict[str, Any]]:
    for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
        width, height = x2 - x1, y2 - y1
        yield {
            "image_id": image,
            "category_id": label,
            "bbox": [x1, y1, width, height],
            "area": width * height,
            "iscrowd": 0,
        }


def _numbered(annotations: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """With ids from 1: COCO's code takes the id 0 for "not matched"."""
    return [{**one, "id": number} for number, one in enumerate(annotations, start=1)]
