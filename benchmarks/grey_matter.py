#!/usr/bin/env python3
"""Grey-matter training, its input and its prediction, beside the published ways.

Each side has a process of its own, with the settings that it would have there, and they run in
turn. Networks, weights, slices, threads and float32 are the same.

Training: our step on a batch in memory, with the settings of a worker (fixed sums among them),
against the published network of plain Keras layers, `compile` and `fit` on arrays in memory. What
is left out: starting, tracing, validation, checkpoints. The floor is the time that three times the
multiply-adds of the forward pass would take at the speed of a large matrix product.

Input: the same step fed by our pipeline, which augments every slice anew, against the batch in
memory; and the memory that this process gains by our pipeline, once an epoch was read, against
that of the published 17 copies of every slice.

Prediction: an image in memory to its mask on the image's own voxels; against the steps of the
Spinal Cord Toolbox around Keras's `predict`, and against the same network in onnxruntime.
SPINE_TEST_DATA may name a folder with a real image and the official weights, as for the tests;
else image and weights are made up.

    python benchmarks/grey_matter.py
    SPINE_TEST_DATA=data python benchmarks/grey_matter.py --runs 3
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from grey_matter_peers import (  # noqa: E402
    Copies,
    KerasPrediction,
    KerasTraining,
    OnnxPrediction,
)
from grey_matter_sides import (  # noqa: E402
    MATRIX,
    OurInput,
    OurPrediction,
    OurTraining,
    Setting,
)
from side_by_side import Growth, Row, faster, report, times_the  # noqa: E402

from spine_tasks.cell import Cell  # noqa: E402
from spine_tasks.configs import GmSegmentation  # noqa: E402
from spine_tasks.data.slices import Mask  # noqa: E402
from spine_tasks.environment import gpu_names, worker_variables  # noqa: E402

STEPS = 4  # of a run; fewer would weigh the start of an epoch too much
PAUSE_S = 0.2  # threads of the side before have stopped waiting for work by then
PIXELS = (64, 200, 632)
SLICES = 11  # of the image
PUBLISHED = 574  # slices of the published training part
INPUTS = (10, 100, 1000)  # slices of an epoch
IMAGES = (1, 10, 100)  # slices of an image


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--runs", type=int, default=5, help="of each; default: %(default)s")
    runs = flags.parse_args().runs
    data = os.environ.get("SPINE_TEST_DATA")
    # Weights that are made up are seldom as sure as the official ones.
    config = GmSegmentation(augment=True, threshold=0.999 if data else 0.5)
    setting = Setting(config, bool(gpu_names()), Path(data) if data else None)
    training(setting, runs)
    memory(setting)
    prediction(setting, runs)


def training(setting: Setting, runs: int) -> None:
    """Steps, their floor and their input."""
    size, px = setting.config.batch_size, setting.config.image_px
    what = f"grey-matter training step, {size} slices of {px} px"
    with Side(OurTraining, setting) as own, Side(KerasTraining, setting) as peer:
        if own.ask("parameters") != peer.ask("parameters"):
            sys.exit("not the same network")
        ways = {
            "ours": lambda: own.seconds("train", STEPS, size, px) / STEPS,
            "keras": lambda: peer.seconds("train", STEPS) / STEPS,
            "matrix": lambda: own.seconds("multiply"),
        }
        taken = in_turn(ways, runs)
        # By themselves and more often: a few percent are to be told.
        alike = {"fed": lambda: own.seconds("train_fed", STEPS) / STEPS, "ours": ways["ours"]}
        fed = in_turn(alike, 2 * runs)
        operations = own.ask("operations")
        grown = [own.median("train", 1, 1, side) for side in PIXELS]
        epochs = [own.median("read", slices) for slices in INPUTS]
    step = taken["ours"]
    floor = [one * operations / (2 * MATRIX**3) for one in taken["matrix"]]
    share = median(least / one for least, one in zip(floor, step, strict=True))
    report(
        noted(
            faster(what, "plain Keras, `fit`", step, taken["keras"], 3 if setting.gpu else 1),
            f"{size / median(step):.2f} images/s against {size / median(taken['keras']):.2f}",
        ),
        noted(
            times_the(what, "its multiply-adds in a matrix product", step, floor, None),
            f"{operations / median(step) / 1e9:.0f} GFLOP/s, {share:.0%} of the peak",
        ),
        Growth(
            what="grey-matter training step, 1 slice",
            work=tuple(f"{side} px" for side in PIXELS),
            seconds=tuple(grown),
            why="by pixels",
        ),
        times_the(
            "grey-matter training step with its input",
            "on a batch in memory",
            fed["fed"],
            fed["ours"],
            1.05,
        ),
        Growth(
            what="grey-matter input alone, an epoch",
            work=tuple(f"{slices} slices" for slices in INPUTS),
            seconds=tuple(epochs),
            why="a start of an epoch, then by slices",
        ),
    )


def memory(setting: Setting) -> None:
    """What is kept of the published number of slices."""
    with Side(OurInput, setting) as own, Side(Copies, setting) as peer:
        ours, theirs = own.ask("keep", PUBLISHED), peer.ask("keep", PUBLISHED)
    report(
        Row(
            what=f"grey-matter input, memory for {PUBLISHED} slices of 200 px",
            against="17 copies of each",
            ratios=(theirs / ours,),
            aim=10,
            words="less resident memory",
            note=f"{ours / 1e6:.0f} MB against {theirs / 1e6:.0f} MB",
        )
    )


def prediction(setting: Setting, runs: int) -> None:
    """From image to mask."""
    what = f"grey-matter mask of an image of {SLICES} slices"
    with (
        Side(OurPrediction, setting) as own,
        Side(KerasPrediction, setting) as peer,
        Side(OnnxPrediction, setting) as onnx,
    ):
        for side in (own, peer, onnx):
            side.ask("take", SLICES)
        ways = {
            "ours": lambda: own.seconds("segment"),
            "keras": lambda: peer.seconds("segment"),
            "onnx": lambda: onnx.seconds("segment"),
        }
        taken = in_turn(ways, runs)
        mask, *others = (side.ask("segment") for side in (own, peer, onnx))
        grown = []
        for slices in IMAGES:
            own.ask("take", slices)
            grown.append(own.median("segment"))
    names = ("Spinal Cord Toolbox's steps, Keras's `predict`", "onnxruntime")
    for name, aim, key, other in zip(names, (1.5, None), ("keras", "onnx"), others, strict=True):
        row = faster(what, name, taken["ours"], taken[key], aim)
        report(noted(row, same(mask, other)))
    report(
        Growth(
            what="grey-matter mask of an image",
            work=tuple(f"{slices} slice{'s' * (slices > 1)}" for slices in IMAGES),
            seconds=tuple(grown),
            why="by slices",
        )
    )


def in_turn(ways: dict[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Seconds that each way gives, one after the other again and again; the first do not count."""
    rounds = [{name: way() for name, way in ways.items()} for _ in range(1 + runs)]
    return {name: [one[name] for one in rounds[1:]] for name in ways}


