"""The grey-matter task's knobs do what they say, on small made-up data."""

import json

import numpy as np
import pytest
from making import cell, environment, python, run_folder, small_data

pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra `gm`)")

SMALL = {
    "filters": 2,
    "image_px": 24,
    "spacing_mm": 0.5,
    "epochs": 1,
    "threads": 1,
    "threshold": 0.5,
    "dropout": 0.0,
}

TRAIN_ALL = """
import sys
from pathlib import Path
from spine_tasks.run import Run
from spine_tasks.tasks.gm import train

for folder in map(Path, sys.argv[1:]):
    run = Run(folder)
    train(run.cell(), run)
    run.finish(commit="", code_sha256="")
"""

KERNELS = """
import sys, h5py, json
with h5py.File(sys.argv[1]) as file:
    found = []
    file.visititems(lambda name, item: found.append(item[()].tolist())
                    if getattr(item, "ndim", 0) == 4 else None)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Cells of several knobs, all trained in one process for its slow start."""
    results = tmp_path_factory.mktemp("gm")
    data = {"data": str(small_data(results / "bids", "gm_phantom"))}
    base = data | SMALL
    scratch = cell(base)
    # A learning rate of almost nothing, so that the weights stay those it started from.
    still = {"init": "pretrained", "learning_rate": 1e-12, "keep": "last"}
    cells = {
        "scratch": scratch,
        "pretrained": cell(base | still, needs=(scratch.id,)),
        "published": cell(
            base
            | {"normalise": "slice", "spacing_mm": None, "keep": "last", "augment": True}
            | {"augment_validation": True, "precision": "mixed_bfloat16"}
        ),
        "machine": cell(base | {"precision": "mixed_float16", "xla": True, "tta": 2}),
    }
    runs = {name: run_folder(results, one) for name, one in cells.items()}
    answer = python(TRAIN_ALL, *(run.folder for run in runs.values()), env=environment())
    assert answer.returncode == 0, answer.stderr[-3000:]
    return runs


@pytest.mark.parametrize("name", ["scratch", "pretrained", "published", "machine"])
def test_every_way_of_training_predicts_every_case(trained, name):
    assert len(list(trained[name].predictions.iterdir())) == 12
    history = trained[name].history()
    assert len(history) == 1
    assert -1 <= history[0]["loss"] < 0
    assert 0 < history[0]["val_dice"] <= 1


def test_a_pretrained_cell_starts_from_the_weights_of_the_cell_that_it_needs(trained):
    first, after = (
        json.loads(python(KERNELS, trained[name].folder / "model.weights.h5").stdout)
        for name in ("scratch", "pretrained")
    )
    assert len(first) == len(after) == 16
    for one, other in zip(first, after, strict=True):
        assert np.allclose(one, other, atol=1e-9)


REFUSED = """
import sys
from pathlib import Path
from spine_tasks.configs import make_config
from spine_tasks.errors import SpineError
from spine_tasks.run import Run
from spine_tasks.tasks.gm import build, dice_loss, load_weights, train, use_this_machine

run = Run(Path(sys.argv[1]))
for attempt in (
    lambda: use_this_machine(run.cell().config, gpus=1, seed=0),  # first: TensorFlow is not up
    lambda: train(run.cell(), run),
    lambda: load_weights(build(make_config("gm_segmentation", {"filters": 4})), Path(sys.argv[2])),
):
    try:
        attempt()
    except SpineError as error:
        print(type(error).__name__, error)
print(float(dice_loss([[1.0, 0.0]], [[0.5, 0.5]])))
"""


def test_what_cannot_be_started_from_or_run_on_is_refused(trained, tmp_path):
    base = {"data": trained["scratch"].cell().config.data} | SMALL
    alone = run_folder(tmp_path, cell(base | {"init": "pretrained"}))
    weights = trained["scratch"].folder / "model.weights.h5"
    no_such_gpu = environment(CUDA_VISIBLE_DEVICES="99")
    answer = python(REFUSED, alone.folder, weights, env=no_such_gpu)
    assert answer.returncode == 0, answer.stderr[-2000:]
    gpu, start, size, loss = answer.stdout.strip().split("\n")
    assert size.startswith("WeightsError")
    assert "same `filters`" in size
    assert gpu.startswith("ConfigError this process was given GPU 99")
    assert start.startswith("ConfigError init=pretrained needs weights")
    assert float(loss) == pytest.approx(-(2 * 0.5 + 1) / (1 + 1 + 1))
