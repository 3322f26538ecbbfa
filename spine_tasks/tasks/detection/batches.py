"""The batches of training: which cases a step has, and how loader processes make them.

What a step is given follows from (seed, epoch, step) alone: not from the number of loader
processes, not from where training was resumed, not from what another generator has drawn.
"""

import logging
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from multiprocessing.context import BaseContext

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional

from spine_tasks.configs import Detection
from spine_tasks.data.coco import BoxCase
from spine_tasks.errors import ConfigError
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


class Batches:
    """The batches of one rank, epoch by epoch.

    Called with an epoch and the first step that is wanted of it, both from 0, it yields for each
    step the parts that the rank's share is computed in, one after the other: pairs of a list of
    images and a list of targets. `len()` is the number of steps of an epoch.

    An epoch has the cases in an order of its own, `config.batch_size` a step over all ranks. The
    last step has what is left; if that is less than an image a rank, it is filled up to one each
    with the epoch's first ones. A rank's share is contiguous; shares differ by one image at most,
    and so do the parts of a share. All ranks have the same number of parts in a step, at most
    `config.accumulate`, and fewer where a share has fewer images.

    Loader processes live from the first call on; a call ends the iteration of the call before.
    They are forked, or if CUDA is in use by then, started afresh, since it does not survive a fork.

    Parameters
    ----------
    cases
        Those of the training part, in the same order on all ranks.
    workers
        Loader processes; 0 makes the batches in this process.

    Raises
    ------
    ConfigError
        There are more ranks than images a step.
    DataError
        A picture cannot be read; see `read_case`.
    """

    def __init__(
        self,
        cases: Sequence[BoxCase],
        config: Detection,
        seed: int,
        workers: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if config.batch_size < ranks:
            raise ConfigError(
                f"batch_size {config.batch_size} leaves some of {ranks} GPUs without an image; "
                f"set it to {ranks} or more, or ask for fewer GPUs"
            )
        self.config, self.seed, self.workers = config, seed, workers
        self.rank, self.ranks = rank, ranks
        self.samples = Samples(cases, config, seed)
        self.upcoming: list[list[list[tuple[int, int]]]] = []  # read when an iteration begins

    def __len__(self) -> int:
        return -(-len(self.samples.cases) // self.config.batch_size)

    def __call__(self, epoch: int, first_step: int = 0) -> Iterator[list[Part]]:
        """The steps of an epoch from `first_step` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples.cases))
        self.upcoming[:] = [
            [[(epoch, int(index)) for index in part] for part in self._share(order, step)]
            for step in range(first_step, len(self))
        ]
        return iter(self._loader)

    def _share(self, order: np.ndarray, step: int) -> list[np.ndarray]:
        """The indices of each part of this rank's share of a step."""
        first = step * self.config.batch_size
        chosen = order[first : first + self.config.batch_size]
        if (lacking := self.ranks - len(chosen)) > 0:
            chosen = np.concatenate([chosen, np.resize(order, lacking)])
        parts = min(self.config.accumulate, len(chosen) // self.ranks)
        return np.array_split(np.array_split(chosen, self.ranks)[self.rank], parts)

    @cached_property
    def _loader(self) -> "DataLoader[Part]":
        return DataLoader(
            self.samples,
            batch_sampler=self.upcoming,
            collate_fn=list,
            num_workers=self.workers,
            multiprocessing_context=_context() if self.workers else None,
            worker_init_fn=_leave_stopping_to_the_parent,
            generator=torch.Generator(),  # else each epoch draws a number of the global one
            persistent_workers=self.workers > 0,
            pin_memory=_cuda_in_use(),
        )


def _number(*numbers: int) -> int:
    """A number for a generator; (0, 1) gives another one than (1, 0)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _context() -> BaseContext:
    if not _cuda_in_use():
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by each of them
    return context


def _leave_stopping_to_the_parent(_worker: int) -> None:
    """A stop reaches the whole process group, but it is the parent that saves and ends."""
    for one in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
