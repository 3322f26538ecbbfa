"""Predicted boxes on disk: COCO's results format, which every tool of the field reads.

`predictions/test.json` holds the boxes of the test part, `predictions/val.json` those of the
validation part, on which thresholds are chosen.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spine_tasks.data.coco import BoxCase
from spine_tasks.errors import RunError
from spine_tasks.files import write_text

DIGITS = 6  # of scores, and of pixels' fractions: more than any reader needs


@dataclass(frozen=True)
class Detections:
    """Boxes found in one image, the surest first."""

    boxes: NDArray[np.float64]  # (N, 4) xyxy px on the original pixel grid
    labels: NDArray[np.int64]  # (N,) 0-based, in the order of the data's categories
    scores: NDArray[np.float64]  # (N,) in [0, 1]


def save_boxes(
    file: Path, cases: Sequence[BoxCase], found: Iterable[Detections], category_ids: Sequence[int]
) -> None:
    """Write the boxes found in some images as COCO results.

    Parameters
    ----------
    cases
        The images, in the order of `found`; an image without a box has no entry.
    category_ids
        The data's category id of each label.
    """
    results = [
        {
            "image_id": case.image_id,
            "category_id": category_ids[label],
            "bbox": [round(x, DIGITS) for x in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, DIGITS),
        }
        for case, one in zip(cases, found, strict=True)
        for (x1, y1, x2, y2), label, score in zip(
            one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), strict=True
        )
    ]
    lines = ",\n".join(json.dumps(result) for result in results)
    write_text(file, f"[\n{lines}\n]\n" if results else "[]\n")


def load_boxes(
    file: Path, cases: Sequence[BoxCase], category_ids: Sequence[int]
) -> list[Detections]:
    """The boxes found in some images, one `Detections` a case, the surest first.

    Raises
    ------
    RunError
        The file is missing or not COCO results, or names an image or category that is not there.
    """
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        rows = [_row(one) for one in results]
    except FileNotFoundError as error:
        raise RunError(f"{file} is missing; launch the grid again to predict it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is not a list of COCO results ({error!r})") from error
    label_of = {category: label for label, category in enumerate(category_ids)}
    of_image: dict[int, list[tuple[float, int, list[float]]]] = {
        case.image_id: [] for case in cases
    }
    for image_id, category, box, score in rows:
        if image_id not in of_image or category not in label_of:
            raise RunError(
                f"{file}: image {image_id} or category {category} is none of the data's "
                f"{len(of_image)} images and categories {list(category_ids)}: other data than it "
                "was predicted on"
            )
        of_image[image_id].append((score, label_of[category], box))
    return [_detections(of_image[case.image_id]) for case in cases]


def _row(result: dict[str, Any]) -> tuple[int, int, list[float], float]:
    """Image, category, box xyxy px and score of a COCO result."""
    x, y, width, height = map(float, result["bbox"])
    box = [x, y, x + width, y + height]
    return int(result["image_id"]), int(result["category_id"]), box, float(result["score"])


def _detections(rows: list[tuple[float, int, list[float]]]) -> Detections:
    rows = sorted(rows, key=lambda row: -row[0])  # stable: equal scores stay in the file's order
    return Detections(
        np.array([box for _, _, box in rows], float).reshape(-1, 4),
        np.array([label for _, label, _ in rows], np.int64),
        np.array([score for score, _, _ in rows], float),
    )
