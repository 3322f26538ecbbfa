#!/usr/bin/env python3
"""How many places a second graders learn from, beside the loop of the published study.

That loop [1]_, written here from its description, reads each slice anew in every epoch, sends it
through the whole backbone, frozen or not, and learns with AdamW. Ours keeps the maps of what is
frozen. Both have the same backbone, head, images of 224 px, batch and threads, and are timed in
turn; the first epoch of ours, which computes the maps, is counted among the epochs that the study
trained.

    python benchmarks/grading.py
    python benchmarks/grading.py --backbone vit_base_patch16_224 --blocks 0

.. [1] github.com/Shijia1997/RSNA_spinal_stenosis_prediction
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision.transforms.v2 import functional  # noqa: E402

from spine_tasks.batches_torch import Batches  # noqa: E402
from spine_tasks.cell import Cell  # noqa: E402
from spine_tasks.configs import StenosisGrading  # noqa: E402
from spine_tasks.data import phantom_lumbar  # noqa: E402
from spine_tasks.data.grade_cases import GradeCase, GradeData  # noqa: E402
from spine_tasks.data.grades import read_grades  # noqa: E402
from spine_tasks.data.pictures import read_picture  # noqa: E402
from spine_tasks.loop_torch import Learner, Plan  # noqa: E402
from spine_tasks.tasks.grading.maps import keep_maps  # noqa: E402
from spine_tasks.tasks.grading.places import Places  # noqa: E402
from spine_tasks.tasks.grading.train import build, optimizer  # noqa: E402

CONDITION = "spinal_canal_stenosis"
EPOCHS = 30  # of the published study
Epochs = Iterator[Callable[[], None]]  # each trains one epoch


def main() -> None:
    """Measure and print."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--backbone", default="resnet50", help="default: %(default)s")
    flags.add_argument(
        "--blocks", type=int, nargs="+", default=[0, 1], help="of the backbone that learn"
    )
    flags.add_argument("--studies", type=int, default=13, help="of 5 places; default: %(default)s")
    flags.add_argument("--epochs", type=int, default=3, help="that are timed")
    flags.add_argument("--threads", type=int, default=2)
    asked = flags.parse_args()
    torch.set_num_threads(asked.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("torch", "timm"))
    say(f"{device}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    say(f"{asked.backbone}, {5 * asked.studies} places, load {os.getloadavg()[0]:.1f} before\n")
    say(
        "| blocks | ours, first epoch | ours, places/s | study, places/s | of an epoch | of 30 | "
        "kept on disk, MB | ours, memory GB | study, memory GB |"
    )
    say("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="grading-") as folder:
        names = [f"sub-s{number:02d}" for number in range(1, asked.studies + 1)]
        data = read_grades(phantom_lumbar.ensure(Path(folder) / "data", names), [CONDITION])
        for blocks in asked.blocks:
            config = StenosisGrading(
                backbone=asked.backbone,
                conditions=(CONDITION,),
                crop_unit="image",
                image_px=224,
                slices=1,
                augment="none",
                freeze=True,
                unfreeze_blocks=blocks or None,
                schedule="constant",
                threads=asked.threads,
            )
            say(_row(config, data, device, Path(folder) / str(blocks), asked.epochs))
    say(f"\nload {os.getloadavg()[0]:.1f} after")


def _row(
    config: StenosisGrading, data: GradeData, device: torch.device, folder: Path, epochs: int
) -> str:
    own, peer = ours(config, data, device, folder), published(config, data, device)
    first, _ = measured(next(own), device)
    measured(next(peer), device)  # fills caches
    pairs = [(measured(next(own), device), measured(next(peer), device)) for _ in range(epochs)]
    mine, theirs = zip(*pairs, strict=True)
    epoch, other = (median(seconds for seconds, _ in side) for side in (mine, theirs))
    most, of_other = (max(memory for _, memory in side) / 1e9 for side in (mine, theirs))
    kept = sum(file.stat().st_size for file in folder.glob("*.npy")) / 1e6
    places = len(data.cases)
    whole = EPOCHS * other / (first + (EPOCHS - 1) * epoch)
    learn = f"the last {config.unfreeze_blocks}" if config.unfreeze_blocks else "none"
    return (
        f"| {learn} | {first:.1f} s | {places / epoch:.1f} | {places / other:.1f} | "
        f"{other / epoch:.1f} | {whole:.1f} | {kept:.1f} | {most:.2f} | {of_other:.2f} |"
    )


def measured(epoch: Callable[[], None], device: torch.device) -> tuple[float, int]:
    """Seconds that an epoch takes, and the most bytes that are in use: of the GPU or the process.

    Both sides are in one process, so either figure holds what the other keeps.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
    start = time.perf_counter()
    epoch()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter() - start, torch.cuda.max_memory_allocated()
    seconds = time.perf_counter() - start
    lines = Path("/proc/self/status").read_text().splitlines()
    [peak] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return seconds, peak * 1024


def ours(config: StenosisGrading, data: GradeData, device: torch.device, folder: Path) -> Epochs:
    """Epochs as a worker of this project trains them; reading and maps belong to the first."""

    def first() -> None:
        torch.manual_seed(0)
        model = build(config, data, data.cases).to(device)
        places = Places(data.cases, config, data.conditions, data.levels, 0)
        keep_maps(model, places, (), folder)
        batches = Batches(places, batch_size=config.batch_size, seed=0, workers=0)
        cell = Cell(job="", config=config, split="", split_sha256="", fold=0, seed=0)
        plan = Plan.of(cell, len(batches))
        made.append((Learner(model, optimizer(model, config), plan), batches))
        again()

    def again() -> None:
        learner, batches = made[0]
        for step, batch in enumerate(batches(0)):
            learner.step(batch, 0, step)
            learner.update(step)

    made: list[tuple[Learner, Batches]] = []
    yield first
    while True:
        yield again


class Slices(Dataset[tuple[torch.Tensor, int, int]]):
    """Whole slices, read and resized whenever they are asked for."""

    def __init__(self, cases: Sequence[GradeCase], levels: Sequence[str]) -> None:
        self.cases, self.levels = cases, levels

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int, int]:
        """Image, level and grade."""
        case = self.cases[at]
        pixels = read_picture(case.series[case.index])
        pixels = (pixels - pixels.min()) / max(float(np.ptp(pixels)), 1e-6)
        image = functional.resize(torch.from_numpy(pixels)[None], [224, 224], antialias=True)
        return image.expand(3, -1, -1), self.levels.index(case.level), case.grades[CONDITION] or 0


def published(config: StenosisGrading, data: GradeData, device: torch.device) -> Epochs:
    """Epochs as the study trains them."""
    torch.manual_seed(0)
    ours_alike = build(config, data, data.cases).to(device)  # its head, and what it freezes
    body: nn.Module = timm.create_model(config.backbone, num_classes=0).to(device)
    for one, other in zip(body.parameters(), ours_alike.backbone.parameters(), strict=True):
        one.requires_grad_(other.requires_grad)
    level = ours_alike.level
    rest = nn.Sequential(ours_alike.head, ours_alike.answers[CONDITION])
    parameters = [*body.parameters(), *level.parameters(), *rest.parameters()]
    step = torch.optim.AdamW([one for one in parameters if one.requires_grad], 1e-4)
    loss_of = nn.CrossEntropyLoss()
    loader = DataLoader(Slices(data.cases, data.levels), config.batch_size, shuffle=True)

    def epoch() -> None:
        body.train()
        for images, levels, grades in loader:
            step.zero_grad()
            features = torch.cat([body(images.to(device)), level(levels.to(device))], dim=1)
            loss_of(rest(features), grades.to(device)).backward()
            step.step()

    while True:
        yield epoch


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
