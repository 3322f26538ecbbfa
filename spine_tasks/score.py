"""Scores of a run, from its predictions alone and free of any deep-learning framework.

Scores are derived: when a metric changes, a run is scored again, never trained again.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from spine_tasks.data.bids import Case
from spine_tasks.data.cases import cases_of, target
from spine_tasks.data.nifti import load_image, load_mask
from spine_tasks.errors import RunError
from spine_tasks.files import write_text
from spine_tasks.metrics.mask_scores import score_masks
from spine_tasks.run import Run
from spine_tasks.splits import load_split

COLUMNS = ("person", "subject", "case", "slice", "label", "metric", "value")


def score(run: Run) -> None:
    """Score a complete run's predictions into its scores.csv.

    Raises
    ------
    RunError
        A prediction is missing.
    DataError
        A prediction or a reference mask cannot be read.
    """
    cell = run.cell()
    person_of = load_split(cell.split).person_of
    rows = [
        (person_of[case.subject], case.subject, case.id, *score)
        for case in cases_of(cell, "test", run.folder.parent)
        for score in _mask_scores(run, case)
    ]
    write_text(run.scores, to_csv(rows))


def score_mask_files(predicted: Path, reference: Path, label: str) -> Iterator[tuple[Any, ...]]:
    """`slice, label, metric, value` for one predicted mask file against its reference."""
    image = load_image(reference)
    truth, found = load_mask(reference, image), load_mask(predicted, image)
    spacing_mm = [float(edge) for edge in voxel_sizes(image.affine)]  # type: ignore[no-untyped-call]
    for index, metric, value in score_masks(truth, found, spacing_mm, _slice_axis(image.affine)):
        yield "" if index is None else index, label, metric, value


def to_csv(rows: list[tuple[Any, ...]]) -> str:
    """Rows of scores as the text of a scores.csv; values keep every bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def _slice_axis(affine: NDArray[np.float64]) -> int:
    """The array axis nearest to superior-inferior."""
    nearest = io_orientation(affine)[:, 0]  # type: ignore[no-untyped-call]
    return int(np.flatnonzero(nearest == 2)[0])


def _mask_scores(run: Run, case: Case) -> Iterator[tuple[Any, ...]]:
    label, reference = target(case)
    predicted = run.predictions / f"{case.id}.nii.gz"
    if not predicted.exists():
        raise RunError(
            f"{predicted} is missing although the run is complete; delete done.json beside it and "
            "launch the grid again"
        )
    return score_mask_files(predicted, reference, label)
