#!/usr/bin/env python3
"""How long the detectors take to learn from an image and to look at it, beside their peers.

Peers are DETR of Hugging Face's transformers and Faster R-CNN of torchvision, each trained as its
documentation and defaults say, with the same parameters trained and frozen, and the same images,
queries, threads and precision (on a GPU float32 with TF32, then bfloat16). Either side has a
process of its own with the settings it would have there; they are timed in turn. Six minutes.

A training step (gradient, clipping, optimizer) and an evaluation (boxes of all images, on the CPU)
have their batch in memory. Loading is decoding, changing and batching of the pictures; training
with loading is an epoch of both. Start-up, building the network and a first run are not counted.
On a busy machine, where threads wait for each other, one thread and the CPU times tell more.

    python benchmarks/detection.py
    python benchmarks/detection.py --only faster_rcnn --knobs '{"threads": 1}'
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import util
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from detection_peers import torchvision_faster_rcnn, transformers_detr  # noqa: E402
from detection_sides import Setting, ours  # noqa: E402
from side_by_side import Growth, Row, faster, report, say  # noqa: E402

from spine_tasks.cell import Cell  # noqa: E402
from spine_tasks.configs import CordSignalDetr, DiscFasterRcnn  # noqa: E402
from spine_tasks.data import phantom_sagittal  # noqa: E402
from spine_tasks.environment import worker_variables  # noqa: E402

CONFIGS = {"detr": CordSignalDetr, "faster_rcnn": DiscFasterRcnn}
TITLES = {"detr": "DETR", "faster_rcnn": "Faster R-CNN"}
PEERS = {"detr": transformers_detr, "faster_rcnn": torchvision_faster_rcnn}
AGAINST = {"detr": "transformers' DETR", "faster_rcnn": "torchvision's plain loop"}
PACKAGES = {"detr": "transformers", "faster_rcnn": "torchvision"}
OF_ONE = {"detr": {"queries": 20}, "faster_rcnn": {}}  # as the published system
MEASURES = ("training step", "training with loading", "evaluation", "loading")
AIM, AIM_ON_GPU = 1.2, 2.0  # of a training step
ON_CPU = {"image_px": 384, "batch_size": 2}
ON_GPU = {"image_px": 800, "batch_size": 16}
ALWAYS = {
    "init": "backbone",  # freezes what is loaded; here it stays as drawn
    "augment": "flip",
    "channels_last": True,
    "threads": 2,
    "learning_rate": 1e-6,  # so low that each step has the same work
}
GROWING_PX = (96, 304, 960)  # 1, 10 and 100 times the pixels
WHY = {
    "detr": "convolutions grow with the pixels; reading and moving all weights does not",
    "faster_rcnn": "convolutions grow with the pixels; the regions of the second stage do not",
}
GROWING_RUNS = 3
PAUSE_S = 0.2  # threads of the side before have stopped waiting for work by then

Seconds = tuple[float, float]  # that an image takes: by the clock, and of all CPUs


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--only", choices=CONFIGS, help="one detector; default: both")
    flags.add_argument("--runs", type=int, default=5, help="of each measure; default: %(default)s")
    flags.add_argument("--knobs", type=json.loads, default={}, help="of our configs, as JSON")
    flags.add_argument("--loaders", type=int, help="processes; default: 0, on a GPU 4")
    flags.add_argument("--subjects", type=int, help="two pictures each; default: 2, on a GPU 64")
    asked = flags.parse_args()
    gpu = torch.cuda.is_available()
    knobs = ALWAYS | (ON_GPU if gpu else ON_CPU) | asked.knobs
    loaders = asked.loaders if asked.loaders is not None else 4 * gpu
    subjects = asked.subjects or (64 if gpu else 2)
    precisions = ("float32", "bfloat16") if gpu else ("float32",)
    say(f"{json.dumps(knobs)}, {loaders} loader processes, {2 * subjects} pictures")
    with tempfile.TemporaryDirectory(prefix="detection-") as folder:
        names = [f"sub-s{number:02d}" for number in range(1, subjects + 1)]
        phantom_sagittal.ensure(Path(folder), names)
        for name in [asked.only] if asked.only else CONFIGS:
            configs = [
                CONFIGS[name](**{"precision": precision} | knobs | OF_ONE[name])
                for precision in precisions
            ]
            settings = [Setting(config, gpu, Path(folder), loaders) for config in configs]
            for setting in settings:
                report(*compared(name, setting, asked.runs))
            report(growth(name, settings[0]))


def compared(name: str, setting: Setting, runs: int) -> Iterator[Row]:
    """A row for each measure of a detector."""
    config, package = setting.config, PACKAGES[name]
    of = f", an image of {config.image_px} px in {config.precision}"
    whats = {measure: f"{TITLES[name]} {measure}{of}" for measure in MEASURES}
    aims = {"training step": AIM_ON_GPU if setting.gpu else AIM}
    if not util.find_spec(package):
        for measure, what in whats.items():
            note = f"{package} is not installed"
            yield Row(what=what, against=AGAINST[name], aim=aims.get(measure), note=note)
        return
    threads = str(config.threads)
    plain = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with Side("ours", setting, own_variables(setting)) as own, Side(name, setting, plain) as peer:
        if own.counts != peer.counts:
            sys.exit(f"{name}: not the same network: {own.counts} and {peer.counts} parameters")
        for measure, what in whats.items():
            for side in (own, peer):
                side.run(measure)  # fills caches
            pairs = [(own.run(measure), peer.run(measure)) for _ in range(runs)]
            (mine, my_cpu), (theirs, their_cpu) = (
                zip(*side, strict=True) for side in zip(*pairs, strict=True)
            )
            row = faster(what, AGAINST[name], mine, theirs, aims.get(measure))
            of_cpu = median(their_cpu) / median(my_cpu)
            yield replace(row, note=f"{row.note}; in CPU time {of_cpu:.2f} x")


def growth(name: str, setting: Setting) -> Growth:
    """A training step of ours with ever more pixels."""
    seconds = []
    for px in GROWING_PX:
        config = replace(setting.config, image_px=px, batch_size=1)
        larger = replace(setting, config=config)
        with Side("ours", larger, own_variables(larger)) as own:
            own.run("training step")  # fills caches
            seconds.append(median(own.run("training step")[0] for _ in range(GROWING_RUNS)))
    return Growth(
        what=f"{TITLES[name]} training step of one image in {setting.config.precision}",
        work=tuple(f"{px} px" for px in GROWING_PX),
        seconds=tuple(seconds),
        why=WHY[name],
    )


def own_variables(setting: Setting) -> dict[str, str]:
    """The environment of our side, as that of a worker."""
    cell = Cell(job="", config=setting.config, split="", split_sha256="", fold=0, seed=0)
    return worker_variables(cell)


class Side:
    """A process that measures what it is told to.

    Attributes
    ----------
    counts
        The network's parameters, and those of them that are trained.
    """

    def __init__(self, name: str, setting: Setting, variables: dict[str, str]) -> None:
        self.pipe, inner = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=_serve, args=(name, setting, inner))
        before = dict(os.environ)
        os.environ.update(variables)  # some are read before the first line of Python
        self.process.start()
        os.environ.clear()
        os.environ.update(before)
        inner.close()
        self.counts = self.pipe.recv()

    def run(self, measure: str) -> Seconds:
        """Measure once."""
        time.sleep(PAUSE_S)
        self.pipe.send(measure)
        seconds: Seconds = self.pipe.recv()
        return seconds

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_error: object) -> None:
        self.pipe.close()
        self.process.join()


def _serve(name: str, setting: Setting, pipe: Connection) -> None:
    torch.manual_seed(0)
    model, runs = (ours if name == "ours" else PEERS[name])(setting)
    for part, values in model.named_buffers():
        if part.endswith("bn3.weight"):  # as in trained ones: else each block doubles the features
            values.fill_(0.2)
    numbers = [(one.numel(), one.requires_grad) for one in model.parameters()]
    pipe.send((sum(n for n, _ in numbers), sum(n for n, on in numbers if on)))
    while True:
        try:
            run = runs[pipe.recv()]
        except EOFError:  # the other end is closed
            return
        start, cpu = time.perf_counter(), time.process_time()
        images = run()
        if setting.gpu:
            torch.cuda.synchronize()
        taken = time.perf_counter() - start, time.process_time() - cpu
        pipe.send(tuple(one / images for one in taken))


if __name__ == "__main__":
    main()
