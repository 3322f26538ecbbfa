"""Export a run's detector as one file that runs without this project."""

import argparse
import sys
from pathlib import Path

from spine_tasks.command import parser, run_command
from spine_tasks.errors import ConfigError, RunError
from spine_tasks.predict.pictures import plain_case
from spine_tasks.predict.places import refuse_inputs_and_runs, task_module
from spine_tasks.predict.thresholds import thresholds_of
from spine_tasks.run import Run

PACKAGE = "spine_tasks.tasks.detection"
ENDING = ".pt2"


def main() -> None:
    """The command line of jobs/export_model.py."""
    run_command(lambda: export_model(_parser().parse_args()))


def _parser() -> argparse.ArgumentParser:
    flags = parser(
        "Export the detector of a complete run as a program of torch.export, for pictures of one\n"
        "shape. It is loaded again and checked to find the same boxes. How to call it stands in\n"
        "the file, as README.md and about.json: `unzip -p FILE.pt2 '*/README.md'`.",
        "python jobs/export_model.py --run results/discs/CELL --like PICTURE.png \\\n"
        "      --output discs.pt2",
    )
    flags.add_argument("--run", type=Path, required=True, metavar="DIR",
        help="the folder of a complete run, results/<name>/<cell id>")  # fmt: skip
    flags.add_argument("--like", type=Path, required=True, metavar="PICTURE",
        help="a picture with the shape of those it will be given; it is checked on this one "
        "too")  # fmt: skip
    flags.add_argument("--output", type=Path, required=True, metavar="FILE",
        help="a .pt2 file; what is there is replaced")  # fmt: skip
    return flags


def export_model(asked: argparse.Namespace) -> None:
    """Write the program and say for what it is.

    Raises
    ------
    SpineError
        The run is not complete or no detector's; the picture cannot be read; the output is
        wrong; or no program that finds the same boxes can be made.
    """
    if asked.output.suffix != ENDING:
        raise ConfigError(f"--output {asked.output} must end in {ENDING}")
    refuse_inputs_and_runs(asked.output, [asked.output], [asked.like])
    run = Run(asked.run.resolve())
    config = run.cell().config
    if config.predicts != "boxes":
        raise ConfigError(f"{run.folder}: finds {config.predicts}; only detectors are exported")
    if not run.complete:
        raise RunError(f"{run.folder} is not complete: it has no done.json; launch its grid again")
    case = plain_case(asked.like, 1)
    thresholds = thresholds_of([run.folder])

    exporting = task_module(f"{PACKAGE}.export", "torch")
    predicting = task_module(f"{PACKAGE}.predict", "torch")
    predictor = predicting.predictor([(config, run.folder)])
    picture = task_module(f"{PACKAGE}.inputs", "torch").read_case(case, config)
    about = {
        "run": run.folder.name,
        "categories": list(predictor.categories),
        "category_ids": list(predictor.category_ids),
        "thresholds": thresholds,
    }
    [(model, _)] = predictor.models
    exporting.export(model, config, picture, about, asked.output)
    sys.stdout.write(
        f"{asked.output}: for images of {picture.shape[1]} x {picture.shape[2]} px (height x "
        f"width), as {asked.like.name} becomes; the same boxes were found in it, in its mirror "
        "image and in made-up ones\n"
    )
