"""Metrics as the published study of cervical stenosis computed them, to compare with it.

The axial images of the study have one central canal of 4 grades and two sides (foramina) of 3.
These figures only apply to data with its 7 categories, named as `GRADES`. They leave boxes out:
an accuracy is of the reference boxes that were found at all. `cord_grades` has the counterparts
that count them.

References
----------
.. [1] Code of the cervical study: github.com/liuchangshiye/MRI-cervical-spine.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.coco import BoxCase
from spine_tasks.metrics.boxes import Integers
from spine_tasks.predictions import Detections

GRADES = ("central_0", "central_1", "central_2", "central_3", "side_0", "side_1", "side_2")
NOTHING = len(GRADES)  # stands for "no reference box" or "no found box" in a pair
SCORE = 0.7  # boxes must be surer
COARSE = np.array([0, 0, 1, 1, 2, 2, 3, 4])  # grade or NOTHING -> central, side: mild, severe

Box = tuple[float, float, float, float]
Grade = tuple[Box, int, float]  # box xyxy px, label, score


def merge_box_max(found: Sequence[Grade], share: float) -> list[Grade]:
    """Merge each box into the first kept one, if that covers or is covered by more than `share`.

    The kept box grows to hold both and has the label and the score of the surer one; the kept one
    of equally sure ones.
    """
    kept: list[Grade] = []
    for box, label, score in found:
        for index, (other, other_label, other_score) in enumerate(kept):
            if max(_shares(box, other)) > share:
                low, high = np.minimum(box, other), np.maximum(box, other)
                union = (float(low[0]), float(low[1]), float(high[2]), float(high[3]))
                surer = label if score > other_score else other_label
                kept[index] = (union, surer, max(score, other_score))
                break
        else:
            kept.append((box, label, score))
    return kept


def merged(found: Detections, score: float = SCORE) -> list[Grade]:
    """What the study leaves of the boxes found in an image: at best a canal and two sides.

    Boxes that are surer than `score` are merged at a share of .9, and then, while there are more
    than three, at .8, .7, .6 and .5.
    """
    rows = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    kept: list[Grade] = [(tuple(box), label, sure) for box, label, sure in rows if sure > score]
    kept = merge_box_max(kept, 0.9)
    for share in (0.8, 0.7, 0.6, 0.5):
        if len(kept) > 3:
            kept = merge_box_max(kept, share)
    return kept


def pairs_of(case: BoxCase, found: Sequence[Grade]) -> list[tuple[int, int]]:
    """The labels of each reference box and its found box, of one image.

    A found box belongs to a reference box if one has more than half of its area in the other. Of
    several, those come first that cover of the reference box by more than .5 more than it covers
    of them, and then the first. One found box may be that of two reference boxes.

    Returns
    -------
    list of (int, int)
        True and found label, a pair for each reference box and then one for each found box that
        belongs to none; the label 7 is nothing.
    """
    pairs, taken = [], set()
    for box, label in zip(case.boxes.tolist(), case.labels.tolist(), strict=True):
        shares = [_shares(tuple(box), other) for other, _, _ in found]
        near = [index for index, both in enumerate(shares) if max(both) > 0.5]
        if not near:
            pairs.append((label, NOTHING))
            continue
        # min() takes the first of equals.
        best = min(near, key=lambda index: not shares[index][0] > 0.5 + shares[index][1])
        pairs.append((label, found[best][1]))
        taken.add(best)
    return pairs + [(NOTHING, one[1]) for index, one in enumerate(found) if index not in taken]


def cord_published(
    cases: Sequence[BoxCase], found: Sequence[Detections], score: float = SCORE
) -> dict[str, float]:
    """The study's recalls and accuracies over all images.

    Parameters
    ----------
    cases, found
        Images with the labels of `GRADES`, and the boxes found in each.
    score
        Only surer boxes count.

    Returns
    -------
    dict of str to float
        Fractions, 1 is best. `recall_overall_`, `recall_central_` and `recall_side_published`:
        share of the reference boxes found at all, with a label of the same region.
        `accuracy_7_`, `accuracy_central_4_` and `accuracy_side_3_published`: share of the pairs
        with two labels (of the region) that have the same one. `accuracy_4_`,
        `accuracy_central_2_` and `accuracy_side_2_published`: with grades joined to mild (central
        0 and 1, side 0 and 1) and severe. NaN where there is no such box or pair.
    """
    together = zip(cases, found, strict=True)
    pairs = [pair for case, one in together for pair in pairs_of(case, merged(one, score))]
    fine: Integers = np.array(pairs, np.int64).reshape(-1, 2)
    coarse = COARSE[fine]
    regions = {"overall": (0, 7), "central": (0, 4), "side": (4, 7)}
    recalls = {
        f"recall_{name}_published": _share(
            _within(fine[:, 1], *labels)[_within(fine[:, 0], *labels)]
        )
        for name, labels in regions.items()
    }
    accuracies = {
        "accuracy_7_published": _accuracy(fine, 0, 7),
        "accuracy_central_4_published": _accuracy(fine, 0, 4),
        "accuracy_side_3_published": _accuracy(fine, 4, 7),
        "accuracy_4_published": _accuracy(coarse, 0, 4),
        "accuracy_central_2_published": _accuracy(coarse, 0, 2),
        "accuracy_side_2_published": _accuracy(coarse, 2, 4),
    }
    return recalls | accuracies


def _shares(one: Box, other: Box) -> tuple[float, float]:
    """Of the area of each box, the share that lies in the other; 0 of a box without an area."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    first, second = (width * height / area if area else 0.0 for area in areas)
    return first, second


def _within(labels: Integers, low: int, high: int) -> NDArray[np.bool_]:
    return (labels >= low) & (labels < high)


def _accuracy(pairs: Integers, low: int, high: int) -> float:
    both = pairs[_within(pairs, low, high).all(axis=1)]
    return _share(both[:, 0] == both[:, 1])


def _share(true: NDArray[np.bool_]) -> float:
    return float(true.mean()) if len(true) else float("nan")