def same(mask: Mask, other: Mask) -> str:
    """In how many voxels two masks differ."""
    return f"{int((mask ^ other).sum())} of {int(mask.sum())} voxels of the mask differ"


def noted(row: Row, more: str) -> Row:
    """A row with more in its note."""
    return replace(row, note=f"{row.note}; {more}")


class Side:
    """A process that measures what it is told to."""

    def __init__(self, kind: type, setting: Setting) -> None:
        self.pipe, inner = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_serve, args=(kind, setting, inner))
        before = dict(os.environ)
        os.environ.update(_variables(kind, setting))  # read before the first line of Python
        self.process.start()
        os.environ.clear()
        os.environ.update(before)
        inner.close()
        self.pipe.recv()

    def seconds(self, name: str, *arguments: Any) -> float:
        """Of one call."""
        time.sleep(PAUSE_S)
        self.pipe.send((name, arguments))
        taken: float = self.pipe.recv()[0]
        return taken

    def median(self, name: str, *arguments: Any) -> float:
        """Of three calls, after one that fills caches."""
        return median([self.seconds(name, *arguments) for _ in range(4)][1:])

    def ask(self, name: str, *arguments: Any) -> Any:
        """What a call answers."""
        self.pipe.send((name, arguments))
        return self.pipe.recv()[1]

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_error: object) -> None:
        self.pipe.close()
        self.process.join()


def _variables(kind: type, setting: Setting) -> dict[str, str]:
    cell = Cell(job="", config=setting.config, split="", split_sha256="", fold=0, seed=0)
    if kind in (OurTraining, OurPrediction):
        return worker_variables(cell)
    # A worker's settings keep freed memory for the next step: it would be taken for memory in use.
    return {"OMP_NUM_THREADS": str(setting.config.threads)}


def _serve(kind: type, setting: Setting, pipe: Connection) -> None:
    side = kind(setting)
    pipe.send(None)
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:  # the other end is closed
            return
        start = time.perf_counter()
        answer = getattr(side, name)(*arguments)
        pipe.send((time.perf_counter() - start, answer))


if __name__ == "__main__":
    main()
