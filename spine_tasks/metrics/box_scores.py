"""All metrics of the boxes of one run."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from spine_tasks.data.coco import BoxCase
from spine_tasks.errors import DataError
from spine_tasks.metrics import cord_published, discs_published
from spine_tasks.metrics.box_rates import (
    FALSE_POSITIVES,
    BoxCounts,
    best_thresholds,
    confusions,
    counts_at,
    froc,
    of_images,
    rates,
)
from spine_tasks.metrics.boxes import Floats, Integers, Matches, matched
from spine_tasks.metrics.coco_ap import coco_ap
from spine_tasks.metrics.cord_grades import cord_grades
from spine_tasks.predictions import Detections

log = logging.getLogger(__name__)

ALL = "all"  # the label of what is over all categories
BACKGROUND = "background"  # the label of what was found where there is no reference box
SET = "*"  # subject and case of a metric of all images together
NO_CHOICE = 0.5  # the threshold of a category that the validation part cannot choose one for

Row = tuple[str, str, str, str, float]
Value = tuple[str, str, float]  # label, metric, value


def score_boxes(
    cases: Sequence[BoxCase],
    found: Sequence[Detections],
    val_cases: Sequence[BoxCase],
    val_found: Sequence[Detections],
    categories: Sequence[str],
) -> Iterator[Row]:
    """Every metric of the boxes found in the test part, in a fixed order.

    Parameters
    ----------
    cases, found
        Images of the test part, and the boxes found in each.
    val_cases, val_found
        The same of the validation part, on which each category's threshold is chosen: that of the
        best F1 of its boxes. Where the validation part has no such box, or none was found, it is
        .5, which is logged and whose row `threshold` is NaN.
    categories
        Their names, in the order of the labels.

    Returns
    -------
    iterator of (str, str, str, str, float)
        Subject, case, label, metric, value. First precision, recall and F1 of every image and
        category, and of the boxes of all categories together, label `all`. Then, with `*` as
        subject and case, what is defined for a set of images only: AP, AR and their kin (`all`: the
        mean over categories), `threshold`, precision, recall and F1 of the boxes of all images
        together, FROC (`all`: the mean over categories), sensitivity and specificity of calling
        an image positive (`all`: for any category), and the confusion table: `found_as_x` counts
        the reference boxes of the label that were found as the category x, or as `background`:
        missed; those of the label `background` were found on nothing. Data whose categories are
        those of a published study have its figures last. NaN is undefined and stays in.

    Raises
    ------
    DataError
        At the call: a category has a name that stands for something else, or as in
        `spine_tasks.metrics.boxes.check_boxes`.
    """
    if taken := sorted({ALL, BACKGROUND, SET} & set(categories)):
        raise DataError(f"a category is named {taken[0]!r}, which scores use; rename it")
    matches = matched(cases, found, len(categories))
    chosen = best_thresholds(matched(val_cases, val_found, len(categories)))
    thresholds = np.where(np.isnan(chosen), NO_CHOICE, chosen)
    if unchosen := [name for name, one in zip(categories, chosen, strict=True) if math.isnan(one)]:
        log.warning(
            "the validation part has no box of %s, or none was found; boxes from %s on count",
            ", ".join(unchosen),
            NO_CHOICE,
        )
    counts = counts_at(matches, thresholds)
    tables = confusions(cases, found, thresholds)
    values: Iterable[Value] = chain(
        coco_ap(cases, found, categories),
        ((name, "threshold", float(one)) for name, one in zip(categories, chosen, strict=True)),
        _of_the_set(counts, categories),
        _froc(matches, categories),
        _of_images(counts, categories),
        _confusion(tables.sum(axis=0), categories),
        _published(cases, found, tables, categories),
    )
    return chain(_of_each_image(cases, counts, categories), ((SET, SET, *one) for one in values))


def _of_each_image(
    cases: Sequence[BoxCase], counts: BoxCounts, categories: Sequence[str]
) -> Iterator[Row]:
    for index, case in enumerate(cases):
        one = BoxCounts(*(count[index] for count in counts))
        for label, metric, value in _rates(one, categories):
            yield case.subject, case.id, label, metric, value


def _of_the_set(counts: BoxCounts, categories: Sequence[str]) -> Iterator[Value]:
    of_set = BoxCounts(*(count.sum(axis=0) for count in counts))
    for label, metric, value in _rates(of_set, categories):
        yield label, f"{metric}_set", value


def _rates(counts: BoxCounts, categories: Sequence[str]) -> Iterator[Value]:
    """Of counts of shape (labels,), and of their sum."""
    values = rates(BoxCounts(*(np.append(count, count.sum()) for count in counts)))
    for index, label in enumerate((*categories, ALL)):
        yield from ((label, metric, float(of_label[index])) for metric, of_label in values.items())


def _froc(matches: Matches, categories: Sequence[str]) -> Iterator[Value]:
    names = [f"FROC_{rate:g}" for rate in FALSE_POSITIVES]
    curves: Floats = np.array([froc(matches, label) for label in range(len(categories))])
    defined = curves[~np.isnan(curves[:, 0])]
    mean = defined.mean(axis=0) if len(defined) else np.full(len(names), np.nan)
    for label, curve in zip((*categories, ALL), (*curves, mean), strict=True):
        yield from ((label, name, float(one)) for name, one in zip(names, curve, strict=True))
        yield label, "FROC", float(curve.mean())


def _of_images(counts: BoxCounts, categories: Sequence[str]) -> Iterator[Value]:
    together = BoxCounts(*(np.c_[count, count.sum(axis=1)] for count in counts))
    values = of_images(together)
    for index, label in enumerate((*categories, ALL)):
        yield from ((label, metric, float(of_label[index])) for metric, of_label in values.items())


def _confusion(table: Integers, categories: Sequence[str]) -> Iterator[Value]:
    names = (*categories, BACKGROUND)
    for true, row in zip(names, table, strict=True):
        for predicted, boxes in zip(names, row, strict=True):
            if (true, predicted) != (BACKGROUND, BACKGROUND):
                yield true, f"found_as_{predicted}", float(boxes)


def _published(
    cases: Sequence[BoxCase],
    found: Sequence[Detections],
    tables: Integers,
    categories: Sequence[str],
) -> Iterator[Value]:
    values: dict[str, float] = {}
    if tuple(categories) == discs_published.CATEGORIES:
        kept = [discs_published.merged(one) for one in found]
        values = discs_published.discs_published(cases, kept)
    if tuple(categories) == cord_published.GRADES:
        grades = cord_grades(tables.sum(axis=0).astype(float))
        values = cord_published.cord_published(cases, found)
        values |= {name: float(value) for name, value in grades.items()}
    yield from ((ALL, metric, value) for metric, value in values.items())
