"""Predict masks: volumes of one's own, scored where reference masks are."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spine_tasks.data.bids import ENDINGS, Case
from spine_tasks.errors import ConfigError, SpineError
from spine_tasks.files import write_text
from spine_tasks.predict.places import needing, refuse_inputs_and_runs, task_module
from spine_tasks.predict.volumes import find_volumes, mask_names

# Metric of a volume -> its head in the table, by `predicts` of a config; scores.csv holds all.
DISTANCES = {"DSC": "DSC", "MSD": "MSD (mm)", "HSD": "HSD (mm)"}
SHOWN = {
    "masks": DISTANCES,
    "cords": DISTANCES | {"RVE": "RVE", "CSA_error": "CSA error (mm2)"},
}


def predict_masks(asked: argparse.Namespace, config: Any, weights: Path) -> int:
    """Predict every volume, score those with a reference mask; return the exit code.

    Raises
    ------
    SpineError
        As `spine_tasks.predict.predict`.
    """
    names = mask_names(config)
    cases = find_volumes(asked, names)
    if not cases:
        sys.stderr.write(f"{asked.input}: no image is left for part {asked.part}\n")
        return 0
    files = _outputs(asked, cases)
    predict_one = _predictor(config, weights)
    rows: list[tuple[Any, ...]] = []
    failed = 0
    for number, (case, file) in enumerate(zip(cases, files, strict=True), start=1):
        try:
            predict_one(case, file)
            rows += _scores(case, file, names.label)
        except SpineError as error:
            problem = _naming(case, error)
            if len(cases) == 1:
                raise type(error)(problem) from error
            failed += 1
            sys.stderr.write(f"error: {problem}\n")
        else:
            empty = f": empty, no {names.label} was found" if _is_empty(file) else ""
            sys.stderr.write(f"{number}/{len(cases)} {file}{empty}\n")
    if any(names.label in case.masks for case in cases):
        scores = "scores.csv" if asked.part is None else asked.part.scores
        _report(cases, rows, names.label, SHOWN[config.predicts], files[0].with_name(scores))
    if failed:
        sys.stderr.write(f"{failed} of {len(cases)} images failed, see above\n")
    return int(failed > 0)


def _outputs(asked: argparse.Namespace, cases: Sequence[Case]) -> list[Path]:
    """Where each case's prediction goes; never onto an input or into a run's folder."""
    output = asked.output
    if asked.input.is_dir():
        if output.exists() and not output.is_dir():
            raise ConfigError(f"--output {output} is a file; name a folder, as --input is one")
        if output.resolve() == asked.input.resolve():
            raise ConfigError(f"--output {output} is the folder of the images; name another one")
        files = [output / f"{case.id}.nii.gz" for case in cases]
    else:
        if output.is_dir() or not output.name.endswith(ENDINGS):
            raise ConfigError(
                f"--output {output} must name a .nii.gz or .nii file, as --input does"
            )
        files = [output]
    inputs = [file for case in cases for file in (case.image, *case.masks.values())]
    refuse_inputs_and_runs(output, files, inputs)
    return files


def _predictor(config: Any, weights: Path) -> Callable[[Case, Path], None]:
    """What the task's module predicts a case with; loads its framework."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read by TensorFlow at its first import
    task = task_module(config.entry.partition(":")[0], config.framework)
    with needing(config.framework):  # what is imported when the network is built
        predictor: Callable[[Case, Path], None] = task.predictor(config, weights)
    return predictor


def _is_empty(mask: Path) -> bool:
    return not np.asarray(nib.Nifti1Image.from_filename(mask).dataobj).any()


def _scores(case: Case, predicted: Path, label: str) -> list[tuple[Any, ...]]:
    """The rows of scores.csv of a case; none without a reference mask."""
    from spine_tasks.score import score_mask_files

    if label not in case.masks:
        return []
    scores = score_mask_files(predicted, case.masks[label], label)
    return [(case.subject, case.subject, case.id, *score) for score in scores]


def _report(
    cases: Sequence[Case],
    rows: list[tuple[Any, ...]],
    label: str,
    shown: Mapping[str, str],
    file: Path,
) -> None:
    """Write the file of scores and print the main ones of each volume."""
    from spine_tasks.score import COLUMNS, to_csv

    write_text(file, to_csv(rows))
    case_at, slice_at, metric_at = (COLUMNS.index(name) for name in ("case", "slice", "metric"))
    volumes = {(row[case_at], row[metric_at]): row[-1] for row in rows if row[slice_at] == ""}
    table = Table(title=label, title_justify="left")
    for head in ("image", "reference", *shown.values()):
        table.add_column(head, overflow="fold", justify="right" if head[0].isupper() else "left")
    scored = [case for case in cases if (case.id, "DSC") in volumes]
    for case in scored:
        numbers = [f"{volumes[case.id, metric]:.4f}" for metric in shown]
        table.add_row(escape(case.id), escape(case.masks[label].name), *numbers)
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    console.print(
        f"{len(scored)} of {len(cases)} images scored; all metrics: {file}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _naming(case: Case, error: SpineError) -> str:
    """The error's message, with the image's file where it names none."""
    known = any(str(file) in str(error) for file in (case.image, *case.masks.values()))
    return str(error) if known else f"{case.image}: {error}"
