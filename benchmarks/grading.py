#!/usr/bin/env python3
"""How long graders take to learn, beside the loop of the published study and the least there is.

That loop [1]_, written here from its description, reads each slice anew in every epoch, sends it
through the whole backbone, frozen or not, and learns with AdamW. Ours keeps the maps of what is
frozen. Both have the same backbone, head, places, images, batch and threads, and are timed in turn.
The floor is an epoch of the head alone, gradient and AdamW included, over kept maps in memory.

An epoch of ours that comes later reads the kept maps of a file, in an order of its own. The first
one also builds the network and reads all pictures, computes the maps and writes them; it is
counted among the 30 epochs that the study trained. Validation is on neither side. Three minutes.

    python benchmarks/grading.py
    python benchmarks/grading.py --backbone vit_base_patch16_224 --studies 3 --growing 1 2

.. [1] github.com/Shijia1997/RSNA_spinal_stenosis_prediction
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from side_by_side import Growth, Way, faster, in_turn, report, times_the  # noqa: E402
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

CONDITION = "spinal_canal_stenosis"  # graded in five places of a study
PLACES = 5
EPOCHS = 30  # of the published study
AIM = 3.0
GROWING_PX = 96  # so that the network takes seconds, not minutes, for 500 places
STUDY = "the study's loop"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Measure and report."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--backbone", default="resnet50", help="default: %(default)s")
    flags.add_argument("--studies", type=int, default=13, help="of 5 places; default: %(default)s")
    flags.add_argument("--growing", type=int, nargs="+", default=[1, 10, 100], help="studies, too")
    flags.add_argument("--runs", type=int, default=3, help="of each way; default: %(default)s")
    flags.add_argument("--threads", type=int, default=2)
    asked = flags.parse_args()
    torch.set_num_threads(asked.threads)
    config = StenosisGrading(
        backbone=asked.backbone,
        conditions=(CONDITION,),
        crop_unit="image",
        image_px=224,
        slices=1,
        augment="none",
        freeze=True,
        schedule="constant",
        threads=asked.threads,
    )
    with tempfile.TemporaryDirectory(prefix="grading-") as folder:
        of = {
            studies: made_up(Path(folder) / str(studies), studies)
            for studies in {asked.studies, *asked.growing}
        }
        maps = Path(folder) / "maps"
        frozen(config, of[asked.studies], maps, asked.runs)
        unfrozen(replace(config, unfreeze_blocks=1), of[asked.studies], maps, asked.runs)
        growing(config, [of[studies] for studies in asked.growing], maps, asked.runs)


def made_up(folder: Path, studies: int) -> GradeData:
    """Data of some studies."""
    names = [f"sub-s{number:02d}" for number in range(1, studies + 1)]
    return read_grades(phantom_lumbar.ensure(folder, names), [CONDITION])


def frozen(config: StenosisGrading, data: GradeData, maps: Path, runs: int) -> None:
    """Nothing of the backbone learns."""
    own = Ours(config, data, maps)
    own.first()
    # Apart, and several epochs long: they take milliseconds, which a larger neighbour disturbs.
    short = {"later": repeated(own.later), "floor": repeated(own.head_alone())}
    least = in_turn(settled(short), runs)
    ways: dict[str, Way] = {"first": own.first, "later": own.later}
    taken = in_turn(settled(ways | {"study": published(config, data)}), runs)
    first, later, study = (taken[way] for way in ("first", "later", "study"))
    whole = [one + (EPOCHS - 1) * other for one, other in zip(first, later, strict=True)]
    theirs = [EPOCHS * one for one in study]
    what = f"grading with a frozen backbone, {len(data.cases)} places"
    head = "the head alone, in memory"
    row = faster(f"{what}, an epoch", STUDY, later, study, AIM)
    report(
        replace(row, note=f"{row.note}; {own.kept_mb:.1f} MB of maps on disk"),
        times_the(f"{what}, {EPOCHS} later epochs", head, least["later"], least["floor"], None),
        faster(f"{what}, {EPOCHS} epochs, the first included", STUDY, whole, theirs, None),
    )


def unfrozen(config: StenosisGrading, data: GradeData, maps: Path, runs: int) -> None:
    """The last block learns too."""
    own = Ours(config, data, maps)
    own.first()
    taken = in_turn(settled({"later": own.later, "study": published(config, data)}), runs)
    what = f"grading where the last block learns, {len(data.cases)} places, an epoch"
    row = faster(what, STUDY, taken["later"], taken["study"], None)
    report(replace(row, note=f"{row.note}; {own.kept_mb:.1f} MB of maps on disk"))


def growing(config: StenosisGrading, sizes: Sequence[GradeData], maps: Path, runs: int) -> None:
    """Ours with ever more places."""
    own = [Ours(replace(config, image_px=GROWING_PX), data, maps) for data in sizes]
    what = f"grading with a frozen backbone, pictures of {GROWING_PX} px"
    work = tuple(f"{len(data.cases)} places" for data in sizes)
    first, later = (list[float](), list[float]())
    for one in own:
        taken = in_turn(settled({"first": one.first, "later": one.later}), runs)
        first.append(median(taken["first"]))
        later.append(median(taken["later"]))
    why = "a step for every 32 places, hardly shorter with fewer"
    report(Growth(what=f"{what}, an epoch", work=work, seconds=tuple(later), why=why))
    why = "building the network and hashing its weights are the same; its pass grows with places"
    report(Growth(what=f"{what}, the first epoch", work=work, seconds=tuple(first), why=why))


def repeated(epoch: Way) -> Way:
    """As many epochs as the study trained."""

    def epochs() -> None:
        for _ in range(EPOCHS):
            epoch()

    return epochs


def settled(ways: Mapping[str, Way]) -> dict[str, Way]:
    """The same, each waiting until the device has done all."""

    def waiting(way: Way) -> Way:
        def wait() -> None:
            way()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        return wait

    return {name: waiting(way) for name, way in ways.items()}


class Ours:
    """Epochs as a worker of this project trains them."""

    def __init__(self, config: StenosisGrading, data: GradeData, folder: Path) -> None:
        self.config, self.data, self.folder = config, data, folder

    def first(self) -> None:
        """All from the start, with no maps kept yet."""
        shutil.rmtree(self.folder, ignore_errors=True)
        config, data = self.config, self.data
        torch.manual_seed(0)
        model = build(config, data, data.cases).to(DEVICE)
        self.places = Places(data.cases, config, data.conditions, data.levels, 0)
        keep_maps(model, self.places, (), self.folder)
        self.batches = Batches(self.places, batch_size=config.batch_size, seed=0, workers=0)
        cell = Cell(job="", config=config, split="", split_sha256="", fold=0, seed=0)
        plan = Plan.of(cell, len(self.batches))
        self.learner = Learner(model, optimizer(model, config), plan)
        self.later()

    def later(self) -> None:
        """One more epoch."""
        for step, batch in enumerate(self.batches(0)):
            self.learner.step(batch, 0, step)
            self.learner.update(step)

    def head_alone(self) -> Callable[[], None]:
        """What an epoch cannot do without, for the network as it is now; maps are in memory."""
        places, model = self.places, self.learner.model.train()
        every = [(0, at) for at in range(len(places.cases))]
        parts = [places.inputs(every), places.levels, places.groups, places.grades]
        size = self.config.batch_size
        batches = list(zip(*(part.to(DEVICE).split(size) for part in parts), strict=True))
        adamw = optimizer(model, self.config)

        def epoch() -> None:
            for batch in batches:
                adamw.zero_grad()
                torch.stack(list(model(*batch).values())).sum().backward()
                adamw.step()

        return epoch

    @property
    def kept_mb(self) -> float:
        """What the maps take on disk."""
        return sum(file.stat().st_size for file in self.folder.glob("*.npy")) / 1e6


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


def published(config: StenosisGrading, data: GradeData) -> Callable[[], None]:
    """An epoch as the study trains it."""
    torch.manual_seed(0)
    ours_alike = build(config, data, data.cases).to(DEVICE)  # its head, and what it freezes
    body: nn.Module = timm.create_model(config.backbone, num_classes=0).to(DEVICE)
    for one, other in zip(body.parameters(), ours_alike.backbone.parameters(), strict=True):
        one.requires_grad_(other.requires_grad)
    level = ours_alike.level
    rest = nn.Sequential(ours_alike.head, ours_alike.answers[CONDITION])
    parameters = [*body.parameters(), *level.parameters(), *rest.parameters()]
    adamw = torch.optim.AdamW([one for one in parameters if one.requires_grad], 1e-4)
    loss_of = nn.CrossEntropyLoss()
    loader = DataLoader(Slices(data.cases, data.levels), config.batch_size, shuffle=True)

    def epoch() -> None:
        body.train()
        for images, levels, grades in loader:
            adamw.zero_grad()
            features = torch.cat([body(images.to(DEVICE)), level(levels.to(DEVICE))], dim=1)
            loss_of(rest(features), grades.to(DEVICE)).backward()
            adamw.step()

    return epoch


if __name__ == "__main__":
    main()
