"""Predict: images of one's own by published weights or complete runs, scored by references."""

import argparse
from pathlib import Path
from typing import Any

from spine_tasks.command import no_repeats, parser, run_command, setting
from spine_tasks.configs import MODELS, knobs_of, make_config
from spine_tasks.errors import ConfigError, RunError
from spine_tasks.predict.part import part
from spine_tasks.run import Run

# Flag -> the kinds of prediction that it is for; what else is for some, these refuse themselves.
ONLY_FOR = {"places": ("grades",), "part": ("masks", "cords")}


def main() -> None:
    """The command line of jobs/predict.py."""
    run_command(lambda: predict(_parser().parse_args()))


def predict(asked: argparse.Namespace) -> int:
    """Predict every image, score those with a reference; return the exit code.

    The code is 1 when one of several images failed; it is named, and the others are predicted.

    Raises
    ------
    SpineError
        Arguments are wrong or files are missing, which is said before a framework is loaded; the
        weights do not fit; or the only image failed.
    """
    knobs = no_repeats(asked.set, "--set")
    if asked.run is None:
        models = [_of_weights(asked, knobs)]
    else:
        models = [_of_run(folder, knobs, asked.task) for folder in asked.run]
    kinds = {config.predicts for config, _ in models}
    if "nothing" in kinds:
        raise ConfigError(f"{models[0][1]}: of a job that predicts nothing; {', '.join(MODELS)} do")
    for flag, fitting in ONLY_FOR.items():
        if getattr(asked, flag) is not None and not kinds <= set(fitting):
            raise ConfigError(f"--{flag} is for {' and '.join(fitting)}")
    if kinds == {"boxes"}:
        from spine_tasks.predict.boxes import predict_boxes

        return predict_boxes(asked, models)
    if kinds == {"grades"}:
        from spine_tasks.predict.grades import predict_grades

        return predict_grades(asked, models)
    if len(models) > 1:
        raise ConfigError("several --run are for boxes and grades; give one for masks and cords")
    if asked.score is not None:
        raise ConfigError("--score is for boxes; for masks say --set threshold=...")
    from spine_tasks.predict.masks import predict_masks

    return predict_masks(asked, *models[0])


def _parser() -> argparse.ArgumentParser:
    flags = parser(
        "Predict an image, or all images of a folder, by published weights or a complete run.\n"
        "Masks and cords: where a mask lies beside an image, the prediction is scored against it\n"
        "in scores.csv beside the output. Boxes: the output folder gets boxes.json with all\n"
        "boxes, images.json with the images and categories they are of, and drawn/ with pictures\n"
        "of the sure ones. Grades: it gets grades.csv, a row a place, and submission.csv in the\n"
        "format of the RSNA 2024 challenge.",
        "python jobs/predict.py --task gm_segmentation --weights challenge \\\n"
        "      --input IMG.nii.gz --output SEG.nii.gz\n"
        "  python jobs/predict.py --run results/discs/CELL --input PICTURES --output BOXES\n"
        "  python jobs/predict.py --run results/cords/CELL --input IMAGES --output SEGS \\\n"
        "      --part $SLURM_ARRAY_TASK_ID/8     # in a script for sbatch --array=1-8",
    )
    add = flags.add_argument
    start = flags.add_mutually_exclusive_group(required=True)
    start.add_argument("--run", type=Path, action="append", metavar="DIR",
        help="the folder of a complete run, results/<name>/<cell id>; its knobs hold; of boxes "
        "and grades several may be given, which are fused")  # fmt: skip
    start.add_argument("--weights", metavar="NAME",
        help="known weights, or a file; with --task; for masks alone")  # fmt: skip
    add("--task", metavar="NAME", help=f"{', '.join(MODELS)}; a run knows its own")
    add("--input", type=Path, required=True, metavar="PATH",
        help="an image, or a folder of them: .nii or .nii.gz for masks and cords; PNG, JPEG, TIFF, "
        "DICOM and the like for boxes; for grades a folder with their tables, or of a "
        "study")  # fmt: skip
    add("--output", type=Path, required=True, metavar="PATH",
        help="a folder, or a mask file for one mask; what is there is replaced")  # fmt: skip
    add("--part", type=part, metavar="K/N",
        help="of a folder of masks or cords: predict every N-th image from the K-th on, K from 1 "
        "to N, into the same folder as the other parts; scores are in scores_KofN.csv")  # fmt: skip
    add("--places", type=Path, metavar="FILE",
        help="for grades: where they are, as train_label_coordinates.csv (default: the tables in "
        "the input folder)")  # fmt: skip
    truth = flags.add_mutually_exclusive_group()
    truth.add_argument("--reference", type=Path, metavar="FILE",
        help="score against: a mask of the one image, or boxes of all images as COCO "
        "json")  # fmt: skip
    truth.add_argument("--mask-suffix", metavar="SUFFIX",
        help="score against IMG_SUFFIX.nii.gz (default: the knob label_suffix, then its first "
        "word: gmseg-manual, gmseg; for cords seg-manual, seg)")  # fmt: skip
    add("--score", type=float, metavar="NUMBER",
        help="boxes at least as sure are drawn and counted (default: the thresholds of each "
        "category that the run's validation part chose)")  # fmt: skip
    add("--set", action="append", default=[], type=setting, metavar="KNOB=VALUE",
        help="a knob of prediction, such as threshold, tta, crop or merge_iou; may be "
        "repeated")  # fmt: skip
    return flags


def _of_weights(asked: argparse.Namespace, knobs: dict[str, Any]) -> tuple[Any, Path]:
    """The config of a task, and a file of weights that fit it."""
    # Slow to import, so left until the command line is known to be right.
    from spine_tasks.weights import KNOWN, find

    if asked.task is None:
        raise ConfigError(f"--weights needs --task, one of: {', '.join(MODELS)}")
    known = KNOWN.get(asked.weights)
    if known is not None and known.job != asked.task:
        fitting = [name for name, one in KNOWN.items() if one.job == asked.task]
        raise ConfigError(
            f"{asked.weights} cannot predict for {asked.task}; known weights that can: "
            f"{', '.join(fitting) or 'none'}; others are a start for training, by "
            "--set init=... --set weights=..."
        )
    config = make_config(asked.task, (known.fits if known else {}) | knobs)
    file = find(asked.weights)
    if (file.parent / "cell.json").exists():
        raise ConfigError(
            f"{file}: weights of a run, which were trained with the run's own knobs; "
            f"give --run {file.parent} instead of --task and --weights"
        )
    if config.predicts in ("boxes", "grades", "cords"):
        raise ConfigError(
            f"{file}: {config.predicts} are predicted by complete runs, which know their names and "
            "knobs; give --run instead of --weights"
        )
    return config, file


def _of_run(folder: Path, knobs: dict[str, Any], task: str | None) -> tuple[Any, Path]:
    """The config of a complete run, and its folder."""
    run = Run(folder.resolve())
    cell = run.cell()
    if task not in (None, cell.job):
        raise ConfigError(f"--task {task}: {run.folder.name} is a run of {cell.job}")
    if not run.complete:
        raise RunError(
            f"{run.folder} is not complete: it has no done.json; launch its grid again, and see "
            "jobs/status.py, then predict"
        )
    return make_config(cell.job, knobs_of(cell.config) | knobs), run.folder
