"""Predict masks: volumes of one's own, scored where reference masks are."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spine_tasks.command import listed
from spine_tasks.data.bids import ENDINGS, STRUCTURES, Case, label_of, stem
from spine_tasks.errors import ConfigError, DataError, SpineError
from spine_tasks.files import write_text
from spine_tasks.predict.places import refuse_inputs_and_runs, task_module

SHOWN = {"DSC": "DSC", "MSD": "MSD (mm)", "HSD": "HSD (mm)"}  # of a volume; scores.csv holds all


def predict_masks(asked: argparse.Namespace, config: Any, weights: Path) -> int:
    """Predict every volume, score those with a reference mask; return the exit code.

    Raises
    ------
    SpineError
        As `spine_tasks.predict.predict`.
    """
    cases = _cases(asked, config)
    files = _outputs(asked, cases)
    predict_one = _predictor(config, weights)
    rows: list[tuple[Any, ...]] = []
    failed = 0
    for number, (case, file) in enumerate(zip(cases, files, strict=True), start=1):
        try:
            predict_one(case, file)
            rows += _scores(case, file, label_of(config.label_suffix))
        except SpineError as error:
            problem = _naming(case, error)
            if len(cases) == 1:
                raise type(error)(problem) from error
            failed += 1
            sys.stderr.write(f"error: {problem}\n")
        else:
            sys.stderr.write(f"{number}/{len(cases)} {file}\n")
    if any(label_of(config.label_suffix) in case.masks for case in cases):
        _report(cases, rows, label_of(config.label_suffix), files[0].with_name("scores.csv"))
    if failed:
        sys.stderr.write(f"{failed} of {len(cases)} images failed, see above\n")
    return int(failed > 0)


def _cases(asked: argparse.Namespace, config: Any) -> list[Case]:
    """The images asked for, each with its reference mask and what else the config needs."""
    word = config.label_suffix.partition("-")[0]
    suffixes = [asked.mask_suffix] if asked.mask_suffix else [config.label_suffix, word]
    if asked.input.is_dir():
        if asked.reference:
            raise ConfigError(
                f"--reference is for one image, but {asked.input} is a folder; put the masks "
                "beside their images and name them by --mask-suffix"
            )
        images = _images(asked.input, [*suffixes, config.label_suffix, word, config.cord_suffix])
    else:
        images = [asked.input]
    for file in (*images, *filter(None, [asked.reference])):
        if not file.is_file():
            raise DataError(f"{file}: no such file; correct the path, or fetch the data")
    references = {image: asked.reference or _beside(image, suffixes) for image in images}
    if asked.mask_suffix and not any(references.values()):
        raise DataError(
            f"{asked.input}: no mask ..._{asked.mask_suffix}.nii.gz beside an image; correct "
            "--mask-suffix, or leave it out to predict without scores"
        )
    cords = {image: _beside(image, [config.cord_suffix]) for image in images}
    if config.crop == "cord" and (without := [i.name for i in images if cords[i] is None]):
        raise DataError(
            f"{asked.input}: crop=cord needs a cord mask ..._{config.cord_suffix}.nii.gz beside "
            f"each image; {listed(without)} has none; add it, or --set crop=centre"
        )
    return [
        Case(
            id=stem(image),
            subject=stem(image),
            image=image,
            masks=(
                {label_of(config.label_suffix): reference}
                if (reference := references[image])
                else {}
            )
            | ({"cord": cord} if config.crop == "cord" and (cord := cords[image]) else {}),
        )
        for image in images
    ]


def _images(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The images of a flat folder: NIfTI files that are no mask by their name."""
    files = sorted(
        file
        for file in folder.iterdir()
        if file.name.endswith(ENDINGS) and not file.name.startswith(".")
    )
    images = [file for file in files if not _is_mask(file, suffixes)]
    if not images:
        raise DataError(
            f"{folder}: no image in it, {len(files)} masks by their names; give a folder that "
            "holds .nii or .nii.gz images directly"
        )
    if masks := [file.name for file in files if file not in images]:
        sys.stderr.write(f"not predicted, as masks by their names: {listed(masks)}\n")
    stems = [stem(image) for image in images]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise DataError(f"{folder}: both .nii and .nii.gz of {listed(twice)}; keep one of each")
    return images


def _is_mask(file: Path, suffixes: Sequence[str]) -> bool:
    words = [word.partition("-")[0] for word in stem(file).split("_")[1:]]
    by_suffix = any(stem(file).endswith(f"_{suffix}") for suffix in suffixes)
    return by_suffix or any(word in STRUCTURES for word in words)


def _beside(image: Path, suffixes: Sequence[str]) -> Path | None:
    """The first mask of an image that there is, in its own folder."""
    names = [f"{stem(image)}_{suffix}{ending}" for suffix in suffixes for ending in ENDINGS]
    return next((image.with_name(name) for name in names if image.with_name(name).exists()), None)


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
    predictor: Callable[[Case, Path], None] = task.predictor(config, weights)
    return predictor


def _scores(case: Case, predicted: Path, label: str) -> list[tuple[Any, ...]]:
    """The rows of scores.csv of a case; none without a reference mask."""
    from spine_tasks.score import score_mask_files

    if label not in case.masks:
        return []
    scores = score_mask_files(predicted, case.masks[label], label)
    return [(case.subject, case.subject, case.id, *score) for score in scores]


def _report(cases: Sequence[Case], rows: list[tuple[Any, ...]], label: str, file: Path) -> None:
    """Write scores.csv and print the main scores of each volume."""
    from spine_tasks.score import COLUMNS, to_csv

    write_text(file, to_csv(rows))
    case_at, slice_at, metric_at = (COLUMNS.index(name) for name in ("case", "slice", "metric"))
    volumes = {(row[case_at], row[metric_at]): row[-1] for row in rows if row[slice_at] == ""}
    table = Table(title=label, title_justify="left")
    for head in ("image", "reference", *SHOWN.values()):
        table.add_column(head, overflow="fold", justify="right" if head[0].isupper() else "left")
    scored = [case for case in cases if (case.id, "DSC") in volumes]
    for case in scored:
        numbers = [f"{volumes[case.id, metric]:.4f}" for metric in SHOWN]
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
