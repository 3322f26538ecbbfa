"""Predict boxes: pictures of one's own, drawn, and scored where reference boxes are."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spine_tasks.command import listed
from spine_tasks.data.coco import BoxCase
from spine_tasks.data.coco_files import stem_of
from spine_tasks.data.coco_json import read_annotations
from spine_tasks.data.pictures import read_picture
from spine_tasks.errors import ConfigError, SpineError
from spine_tasks.figures.drawing import draw_boxes, save_drawing
from spine_tasks.files import write_text
from spine_tasks.metrics.boxes import Floats
from spine_tasks.predict.boxes_report import box_scores, report, write_scores
from spine_tasks.predict.pictures import find_pictures, plain_case, reference_cases
from spine_tasks.predict.places import refuse_inputs_and_runs, task_module
from spine_tasks.predict.thresholds import thresholds_of
from spine_tasks.predictions import Detections, save_boxes

TASK = "spine_tasks.tasks.detection.predict"


@dataclass(frozen=True)
class Output:
    """What is written."""

    folder: Path

    @property
    def boxes(self) -> Path:
        """All boxes as COCO results."""
        return self.folder / "boxes.json"

    @property
    def images(self) -> Path:
        """The images and categories that the boxes are of, as a COCO file."""
        return self.folder / "images.json"

    @property
    def scores(self) -> Path:
        """Scores of the pictures with references."""
        return self.folder / "scores.csv"

    def drawing(self, picture: Path) -> Path:
        """The sure boxes of a picture, drawn."""
        return self.folder / "drawn" / f"{stem_of(picture)}.png"


def predict_boxes(asked: argparse.Namespace, models: Sequence[tuple[Any, Path]]) -> int:
    """Find, draw and score boxes; several runs are fused. Return the exit code.

    Raises
    ------
    SpineError
        As `spine_tasks.predict.predict`.
    """
    _check_flags(asked)
    pictures = find_pictures(asked.input)
    output = Output(asked.output)
    _check_output(output, pictures, asked.reference)
    content = None if asked.reference is None else read_annotations(asked.reference)
    runs = [folder for _, folder in models]
    chosen = None if asked.score is not None else thresholds_of(runs)
    predictor = task_module(TASK, "torch").predictor(models)
    categories: tuple[str, ...] = predictor.categories
    thresholds = np.array(
        [asked.score if chosen is None else chosen[name] for name in categories], float
    )
    sys.stderr.write(f"{_said(categories, thresholds, runs, chosen is not None)}\n")
    references: Mapping[Path, BoxCase] = {}
    if content is not None:
        references = reference_cases(asked.reference, content, pictures, categories)
    cases: dict[Path, BoxCase] = {}
    found: list[Detections] = []
    for number, picture in enumerate(pictures, start=1):
        try:
            case = references.get(picture) or plain_case(picture, number)
            boxes = predictor(case)
            drawing = draw_boxes(read_picture(picture), case, _sure(boxes, thresholds), categories)
        except SpineError as error:
            if len(pictures) == 1:
                raise
            output.drawing(picture).unlink(missing_ok=True)  # of an earlier prediction
            sys.stderr.write(f"error: {error}\n")
            continue
        save_drawing(output.drawing(picture), drawing)
        cases[picture], found = case, [*found, boxes]
        sys.stderr.write(f"{number}/{len(pictures)} {output.drawing(picture)}\n")
    failed = len(pictures) - len(cases)
    if cases:
        _write(output, list(cases.values()), found, categories, predictor.category_ids, runs)
        scored = [
            (case, boxes)
            for (picture, case), boxes in zip(cases.items(), found, strict=True)
            if picture in references
        ]
        rows = box_scores(scored, categories, thresholds) if scored else []
        if rows:
            write_scores(output.scores, rows)
        else:
            output.scores.unlink(missing_ok=True)  # of an earlier prediction
        where = f"{len(cases)} pictures predicted, {len(scored)} scored; see {output.folder}"
        report(found, rows, categories, thresholds, where)
    if failed:
        sys.stderr.write(f"{failed} of {len(pictures)} pictures failed, see above\n")
    return int(failed > 0)


def _check_flags(asked: argparse.Namespace) -> None:
    if asked.mask_suffix is not None:
        raise ConfigError("--mask-suffix is for masks; boxes have --reference instances.json")
    if asked.score is not None and not 0 <= asked.score <= 1:
        raise ConfigError(f"--score must be in [0, 1], got {asked.score:g}")
    folders = [folder.resolve() for folder in asked.run]
    if len(set(folders)) < len(folders):
        raise ConfigError("a --run is given twice; each run counts once")


def _check_output(output: Output, pictures: Sequence[Path], reference: Path | None) -> None:
    """Refuse to write onto what is read, into a run, or beside what an earlier prediction left."""
    folder = output.folder
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file; name a folder")
    if folder.resolve() in {picture.parent.resolve() for picture in pictures}:
        raise ConfigError(f"--output {folder} is the folder of the pictures; name another one")
    drawings = {output.drawing(picture) for picture in pictures}
    files = {output.boxes, output.images, output.scores} | drawings
    refuse_inputs_and_runs(folder, files, [*pictures, *filter(None, [reference])])
    stale = [file for file in (folder / "drawn").glob("*.png") if file not in drawings]
    if reference is None and output.scores.exists():
        stale.append(output.scores)
    if stale:
        names = listed(sorted(file.name for file in stale))
        raise ConfigError(
            f"--output {folder} has {names} of other predictions, which would seem to belong to "
            "the new ones; remove it, or name another folder"
        )


def _said(
    categories: Sequence[str], thresholds: Floats, runs: Sequence[Path], by_validation: bool
) -> str:
    """From which scores on boxes are drawn, and who chose them."""
    named = ", ".join(f"{name} {one:.3g}" for name, one in zip(categories, thresholds, strict=True))
    why = "as asked" if not by_validation else "chosen on the validation part"
    if by_validation and len(runs) > 1:
        why = "mean of those that each run's validation part chose; fused boxes may need others"
    fused = f"boxes of {len(runs)} runs, fused by weighted box fusion; " if len(runs) > 1 else ""
    return f"{fused}drawn and counted from these scores on: {named} ({why})"


def _sure(boxes: Detections, thresholds: Floats) -> Detections:
    kept = boxes.scores >= thresholds[boxes.labels]
    return Detections(boxes.boxes[kept], boxes.labels[kept], boxes.scores[kept])


def _write(
    output: Output,
    cases: Sequence[BoxCase],
    found: Sequence[Detections],
    categories: Sequence[str],
    category_ids: Sequence[int],
    runs: Sequence[Path],
) -> None:
    """The boxes, and what they are of."""
    content = {
        "info": {"description": f"Images of boxes predicted by {', '.join(r.name for r in runs)}"},
        "images": [
            {
                "id": case.image_id,
                "file_name": case.image.name,
                "width": case.width,
                "height": case.height,
            }
            for case in cases
        ],
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(category_ids, categories, strict=True)
        ],
    }
    write_text(output.images, json.dumps(content, indent=1) + "\n")
    save_boxes(output.boxes, cases, found, category_ids)
