"""A tiny Faster R-CNN trained by a real worker on the sagittal phantom, for tests."""

import functools
import os
import subprocess
import sys

from making import environment, run_folder

from spine_tasks.cell import Cell
from spine_tasks.configs import make_config
from spine_tasks.environment import worker_variables
from spine_tasks.splits import load_split

KNOBS = {
    "backbone": "test_resnet",  # timm's smallest
    "image_px": 96,
    "pyramid_channels": 16,
    "head_features": 32,
    "anchors_px": [8, 16, 32, 64, 96],
    "augment": "none",
    "epochs": 1,
    "batch_size": 8,
    "threads": 1,
    "score": 0.01,  # after one epoch nothing is sure
    "boxes": 40,
}
DETR_KNOBS = {
    "backbone": "test_resnet",
    "image_px": 96,
    "queries": 8,
    "hidden": 16,
    "heads": 2,
    "feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "augment": "none",
    "threads": 1,
}


PARTS = {"train": ("sub-s01", "sub-s02", "sub-s03"), "val": ("sub-s04",), "test": ("sub-s05",)}


def small_split(folder):
    """A split of five subjects of the phantom, two pictures each."""
    file = folder / "five.csv"
    rows = [f"{name},{name},{part},0" for part, names in PARTS.items() for name in names]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["subject,person,part,fold", *rows, ""]))
    return str(file)


def box_cell(folder, knobs=None, job="disc_faster_rcnn"):
    split = small_split(folder)
    digest = load_split(split).digest
    config = make_config(job, (KNOBS if job == "disc_faster_rcnn" else DETR_KNOBS) | (knobs or {}))
    return Cell(job=job, config=config, split=split, split_sha256=digest, fold=0, seed=0)


@functools.cache
def trained_run(folder):
    """A complete and scored run in a folder of the session, trained once; not to be changed."""
    results = folder / "detector"
    return worked(run_folder(results, box_cell(results)))


def worked(run):
    """A run after a worker has completed it."""
    variables = worker_variables(run.cell()) | {"CUDA_VISIBLE_DEVICES": ""}
    worker = subprocess.run(
        [sys.executable, "-m", "spine_tasks.worker", run.folder],
        capture_output=True,
        text=True,
        check=False,
        env=environment(**variables),
        timeout=900,
    )
    assert worker.returncode == os.EX_OK, worker.stdout + worker.stderr
    return run
