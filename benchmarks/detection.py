#!/usr/bin/env python3
"""How many images a second the detectors learn from and look at, beside their peers.

Peers are DETR of Hugging Face's transformers and Faster R-CNN of torchvision, each trained as its
documentation and defaults say, with the same parameters trained and frozen, and the same images,
queries and threads. Either side has a process of its own with the settings it would have there.
They are timed in turn, so that both meet the same load. On a busy machine, where threads wait for
each other, one thread and the ratio of CPU times tell more.

    pip install --target peers --no-deps transformers huggingface_hub tokenizers regex
    PYTHONPATH=peers python benchmarks/detection.py
    python benchmarks/detection.py --only faster_rcnn --knobs '{"threads": 1}'
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from importlib import metadata, util
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from detection_peers import torchvision_faster_rcnn, transformers_detr  # noqa: E402
from detection_sides import Setting, ours  # noqa: E402

from spine_tasks.cell import Cell  # noqa: E402
from spine_tasks.configs import CordSignalDetr, DiscFasterRcnn  # noqa: E402
from spine_tasks.data import phantom_sagittal  # noqa: E402
from spine_tasks.environment import worker_variables  # noqa: E402

CONFIGS = {"detr": CordSignalDetr, "faster_rcnn": DiscFasterRcnn}
PEERS = {"detr": transformers_detr, "faster_rcnn": torchvision_faster_rcnn}
PACKAGES = {"detr": "transformers", "faster_rcnn": "torchvision"}
OF_ONE = {"detr": {"queries": 20}, "faster_rcnn": {}}  # as the published system
ON_CPU = {"image_px": 384, "batch_size": 2, "precision": "float32"}
ON_GPU = {"image_px": 800, "batch_size": 16, "precision": "bfloat16"}
ALWAYS = {
    "init": "backbone",  # freezes what is loaded; here it stays as drawn
    "augment": "flip",
    "channels_last": True,
    "threads": 2,
    "learning_rate": 1e-6,  # so low that each step has the same work
}
PAUSE_S = 0.2  # threads of the side before have stopped waiting for work by then

Seconds = tuple[float, float]  # that an image takes: by the clock, and of all CPUs


def main() -> None:
    """Measure and print."""
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
    packages = ("torch", "torchvision", "transformers", "timm")
    versions = [f"{name} {metadata.version(name)}" for name in packages if util.find_spec(name)]
    say(f"{_machine()}; Python {platform.python_version()}, {', '.join(versions)}")
    say(f"{json.dumps(knobs)}, {loaders} loader processes, {2 * subjects} pictures")
    say(f"load {os.getloadavg()[0]:.1f} before\n")
    say("| | ours, images/s | peer, images/s | ratio (range) | of CPU time |")
    say("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="detection-") as folder:
        names = [f"sub-s{number:02d}" for number in range(1, subjects + 1)]
        phantom_sagittal.ensure(Path(folder), names)
        for name in [asked.only] if asked.only else CONFIGS:
            config = CONFIGS[name](**knobs | OF_ONE[name])
            compare(name, Setting(config, gpu, Path(folder), loaders), asked.runs)
    say(f"\nload {os.getloadavg()[0]:.1f} after")


def compare(name: str, setting: Setting, runs: int) -> None:
    """Print a line for each measure of a detector."""
    package = PACKAGES[name]
    if not util.find_spec(package):
        say(f"| {name}: {package} is not installed; {Path(__file__).name} says how | | | | |")
        return
    cell = Cell(job="", config=setting.config, split="", split_sha256="", fold=0, seed=0)
    threads = str(setting.config.threads)
    plain = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with Side("ours", setting, worker_variables(cell)) as own, Side(name, setting, plain) as peer:
        if own.counts != peer.counts:
            sys.exit(f"{name}: not the same network: {own.counts} and {peer.counts} parameters")
        every, trained = own.counts
        say(f"| {name}, {every:,} parameters, {trained:,} trained; {package} | | | | |")
        for measure in own.measures:
            for side in (own, peer):
                side.run(measure)  # fills caches
            pairs = [(own.run(measure), peer.run(measure)) for _ in range(runs)]
            say(f"| {measure} | {_row(pairs)} |")


def _row(pairs: list[tuple[Seconds, Seconds]]) -> str:
    (own, own_cpu), (peer, peer_cpu) = (
        [median(kind) for kind in zip(*of_side, strict=True)]
        for of_side in zip(*pairs, strict=True)
    )
    ratios = [of_peer[0] / of_own[0] for of_own, of_peer in pairs]
    ratio = f"{peer / own:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"{1 / own:.2f} | {1 / peer:.2f} | {ratio} | {peer_cpu / own_cpu:.2f}"


class Side:
    """A process that measures what it is told to.

    Attributes
    ----------
    counts
        The network's parameters, and those of them that are trained.
    measures
        What can be measured.
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
        self.counts, self.measures = self.pipe.recv()

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
    pipe.send(((sum(n for n, _ in numbers), sum(n for n, on in numbers if on)), list(runs)))
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


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = f"{os.cpu_count()} cores of {names[0] if names else platform.processor()}"
    return f"{torch.cuda.get_device_name()}, {cpu}" if torch.cuda.is_available() else cpu


if __name__ == "__main__":
    main()
