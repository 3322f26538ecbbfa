"""How many boxes were found in one's own pictures, and how right they are."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spine_tasks.data.coco import BoxCase
from spine_tasks.files import write_text
from spine_tasks.metrics.box_rates import BoxCounts, counts_at, rates
from spine_tasks.metrics.box_scores import ALL, SET
from spine_tasks.metrics.boxes import Floats, matched
from spine_tasks.metrics.coco_ap import coco_ap
from spine_tasks.predictions import Detections

Scored = Sequence[tuple[BoxCase, Detections]]
Row = tuple[str, str, str, str, float]  # subject, case, label, metric, value

SHOWN = {"AP50": "AP50", "precision_set": "precision", "recall_set": "recall", "F1_set": "F1"}


def box_scores(scored: Scored, categories: Sequence[str], thresholds: Floats) -> list[Row]:
    """AP and its kin, and precision, recall and F1 at given thresholds, named as a run's scores.

    Parameters
    ----------
    scored
        Pictures with their reference boxes, and all boxes found in each.
    thresholds
        Of each category: from this score on a box counts for precision, recall and F1.

    Returns
    -------
    list
        Rates of each picture, then with `*` as subject and case those of all together. NaN is
        undefined.
    """
    cases, found = [case for case, _ in scored], [boxes for _, boxes in scored]
    counts = counts_at(matched(cases, found, len(categories)), thresholds)
    rows = []
    for index, case in enumerate(cases):
        one = BoxCounts(*(count[index] for count in counts))
        rows += [(case.subject, case.id, *rate) for rate in _rates(one, categories)]
    rows += [(SET, SET, *value) for value in coco_ap(cases, found, categories)]
    rows += [
        (SET, SET, name, "threshold", float(one))
        for name, one in zip(categories, thresholds, strict=True)
    ]
    together = BoxCounts(*(count.sum(axis=0) for count in counts))
    for label, metric, value in _rates(together, categories):
        rows.append((SET, SET, label, f"{metric}_set", value))
    return rows


def _rates(counts: BoxCounts, categories: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """Label, metric, value of counts (labels,), and of the boxes of all labels together."""
    values = rates(BoxCounts(*(np.append(count, count.sum()) for count in counts)))
    for index, label in enumerate((*categories, ALL)):
        yield from ((label, metric, float(one[index])) for metric, one in values.items())


def write_scores(file: Path, rows: Sequence[Row]) -> None:
    """Write scores in the columns of a run's scores.csv."""
    from spine_tasks.score import to_csv  # slow to import

    write_text(file, to_csv([(subject, subject, case, "", *one) for subject, case, *one in rows]))


def report(
    found: Sequence[Detections],
    rows: Sequence[Row],
    categories: Sequence[str],
    thresholds: Floats,
    where: str,
) -> None:
    """Print the number of sure boxes of each category, and their main scores if there are any."""
    of_set = {(label, metric): value for _, case, label, metric, value in rows if case == SET}
    table = Table()
    for head in ("category", "from score", "boxes", *(SHOWN.values() if rows else ())):
        table.add_column(head, overflow="fold", justify="left" if head == "category" else "right")
    numbers = [
        sum(int(((one.labels == label) & (one.scores >= threshold)).sum()) for one in found)
        for label, threshold in enumerate(thresholds)
    ]
    limits = [f"{threshold:.3g}" for threshold in thresholds]
    for label, limit, number in zip(
        (*categories, ALL), (*limits, ""), (*numbers, sum(numbers)), strict=True
    ):
        scores = [f"{of_set[label, metric]:.4f}" for metric in SHOWN] if rows else []
        table.add_row(escape(label), limit, str(number), *scores)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    console.print(where, markup=False, highlight=False, soft_wrap=True)
