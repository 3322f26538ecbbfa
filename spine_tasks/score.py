"""Scores of a run, from its predictions alone and free of any deep-learning framework.

Scores are derived: when a metric changes, a run is scored again, never trained again.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from spine_tasks.data.cases import box_cases_of, cases_of, cord_cases_of, grade_cases_of, target
from spine_tasks.data.coco import BoxCase
from spine_tasks.data.nifti import load_image, load_mask
from spine_tasks.errors import RunError
from spine_tasks.files import read_json, sha256, write_json, write_text
from spine_tasks.grade_predictions import load_grades
from spine_tasks.metrics.box_scores import score_boxes
from spine_tasks.metrics.grade_scores import Places, grades_known, places_of, score_grades
from spine_tasks.metrics.mask_scores import score_masks
from spine_tasks.metrics.masks import Mask
from spine_tasks.nnunet.volumes import image_and_mask
from spine_tasks.predictions import Detections, load_boxes
from spine_tasks.run import Run
from spine_tasks.splits import load_split

COLUMNS = ("person", "subject", "case", "slice", "label", "metric", "value")

CHANGED = "scores.csv was cut off, changed, or is of other predictions"

Row = tuple[Any, ...]


def score(run: Run) -> None:
    """Score a complete run's predictions into its scores.csv.

    The digests of what was scored and of the scores go into scores.json beside it, by which
    `spoilt` tells a whole file from one that was cut off or changed.

    Raises
    ------
    RunError
        A prediction is missing, or is not the one that done.json lists.
    DataError
        A prediction or a reference mask cannot be read.
    """
    rows = ROWS[run.cell().config.predicts](run)
    write_text(run.scores, to_csv(list(rows)))
    write_json(run.scores.with_suffix(".json"), _record(run))


def spoilt(run: Run) -> str | None:
    """Why a complete run's scores.csv cannot be used and is to be made again; None if it can."""
    files = (run.scores, run.scores.with_suffix(".json"))
    scores, record = (file.read_bytes() if file.exists() else None for file in files)
    return why_spoilt(scores, record, _predictions_sha256(run))


def why_spoilt(
    scores: bytes | None, record: bytes | None, predictions_sha256: dict[str, str]
) -> str | None:
    """As `spoilt`, of what was read: scores.csv and scores.json, None where there is none.

    Parameters
    ----------
    predictions_sha256
        File name -> SHA-256, as done.json lists the predictions.
    """
    if scores is None:
        return "no scores.csv"
    try:
        listed = None if record is None else json.loads(record)
    except ValueError:
        listed = None
    if listed is None:
        return "no digest of scores.csv"
    made = {
        "scores_sha256": hashlib.sha256(scores).hexdigest(),
        "predictions_sha256": predictions_sha256,
    }
    return None if listed == made else CHANGED


def _record(run: Run) -> dict[str, Any]:
    """What scores.json holds of a scores.csv and the predictions that it was made from."""
    return {"scores_sha256": sha256(run.scores), "predictions_sha256": _predictions_sha256(run)}


def _predictions_sha256(run: Run) -> dict[str, str]:
    """File name -> SHA-256, as done.json lists the predictions."""
    return dict(read_json(run.folder / "done.json").get("predictions_sha256", {}))


def score_mask_files(predicted: Path, reference: Path, label: str) -> Iterator[Row]:
    """`slice, label, metric, value` for one predicted mask file against its reference."""
    image = load_image(reference)
    yield from _scores(image, load_mask(reference, image), load_mask(predicted, image), label)


def _scores(image: Any, truth: Mask, found: Mask, label: str) -> Iterator[Row]:
    """`slice, label, metric, value` of two masks on an image's grid."""
    spacing_mm = [float(edge) for edge in voxel_sizes(image.affine)]  # type: ignore[no-untyped-call]
    for index, metric, value in score_masks(truth, found, spacing_mm, _slice_axis(image.affine)):
        yield "" if index is None else index, label, metric, value


def to_csv(rows: list[Row]) -> str:
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


def _mask_rows(run: Run) -> Iterator[Row]:
    cell, digests = run.cell(), _predictions_sha256(run)
    person_of = load_split(cell.split).person_of
    for case in cases_of(cell, "test", run.folder.parent):
        label, reference = target(case)
        predicted = _checked(run.predictions / f"{case.id}.nii.gz", digests)
        for row in score_mask_files(predicted, reference, label):
            yield person_of[case.subject], case.subject, case.id, *row


def _cord_rows(run: Run) -> Iterator[Row]:
    """As of masks; the label is the test set, so that every table is of one test set a row."""
    cell, digests = run.cell(), _predictions_sha256(run)
    person_of = load_split(cell.split).person_of
    for pair in cord_cases_of(cell, "test", run.folder.parent):
        predicted = _checked(run.predictions / f"{pair.id}.nii.gz", digests)
        image, truth, _ = image_and_mask(pair)
        for row in _scores(image, truth, load_mask(predicted, image), pair.test_set):
            yield person_of[pair.subject], pair.subject, pair.id, *row


def _box_rows(run: Run) -> Iterator[Row]:
    cell, digests, results = run.cell(), _predictions_sha256(run), run.folder.parent
    person_of = load_split(cell.split).person_of

    def part(name: str) -> tuple[list[BoxCase], list[Detections]]:
        cases, data = box_cases_of(cell, name, results)
        file = _checked(run.predictions / f"{name}.json", digests)
        return cases, load_boxes(file, cases, data.category_ids)

    categories = box_cases_of(cell, "test", results)[1].categories
    for subject, case, *row in score_boxes(*part("test"), *part("val"), categories):
        yield person_of.get(subject, subject), subject, case, "", *row


def _grade_rows(run: Run) -> Iterator[Row]:
    cell, digests, results = run.cell(), _predictions_sha256(run), run.folder.parent
    person_of = load_split(cell.split).person_of

    def part(name: str) -> dict[str, Places]:
        cases, data = grade_cases_of(cell, name, results)
        file = _checked(run.predictions / f"{name}.csv", digests)
        return places_of(cases, load_grades(file, cases, data.conditions), data.conditions)

    train, data = grade_cases_of(cell, "train", results)
    known = grades_known(train, data.conditions)
    rows = score_grades(part("test"), part("val"), known, data.conditions, data.levels)
    for subject, case, *row in rows:
        yield person_of.get(subject, subject), subject, case, "", *row


def _no_rows(_run: Run) -> Iterator[Row]:
    return iter(())


# `predicts` of a config -> rows of scores.csv
ROWS = {
    "masks": _mask_rows,
    "cords": _cord_rows,
    "boxes": _box_rows,
    "grades": _grade_rows,
    "nothing": _no_rows,
}


def _checked(predicted: Path, digests: dict[str, str]) -> Path:
    """The prediction, if it is the one that made the run complete."""
    again = "delete done.json beside its folder and launch the grid again"
    if not predicted.exists():
        raise RunError(f"{predicted} is missing although the run is complete; {again}")
    if sha256(predicted) != digests.get(predicted.name):
        raise RunError(
            f"{predicted} is not the file that made the run complete: it does not have the SHA-256 "
            f"that done.json lists; put it back, or {again}"
        )
    return predicted
