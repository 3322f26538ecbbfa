"""The images that a detector learns from: read once, augmented anew in every epoch."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from spine_tasks.batches_torch import Batches
from spine_tasks.configs import Detection
from spine_tasks.data.coco import BoxCase
from spine_tasks.tasks.detection.augment import augment
from spine_tasks.tasks.detection.inputs import (
    Sample,
    Target,
    normalise,
    read_case,
    resized,
    resized_boxes,
)

Part = tuple[list[Tensor], list[Target]]  # images, and what is in them

log = logging.getLogger(__name__)


class Samples(Dataset[Part]):
    """The cases of the training part, augmented anew in every epoch.

    The pictures are read once, by threads, and kept in memory at the detectors' size and 8 bits:
    at most `config.image_px` squared bytes each, .64 MB at 800 px. One block holds them all, which
    loader processes share.
    """

    def __init__(self, cases: Sequence[BoxCase], config: Detection, seed: int) -> None:
        self.cases, self.config, self.seed = cases, config, seed
        self.sizes = [resized((case.height, case.width), config.image_px) for case in cases]
        areas = [height * width for height, width in self.sizes]
        self.starts = np.cumsum([0, *areas])
        self.pixels = torch.empty(int(self.starts[-1]), dtype=torch.uint8)
        with ThreadPoolExecutor(config.threads) as threads:
            for index, image in enumerate(threads.map(lambda one: read_case(one, config), cases)):
                self._image(index).copy_(image)
        log.info("%d training images, %.3g GB in memory", len(cases), len(self.pixels) / 1e9)

    def __len__(self) -> int:
        return len(self.cases)

    def _image(self, index: int) -> Tensor:
        """(1, H, W) uint8, a view."""
        start, stop = self.starts[index : index + 2]
        return self.pixels[start:stop].view(1, *self.sizes[index])

    def sample(self, index: int, epoch: int) -> Sample:
        """A case as an epoch has it: image (C, H, W) float32, normalised, and its target.

        Torch's global generator is as before afterwards.
        """
        case = self.cases[index]
        image = functional.to_dtype(self._image(index), torch.float32, scale=True)
        height, width = self.sizes[index]
        boxes, labels = resized_boxes(case, (height, width)), torch.from_numpy(case.labels)
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPUs' generators too.
            torch.default_generator.manual_seed(_number(self.seed, epoch, index))
            image, boxes, labels = augment(
                image, boxes, labels, self.config.augment, self.config.image_px
            )
        return normalise(image, self.config), {"boxes": boxes, "labels": labels}

    def __getitem__(self, part: Sequence[tuple[int, int]]) -> Part:
        """The samples of some (epoch, index)."""
        samples = [self.sample(index, epoch) for epoch, index in part]
        return [image for image, _ in samples], [target for _, target in samples]


def batches_of(
    cases: Sequence[BoxCase],
    config: Detection,
    seed: int,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
) -> Batches:
    """The batches of one rank: pairs of a list of images and a list of targets.

    Raises
    ------
    ConfigError
        There are more ranks than images a step.
    DataError
        A picture cannot be read; see `read_case`.
    """
    return Batches(
        Samples(cases, config, seed),
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        seed=seed,
        workers=workers,
        rank=rank,
        ranks=ranks,
    )


def _number(*numbers: int) -> int:
    """A number for a generator; (0, 1) gives another one than (1, 0)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
